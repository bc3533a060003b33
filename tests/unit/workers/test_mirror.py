# SPDX-License-Identifier: Apache-2.0
"""Neighbors and routes between the stack's terms and the fast path's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from halo_mp.shm.fib import Target, TargetKind
from halo_mp.shm.layout import NO_SLOT
from halo_mp.shm.tables import Interface
from halo_mp.stack.outputs import NeighborUpdate, Usability
from halo_mp.stack.route import NO_ROUTE, Route, RouteKind
from halo_mp.wire.ipv4 import FLAG_MORE_FRAGMENTS, PROTOCOL_UDP, Ipv4Packet, parse_address
from halo_mp.workers.mirror import Mirror
from tests.unit.workers.rig import OTHER_SLOT, SLOT, Rig, rig

MAC = bytes.fromhex("020000000001")
HOST, GATEWAY, FAR = map(parse_address, ("10.1.0.9", "10.1.0.254", "192.0.2.1"))
INTERFACES = {
    0: Interface(port=0, mac=MAC, mtu=1500, home_slot=SLOT),
    2: Interface(port=1, vlan=7, mac=MAC, mtu=1500, home_slot=OTHER_SLOT),
    5: Interface(port=4, mac=MAC, mtu=1500, home_slot=NO_SLOT),
}


@pytest.fixture
def made(instance: str) -> Iterator[Rig]:
    with rig(instance, INTERFACES) as started:
        yield started


@pytest.fixture
def mirror(made: Rig) -> Mirror:
    mirror = Mirror(made.fastpath, slot=SLOT)
    mirror.use(INTERFACES)
    return mirror


def packet(*, payload: bytes = bytes(8), flags: int = 0) -> Ipv4Packet:
    return Ipv4Packet(src=1, dst=FAR, protocol=PROTOCOL_UDP, payload=payload, flags=flags)


def test_interfaces_have_both_names_and_homes(mirror: Mirror) -> None:
    assert [mirror.key(number) for number in (0, 1, 2, 5)] == [(0, 0), None, (1, 7), (4, 0)]
    assert mirror.homes == {1: OTHER_SLOT, 4: None}
    mirror.use({0: dataclasses.replace(INTERFACES[0], home_slot=OTHER_SLOT)})
    assert (mirror.key(2), mirror.homes) == (None, {0: OTHER_SLOT})


def test_neighbors_go_to_the_fast_path_and_away(made: Rig, mirror: Mirror) -> None:
    for usability in (Usability.REACHABLE, Usability.STALE, Usability.REPORT):
        mirror.update(NeighborUpdate(1, 7, HOST, MAC, usability))
    for usability in (Usability.INCOMPLETE, Usability.FAILED):
        mirror.update(NeighborUpdate(0, 0, HOST, None, usability))
    assert made.fastpath.neighbor_count == 2
    mirror.update(NeighborUpdate(3, 0, HOST, MAC, Usability.REACHABLE))  # its interface is gone
    assert made.fastpath.neighbor_count == 2
    for port, vlan in ((1, 7), (0, 0), (0, 0)):
        mirror.update(NeighborUpdate(port, vlan, HOST, None, Usability.GONE))
    assert made.fastpath.neighbor_count == 0


KINDS = [
    (Target(TargetKind.LOCAL, 0), Route(RouteKind.LOCAL, 0)),
    (Target(TargetKind.BROADCAST, 2), Route(RouteKind.BROADCAST, 1, 7)),
    (Target(TargetKind.CONNECTED, 2), Route(RouteKind.CONNECTED, 1, 7)),
    (Target(TargetKind.GATEWAY, 2, GATEWAY), Route(RouteKind.GATEWAY, 1, 7, GATEWAY)),
    (Target(TargetKind.BLACKHOLE), Route(RouteKind.BLACKHOLE)),
    (Target(TargetKind.UNREACHABLE), Route(RouteKind.UNREACHABLE)),
    (Target(TargetKind.PROHIBIT), Route(RouteKind.PROHIBIT)),
]


@pytest.mark.parametrize(("target", "route"), KINDS, ids=lambda value: getattr(value.kind, "name", ""))
def test_route_has_its_kind_and_interface(made: Rig, mirror: Mirror, target: Target, route: Route) -> None:
    made.route(FAR, 32, made.routes.new_target(target))
    assert mirror.lookup(FAR, packet()) == route
    assert mirror.lookup(HOST, packet()) is NO_ROUTE


@pytest.mark.parametrize("what", [9, 0xFFFF, 0x00FF_0000, int(TargetKind.GATEWAY) | 3 << 16, 0xFFFF_FFFF])
def test_target_of_garbage_is_no_route(made: Rig, mirror: Mirror, what: int) -> None:
    target = made.routes.new_target(Target(TargetKind.GATEWAY, 0, GATEWAY))
    made.route(FAR, 32, target)
    made.fib.pointer.target[target].what = what
    assert mirror.lookup(FAR, packet()) is NO_ROUTE


def test_flow_of_a_packet_has_ports_unless_it_is_a_fragment(made: Rig, mirror: Mirror) -> None:
    gateways = [GATEWAY - i for i in range(8)]
    targets = [made.routes.new_target(Target(TargetKind.GATEWAY, 0, each)) for each in gateways]
    made.route(FAR, 32, made.routes.new_group([(each, 1) for each in targets], targets * 8))

    def hops(*, flags: int = 0, size: int = 8) -> set[int]:
        payloads = (port.to_bytes(2, "big") + bytes(size) for port in range(200))
        return {mirror.lookup(FAR, packet(payload=each[:size], flags=flags)).next_hop for each in payloads}

    assert hops() == set(gateways)
    assert len(hops(flags=FLAG_MORE_FRAGMENTS)) == 1
    assert len(hops(size=3)) == 1, "too short to have ports"
