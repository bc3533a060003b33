# SPDX-License-Identifier: Apache-2.0
"""The private socket is for children: whoever else comes, however often, costs nothing and gets nothing."""

from __future__ import annotations

import array
import socket
from contextlib import ExitStack
from pathlib import Path

from tests.proc.conftest import ADDRESSES, assert_answered, everybody
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import wait_until
from tests.support.pinger import Pinger

FLOOD = 300  # more than a supervisor would ever listen to at once

NONSENSE = [
    b"",
    b"\0",
    b"\0\0\0\0",
    b"\0\0\0\1\xc1",  # the one octet that msgpack never uses
    b"\xff\xff\xff\xff" + b"x" * 100,
    b"\0\0\0\5\x81\xa4type",
    b"\0\0\0\x0c\x81\xa4type\xa5hello",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\0\1\0\0" + b"\x91" * 65536,  # nested as deep as a frame is long
]


def dial(instance: Instance) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.connect(str(instance.runtime / "private.sock"))  # waits for room in the backlog
    channel.settimeout(10)
    return channel


def open_descriptors(instance: Instance) -> int:
    assert instance.process is not None
    return len(lives.descriptors(instance.process.pid))


def test_socket_is_ours_alone(pair: Instance) -> None:
    path = pair.runtime / "private.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    assert Path(pair.runtime).stat().st_mode & 0o777 == 0o711


def test_nonsense_closes_who_sent_it_and_nothing_else(pair: Instance) -> None:
    children, descriptors = everybody(pair), open_descriptors(pair)
    with Pinger(pair.namespace) as pinger:
        for octets in NONSENSE:
            with dial(pair) as channel:
                channel.sendall(octets)
                channel.shutdown(socket.SHUT_WR)
                assert closed(channel), octets[:20]
        with dial(pair) as channel, open("/dev/null", "rb") as null:
            fds = array.array("i", [null.fileno()] * 200)
            channel.sendmsg([b"\0\0\0\1\xc1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            assert closed(channel)
        pinger.wait_for_more()
    assert pinger.lost == set()
    wait_until(lambda: open_descriptors(pair) == descriptors, what="all of their descriptors closed")
    assert everybody(pair) == children
    assert pair.stop() == 0


def closed(channel: socket.socket) -> bool:
    """Whether the other side says nothing and closes."""
    try:
        return channel.recv(1) == b""
    except ConnectionResetError:
        return True


def test_flood_of_connections_keeps_nobody_from_coming_back(pair: Instance) -> None:
    descriptors = open_descriptors(pair)
    with Pinger(pair.namespace) as pinger:
        pinger.wait_for_more()
        with ExitStack() as stack:
            for _ in range(FLOOD):
                stack.enter_context(dial(pair))
            pinger.wait_for_more()
            assert open_descriptors(pair) < descriptors + FLOOD
        wait_until(lambda: open_descriptors(pair) == descriptors, what="all of their descriptors closed")
    assert pinger.lost == set()
    victim = lives.pid(pair, "worker", 1)
    lives.kill(victim)
    lives.wait_for_successor(pair, "worker", victim, 1)
    assert_answered(pair.namespace, ADDRESSES[1])
    assert pair.stop() == 0
