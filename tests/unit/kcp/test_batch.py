# SPDX-License-Identifier: Apache-2.0
"""Batches of datagrams on a pair of sockets that know no network: what fills up, what is cut, what is set apart."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from halo_mp._native import ffi, lib

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for each in (left, right):
        each.setblocking(False)
    yield left, right
    left.close()
    right.close()


def batch_on(sock: socket.socket, offloads: int = 3) -> Any:
    return ffi.gc(lib.halo_kcp_batch_create(sock.fileno(), 1, offloads), lib.halo_kcp_batch_free)


class Output:
    """A `struct halo_kcp_output` of these datagrams."""

    def __init__(self, *datagrams: bytes) -> None:
        self.octets = [ffi.from_buffer(each) for each in datagrams]
        self.array = ffi.new("struct halo_kcp_datagram[]", len(datagrams))
        for i, each in enumerate(self.octets):
            self.array[i].octets, self.array[i].length = each, len(each)
        self.pointer = ffi.new("struct halo_kcp_output *", {"datagram": self.array, "count": len(datagrams)})


def send(batch: Any, output: Output, first: int = 0) -> tuple[int, int]:
    error = ffi.new("int32_t *")
    return int(lib.halo_kcp_batch_send(batch, output.pointer, first, ffi.NULL, error)), int(error[0])


def received(batch: Any, control: int = 0) -> tuple[int, list[bytes], list[bytes]]:
    """What the call returned, and the octets of datagrams and of control packets."""
    count = int(lib.halo_kcp_batch_receive(batch, control))
    incoming, apart = lib.halo_kcp_batch_incoming(batch), lib.halo_kcp_batch_control(batch)
    return (
        count,
        [ffi.buffer(incoming[i].octets, incoming[i].length)[:] for i in range(max(count, 0))],
        [
            ffi.buffer(apart[i].octets, apart[i].length)[:]
            for i in range(lib.halo_kcp_batch_control_count(batch))
        ],
    )


def counters(batch: Any) -> Any:
    return lib.halo_kcp_batch_counters(batch)


def test_sockets_without_offloads_are_found_so(pair: Pair) -> None:
    assert lib.halo_kcp_batch_offloads(batch_on(pair[0])) == 0


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100])
def test_all_that_is_sent_arrives_in_order(pair: Pair, count: int) -> None:
    sender, receiver = batch_on(pair[0]), batch_on(pair[1])
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    sent = [struct.pack("!I", i) * (i % 50 + 1) for i in range(count)]
    output, got, first = Output(*sent), [], 0
    while first < count:
        taken, error = send(sender, output, first)
        assert (error, taken > 0 or taken == -errno.EAGAIN) == (0, True)
        first += max(taken, 0)
        while (found := received(receiver))[0] >= 0:
            got += found[1]
    assert got == sent
    assert received(receiver)[0] == -errno.EAGAIN
    assert (counters(sender).sent, counters(receiver).received) == (count, count)


def test_full_socket_takes_a_part_and_goes_on_where_it_stopped(pair: Pair) -> None:
    sender, receiver = batch_on(pair[0]), batch_on(pair[1])
    sent = [struct.pack("!I", i) + bytes(1000) for i in range(1000)]
    output = Output(*sent)
    first, _ = send(sender, output)
    assert 0 < first < 1000
    assert send(sender, output, first) == (-errno.EAGAIN, 0)
    got: list[bytes] = []
    while len(got) < 1000:
        got += received(receiver)[1]
        if first < 1000:
            first += max(0, send(sender, output, first)[0])
    assert got == sent


def test_more_is_said_when_a_call_came_back_full(pair: Pair) -> None:
    receiver = batch_on(pair[1])
    for _ in range(10):
        pair[0].send(b"x")
    assert (received(receiver)[0], lib.halo_kcp_batch_more(receiver)) == (10, 0)
    sender, output = batch_on(pair[0]), Output(*[b"y"] * 10)
    for _ in range(2):
        send(sender, output)
        received(receiver)
    assert lib.halo_kcp_batch_more(receiver) == 0


def test_control_packets_are_set_apart_where_there_are_any(pair: Pair) -> None:
    receiver = batch_on(pair[1])
    for length in (19, 20, 21, 20, 24):
        pair[0].send(bytes([length]) * length)
    count, datagrams, control = received(receiver, 1)
    assert (count, [len(each) for each in datagrams], [len(each) for each in control]) == (
        3,
        [19, 21, 24],
        [20, 20],
    )
    pair[0].send(bytes(20))
    assert received(receiver, 0) == (1, [bytes(20)], [])


def test_datagram_that_is_too_long_is_counted_and_given_to_nobody(pair: Pair) -> None:
    receiver = batch_on(pair[1])
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    pair[0].send(bytes(65537))
    pair[0].send(bytes(65536))
    count, [datagram], _ = received(receiver)
    assert (count, len(datagram), counters(receiver).truncated) == (1, 65536, 1)


def test_what_the_socket_refuses_is_counted_and_the_rest_goes_on(pair: Pair) -> None:
    sender, receiver = batch_on(pair[0]), batch_on(pair[1])
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    output = Output(b"one", bytes(1 << 20), b"three")
    assert send(sender, output) == (3, errno.EMSGSIZE)
    assert (counters(sender).sent, counters(sender).undelivered) == (2, 1)
    assert received(receiver)[1] == [b"one", b"three"]


def test_peer_that_is_gone_is_said(pair: Pair) -> None:
    sender = batch_on(pair[0])
    pair[1].close()
    assert send(sender, Output(b"x")) == (1, errno.ECONNREFUSED)


def test_octets_that_came_otherwise_are_cut_by_their_lengths() -> None:
    incoming = ffi.new("struct halo_kcp_incoming[3]")
    peers = ffi.new("struct halo_kcp_peer[3]", [{"port": 1}, {"port": 2}, {"port": 3}])
    octets = ffi.from_buffer(b"aabcccc")
    lib.halo_kcp_incoming_fill(incoming, octets, ffi.new("uint32_t[]", [2, 1, 4]), peers, 3)
    found = [(ffi.buffer(each.octets, each.length)[:], each.peer.port) for each in incoming]
    assert found == [(b"aa", 1), (b"b", 2), (b"cccc", 3)]
