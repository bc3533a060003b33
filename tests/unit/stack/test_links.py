# SPDX-License-Identifier: Apache-2.0
"""Interfaces that come, change and go while the router runs; ports whose neighbors another worker keeps; proxy ARP."""

import dataclasses
import random
from typing import Any

import pytest

from halo_mp.stack.addresses import OwnAddresses
from halo_mp.stack.interface import Address, Interface
from halo_mp.stack.neighbor_cache import Neighbor, NeighborState
from halo_mp.stack.outputs import (
    AddressReady,
    Conflict,
    Drop,
    Forgotten,
    Hand,
    IcmpError,
    NeighborUpdate,
    Output,
    Transmit,
    Usability,
)
from halo_mp.stack.route import ConnectedRoutes, Route, RouteKind
from halo_mp.stack.router import Router
from halo_mp.wire import arp, ethernet
from halo_mp.wire.ipv4 import parse_address
from tests.unit.stack.checklist import meets
from tests.unit.stack.harness import (
    ADDRESS,
    MAC,
    NOW,
    OTHER,
    PEER,
    PEER_MAC,
    of_type,
    probed,
    reply,
    request,
    run,
)
from tests.unit.stack.lab import (
    FAR,
    GATEWAY,
    HOST,
    HOST_MAC,
    LAN,
    NOWHERE,
    VIA_GATEWAY,
    WAN,
    WAN_ADDRESS,
    changed,
    datagram,
    dropped,
    framed,
    packets_in,
    quiet_router,
    router,
    told,
)

SECOND = Address(parse_address("203.0.113.1"), 24)
HOME = 6  # the slot whose worker keeps the neighbors of the WAN


def arp_frame(packet: arp.ArpPacket, *, dst: bytes = MAC) -> bytes:
    return ethernet.pad(ethernet.EthernetFrame(dst, packet.sender_mac, 0x0806, packet.emit()).emit())


def arps_in(outputs: list[Output]) -> list[tuple[int, int, int, int]]:
    """The ARP packets that are sent: port, operation, sender and target address."""
    found = []
    for out in of_type(Transmit, outputs):
        frame = ethernet.parse(out.frame)
        if frame.ethertype == ethernet.ETHERTYPE_ARP:
            packet = arp.parse(frame.payload)
            found.append((out.port, packet.operation, packet.sender_address, packet.target_address))
    return found


def announced(outputs: list[Output]) -> list[int]:
    return [sender for _, _, sender, target in arps_in(outputs) if sender == target]


# Interfaces at run time


def test_what_is_unchanged_goes_on_undisturbed() -> None:
    made = quiet_router()
    made.adopt(0, PEER, PEER_MAC, NOW)
    made.receive(0, framed(datagram()), NOW)
    assert made.set_interfaces((LAN, WAN), NOW) == []
    assert made.set_interfaces((WAN, LAN), NOW) == []
    assert packets_in(made.adopt(1, HOST, HOST_MAC, NOW))[0][0] == 1, "it was held all the while"
    lan = made.neighbors(0)
    assert lan is not None
    assert lan.knows(PEER)


def test_interface_that_is_new_is_announced_and_only_it() -> None:
    made = quiet_router(LAN)
    outputs = made.set_interfaces((LAN, WAN), NOW)
    assert announced(outputs) == [WAN_ADDRESS]
    assert of_type(AddressReady, outputs) == [AddressReady(1, 0, WAN_ADDRESS)]


def test_interface_that_is_gone_drops_what_it_holds_by_name() -> None:
    made = quiet_router(mirrored=True)
    made.adopt(1, GATEWAY, HOST_MAC, NOW)
    made.receive(0, framed(datagram()), NOW)
    outputs = made.set_interfaces((LAN,), NOW)
    held = datagram(ttl=63).emit()
    assert of_type(Drop, outputs) == [Drop(1, "interface_removed", held)]
    gone = {out.address for out in of_type(NeighborUpdate, outputs) if out.usability is Usability.GONE}
    assert gone == {HOST, GATEWAY}
    assert made.counters == {"interface_removed": 1}
    assert made.neighbors(1) is None
    frame = framed(datagram(), dst=WAN.mac)
    assert made.receive(1, frame, NOW) == [Drop(1, "no_interface", frame)]


def test_address_that_is_added_is_announced_and_the_others_are_not() -> None:
    made = quiet_router()
    both = changed(LAN, addresses=(*LAN.addresses, SECOND))
    assert announced(made.set_interfaces((both, WAN), NOW)) == [SECOND.address]
    answered = arps_in(made.receive(0, arp_frame(request(SECOND.address)), NOW))
    assert answered == [(0, arp.REPLY, SECOND.address, PEER)]
    assert made.set_interfaces((LAN, WAN), NOW + 5) == []
    assert arps_in(made.receive(0, arp_frame(request(SECOND.address)), NOW + 5)) == []


def test_each_address_is_probed_announced_and_defended_by_itself() -> None:
    second = dataclasses.replace(SECOND, probe=True)
    made = quiet_router(changed(LAN, addresses=(*LAN.addresses, second)))
    frame = framed(datagram(dst=SECOND.address))
    assert dropped(made, datagram(dst=SECOND.address)) == "address_tentative"
    rival = arp_frame(request(SECOND.address, sender=SECOND.address))
    [conflict] = of_type(Conflict, made.receive(0, rival, NOW))
    assert (conflict.address, conflict.abandoned) == (SECOND.address, True)
    assert len(arps_in(made.receive(0, arp_frame(request()), NOW))) == 1, "the other one is ours still"
    outputs = [out for _, out in run(made, NOW + 60)]
    assert AddressReady(0, 0, SECOND.address) in outputs
    made.set_static(0, PEER, PEER_MAC, NOW)
    assert made.receive(0, frame, NOW + 60)[0].reason == "no_listener"  # type: ignore[union-attr]


def test_other_mac_is_announced() -> None:
    made = quiet_router()
    moved = changed(LAN, mac=bytes.fromhex("020000000099"))
    assert announced(made.set_interfaces((moved, WAN), NOW)) == [ADDRESS]


def test_two_interfaces_of_one_vlan_are_refused_and_nothing_changes() -> None:
    made = router()
    with pytest.raises(ValueError, match="port 0, VLAN 0"):
        made.set_interfaces((LAN, LAN), NOW)
    assert made.neighbors(1) is not None


@meets("old.last-route")
def test_last_route_that_is_gone_leaves_no_route() -> None:
    made = Router(rng=random.Random(1))
    made.set_interfaces((LAN, WAN), NOW)
    made.set_static(0, PEER, PEER_MAC, NOW)
    made.set_static(1, HOST, HOST_MAC, NOW)
    assert len(packets_in(made.receive(0, framed(datagram()), NOW))) == 1
    made.set_interfaces((LAN, changed(WAN, addresses=())), NOW)
    assert told(made, datagram())[0] == "ipv4_no_route"


def test_connected_routes_prefer_the_longest_prefix_and_know_broadcasts() -> None:
    wide = Interface(port=2, mac=MAC, addresses=(Address(parse_address("198.0.0.1"), 8),))
    routes = ConnectedRoutes((wide, WAN))
    packet = datagram()
    assert routes(HOST, packet) == Route(RouteKind.CONNECTED, 1)
    assert routes(parse_address("198.1.2.3"), packet) == Route(RouteKind.CONNECTED, 2)
    assert routes(parse_address("198.51.100.255"), packet) == Route(RouteKind.BROADCAST, 1)
    assert routes(WAN_ADDRESS, packet) == Route(RouteKind.LOCAL, 1)
    assert routes(NOWHERE, packet) == Route(RouteKind.NONE)


def test_source_is_of_the_subnet_that_is_spoken_to() -> None:
    narrow = Address(parse_address("192.0.2.65"), 26)
    both = changed(LAN, addresses=(*LAN.addresses, narrow, SECOND))
    addresses = OwnAddresses((both, WAN))
    assert addresses.source(both, OTHER) == ADDRESS
    assert addresses.source(both, parse_address("192.0.2.70")) == narrow.address
    assert addresses.source(both, parse_address("203.0.113.9")) == SECOND.address
    assert addresses.source(both, NOWHERE) == ADDRESS
    assert addresses.source(changed(WAN, addresses=()), NOWHERE) == ADDRESS
    assert OwnAddresses((both,), router_id=WAN_ADDRESS).router_id == WAN_ADDRESS
    assert OwnAddresses().source(changed(WAN, addresses=()), NOWHERE) == 0


# Requests are asked as the address whose subnet has the target


def test_request_comes_from_the_address_whose_subnet_has_the_target() -> None:
    made = quiet_router(changed(LAN, addresses=(*LAN.addresses, SECOND)), WAN)
    for target, sender in ((OTHER, ADDRESS), (parse_address("203.0.113.9"), SECOND.address), (FAR, ADDRESS)):
        assert arps_in(made.send_ipv4(0, b"packet", target, NOW)) == [(0, arp.REQUEST, sender, target)]


# A port whose neighbors another worker keeps


def foreign(**settings: Any) -> Router:
    made = Router(rng=random.Random(3), slot=2, mirrored=False, **settings)
    made.set_interfaces((LAN, WAN), NOW - 10, homes={1: HOME})
    made.poll(NOW - 5)
    made.set_static(0, PEER, PEER_MAC, NOW)
    return made


@meets("arp.once")
def test_foreign_port_is_announced_by_its_keeper_alone() -> None:
    made = Router(rng=random.Random(3))
    outputs = made.set_interfaces((LAN, WAN), NOW, homes={1: HOME})
    outputs += [out for _, out in run(made, NOW + 10)]
    assert announced(outputs) == [ADDRESS, ADDRESS]
    assert len(of_type(AddressReady, outputs)) == 2


@meets("arp.once")
def test_arp_of_a_foreign_port_is_handed_to_its_keeper_once() -> None:
    made = foreign()
    asked = arp_frame(request(WAN_ADDRESS, sender=HOST, mac=HOST_MAC), dst=ethernet.BROADCAST)
    assert made.receive(1, asked, NOW) == [Hand(HOME)]
    assert arps_in(made.receive(1, asked, NOW, handed=True)) == [(1, arp.REPLY, WAN_ADDRESS, HOST)]


@meets("arp.sync")
def test_packet_for_an_unknown_foreign_neighbor_is_handed_unchanged_and_then_sent_here() -> None:
    made = foreign()
    assert made.receive(0, framed(datagram()), NOW) == [Hand(HOME)]
    assert made.counters == {}
    made.adopt(1, HOST, HOST_MAC, NOW)
    [(port, mac, packet)] = packets_in(made.receive(0, framed(datagram()), NOW))
    assert (port, mac, packet.ttl) == (1, HOST_MAC, 63)
    made.forget(1, HOST, NOW)
    assert made.receive(0, framed(datagram()), NOW) == [Hand(HOME)]


def test_packet_that_was_handed_is_never_handed_again() -> None:
    made = foreign()
    outputs = made.receive(0, framed(datagram()), NOW, handed=True)
    assert arps_in(outputs) == [(1, arp.REQUEST, WAN_ADDRESS, HOST)]
    assert packets_in(made.adopt(1, HOST, HOST_MAC, NOW))[0][0] == 1


def test_answer_and_error_towards_an_unknown_foreign_neighbor_are_their_keepers() -> None:
    made = foreign()
    for packet in (
        datagram(src=HOST, dst=ADDRESS),
        datagram(src=HOST, dst=NOWHERE),
        datagram(src=HOST, dst=PEER, ttl=1),
    ):
        assert made.receive(1, framed(packet, dst=WAN.mac), NOW) == [Hand(HOME)]
    assert made.counters == {}, "who decides counts"


def test_port_without_keeper_reaches_static_neighbors_and_no_others() -> None:
    made = Router(rng=random.Random(3), slot=2, mirrored=False)
    assert announced(made.set_interfaces((LAN, WAN), NOW - 10, homes={1: None})) == [ADDRESS]
    made.poll(NOW - 5)
    made.set_static(0, PEER, PEER_MAC, NOW)
    assert told(made, datagram())[0] == "neighbor_unresolved"
    own = made.send(datagram(src=0), NOW)
    assert [out.reason for out in of_type(Drop, own)] == ["neighbor_unresolved"]
    assert [(out.src, out.type, out.code) for out in of_type(IcmpError, own)] == [(0, 3, 1)]
    asked = arp_frame(request(WAN_ADDRESS, sender=HOST, mac=HOST_MAC), dst=ethernet.BROADCAST)
    assert [out.reason for out in of_type(Drop, made.receive(1, asked, NOW))] == ["neighbor_unresolved"]
    error = made.receive(1, framed(datagram(src=HOST, dst=NOWHERE), dst=WAN.mac), NOW)
    assert arps_in(error) == [], "who sent it can not be told"
    made.set_static(1, HOST, HOST_MAC, NOW)
    assert len(packets_in(made.receive(0, framed(datagram()), NOW))) == 1


def test_packet_of_our_own_is_asked_for_here_as_it_cannot_be_handed() -> None:
    made = foreign()
    assert arps_in(made.send(datagram(src=0), NOW)) == [(1, arp.REQUEST, WAN_ADDRESS, HOST)]


def test_packet_too_big_for_a_foreign_link_is_told_without_its_keeper() -> None:
    made = Router(rng=random.Random(3), slot=2, mirrored=False)
    made.set_interfaces((LAN, changed(WAN, mtu=600)), NOW - 10, homes={1: HOME})
    made.set_static(0, PEER, PEER_MAC, NOW)
    assert told(made, datagram(data=bytes(700), flags=2))[0] == "ipv4_too_big"


def test_port_that_gets_another_keeper_keeps_what_is_known() -> None:
    made = foreign()
    made.adopt(1, HOST, HOST_MAC, NOW)
    made.set_static(1, GATEWAY, HOST_MAC, NOW)
    ours = made.set_interfaces((LAN, WAN), NOW)
    assert announced(ours) == [WAN_ADDRESS], "whose it is now announces it"
    assert of_type(Forgotten, ours) == []
    assert len(packets_in(made.receive(0, framed(datagram()), NOW))) == 1
    theirs = made.set_interfaces((LAN, WAN), NOW, homes={1: HOME})
    assert of_type(Forgotten, theirs) == []
    assert len(packets_in(made.receive(0, framed(datagram()), NOW))) == 1
    wan = made.neighbors(1)
    assert wan is not None
    assert wan.lookup(GATEWAY) == Neighbor(GATEWAY, HOST_MAC, NeighborState.STATIC)


# Proxy ARP


def asks(
    made: Router, target: int, *, sender: int = PEER, mac: bytes = PEER_MAC
) -> list[tuple[int, int, int, int]]:
    frame = arp_frame(request(target, sender=sender, mac=mac), dst=ethernet.BROADCAST)
    return arps_in(made.receive(0, frame, NOW))


@meets("arp.proxy")
@pytest.mark.parametrize("target", [HOST, FAR, WAN_ADDRESS])
def test_proxy_answers_for_who_is_behind_another_interface_where_it_is_on(target: int) -> None:
    assert asks(quiet_router(), target) == []
    on = quiet_router(changed(LAN, proxy_arp=True), WAN)
    assert asks(on, target) == [(0, arp.REPLY, target, PEER)]


@meets("arp.proxy")
@pytest.mark.parametrize(
    "target", [NOWHERE, OTHER, parse_address("198.51.100.255"), parse_address("192.0.2.255"), 0, 0xFFFFFFFF,
               parse_address("224.0.0.1")]
)  # fmt: skip
def test_proxy_answers_for_nobody_else(target: int) -> None:
    routes = {"10.0.0.0/8": VIA_GATEWAY, "172.16.0.0/12": Route(RouteKind.BLACKHOLE)}
    on = quiet_router(changed(LAN, proxy_arp=True), WAN, routes=routes)
    assert asks(on, target) == []


@meets("arp.proxy")
def test_proxy_keeps_silent_to_probes_and_announcements_and_replies() -> None:
    on = quiet_router(changed(LAN, proxy_arp=True), WAN)
    assert asks(on, HOST, sender=0) == []
    assert asks(on, HOST, sender=HOST) == []
    assert arps_in(on.receive(0, arp_frame(reply(target=HOST)), NOW)) == []


def test_proxy_needs_forwarding_and_an_interface_that_is_up() -> None:
    proxy = changed(LAN, proxy_arp=True)
    assert asks(quiet_router(proxy, WAN, forwarding=False), HOST) == []
    assert asks(quiet_router(changed(proxy, forward=False), WAN), HOST) == []
    assert asks(quiet_router(proxy, changed(WAN, up=False)), HOST) == []


def test_proxy_answers_for_hosts_of_the_subnet_that_are_elsewhere_only_when_told() -> None:
    """RFC 1027's own case: a part of the subnet is behind another interface."""
    part = changed(WAN, addresses=(Address(parse_address("192.0.2.193"), 26),))
    target = parse_address("192.0.2.200")
    assert asks(quiet_router(changed(LAN, proxy_arp=True), part), target) == []
    made = quiet_router(changed(LAN, proxy_arp=True, proxy_arp_subnet=True), part)
    assert asks(made, target) == [(0, arp.REPLY, target, PEER)]
    assert asks(made, OTHER) == []


def test_unnumbered_interface_answers_for_the_address_that_it_speaks_as() -> None:
    made = quiet_router(changed(LAN, addresses=()), WAN)
    assert asks(made, WAN_ADDRESS) == [(0, arp.REPLY, WAN_ADDRESS, PEER)]
    assert asks(made, OTHER) == []


def test_probed_addresses_of_all_interfaces_become_ours_at_their_time() -> None:
    made = Router(rng=random.Random(1))
    assert made.set_interfaces((probed(LAN), probed(WAN)), NOW) == []
    ready = {out.address for _, out in run(made, NOW + 10) if isinstance(out, AddressReady)}
    assert ready == {ADDRESS, WAN_ADDRESS}
