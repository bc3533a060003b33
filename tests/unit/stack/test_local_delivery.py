# SPDX-License-Identifier: Apache-2.0
"""Packets for us: who gets them, which worker that is, and what errors about our own packets lead to."""

import dataclasses
from typing import Any

import pytest

from halo_mp.stack.fragmentation import fragment
from halo_mp.stack.outputs import EchoReply, Hand, IcmpError, Received
from halo_mp.wire import icmpv4
from halo_mp.wire.icmpv4 import Icmpv4Message
from halo_mp.wire.ipv4 import Ipv4Packet
from halo_mp.wire.udp import UdpDatagram
from tests.unit.stack.checklist import meets
from tests.unit.stack.harness import ADDRESS, NOW, PEER, PEER_MAC
from tests.unit.stack.lab import (
    FAR,
    HOST,
    HOST_MAC,
    WAN,
    WAN_ADDRESS,
    datagram,
    dropped,
    framed,
    packets_in,
    router,
    told,
)

OURS, THEIRS = 2, 5  # slots


def owner(protocol: int, address: int, port: int, peer: int, peer_port: int) -> int | None:
    """Port 9 is ours, port 10 another worker's, and so is all of protocol 99."""
    assert address in (ADDRESS, WAN_ADDRESS)
    return {(17, 9): OURS, (17, 10): THEIRS, (99, 0): THEIRS}.get((protocol, port))


def worker(**settings: Any) -> Any:
    made = router(slot=OURS, owner_of=owner, **settings)
    made.set_peers([THEIRS])
    return made


def to_port(port: int, **fields: Any) -> Ipv4Packet:
    payload = UdpDatagram(7, port, b"data").emit(src=PEER, dst=ADDRESS)
    return Ipv4Packet(**{"src": PEER, "dst": ADDRESS, "protocol": 17, "payload": payload, **fields})


def echo(type_: int, identifier: int, **fields: Any) -> Ipv4Packet:
    message = Icmpv4Message(type_, 0, identifier << 16 | 3, b"data").emit()
    return Ipv4Packet(**{"src": PEER, "dst": ADDRESS, "protocol": 1, "payload": message, **fields})


def error_about(packet: Ipv4Packet, type_: int = 3, code: int = 3, rest: int = 0) -> Ipv4Packet:
    message = Icmpv4Message(type_, code, rest, packet.emit()).emit()
    return Ipv4Packet(src=HOST, dst=ADDRESS, protocol=1, payload=message)


@meets("echo.identical", "echo.tos", "echo.source", "ttl.local")
def test_echo_to_any_own_address_by_any_interface_is_answered_from_it() -> None:
    made = worker()
    for dst in (ADDRESS, WAN_ADDRESS):
        request = echo(8, 77, dst=dst, tos=0xB8, ttl=1)
        [(port, mac, reply)] = packets_in(made.receive(0, framed(request), NOW))
        assert (port, mac, reply.src, reply.dst, reply.tos) == (0, PEER_MAC, dst, PEER, 0xB8)
        message = icmpv4.parse(reply.payload)
        assert (message.type, message.rest, message.payload) == (0, 77 << 16 | 3, b"data")
    [(port, mac, reply)] = packets_in(made.receive(1, framed(echo(8, 7, src=HOST), dst=WAN.mac), NOW))
    assert (port, mac, reply.src) == (1, HOST_MAC, ADDRESS)


def test_datagram_for_a_socket_of_this_worker_is_received() -> None:
    packet = to_port(9)
    [received] = worker().receive(0, framed(packet), NOW)
    assert isinstance(received, Received)
    assert (received.port, received.vlan) == (0, 0)
    assert dataclasses.replace(received.packet, payload=bytes(received.packet.payload)) == packet


def test_datagram_in_fragments_is_received_whole() -> None:
    payload = UdpDatagram(7, 9, bytes(3000)).emit(src=PEER, dst=ADDRESS)
    *before, last = fragment(to_port(9, payload=payload), 1500)
    made = worker()
    assert [made.receive(0, framed(part), NOW) for part in before] == [[]] * len(before)
    [received] = made.receive(0, framed(last), NOW)
    assert isinstance(received, Received)
    assert received.packet.payload == payload


@pytest.mark.parametrize("packet", [to_port(10), to_port(0, protocol=99, payload=b"")])
def test_datagram_for_a_socket_of_another_worker_is_handed_once(packet: Ipv4Packet) -> None:
    made = worker()
    assert made.receive(0, framed(packet), NOW) == [Hand(THEIRS)]
    assert made.counters == {}
    drop = made.receive(0, framed(packet), NOW, handed=True)[0]
    assert drop.reason == "no_listener"


def test_datagram_is_not_handed_to_a_slot_that_is_not_there() -> None:
    made = worker()
    made.set_peers([])
    assert made.receive(0, framed(to_port(10)), NOW)[0].reason == "no_listener"


@pytest.mark.parametrize("octets", [1600, 3000, 65507])
def test_datagram_in_fragments_is_handed_in_frames_of_our_own(octets: int) -> None:
    payload = UdpDatagram(7, 10, bytes(octets)).emit(src=PEER, dst=ADDRESS)
    *before, last = fragment(to_port(10, payload=payload, identification=77), 1400)
    made = worker()
    for part in before:
        assert made.receive(0, framed(part), NOW) == []
    handed = made.receive(0, framed(last), NOW)
    assert {(out.slot, out.port) for out in handed} == {(THEIRS, 0)}
    assert all(len(out.frame) <= 1514 for out in handed)
    *waiting, whole = taken_there(handed)
    assert not any(waiting)
    [received] = whole
    assert (received.packet.src, received.packet.identification) == (PEER, 77)
    assert received.packet.payload == payload


def test_datagram_in_fragments_that_was_handed_is_not_handed_again() -> None:
    payload = UdpDatagram(7, 10, bytes(3000)).emit(src=PEER, dst=ADDRESS)
    *before, last = fragment(to_port(10, payload=payload), 1500)
    made = worker()
    for part in before:
        made.receive(0, framed(part), NOW, handed=True)
    assert made.receive(0, framed(last), NOW, handed=True)[0].reason == "no_listener"


@pytest.mark.parametrize("octets", [0, 1472, 1473, 65507])
def test_datagram_of_ours_to_a_socket_of_another_worker_is_handed(octets: int) -> None:
    payload = UdpDatagram(7, 10, bytes(octets)).emit(src=ADDRESS, dst=WAN_ADDRESS)
    made = worker()
    packet = Ipv4Packet(src=ADDRESS, dst=WAN_ADDRESS, protocol=17, payload=payload)
    for _ in range(2):
        handed = made.send(packet, NOW)
        assert {(out.slot, out.port) for out in handed} == {(THEIRS, 1)}
        *_, [received] = taken_there(handed)
        assert (received.packet.src, received.packet.dst, received.packet.payload) == (
            ADDRESS,
            WAN_ADDRESS,
            payload,
        )


def taken_there(handed: list[Any]) -> list[Any]:
    """What the other worker makes of frames; from the wire it would take none that says to be from us."""
    there = router(slot=THEIRS, owner_of=owner)
    forged = [there.receive(out.port, out.frame, NOW) for out in handed]
    assert [out.reason for [out] in forged] == ["ethernet_source"] * len(handed)
    return [there.receive(out.port, out.frame, NOW, handed=True) for out in handed]


@meets("error.port")
def test_closed_port_is_told() -> None:
    reason, message = told(worker(), to_port(11))
    assert (reason, message.type, message.code) == ("no_listener", 3, 3)


@meets("error.protocol")
@pytest.mark.parametrize("protocol", [2, 6, 132, 255])
def test_protocol_that_nobody_speaks_is_told(protocol: int) -> None:
    reason, message = told(worker(), to_port(11, protocol=protocol))
    assert (reason, message.type, message.code) == ("no_listener", 3, 2)


@meets("error.port", "error.source")
def test_closed_port_of_another_interface_is_told_from_where_the_error_leaves() -> None:
    made = worker()
    payload = UdpDatagram(7, 11, b"data").emit(src=PEER, dst=WAN_ADDRESS)
    outputs = made.receive(0, framed(to_port(11, dst=WAN_ADDRESS, payload=payload)), NOW)
    [(_, _, error)] = packets_in(outputs)
    assert error.src == ADDRESS


@meets("old.udp-zero")
def test_datagram_without_checksum_is_received() -> None:
    payload = UdpDatagram(7, 9, b"data", has_checksum=False).emit(src=PEER, dst=ADDRESS)
    assert isinstance(worker().receive(0, framed(to_port(9, payload=payload)), NOW)[0], Received)


def test_echo_reply_is_for_who_listens() -> None:
    made = worker()
    identifier = OURS << 10 | 9
    reply = echo(0, identifier, ttl=61)
    assert dropped(made, reply) == "icmp_unhandled"
    made.listen_to_echo(identifier)
    wanted = EchoReply(PEER, ADDRESS, identifier, 3, 61, b"data")
    assert made.receive(0, framed(reply), NOW) == [wanted]
    made.ignore_echo(identifier)
    assert dropped(made, reply) == "icmp_unhandled"


def test_echo_reply_for_another_slot_is_handed_there_once() -> None:
    made = worker()
    reply = framed(echo(0, THEIRS << 10 | 9))
    assert made.receive(0, reply, NOW) == [Hand(THEIRS)]
    assert made.receive(0, reply, NOW, handed=True)[0].reason == "icmp_unhandled"
    assert made.receive(0, framed(echo(0, 60 << 10)), NOW)[0].reason == "icmp_unhandled"


@pytest.mark.parametrize(("type_", "code"), [(3, 0), (3, 1), (3, 4), (3, 13), (11, 0), (11, 1), (12, 0)])
def test_error_about_our_echo_request_is_reported(type_: int, code: int) -> None:
    made = worker()
    identifier = OURS << 10 | 9
    made.listen_to_echo(identifier)
    packet = error_about(echo(8, identifier, src=ADDRESS, dst=FAR), type_, code, rest=1400)
    [error] = made.receive(0, framed(packet), NOW)
    assert isinstance(error, IcmpError)
    assert (error.src, error.type, error.code, error.rest) == (HOST, type_, code, 1400)
    assert (error.about.src, error.about.dst) == (ADDRESS, FAR)


def test_error_is_for_the_worker_of_the_socket_or_the_echo() -> None:
    made = worker()
    ours = datagram(src=ADDRESS, dst=FAR, payload=UdpDatagram(9, 53, b"").emit(src=ADDRESS, dst=FAR))
    theirs = datagram(src=ADDRESS, dst=FAR, payload=UdpDatagram(10, 53, b"").emit(src=ADDRESS, dst=FAR))
    assert isinstance(made.receive(0, framed(error_about(ours)), NOW)[0], IcmpError)
    assert made.receive(0, framed(error_about(theirs)), NOW) == [Hand(THEIRS)]
    ping = echo(8, THEIRS << 10, src=ADDRESS, dst=FAR)
    assert made.receive(0, framed(error_about(ping)), NOW) == [Hand(THEIRS)]


@pytest.mark.parametrize(
    "about",
    [
        datagram(src=PEER, dst=FAR),
        datagram(src=ADDRESS, dst=FAR),  # nobody has that port
        echo(8, 7, src=ADDRESS, dst=FAR),  # nobody waits for that
        echo(0, 7, src=ADDRESS, dst=FAR),
    ],
)
def test_error_about_nothing_of_ours_is_dropped(about: Ipv4Packet) -> None:
    payload = UdpDatagram(11, 7, b"").emit(src=about.src, dst=about.dst)
    about = about if about.protocol == 1 else dataclasses.replace(about, payload=payload)
    assert dropped(worker(), error_about(about)) == "icmp_unhandled"


@pytest.mark.parametrize("type_", [4, 5])
def test_redirect_and_source_quench_are_not_acted_on(type_: int) -> None:
    about = echo(8, OURS << 10, src=ADDRESS, dst=FAR)
    assert dropped(worker(), error_about(about, type_)) == "icmp_unhandled"
