# SPDX-License-Identifier: Apache-2.0
"""What Python tells the fast path of neighbors, and what it is told of routes and uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from halo_mp.shm.fib import Target, TargetKind
from halo_mp.shm.layout import lib
from halo_mp.shm.tables import Interface
from halo_mp.wire import ethernet
from halo_mp.wire.ipv4 import PROTOCOL_UDP, Ipv4Packet, parse_address
from halo_mp.workers.fastpath import NeighborState, PollReason
from tests.unit.workers.rig import OTHER_SLOT, SLOT, Rig, rig

INSIDE, OUTSIDE = 0, 1
OWN = parse_address("10.0.0.1"), parse_address("10.1.0.1")
MACS = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
HOST, GATEWAY, FAR = map(parse_address, ("10.1.0.9", "10.1.0.254", "192.0.2.1"))
HOST_MAC = bytes.fromhex("02cc00000009")
INTERFACES = {
    number: Interface(port=number, mac=MACS[number], mtu=1500, addresses=((OWN[number], 24),), home_slot=SLOT)
    for number in (INSIDE, OUTSIDE)
}
TRANSMIT, RELEASE = lib.HALO_ACTION_TRANSMIT, lib.HALO_ACTION_RELEASE


@pytest.fixture
def made(instance: str) -> Iterator[Rig]:
    with rig(instance, INTERFACES) as started:
        started.route(HOST & 0xFFFFFF00, 24, started.routes.new_target(Target(TargetKind.CONNECTED, OUTSIDE)))
        yield started


def frame(dst: int = HOST) -> bytes:
    packet = Ipv4Packet(src=parse_address("10.0.0.2"), dst=dst, protocol=PROTOCOL_UDP, payload=bytes(26))
    return ethernet.EthernetFrame(MACS[0], HOST_MAC, ethernet.ETHERTYPE_IPV4, packet.emit()).emit()


def ends(made: Rig, dst: int = HOST) -> str:
    """What becomes of a packet that is to be forwarded."""
    reasons = made.deliver(frame(dst))
    if reasons & PollReason.PUNTS:
        for punt in made.fastpath.punts():
            made.fastpath.finish(punt.index)
        made.sent()
        return "punt"
    [(action, port, octets)] = made.sent()
    return f"port {port} to {octets[:6].hex()}" if action == TRANSMIT else "drop"


SENT = f"port 1 to {HOST_MAC.hex()}"


def test_neighbor_is_as_it_was_set_last(made: Rig) -> None:
    fastpath = made.fastpath
    assert (fastpath.neighbor_count, ends(made)) == (0, "punt")
    for state, end in (
        (NeighborState.REACHABLE, SENT),
        (NeighborState.STALE, SENT),
        (NeighborState.REPORT, SENT),
        (NeighborState.INCOMPLETE, "punt"),
        (NeighborState.FAILED, "punt"),
    ):
        mac = HOST_MAC if end == SENT else None
        assert fastpath.set_neighbor(OUTSIDE, HOST, mac, state)
        assert (fastpath.neighbor_count, ends(made)) == (1, end)
    assert fastpath.remove_neighbor(OUTSIDE, HOST)
    assert not fastpath.remove_neighbor(OUTSIDE, HOST)
    assert (fastpath.neighbor_count, ends(made)) == (0, "punt")


@pytest.mark.parametrize("state", [NeighborState.REACHABLE, NeighborState.STALE, NeighborState.REPORT])
def test_neighbor_to_send_to_needs_an_address(made: Rig, state: NeighborState) -> None:
    with pytest.raises(ValueError, match=f"{state.name.lower()} has a MAC address"):
        made.fastpath.set_neighbor(OUTSIDE, HOST, None, state)
    assert made.fastpath.neighbor_count == 0


def test_neighbor_of_no_interface_is_refused_and_goes_with_its_interface(made: Rig) -> None:
    fastpath = made.fastpath
    for number in (2, 63, 1000):
        assert not fastpath.set_neighbor(number, HOST, HOST_MAC, NeighborState.REACHABLE)
    assert fastpath.set_neighbor(OUTSIDE, HOST, HOST_MAC, NeighborState.REACHABLE)
    assert fastpath.set_neighbor(INSIDE, HOST, HOST_MAC, NeighborState.REACHABLE)
    made.set_interfaces({INSIDE: INTERFACES[INSIDE]})
    assert fastpath.neighbor_count == 1
    assert not fastpath.remove_neighbor(OUTSIDE, HOST)


def test_use_of_a_stale_neighbor_is_told_once(made: Rig) -> None:
    made.fastpath.set_neighbor(OUTSIDE, HOST, HOST_MAC, NeighborState.STALE)
    told = []
    for _ in range(3):
        for poll in (lambda: made.deliver(frame()), lambda: made.fastpath.poll(0)):
            reasons = poll()
            assert bool(reasons & PollReason.TOUCHED) == bool(made.fastpath.touched())
            told += made.fastpath.touched()
        made.sent()
    assert told == [(OUTSIDE, HOST)]


def test_route_is_what_a_burst_meets(made: Rig) -> None:
    def route(dst: int) -> tuple[int, int]:
        return made.fastpath.route(0, dst, PROTOCOL_UDP)[:2]

    gateway = made.routes.new_target(Target(TargetKind.GATEWAY, OUTSIDE, GATEWAY))
    made.route(FAR & 0xFFFFFF00, 24, gateway)
    assert route(HOST) == (TargetKind.CONNECTED, OUTSIDE)
    assert made.fastpath.route(0, FAR, PROTOCOL_UDP) == (TargetKind.GATEWAY, OUTSIDE, GATEWAY)
    assert route(parse_address("8.8.8.8")) == (TargetKind.NONE, 0)
    made.route(0, 0, made.routes.new_target(Target(TargetKind.PROHIBIT)))
    assert route(parse_address("8.8.8.8"))[0] == TargetKind.PROHIBIT
    assert made.slot.status.epoch == 0, "nothing is read any more"


def test_route_passes_over_a_member_of_a_group_that_has_failed(made: Rig) -> None:
    gateways = [GATEWAY - i for i in range(4)]
    targets = [made.routes.new_target(Target(TargetKind.GATEWAY, OUTSIDE, each)) for each in gateways]
    made.route(FAR & 0xFFFFFF00, 24, made.routes.new_group([(each, 1) for each in targets], targets * 16))

    def chosen() -> list[int]:
        return [made.fastpath.route(1, FAR, PROTOCOL_UDP, port, 53)[2] for port in range(200)]

    before = chosen()
    assert set(before) == set(gateways)
    made.fastpath.set_neighbor(OUTSIDE, gateways[2], None, NeighborState.FAILED)
    after = chosen()
    assert [now for now, then in zip(after, before, strict=True) if then != gateways[2]] == [
        then for then in before if then != gateways[2]
    ]
    assert set(after) == {gateways[0], gateways[1], gateways[3]}
    for gateway in gateways:
        made.fastpath.set_neighbor(OUTSIDE, gateway, None, NeighborState.FAILED)
    assert chosen() == before, "somebody has to say that none is left"


def test_suppressed_errors_are_added_up(made: Rig) -> None:
    made.fastpath.count_suppressed(2)
    made.fastpath.count_suppressed(3)
    assert made.slot.worker.icmp_suppressed == 5


def test_port_without_home_hands_nothing(made: Rig) -> None:
    for home, end in ((OTHER_SLOT, lib.HALO_ACTION_HAND), (lib.HALO_NO_SLOT, RELEASE)):
        outside = Interface(port=1, mac=MACS[1], mtu=1500, addresses=((OWN[1], 24),), home_slot=home)
        made.set_interfaces({INSIDE: INTERFACES[INSIDE], OUTSIDE: outside})
        made.deliver(frame())
        assert [action for action, _, _ in made.sent()] == [end]
