# SPDX-License-Identifier: Apache-2.0
"""What time does to a neighbor: REACHABLE, STALE, DELAY, PROBE, gone."""

from halo_mp.stack.neighbor import NeighborTable
from halo_mp.stack.neighbor_cache import Neighbor, NeighborState
from halo_mp.stack.outputs import Deliver, Forgotten, Learned, Loss
from tests.unit.stack.checklist import meets
from tests.unit.stack.harness import (
    NOW,
    OTHER,
    OTHER_MAC,
    PEER,
    PEER_MAC,
    hear,
    reply,
    request,
    run,
    spoken,
    table,
)


def state_of(ours: NeighborTable, address: int = PEER) -> NeighborState | None:
    neighbor = ours.lookup(address)
    return neighbor.state if neighbor else None


def reachable() -> NeighborTable:
    ours = table()
    hear(ours, reply())
    return ours


def probing() -> NeighborTable:
    """Used at NOW + 30, so that the first unicast request goes out at NOW + 35."""
    ours = reachable()
    run(ours, NOW + 30)
    ours.touch(PEER, NOW + 30)
    return ours


def test_reachable_becomes_stale_after_its_time() -> None:
    ours = reachable()
    assert ours.next_deadline() == NOW + 30
    assert ours.poll(NOW + 29) == []
    assert state_of(ours) is NeighborState.REACHABLE
    assert ours.poll(NOW + 30) == []
    assert state_of(ours) is NeighborState.STALE


def test_reachable_confirmed_again_starts_its_time_anew() -> None:
    ours = reachable()
    hear(ours, reply(), NOW + 20)
    assert ours.next_deadline() == NOW + 50


@meets("arp.refresh")
def test_stale_unused_is_removed_when_it_has_aged() -> None:
    ours = reachable()
    assert run(ours, NOW + 330) == [(NOW + 330, Forgotten(0, 0, PEER, Loss.AGED))]
    assert len(ours) == 0
    assert ours.events["neighbor_aged"] == 1
    assert ours.next_deadline() is None


def test_stale_used_by_a_packet_is_delivered_and_verified_by_unicast() -> None:
    ours = table()
    hear(ours, request())
    assert ours.resolve(PEER, b"packet", NOW) == [Deliver(0, 0, b"packet", PEER_MAC)]
    assert state_of(ours) is NeighborState.DELAY
    [(at, transmit)] = run(ours, NOW + 5)
    [(dst, packet)] = spoken([transmit])
    assert (at, dst, packet.operation, packet.target_address) == (NOW + 5, PEER_MAC, 1, PEER)
    assert state_of(ours) is NeighborState.PROBE


def test_stale_touched_by_the_fast_path_is_verified_too() -> None:
    ours = reachable()
    run(ours, NOW + 30)
    ours.touch(PEER, NOW + 31)
    assert state_of(ours) is NeighborState.DELAY
    assert ours.next_deadline() == NOW + 36


def test_touch_does_not_delay_the_verification() -> None:
    ours = reachable()
    run(ours, NOW + 30)
    for second in range(5):
        ours.touch(PEER, NOW + 30 + second)
    assert ours.next_deadline() == NOW + 35


def test_touch_of_unknown_or_unresolved_neighbor_changes_nothing() -> None:
    ours = table()
    ours.touch(PEER, NOW)
    assert len(ours) == 0
    ours.resolve(PEER, b"packet", NOW)
    ours.touch(PEER, NOW)
    assert state_of(ours) is NeighborState.INCOMPLETE
    assert ours.next_deadline() == NOW + 1


def test_probe_answered_is_reachable_and_reported_again() -> None:
    ours = probing()
    run(ours, NOW + 35)
    assert hear(ours, reply(), NOW + 35.5) == [Learned(0, 0, PEER, PEER_MAC)]
    assert state_of(ours) is NeighborState.REACHABLE
    assert ours.next_deadline() == NOW + 65.5


def test_probe_keeps_delivering_while_it_waits() -> None:
    ours = probing()
    run(ours, NOW + 35)
    assert ours.resolve(PEER, b"packet", NOW + 36) == [Deliver(0, 0, b"packet", PEER_MAC)]


@meets("arp.refresh")
def test_probe_unanswered_three_times_is_forgotten_and_the_next_packet_asks_by_broadcast() -> None:
    ours = probing()
    outputs = run(ours, NOW + 38)
    assert [at for at, _ in outputs] == [NOW + 35, NOW + 36, NOW + 37, NOW + 38]
    assert [dst for dst, _ in spoken(output for _, output in outputs)] == [PEER_MAC] * 3
    assert outputs[-1][1] == Forgotten(0, 0, PEER, Loss.UNREACHABLE)
    assert ours.events["neighbor_unreachable"] == 1
    [(dst, _)] = spoken(ours.resolve(PEER, b"packet", NOW + 38))
    assert dst == b"\xff" * 6


def test_probe_asks_three_times_however_often_resolution_had_asked() -> None:
    ours = table()
    ours.resolve(PEER, b"packet", NOW)
    run(ours, NOW + 2)
    hear(ours, request(OTHER), NOW + 2.5)
    outputs = run(ours, NOW + 60)
    assert [dst for dst, _ in spoken(output for _, output in outputs)] == [PEER_MAC] * 3


def test_probe_heard_at_another_mac_is_stale_there() -> None:
    ours = probing()
    run(ours, NOW + 35)
    assert hear(ours, request(OTHER, mac=OTHER_MAC), NOW + 35) == [Learned(0, 0, PEER, OTHER_MAC)]
    assert ours.lookup(PEER) == Neighbor(PEER, OTHER_MAC, NeighborState.STALE)


def test_probe_heard_by_its_own_request_goes_on_probing() -> None:
    """A request shows that we hear it, not that it hears us."""
    ours = probing()
    run(ours, NOW + 35)
    assert hear(ours, request(OTHER), NOW + 35.5) == []
    assert state_of(ours) is NeighborState.PROBE


@meets("arp.refresh")
def test_neighbor_in_use_that_answers_stays_for_ever_and_is_asked_only_by_unicast() -> None:
    ours = reachable()
    asked = []
    for second in range(1, 1000):
        now = NOW + second
        ours.touch(PEER, now)
        for dst, _packet in spoken(ours.poll(now)):
            asked.append(dst)
            hear(ours, reply(), now)
    assert set(asked) == {PEER_MAC}
    # 30 s reachable, up to 1 s until it is used, 5 s of delay
    assert 999 // 36 <= len(asked) <= 999 // 35
    assert ours.events["neighbor_aged"] + ours.events["neighbor_unreachable"] == 0


def test_reachable_times_are_spread() -> None:
    ours = table(reachable_spread=0.5)
    for host in range(100):
        hear(ours, reply(sender=PEER + host, mac=PEER_MAC))
    times: list[float] = []
    while ours.next_deadline() is not None and len(times) < 1000:
        now = ours.next_deadline()
        assert now is not None
        ours.poll(now)
        if all(neighbor.state is NeighborState.STALE for neighbor in ours):
            break
        times.append(now - NOW)
    assert min(times) >= 15
    assert max(times) <= 45.1
    assert len(times) > 50
