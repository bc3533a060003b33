# SPDX-License-Identifier: Apache-2.0
"""The stack as the worker sees it: frames of several ports and VLANs in, outputs and counters out."""

import dataclasses
import random
from collections import Counter
from typing import Any

import pytest

from halo_mp.stack.interface import Address, Interface
from halo_mp.stack.neighbor_cache import Neighbor, NeighborState
from halo_mp.stack.neighbor_settings import NeighborSettings
from halo_mp.stack.outputs import (
    AddressReady,
    Conflict,
    Drop,
    Forgotten,
    IcmpError,
    Learned,
    Loss,
    Output,
    Transmit,
)
from halo_mp.stack.route import ConnectedRoutes, Route, RouteKind
from halo_mp.stack.router import Router
from halo_mp.wire import ethernet, icmpv4, ipv4
from halo_mp.wire.ethernet import EthernetFrame, VlanTag
from halo_mp.wire.icmpv4 import Icmpv4Message
from halo_mp.wire.ipv4 import Ipv4Packet, parse_address
from halo_mp.wire.udp import UdpDatagram
from tests.unit.stack.checklist import meets
from tests.unit.stack.harness import (
    ADDRESS,
    INTERFACE,
    MAC,
    NOW,
    OTHER_MAC,
    PEER,
    PEER_MAC,
    of_type,
    probed,
    reply,
    request,
    run,
)

SECOND = Interface(port=1, mac=MAC, addresses=(Address(parse_address("198.51.100.1"), 24),), mtu=600)
TAGGED = Interface(port=1, vlan=10, mac=MAC, addresses=(Address(parse_address("203.0.113.1"), 24),))
ECHO = Icmpv4Message(icmpv4.ECHO_REQUEST, 0, 0x00010002, b"data")
PING = Ipv4Packet(src=PEER, dst=ADDRESS, protocol=1, payload=ECHO.emit(), options=b"\x01\x01\x01\x00")
QUOTED = 548
FAR = parse_address("10.9.8.7")
GATEWAY = parse_address("192.0.2.254")


def stack(*interfaces: Interface, probe: bool = False, route: Route | None = None, **settings: Any) -> Router:
    """A router whose addresses are announced; it forwards nothing, and knows a route to FAR if one is given."""
    chosen = interfaces or (INTERFACE, SECOND, TAGGED)
    connected = ConnectedRoutes(chosen)
    made = Router(
        rng=random.Random(5),
        settings=NeighborSettings(reachable_spread=0.0),
        lookup=lambda dst, packet: route if route and dst == FAR else connected(dst, packet),
        **{"forwarding": False, "mirrored": False, **settings},
    )
    made.set_interfaces([probed(each) if probe else each for each in chosen], NOW - 10)
    if not probe:
        made.poll(NOW - 5)
    return made


def frame_of(
    payload: bytes,
    ethertype: int = 0x0800,
    *,
    dst: bytes = MAC,
    src: bytes = PEER_MAC,
    vlan: int | None = None,
) -> bytes:
    tags = () if vlan is None else (VlanTag(vlan),)
    return ethernet.pad(EthernetFrame(dst, src, ethertype, payload, tags).emit())


def know_peer(made: Router) -> None:
    made.receive(0, frame_of(reply().emit(), 0x0806), NOW)


def dropped(made: Router, frame: bytes, port: int = 0) -> str:
    """The reason why the frame is dropped; it must be the only output, and counted once."""
    before = made.counters.copy()
    [drop] = made.receive(port, frame, NOW)
    assert isinstance(drop, Drop)
    assert (drop.port, drop.octets) == (port, frame)
    assert made.counters - before == Counter({drop.reason: 1})
    return drop.reason


def refused(made: Router, packet: Ipv4Packet, port: int = 0) -> tuple[str, Icmpv4Message]:
    """Why the packet is dropped, and what its sender, the peer, is told."""
    know_peer(made)
    drop, told = made.receive(port, frame_of(packet.emit()), NOW)
    assert isinstance(drop, Drop)
    error = ipv4.parse(sent([told])[1].payload)
    assert (error.dst, error.protocol, error.ttl, error.tos) == (packet.src, 1, 64, 0xC0)
    message = icmpv4.parse(error.payload)
    assert packet.emit()[:QUOTED].startswith(bytes(message.payload))
    assert len(message.payload) == min(packet.size_octets, QUOTED)
    return drop.reason, message


def dropped_packet(made: Router, packet: Ipv4Packet) -> str:
    return dropped(made, frame_of(packet.emit()))


def sent(outputs: list[Output]) -> tuple[int, EthernetFrame]:
    [transmit] = of_type(Transmit, outputs)
    return transmit.port, ethernet.parse(transmit.frame)


def test_start_announces_every_interface_on_its_port_and_vlan() -> None:
    made = Router(rng=random.Random(5))
    outputs = made.set_interfaces((INTERFACE, SECOND, TAGGED), NOW)
    assert [ready.address for ready in of_type(AddressReady, outputs)] == [
        INTERFACE.address,
        SECOND.address,
        TAGGED.address,
    ]
    frames = [(out.port, ethernet.parse(out.frame).tags) for out in of_type(Transmit, outputs)]
    assert frames == [(0, ()), (1, ()), (1, (VlanTag(10),))]
    assert made.next_deadline() == NOW + 2
    assert len(of_type(Transmit, made.poll(NOW + 2))) == 3
    assert made.next_deadline() is None


def test_two_interfaces_on_one_vlan_of_a_port_are_refused() -> None:
    with pytest.raises(ValueError, match="port 1, VLAN 10"):
        Router(rng=random.Random(5)).set_interfaces((TAGGED, TAGGED), NOW)


def test_arp_request_is_answered_padded_and_learned() -> None:
    made = stack()
    outputs = made.receive(0, memoryview(bytearray(frame_of(request().emit(), 0x0806))), NOW)
    assert of_type(Learned, outputs) == [Learned(0, 0, PEER, PEER_MAC)]
    port, frame = sent(outputs)
    assert (port, frame.dst, frame.src, frame.ethertype) == (0, PEER_MAC, MAC, 0x0806)
    assert frame.size_octets == 60
    assert made.counters == {}


def test_echo_request_of_known_neighbor_is_answered() -> None:
    made = stack()
    know_peer(made)
    outputs = made.receive(0, frame_of(PING.emit()), NOW)
    assert len(outputs) == 1
    port, frame = sent(outputs)
    assert (port, frame.dst, frame.src) == (0, PEER_MAC, MAC)
    packet = ipv4.parse(frame.payload)
    assert (packet.src, packet.dst, packet.ttl, packet.options) == (ADDRESS, PEER, 64, PING.options)
    assert icmpv4.parse(packet.payload) == dataclasses.replace(ECHO, type=icmpv4.ECHO_REPLY)
    assert made.counters == {}


@meets("ttl.local")
@pytest.mark.parametrize("ttl", [0, 1, 255])
def test_echo_request_of_any_ttl_is_delivered(ttl: int) -> None:
    made = stack()
    know_peer(made)
    _, frame = sent(made.receive(0, frame_of(dataclasses.replace(PING, ttl=ttl).emit()), NOW))
    assert ipv4.parse(frame.payload).ttl == 64


def test_echo_request_of_unknown_neighbor_is_answered_after_resolution() -> None:
    made = stack()
    _, frame = sent(made.receive(0, frame_of(PING.emit()), NOW))
    assert (frame.dst, frame.ethertype) == (ethernet.BROADCAST, 0x0806)
    _, frame = sent(made.receive(0, frame_of(reply().emit(), 0x0806), NOW + 0.1))
    assert (frame.dst, frame.ethertype) == (PEER_MAC, 0x0800)


def test_echo_replies_have_different_identifications() -> None:
    made = stack()
    know_peer(made)
    replies = [ipv4.parse(sent(made.receive(0, frame_of(PING.emit()), NOW))[1].payload) for _ in range(3)]
    assert len({packet.identification for packet in replies}) == 3


def test_echo_request_for_the_address_of_another_interface_is_answered_from_it() -> None:
    made = stack()
    know_peer(made)
    packet = dataclasses.replace(PING, dst=SECOND.address)
    port, frame = sent(made.receive(0, frame_of(packet.emit()), NOW))
    assert (port, ipv4.parse(frame.payload).src) == (0, SECOND.address)


def test_echo_request_from_another_of_our_links_is_answered_there() -> None:
    made = stack()
    src = parse_address("198.51.100.7")
    made.set_static(1, src, OTHER_MAC, NOW)
    packet = dataclasses.replace(PING, src=src)
    port, frame = sent(made.receive(0, frame_of(packet.emit()), NOW))
    assert (port, frame.dst) == (1, OTHER_MAC)


def test_echo_request_on_one_of_two_ports_of_a_link_is_answered_there() -> None:
    twin = Interface(port=2, mac=OTHER_MAC, addresses=(Address(parse_address("192.0.2.9"), 28),))
    made = stack(INTERFACE, twin)
    for port in (0, 2):
        made.set_static(port, PEER, PEER_MAC, NOW)
    assert sent(made.receive(0, frame_of(PING.emit()), NOW))[0] == 0
    assert sent(made.receive(2, frame_of(PING.emit(), dst=OTHER_MAC), NOW))[0] == 2


def test_echo_request_from_afar_is_answered_through_the_route() -> None:
    made = stack(route=Route(RouteKind.GATEWAY, 0, 0, GATEWAY))
    made.set_static(0, GATEWAY, OTHER_MAC, NOW)
    packet = dataclasses.replace(PING, src=FAR)
    port, frame = sent(made.receive(0, frame_of(packet.emit()), NOW))
    assert (port, frame.dst, ipv4.parse(frame.payload).dst) == (0, OTHER_MAC, FAR)


def test_echo_request_from_afar_without_a_route_is_dropped() -> None:
    packet = dataclasses.replace(PING, src=FAR)
    assert dropped_packet(stack(), packet) == "ipv4_no_route"
    assert dropped_packet(stack(route=Route(RouteKind.GATEWAY, 7, 0, GATEWAY)), packet) == "ipv4_no_route"


def test_echo_request_for_a_vlan_is_answered_tagged() -> None:
    made = stack()
    src = parse_address("203.0.113.7")
    made.set_static(1, src, OTHER_MAC, NOW, vlan=10)
    packet = dataclasses.replace(PING, src=src, dst=TAGGED.address)
    port, frame = sent(made.receive(1, frame_of(packet.emit(), vlan=10), NOW))
    assert (port, frame.tags, frame.dst) == (1, (VlanTag(10),), OTHER_MAC)


def test_priority_tagged_frame_belongs_to_the_untagged_interface() -> None:
    made = stack()
    outputs = made.receive(0, frame_of(request().emit(), 0x0806, vlan=0), NOW)
    assert sent(outputs)[1].tags == ()


@pytest.mark.parametrize("vlan", [1, 11, 4094, 4095])
def test_frame_of_another_vlan_is_dropped(vlan: int) -> None:
    assert dropped(stack(), frame_of(request().emit(), 0x0806, vlan=vlan), 1) == "vlan_unknown"


@pytest.mark.parametrize(
    "tags",
    [
        (VlanTag(10), VlanTag(10)),
        (VlanTag(0), VlanTag(10)),
        (VlanTag(10), VlanTag(0)),
        (VlanTag(10, tpid=0x88A8), VlanTag(10)),
        (VlanTag(10, tpid=0x88A8),),
        (VlanTag(0, tpid=0x88A8),),
    ],
)
def test_two_tags_or_a_service_tag_never_reach_a_vlan(tags: tuple[VlanTag, ...]) -> None:
    frame = EthernetFrame(ethernet.BROADCAST, PEER_MAC, 0x0806, request(TAGGED.address).emit(), tags)
    assert dropped(stack(), ethernet.pad(frame.emit()), 1) == "vlan_unknown"


def test_neighbor_of_one_vlan_is_unknown_in_another() -> None:
    made = stack()
    src = parse_address("203.0.113.7")
    made.receive(1, frame_of(request(TAGGED.address, sender=src).emit(), 0x0806, vlan=10), NOW)
    tagged, untagged = made.neighbors(1, 10), made.neighbors(1)
    assert tagged is not None
    assert untagged is not None
    assert tagged.lookup(src) == Neighbor(src, PEER_MAC, NeighborState.STALE)
    assert untagged.lookup(src) is None


def test_frame_of_a_port_without_interface_is_dropped() -> None:
    assert dropped(stack(), frame_of(PING.emit()), 9) == "no_interface"
    assert dropped(stack(TAGGED), frame_of(PING.emit()), 1) == "no_interface"
    assert dropped(stack(TAGGED), frame_of(PING.emit(), vlan=3), 1) == "vlan_unknown"


@pytest.mark.parametrize("length", range(14))
def test_frame_shorter_than_a_header_is_a_runt(length: int) -> None:
    assert dropped(stack(), frame_of(PING.emit())[:length]) == "runt"


def test_frame_with_a_truncated_tag_is_dropped() -> None:
    assert dropped(stack(), frame_of(b"")[:12] + b"\x81\x00\x00") == "vlan_truncated"


@pytest.mark.parametrize("ethertype", [0x0004, 0x86DD, 0x8035, 0x88CC])
def test_frame_of_another_ethertype_is_dropped(ethertype: int) -> None:
    assert dropped(stack(), frame_of(bytes(46), ethertype)) == "ethertype_unknown"


def test_frame_for_another_station_is_dropped() -> None:
    assert dropped(stack(), frame_of(PING.emit(), dst=OTHER_MAC)) == "not_for_us"


@pytest.mark.parametrize("src", [MAC, bytes(6), b"\xff" * 6, bytes.fromhex("01005e000001")])
def test_frame_from_ourselves_or_a_group_is_dropped(src: bytes) -> None:
    assert dropped(stack(), frame_of(request().emit(), 0x0806, src=src)) == "ethernet_source"
    assert dropped(stack(), frame_of(PING.emit(), src=src)) == "ethernet_source"


@meets("arp.fields")
def test_arp_malformed_or_refused_is_dropped() -> None:
    octets = request().emit()
    assert dropped(stack(), frame_of(b"\0\2" + octets[2:], 0x0806)) == "arp_malformed"
    assert dropped(stack(), frame_of(octets, 0x0806)[:41]) == "arp_malformed"
    assert dropped(stack(), frame_of(request(mac=bytes(6)).emit(), 0x0806)) == "arp_refused"


@meets("receive.lengths", "receive.version", "receive.checksum", "old.total-length")
@pytest.mark.parametrize(
    ("at", "octets", "reason"),
    [
        (0, b"\x66", "ipv4_version"),
        (0, b"\x44", "ipv4_header_length"),
        (2, b"\xff\xff", "ipv4_total_length"),
        (10, b"\0\0", "ipv4_checksum"),
    ],
)
def test_ipv4_header_that_lies_is_dropped(at: int, octets: bytes, reason: str) -> None:
    packet = bytearray(PING.emit())
    packet[at : at + len(octets)] = octets
    assert dropped(stack(), frame_of(bytes(packet))) == reason


@meets("receive.lengths")
def test_ipv4_truncated_is_dropped() -> None:
    assert dropped(stack(), frame_of(PING.emit())[: 14 + 19]) == "ipv4_truncated"


@meets("forward.martians")
@pytest.mark.parametrize(
    "src",
    ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.255", "192.0.2.0",
     "192.0.2.1", "198.51.100.1"],
)  # fmt: skip
def test_martian_source_is_dropped_without_an_answer(src: str) -> None:
    """The last two are our own addresses: a packet from ourselves to ourselves (LAND)."""
    packet = dataclasses.replace(PING, src=parse_address(src))
    assert dropped_packet(stack(), packet) == "ipv4_martian"


@pytest.mark.parametrize(
    ("dst", "reason"),
    [
        ("0.0.0.0", "ipv4_martian"),
        ("127.0.0.1", "ipv4_martian"),
        ("240.0.0.1", "ipv4_martian"),
        ("192.0.2.9", "ipv4_not_local"),
        ("10.0.0.1", "ipv4_not_local"),
        ("198.51.100.255", "ipv4_not_local"),  # another link's broadcast: directed, and not forwarded
        ("192.0.3.255", "ipv4_not_local"),
    ],
)
def test_destination_that_is_not_ours_is_dropped(dst: str, reason: str) -> None:
    packet = dataclasses.replace(PING, dst=parse_address(dst))
    assert dropped_packet(stack(), packet) == reason


@meets("echo.broadcast")
@pytest.mark.parametrize("dst", ["192.0.2.255", "192.0.2.0", "255.255.255.255", "224.0.0.1"])
def test_echo_request_to_a_group_is_not_answered(dst: str) -> None:
    packet = dataclasses.replace(PING, dst=parse_address(dst)).emit()
    assert dropped(stack(), frame_of(packet, dst=ethernet.BROADCAST)) == "icmp_broadcast_echo"
    assert dropped(stack(), frame_of(packet)) == "icmp_broadcast_echo"


def test_unicast_packet_in_a_group_frame_is_dropped() -> None:
    assert dropped(stack(), frame_of(PING.emit(), dst=ethernet.BROADCAST)) == "l2_multicast"
    assert dropped(stack(), frame_of(PING.emit(), dst=ethernet.multicast_mac(PEER))) == "l2_multicast"


@pytest.mark.parametrize("text", ["83 07 04 0a090807 00", "89 07 08 0a090807 00"])
@pytest.mark.parametrize("protocol", [1, 6, 17])
def test_source_route_is_dropped_and_told(text: str, protocol: int) -> None:
    packet = dataclasses.replace(PING, options=bytes.fromhex(text), protocol=protocol)
    reason, message = refused(stack(), packet)
    assert (reason, message.type, message.code) == ("ipv4_source_route", 3, 5)


@pytest.mark.parametrize(("text", "pointer"), [("07 00 00 00", 21), ("01 44 04 04", 22), ("01 01 01 07", 23)])
@pytest.mark.parametrize("protocol", [1, 6, 17])
def test_malformed_option_is_dropped_and_pointed_at(text: str, pointer: int, protocol: int) -> None:
    packet = dataclasses.replace(PING, options=bytes.fromhex(text), protocol=protocol)
    reason, message = refused(stack(), packet)
    assert (reason, message.type, message.code, message.pointer) == ("ipv4_options", 12, 0, pointer)


def test_udp_without_listener_or_malformed_is_dropped_by_its_name() -> None:
    good = UdpDatagram(7, 7, b"data").emit(src=PEER, dst=ADDRESS)
    packet = dataclasses.replace(PING, protocol=17, payload=good)
    reason, message = refused(stack(), packet)
    assert (reason, message.type, message.code) == ("no_listener", 3, 3)
    for payload, reason in (
        (good[:7], "udp_truncated"),
        (good[:5] + b"\7" + good[6:], "udp_length"),
        (good[:6] + b"\1\1" + good[8:], "udp_checksum"),
    ):
        assert dropped_packet(stack(), dataclasses.replace(packet, payload=payload)) == reason


@pytest.mark.parametrize("protocol", [2, 6, 47, 255])
def test_other_protocols_have_no_listener(protocol: int) -> None:
    reason, message = refused(stack(), dataclasses.replace(PING, protocol=protocol))
    assert (reason, message.type, message.code) == ("no_listener", 3, 2)


def test_icmp_error_is_never_answered() -> None:
    error = icmpv4.unreachable(icmpv4.PORT_UNREACHABLE, dataclasses.replace(PING, payload=bytes(8)).emit())
    packet = dataclasses.replace(PING, payload=error.emit())
    assert dropped_packet(stack(), packet) == "icmp_unhandled"


@pytest.mark.parametrize("kind", [0, 5, 9, 10, 13, 15, 17, 42])
def test_icmp_of_other_types_is_not_answered(kind: int) -> None:
    quote = dataclasses.replace(PING, payload=bytes(8)).emit()
    packet = dataclasses.replace(PING, payload=Icmpv4Message(kind, 0, 0, quote).emit())
    assert dropped_packet(stack(), packet) == "icmp_unhandled"


def test_icmp_malformed_is_dropped_by_its_name() -> None:
    payload = ECHO.emit()
    assert dropped_packet(stack(), dataclasses.replace(PING, payload=payload[:7])) == "icmp_truncated"
    wrong = payload[:-1] + b"!"
    assert dropped_packet(stack(), dataclasses.replace(PING, payload=wrong)) == "icmp_checksum"


def test_address_not_ours_yet_is_not_answered() -> None:
    made = stack(probe=True)
    assert dropped_packet(made, PING) == "address_tentative"
    assert made.receive(0, frame_of(request().emit(), 0x0806), NOW) == []
    outputs = [output for _, output in run(made, NOW + 30)]
    assert len(of_type(AddressReady, outputs)) == 3
    know_peer(made)
    assert sent(made.receive(0, frame_of(PING.emit()), NOW + 30))[1].dst == PEER_MAC


def test_conflict_is_reported_with_its_port_and_vlan() -> None:
    made = stack()
    rival = request(TAGGED.address, sender=TAGGED.address).emit()
    outputs = made.receive(1, frame_of(rival, 0x0806, dst=ethernet.BROADCAST, vlan=10), NOW)
    assert of_type(Conflict, outputs) == [Conflict(1, 10, TAGGED.address, PEER_MAC, False)]
    assert sent(outputs)[1].tags == (VlanTag(10),)
    assert made.events == {"address_conflict": 1}


def test_send_to_unknown_neighbor_asks_and_goes_out_when_it_answers() -> None:
    made = stack()
    _, frame = sent(made.send_ipv4(0, PING.emit(), PEER, NOW))
    assert frame.ethertype == 0x0806
    port, frame = sent(made.receive(0, frame_of(reply().emit(), 0x0806), NOW))
    assert (port, frame.dst, frame.payload[: PING.size_octets]) == (0, PEER_MAC, PING.emit())


def test_send_unanswered_is_dropped_after_three_seconds() -> None:
    made = stack()
    packet = dataclasses.replace(PING, src=ADDRESS, dst=PEER).emit()
    made.send_ipv4(0, packet, PEER, NOW)
    outputs = [output for _, output in run(made, NOW + 3)]
    assert of_type(Drop, outputs) == [Drop(0, "neighbor_unresolved", packet)]
    [error] = of_type(IcmpError, outputs)
    assert (error.src, error.type, error.code, error.about.dst) == (0, 3, 1, PEER)
    assert made.counters == {"neighbor_unresolved": 1}


@pytest.mark.parametrize(
    ("next_hop", "mac"),
    [
        ("255.255.255.255", b"\xff" * 6),
        ("192.0.2.255", b"\xff" * 6),
        ("224.0.0.251", bytes.fromhex("01005e0000fb")),
    ],
)
def test_send_to_a_group_needs_no_resolution(next_hop: str, mac: bytes) -> None:
    _, frame = sent(stack().send_ipv4(0, PING.emit(), parse_address(next_hop), NOW))
    assert (frame.dst, frame.ethertype) == (mac, 0x0800)


def test_send_on_an_interface_that_is_not_there_is_dropped() -> None:
    made = stack()
    assert made.send_ipv4(0, b"packet", PEER, NOW, vlan=5) == [Drop(0, "no_interface", b"packet")]
    assert made.send_ipv4(9, b"packet", PEER, NOW) == [Drop(9, "no_interface", b"packet")]
    assert made.counters == {"no_interface": 2}


def test_adopt_sends_what_waits_in_a_frame_of_its_vlan() -> None:
    made = stack()
    peer = parse_address("203.0.113.7")
    made.send_ipv4(1, PING.emit(), peer, NOW, vlan=10)
    assert made.adopt(1, peer, PEER_MAC, NOW) == []  # of the untagged interface
    port, frame = sent(made.adopt(1, peer, PEER_MAC, NOW, vlan=10))
    assert (port, frame.tags, frame.dst) == (1, (VlanTag(10),), PEER_MAC)
    assert made.adopt(9, peer, PEER_MAC, NOW) == []


def test_touch_keeps_a_neighbor_that_only_the_fast_path_uses() -> None:
    made = stack()
    know_peer(made)
    made.touch(0, PEER, NOW + 29)
    made.poll(NOW + 30)
    made.touch(0, PEER, NOW + 31)
    made.touch(9, PEER, NOW + 31)
    _, frame = sent(made.poll(NOW + 36))
    assert (frame.dst, frame.ethertype) == (PEER_MAC, 0x0806)


def test_static_and_removed_neighbors() -> None:
    made = stack()
    assert made.set_static(0, PEER, PEER_MAC, NOW) == [Learned(0, 0, PEER, PEER_MAC)]
    assert sent(made.send_ipv4(0, PING.emit(), PEER, NOW))[1].dst == PEER_MAC
    assert made.remove_neighbor(0, PEER, NOW) == [Forgotten(0, 0, PEER, Loss.REMOVED)]
    assert made.remove_neighbor(0, PEER, NOW) == []
    assert made.remove_neighbor(9, PEER, NOW) == []
    with pytest.raises(ValueError, match="port 9"):
        made.set_static(9, PEER, PEER_MAC, NOW)


def test_received_buffer_may_be_reused_at_once() -> None:
    made = stack()
    buffer = bytearray(frame_of(PING.emit()))
    [asked] = made.receive(0, memoryview(buffer), NOW)
    buffer[:] = b"\xa5" * len(buffer)
    _, frame = sent(made.receive(0, frame_of(reply().emit(), 0x0806), NOW))
    assert isinstance(asked, Transmit)
    stranger = frame_of(PING.emit(), dst=OTHER_MAC)
    buffer[: len(stranger)] = stranger
    [drop] = made.receive(0, memoryview(buffer)[: len(stranger)], NOW)
    buffer[:] = b"\xa5" * len(buffer)
    assert drop == Drop(0, "not_for_us", stranger)
    assert icmpv4.parse(ipv4.parse(frame.payload).payload).payload == ECHO.payload
