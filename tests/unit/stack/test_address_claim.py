# SPDX-License-Identifier: Apache-2.0
"""Our own address on the link: RFC 5227, through the neighbor table that it belongs to."""

import dataclasses
from typing import Any

import pytest

from halo_mp.stack.neighbor import NeighborTable
from halo_mp.stack.outputs import AddressReady, Conflict, Transmit
from halo_mp.wire import arp, ethernet
from halo_mp.wire.arp import ArpPacket
from tests.unit.stack.checklist import meets
from tests.unit.stack.harness import (
    ADDRESS,
    INTERFACE,
    MAC,
    NOW,
    PEER_MAC,
    fresh_table,
    hear,
    of_type,
    reply,
    request,
    run,
    spoken,
    table,
)

ANNOUNCEMENT = ArpPacket(
    operation=arp.REQUEST, sender_mac=MAC, sender_address=ADDRESS, target_mac=bytes(6), target_address=ADDRESS
)
PROBE = dataclasses.replace(ANNOUNCEMENT, sender_address=0)
RIVAL = request(sender=ADDRESS, target=ADDRESS)
RIVAL_REPLY = reply(sender=ADDRESS, target=ADDRESS)
RIVAL_PROBE = request(sender=0, target=ADDRESS)
KEPT = Conflict(0, 0, ADDRESS, PEER_MAC, False)
ABANDONED = Conflict(0, 0, ADDRESS, PEER_MAC, True)
READY = AddressReady(0, 0, ADDRESS)


def probing(seed: int = 1) -> NeighborTable:
    ours = fresh_table(probe=True, seed=seed)
    assert ours.start(NOW) == []
    return ours


def announced(outputs: Any) -> int:
    """How many announcements are sent; nothing else may be."""
    packets = spoken(outputs)
    assert all(sent == (ethernet.BROADCAST, ANNOUNCEMENT) for sent in packets)
    return len(packets)


@meets("acd.announce")
def test_static_address_is_announced_twice_two_seconds_apart_and_not_probed() -> None:
    ours = fresh_table()
    outputs = ours.start(NOW)
    assert outputs[0] == READY
    assert announced(outputs) == 1
    assert ours.next_deadline() == NOW + 2
    assert ours.poll(NOW + 1.9) == []
    assert announced(ours.poll(NOW + 2)) == 1
    assert ours.next_deadline() is None


def test_address_is_announced_twice_again_when_its_link_is_back() -> None:
    ours = fresh_table()
    ours.start(NOW)
    ours.poll(NOW + 2)
    assert announced(ours.announce(NOW + 60)) == 1
    assert ours.next_deadline() == NOW + 62
    assert announced(ours.poll(NOW + 62)) == 1
    assert ours.is_usable(ADDRESS)


@pytest.mark.parametrize("what", ["probing", "abandoned", "shared", "not started"])
def test_address_that_is_not_ours_to_announce_is_not(what: str) -> None:
    ours = probing() if what in ("probing", "abandoned") else fresh_table(shared=what == "shared")
    if what == "abandoned":
        ours.poll(NOW + 1)
        hear(ours, RIVAL, NOW + 1)
    if what == "shared":
        ours.start(NOW)
    assert ours.announce(NOW + 2) == []


def test_static_address_is_answered_for_before_the_second_announcement() -> None:
    ours = fresh_table()
    ours.start(NOW)
    assert len(spoken(hear(ours, request()))) == 1


def test_without_address_nothing_is_sent_or_answered() -> None:
    ours = fresh_table(dataclasses.replace(INTERFACE, addresses=()))
    assert ours.start(NOW) == []
    assert ours.next_deadline() is None
    assert hear(ours, request(target=0)) == []
    assert hear(ours, RIVAL_PROBE) == []
    assert not ours.is_usable(ADDRESS)


@meets("acd.probe", "acd.announce")
@pytest.mark.parametrize("seed", range(20))
def test_probing_three_probes_then_two_announcements_at_the_times_of_the_rfc(seed: int) -> None:
    ours = probing(seed)
    outputs = run(ours, NOW + 30)
    ready = [at for at, output in outputs if output == READY]
    sent = [(at, spoken([output])[0]) for at, output in outputs if isinstance(output, Transmit)]
    assert [packet for _, packet in sent] == [(ethernet.BROADCAST, PROBE)] * 3 + [
        (ethernet.BROADCAST, ANNOUNCEMENT)
    ] * 2
    times = [at for at, _ in sent]
    assert 0 <= times[0] - NOW <= 1
    assert 1 <= times[1] - times[0] <= 2
    assert 1 <= times[2] - times[1] <= 2
    assert times[3] - times[2] == pytest.approx(2)
    assert times[4] - times[3] == pytest.approx(2)
    assert ready == [times[3]]


def test_probing_times_differ_by_seed() -> None:
    assert len({probing(seed).next_deadline() for seed in range(10)}) == 10


def test_probing_address_is_not_answered_for_and_strangers_are_not_learned() -> None:
    ours = probing()
    assert hear(ours, request()) == []
    assert len(ours) == 0
    assert not ours.is_usable(ADDRESS)


@meets("acd.conflict")
@pytest.mark.parametrize("packet", [RIVAL, RIVAL_REPLY, RIVAL_PROBE])
@pytest.mark.parametrize("after", [0.0, 1.5, 4.5])
def test_probing_any_arp_from_or_probe_for_the_address_is_a_conflict(packet: ArpPacket, after: float) -> None:
    ours = probing()
    run(ours, NOW + after)
    assert hear(ours, packet, NOW + after) == [ABANDONED]
    assert ours.events["address_conflict"] == 1
    assert not ours.is_usable(ADDRESS)
    assert ours.next_deadline() == NOW + after + 10


@pytest.mark.parametrize("packet", [request(), request(sender=0, target=ADDRESS + 7), reply()])
def test_probing_other_arp_is_no_conflict(packet: ArpPacket) -> None:
    ours = probing()
    assert of_type(Conflict, hear(ours, packet)) == []
    assert READY in [output for _, output in run(ours, NOW + 30)]


def test_probing_conflict_goes_away_and_the_address_is_taken_later() -> None:
    ours = probing()
    hear(ours, RIVAL)
    outputs = run(ours, NOW + 60)
    assert spoken([outputs[0][1]]) == [(ethernet.BROADCAST, PROBE)]
    assert NOW + 10 <= outputs[0][0] <= NOW + 11
    assert READY in [output for _, output in outputs]


@meets("acd.rate")
def test_probing_after_ten_conflicts_waits_a_minute_between_tries() -> None:
    ours = probing()
    waits = []
    now = NOW
    for _ in range(12):
        assert hear(ours, RIVAL, now) == [ABANDONED]
        deadline = ours.next_deadline()
        assert deadline is not None
        waits.append(deadline - now)
        now = deadline
        assert ours.poll(now) == []
    assert waits == [10.0] * 9 + [60.0] * 3


@meets("acd.defend")
def test_conflict_is_defended_by_one_announcement() -> None:
    ours = table()
    outputs = hear(ours, RIVAL)
    assert outputs[0] == KEPT
    assert announced(outputs) == 1
    assert len(outputs) == 2
    assert ours.is_usable(ADDRESS)
    assert len(ours) == 0


@meets("acd.defend")
def test_conflict_is_defended_at_most_once_in_ten_seconds_and_a_static_address_is_kept() -> None:
    ours = table()
    outputs = [(now, hear(ours, RIVAL, now)) for now in (NOW + tick / 4 for tick in range(41))]
    assert [now for now, heard in outputs if heard] == [NOW, NOW + 10]
    assert sum(announced(heard) for _, heard in outputs) == 2
    assert ours.events["address_conflict"] == 41
    assert ours.is_usable(ADDRESS)


def test_conflict_while_announcing_does_not_lose_the_second_announcement() -> None:
    ours = fresh_table()
    ours.start(NOW)
    hear(ours, RIVAL, NOW + 1)
    assert announced(output for _, output in run(ours, NOW + 30)) == 1


def test_probed_address_contested_twice_in_ten_seconds_is_given_up() -> None:
    ours = probing()
    run(ours, NOW + 30)
    assert hear(ours, RIVAL, NOW + 30)[0] == KEPT
    assert hear(ours, RIVAL_REPLY, NOW + 39.9) == [ABANDONED]
    assert not ours.is_usable(ADDRESS)
    assert hear(ours, request(), NOW + 40) == []
    assert hear(ours, RIVAL, NOW + 40) == []
    assert ours.next_deadline() == NOW + 49.9


def test_probed_address_contested_again_after_ten_seconds_is_kept() -> None:
    ours = probing()
    run(ours, NOW + 30)
    assert hear(ours, RIVAL, NOW + 30)[0] == KEPT
    assert hear(ours, RIVAL, NOW + 40)[0] == KEPT
    assert ours.is_usable(ADDRESS)


def test_given_up_address_is_not_used_to_ask() -> None:
    ours = probing()
    run(ours, NOW + 30)
    ours.resolve(ADDRESS + 5, b"packet", NOW + 30)
    hear(ours, RIVAL, NOW + 30)
    hear(ours, RIVAL, NOW + 30.5)
    outputs = [output for _, output in run(ours, NOW + 39)]
    assert spoken(outputs) == []
    assert ours.drops == {"neighbor_unresolved": 1}


def test_probe_of_another_host_for_an_owned_address_is_no_conflict() -> None:
    ours = table()
    outputs = hear(ours, RIVAL_PROBE)
    assert of_type(Conflict, outputs) == []
    assert len(spoken(outputs)) == 1
