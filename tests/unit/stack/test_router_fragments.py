# SPDX-License-Identifier: Apache-2.0
"""Fragments through the stack: what waits, what is answered, what is told, and what leaves in fragments."""

import dataclasses

import pytest

from halo_mp.stack.fragmentation import fragment
from halo_mp.stack.icmp_errors import IcmpErrorSettings
from halo_mp.stack.interface import Address, Interface
from halo_mp.stack.outputs import Drop, Output, Transmit
from halo_mp.stack.partial_datagram import Fragment
from halo_mp.stack.reassembly import Reassembler
from halo_mp.stack.router import Router
from halo_mp.wire import ethernet, icmpv4, ipv4
from halo_mp.wire.icmpv4 import Icmpv4Message
from halo_mp.wire.ipv4 import Ipv4Packet, parse_address
from halo_mp.wire.udp import UdpDatagram
from tests.unit.stack.checklist import meets
from tests.unit.stack.harness import ADDRESS, NOW, PEER, PEER_MAC, of_type, run
from tests.unit.stack.test_router import SECOND, dropped, frame_of, know_peer, stack

NARROW_PEER = parse_address("198.51.100.7")  # on SECOND's link, whose MTU is 600
DATA = bytes(range(251)) * 261


def ping(octets: int, *, src: int = PEER, **fields: int | bytes) -> Ipv4Packet:
    echo = Icmpv4Message(icmpv4.ECHO_REQUEST, 0, 0x00010002, DATA[:octets]).emit()
    return dataclasses.replace(Ipv4Packet(src=src, dst=ADDRESS, protocol=1, payload=echo), **fields)


def frames_of(packet: Ipv4Packet, mtu: int = 1500) -> list[bytes]:
    return [frame_of(part.emit()) for part in fragment(packet, mtu)]


def packets_sent(outputs: list[Output]) -> list[Ipv4Packet]:
    frames = [ethernet.parse(output.frame) for output in of_type(Transmit, outputs)]
    return [ipv4.parse(frame.payload) for frame in frames if frame.ethertype == ethernet.ETHERTYPE_IPV4]


def put_together(packets: list[Ipv4Packet]) -> Ipv4Packet:
    if len(packets) == 1:
        return packets[0]
    reassembler = Reassembler()
    *before, last = (reassembler.receive(Fragment(each, 0, 0, b""), NOW).packet for each in packets)
    assert last is not None
    assert before == [None] * len(before)
    return last


def answered(made: Router, frames: list[bytes]) -> list[Ipv4Packet]:
    """What is sent when all but the last frame lead to nothing."""
    for frame in frames[:-1]:
        assert made.receive(0, frame, NOW) == []
    return packets_sent(made.receive(0, frames[-1], NOW))


@meets("echo.sizes")
@pytest.mark.parametrize("octets", [1473, 2952, 2953, 8000, 65507])
@pytest.mark.parametrize("is_backwards", [False, True])
def test_echo_request_in_fragments_is_answered_in_fragments(octets: int, is_backwards: bool) -> None:
    made = stack()
    know_peer(made)
    request = ping(octets, tos=0xB8)
    frames = frames_of(request)
    parts = answered(made, frames[::-1] if is_backwards else frames)
    assert len(parts) == len(frames) == -(-(octets + 8) // 1480)
    assert len({part.identification for part in parts}) == 1
    reply = put_together(parts)
    assert (reply.src, reply.dst, reply.tos) == (ADDRESS, PEER, 0xB8)
    message = icmpv4.parse(reply.payload)
    assert (message.type, message.rest, message.payload) == (0, 0x00010002, DATA[:octets])
    made.poll(NOW + 30)
    assert not made.counters, "and nothing of it has waited on"


def test_options_of_the_first_fragment_are_answered() -> None:
    made = stack()
    know_peer(made)
    route = bytes.fromhex("07 0b 04 00000000 00000000 00")
    parts = answered(made, frames_of(ping(3000, options=route)))
    assert parts[0].options[3:7] == ADDRESS.to_bytes(4, "big"), "our entry"
    assert [part.options for part in parts[1:]] == [b""] * (len(parts) - 1)


def test_packet_put_together_ends_as_a_whole_one_would() -> None:
    made = stack()
    datagram = UdpDatagram(7, 7, DATA[:4000]).emit(src=PEER, dst=ADDRESS)
    for payload, protocol, reason in (
        (datagram[:-1] + b"!", 17, "udp_checksum"),
        (ping(4000).payload[:-1] + b"!", 1, "icmp_checksum"),  # type: ignore[operator]
        (icmpv4.Icmpv4Message(0, 0, 1, DATA[:4000]).emit(), 1, "icmp_unhandled"),
    ):
        *before, last = frames_of(dataclasses.replace(ping(0), protocol=protocol, payload=payload))
        assert [made.receive(0, frame, NOW) for frame in before] == [[]] * len(before)
        assert dropped(made, last) == reason


def test_broadcast_in_fragments_is_not_answered() -> None:
    made = stack()
    packet = ping(2000, dst=parse_address("192.0.2.255"))
    first, last = (frame_of(part.emit(), dst=ethernet.BROADCAST) for part in fragment(packet, 1500))
    assert made.receive(0, first, NOW) == []
    assert dropped(made, last) == "icmp_broadcast_echo"


def test_bad_fragment_is_dropped_before_it_is_kept() -> None:
    made = stack()
    part = fragment(ping(3000), 1500)[0]
    for changes, reason in (
        ({"src": ADDRESS}, "ipv4_martian"),
        ({"dst": PEER}, "ipv4_not_local"),
        ({"options": bytes.fromhex("83 07 04 0a090807 00")}, "ipv4_source_route"),
        ({"payload": DATA[:1479]}, "ipv4_fragment"),
    ):
        drop = made.receive(0, frame_of(dataclasses.replace(part, **changes).emit()), NOW)[0]
        assert isinstance(drop, Drop)
        assert drop.reason == reason
    assert len(of_type(Drop, made.poll(NOW + 40))) == 0, "nothing of them has waited"


@meets("reassembly.overlap")
def test_overlap_drops_the_fragments_that_waited_too() -> None:
    made = stack()
    first, second, _ = frames_of(ping(3000))
    made.receive(0, first, NOW)
    made.receive(0, second, NOW)
    bad = frame_of(dataclasses.replace(fragment(ping(3000), 1500)[1], fragment_offset_octets=1472).emit())
    wanted = [Drop(0, "reassembly_overlap", octets) for octets in (first, second, bad)]
    assert made.receive(0, bad, NOW) == wanted
    assert made.counters == {"reassembly_overlap": 3}


@meets("reassembly.timeout")
def test_request_not_completed_is_told_with_what_came_first() -> None:
    made = stack()
    know_peer(made)
    first, second, _ = frames_of(ping(3000))
    made.receive(0, second, NOW)
    made.receive(0, first, NOW + 1)
    outputs = run(made, NOW + 31)
    drops = [(at, out) for at, out in outputs if isinstance(out, Drop)]
    assert drops == [(NOW + 30, Drop(0, "reassembly_timeout", octets)) for octets in (first, second)]
    [error] = packets_sent([out for _, out in outputs])
    message = icmpv4.parse(error.payload)
    assert (error.src, error.dst, error.tos) == (ADDRESS, PEER, 0xC0)
    assert (message.type, message.code) == (icmpv4.TIME_EXCEEDED, 1)
    assert bytes(message.payload) == fragment(ping(3000), 1500)[0].emit()[: icmpv4.QUOTE_OCTETS]
    assert error.size_octets == 576


@meets("error.errors", "error.groups")
@pytest.mark.parametrize(
    "packet",
    [
        ping(3000, dst=parse_address("192.0.2.255")),
        dataclasses.replace(ping(3000), payload=b"\x03" + DATA[:2999]),  # an ICMP error
    ],
    ids=["to a group", "an error"],
)
def test_what_must_not_be_told_is_not(packet: Ipv4Packet) -> None:
    made = stack()
    know_peer(made)
    made.receive(0, frames_of(packet)[0], NOW)
    outputs = [out for _, out in run(made, NOW + 31)]
    assert len(of_type(Drop, outputs)) == 1
    assert packets_sent(outputs) == []


@meets("reassembly.timeout")
def test_nothing_is_told_without_the_first_fragment() -> None:
    made = stack()
    know_peer(made)
    made.receive(0, frames_of(ping(3000))[1], NOW)
    outputs = [out for _, out in run(made, NOW + 31)]
    assert len(of_type(Drop, outputs)) == 1
    assert packets_sent(outputs) == []


def test_errors_are_limited_to_the_rate() -> None:
    made = stack(errors=IcmpErrorSettings(rate=1.0, burst=1))
    know_peer(made)
    for number in range(20):
        made.receive(0, frames_of(ping(3000, identification=number))[0], NOW + number / 10)
    outputs = run(made, NOW + 33)
    assert len(packets_sent([out for _, out in outputs])) == 2
    assert made.events["icmp_suppressed"] == 18
    assert made.counters == {"reassembly_timeout": 20}


def test_error_without_a_way_back_is_not_made() -> None:
    made = stack()
    made.receive(0, frames_of(ping(3000, src=parse_address("10.1.2.3")))[0], NOW)
    outputs = [out for _, out in run(made, NOW + 31)]
    assert [drop.reason for drop in of_type(Drop, outputs)] == ["reassembly_timeout"]


def test_reply_that_leaves_by_a_narrower_link_is_fragmented_for_it() -> None:
    made = stack()
    made.adopt(1, NARROW_PEER, PEER_MAC, NOW)
    request = ping(700, src=NARROW_PEER)
    outputs = made.receive(0, frame_of(request.emit()), NOW)
    parts = packets_sent(outputs)
    assert [part.size_octets for part in parts] == [596, 152]
    assert [out.port for out in of_type(Transmit, outputs)] == [1, 1]
    assert icmpv4.parse(put_together(parts).payload).payload == DATA[:700]


def test_packet_longer_than_the_mtu_is_sent_in_fragments() -> None:
    made = stack()
    made.adopt(1, NARROW_PEER, PEER_MAC, NOW)
    packet = ping(2000, identification=77)
    parts = packets_sent(made.send_ipv4(1, packet.emit(), NARROW_PEER, NOW))
    assert [len(part.payload) for part in parts] == [576, 576, 576, 280]
    assert put_together(parts) == packet
    assert len(packets_sent(made.send_ipv4(1, ping(572).emit(), NARROW_PEER, NOW))) == 1


def test_fragments_wait_for_their_neighbor_together() -> None:
    made = stack()
    packet = ping(65507)
    assert packets_sent(made.send_ipv4(0, packet.emit(), PEER, NOW)) == []
    parts = packets_sent(made.adopt(0, PEER, PEER_MAC, NOW))
    assert put_together(parts) == packet


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (ping(600, flags=ipv4.FLAG_DONT_FRAGMENT).emit(), "originate_too_long"),
        (bytes(601), "ipv4_version"),
        (ping(600, options=b"\x07\x00\x04\x00").emit(), "ipv4_options"),
    ],
)
def test_packet_that_cannot_be_fragmented_is_dropped(packet: bytes, reason: str) -> None:
    made = stack()
    assert made.send_ipv4(1, packet, NARROW_PEER, NOW) == [Drop(1, reason, packet)]
    assert made.counters == {reason: 1}


def test_smallest_link_carries_the_longest_header() -> None:
    narrow = Interface(port=2, mac=SECOND.mac, addresses=(Address(parse_address("10.0.0.1"), 24),), mtu=68)
    made = stack(narrow)
    peer = parse_address("10.0.0.2")
    made.adopt(2, peer, PEER_MAC, NOW)
    packet = ping(200, options=bytes((0x94, 4, 0, 0)) * 10)
    parts = packets_sent(made.send_ipv4(2, packet.emit(), peer, NOW))
    assert put_together(parts) == packet
