# SPDX-License-Identifier: Apache-2.0
"""Gateways that are kept known without traffic; neighbors of another worker; the fast path's copy of all."""

import dataclasses
import random
from functools import partial

import pytest

from halo_mp.stack.interface import Address
from halo_mp.stack.neighbor import NeighborTable
from halo_mp.stack.neighbor_cache import Neighbor, NeighborState
from halo_mp.stack.neighbor_settings import NeighborSettings
from halo_mp.stack.outputs import (
    Deliver,
    Drop,
    Forgotten,
    Learned,
    Loss,
    NeighborUp,
    NeighborUpdate,
    Transmit,
    Undelivered,
    Usability,
    Used,
)
from halo_mp.wire import ethernet
from halo_mp.wire.ipv4 import parse_address
from tests.unit.stack.checklist import meets
from tests.unit.stack.harness import (
    ADDRESS,
    INTERFACE,
    NOW,
    OTHER,
    OTHER_MAC,
    PEER,
    PEER_MAC,
    hear,
    of_type,
    reply,
    request,
    run,
    spoken,
    table,
)

UP = NeighborUp(0, 0, PEER, PEER_MAC)
GONE = Forgotten(0, 0, PEER, Loss.UNREACHABLE)


def copied(*, foreign: bool = False, **settings: float) -> NeighborTable:
    """A started table that tells of its copies."""
    made = NeighborTable(
        INTERFACE,
        rng=random.Random(1),
        settings=NeighborSettings(reachable_spread=0.0, **settings),  # type: ignore[arg-type]
        foreign=foreign,
    )
    made.start(NOW - 10)
    made.poll(NOW - 5)
    return made


def times(outputs: list[tuple[float, object]], kind: type) -> list[float]:
    return [at - NOW for at, out in outputs if isinstance(out, kind)]


def test_watched_is_asked_for_at_once_and_reported_when_it_answers() -> None:
    ours = table()
    assert [dst for dst, _ in spoken(ours.watch(PEER, NOW))] == [ethernet.BROADCAST]
    assert ours.watch(PEER, NOW) == []
    assert UP in hear(ours, reply(), NOW)
    assert UP not in hear(ours, reply(), NOW + 5)


def test_watched_is_probed_when_its_time_is_over_without_any_use() -> None:
    ours = table()
    ours.watch(PEER, NOW)
    hear(ours, reply(), NOW)
    [(at, asked)] = run(ours, NOW + 30)
    assert (at, spoken([asked])[0][0]) == (NOW + 30, PEER_MAC)
    assert hear(ours, reply(), NOW + 30.1) == [Learned(0, 0, PEER, PEER_MAC)]
    assert times(run(ours, NOW + 61), Transmit) == [pytest.approx(60.1, abs=0.02)]


def test_watched_that_falls_silent_is_reported_once_and_asked_each_five_seconds() -> None:
    ours = table()
    ours.watch(PEER, NOW)
    hear(ours, reply(), NOW)
    outputs = run(ours, NOW + 50)
    assert [(at - NOW, out) for at, out in outputs if isinstance(out, Forgotten)] == [(33, GONE)]
    assert times(outputs, Transmit) == [30, 31, 32, 38, 43, 48]
    assert ours.lookup(PEER) == Neighbor(PEER, None, NeighborState.FAILED)
    failed = ours.resolve(PEER, b"packet", NOW + 50)
    assert failed == [Drop(0, "neighbor_unresolved", b"packet"), Undelivered(b"packet")]
    assert UP in hear(ours, reply(), NOW + 50)


def test_watched_that_never_answers_is_reported_once() -> None:
    ours = table()
    outputs = [(NOW, out) for out in ours.watch(PEER, NOW)] + run(ours, NOW + 20)
    assert [out for _, out in outputs if isinstance(out, Forgotten)] == [GONE]
    assert times(outputs, Transmit) == [0, 1, 2, 8, 13, 18]


def test_watched_that_was_heard_only_is_verified() -> None:
    ours = table()
    ours.watch(PEER, NOW)
    outputs = hear(ours, request(), NOW)
    assert UP in outputs
    assert (PEER_MAC, 1) in [(dst, packet.operation) for dst, packet in spoken(outputs)]


def test_known_neighbor_that_is_watched_is_reported() -> None:
    ours = table()
    hear(ours, reply(), NOW)
    assert ours.watch(PEER, NOW) == [UP]
    stale = table()
    hear(stale, request(), NOW)
    outputs = stale.watch(PEER, NOW)
    assert UP in outputs
    assert [dst for dst, _ in spoken(outputs)] == [PEER_MAC]
    fixed = table()
    fixed.set_static(PEER, PEER_MAC, NOW)
    assert fixed.watch(PEER, NOW) == [UP]
    assert run(fixed, NOW + 1000) == []


def test_watched_is_never_evicted() -> None:
    ours = table(capacity=4, pending_capacity=2)
    ours.watch(PEER, NOW)
    hear(ours, reply(), NOW)
    for host in range(10, 30):
        hear(ours, request(sender=parse_address(f"192.0.2.{host}")), NOW)
    assert ours.lookup(PEER) == Neighbor(PEER, PEER_MAC, NeighborState.REACHABLE)
    assert len(ours) == 4 + 1


def test_unwatched_ages_like_all_others() -> None:
    ours = table()
    ours.watch(PEER, NOW)
    hear(ours, reply(), NOW)
    assert ours.unwatch(PEER, NOW) == []
    assert run(ours, NOW + 331) == [(NOW + 330, Forgotten(0, 0, PEER, Loss.AGED))]
    failed = table()
    failed.watch(PEER, NOW)
    run(failed, NOW + 4)
    failed.unwatch(PEER, NOW + 4)
    assert run(failed, NOW + 60) == []
    assert failed.lookup(PEER) is None


def test_address_of_no_neighbor_is_not_watched() -> None:
    ours = table()
    assert ours.watch(ADDRESS, NOW) == ours.watch(parse_address("192.0.2.255"), NOW) == []
    assert len(ours) == 0


@meets("arp.sync")
def test_foreign_neighbor_is_used_and_its_uses_reported_now_and_then() -> None:
    theirs = copied(foreign=True)
    assert theirs.adopt(PEER, PEER_MAC, NOW) == [NeighborUpdate(0, 0, PEER, PEER_MAC, Usability.REPORT)]
    used = [at for at in range(60) if Used(0, 0, PEER) in theirs.resolve(PEER, b"packet", NOW + at)]
    assert used == [0, 15, 30, 45]
    assert theirs.touch(PEER, NOW + 59) == [Used(0, 0, PEER)], "the fast path has its own limit"
    assert theirs.resolve(PEER, b"packet", NOW + 60) == [Deliver(0, 0, b"packet", PEER_MAC)]


def test_foreign_neighbor_is_neither_asked_nor_aged_but_ends_unconfirmed() -> None:
    theirs = copied(foreign=True)
    theirs.adopt(PEER, PEER_MAC, NOW)
    theirs.adopt(OTHER, OTHER_MAC, NOW)
    theirs.resolve(PEER, b"packet", NOW)
    assert run(theirs, NOW + 599) == []
    assert theirs.adopt(OTHER, OTHER_MAC, NOW + 599) == []
    assert run(theirs, NOW + 601) == [(NOW + 600, NeighborUpdate(0, 0, PEER, None, Usability.GONE))]
    assert theirs.knows(OTHER)
    assert not theirs.knows(PEER)


def test_foreign_neighbor_that_its_keeper_forgot_is_gone() -> None:
    theirs = copied(foreign=True)
    theirs.adopt(PEER, PEER_MAC, NOW)
    assert theirs.forget(PEER) == [NeighborUpdate(0, 0, PEER, None, Usability.GONE)]
    assert theirs.forget(PEER) == []
    assert theirs.watch(PEER, NOW) == []


def test_foreign_table_asks_for_packets_that_cannot_be_handed() -> None:
    theirs = copied(foreign=True)
    assert len(spoken(theirs.resolve(PEER, b"packet", NOW))) == 1
    assert theirs.forget(PEER) == [], "it waits for an answer"
    outputs = theirs.adopt(PEER, PEER_MAC, NOW)
    assert outputs[0] == NeighborUpdate(0, 0, PEER, PEER_MAC, Usability.REPORT)
    assert theirs.held_count == 0


@meets("arp.once")
def test_foreign_table_claims_nothing_by_itself() -> None:
    theirs = NeighborTable(INTERFACE, rng=random.Random(1), foreign=True)
    assert of_type(Transmit, theirs.start(NOW)) == []
    assert hear(theirs, request(sender=ADDRESS, target=ADDRESS)) == []
    assert theirs.is_usable(ADDRESS)


def test_copies_follow_the_states() -> None:
    ours = copied()
    seen: list[tuple[float, str]] = []

    def note(at: float, outputs: list[object]) -> None:
        seen.extend((at, out.usability) for out in outputs if isinstance(out, NeighborUpdate))

    note(0, [*ours.resolve(PEER, b"packet", NOW)])
    note(0, [*hear(ours, reply(), NOW)])
    for at, out in run(ours, NOW + 30):
        note(at - NOW, [out])
    note(31, [*ours.touch(PEER, NOW + 31)])
    note(32, [*ours.touch(PEER, NOW + 32)])
    for at, out in run(ours, NOW + 60):
        note(at - NOW, [out])
    assert seen == [(0, "incomplete"), (0, "reachable"), (30, "stale"), (31, "reachable"), (39, "gone")]
    ours.resolve(OTHER, b"packet", NOW + 60)
    updates = [out for _, out in run(ours, NOW + 70) if isinstance(out, NeighborUpdate)]
    assert [(out.mac, out.usability) for out in updates] == [(None, "failed"), (None, "gone")]


def test_copy_of_a_neighbor_that_moves_gets_the_new_mac() -> None:
    ours = copied()
    hear(ours, reply(), NOW)
    outputs = hear(ours, request(mac=OTHER_MAC), NOW)
    assert NeighborUpdate(0, 0, PEER, OTHER_MAC, Usability.STALE) in outputs
    assert of_type(NeighborUpdate, hear(ours, request(mac=OTHER_MAC), NOW + 1)) == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("foreign", [False, True])
def test_copies_are_the_table_whatever_happens(seed: int, foreign: bool) -> None:
    rng = random.Random(seed)
    ours = copied(foreign=foreign, capacity=6, pending_capacity=3, stale_s=20.0)
    hosts = [parse_address(f"192.0.2.{host}") for host in range(2, 14)]
    copies: dict[int, tuple[bytes | None, Usability]] = {}
    now = NOW
    for _ in range(1500):
        now += rng.choice((0.0, 0.0, 0.25, 1.0, 5.0))
        host, mac = rng.choice(hosts), rng.choice((PEER_MAC, OTHER_MAC))
        actions = (
            partial(ours.resolve, host, b"packet", now),
            partial(hear, ours, request(sender=host, mac=mac), now),
            partial(hear, ours, reply(host, mac), now),
            partial(ours.touch, host, now),
            partial(ours.adopt, host, mac, now),
            partial(ours.watch, host, now),
            partial(ours.unwatch, host, now),
            partial(ours.forget, host),
            partial(ours.remove, host),
        )
        for out in [*ours.poll(now), *rng.choices(actions, (40, 30, 30, 20, 5, 1, 2, 3, 1))[0]()]:
            if isinstance(out, NeighborUpdate):
                before = copies.pop(out.address, None)
                assert (out.mac, out.usability) != before, "nothing is told twice"
                if out.usability is not Usability.GONE:
                    copies[out.address] = (out.mac, out.usability)
        assert {each.address: each.mac for each in ours} == {at: mac for at, (mac, _) in copies.items()}
        sendable = (Usability.REACHABLE, Usability.STALE, Usability.REPORT)
        assert all((copy in sendable) == (mac is not None) for mac, copy in copies.values())
        assert {copy for mac, copy in copies.values() if mac} <= (
            {Usability.REPORT} if foreign else {Usability.REACHABLE, Usability.STALE}
        )


def test_interface_that_goes_down_drops_what_waits_and_keeps_who_is_known() -> None:
    ours = table()
    hear(ours, reply(), NOW)
    ours.resolve(OTHER, b"packet", NOW)
    down = dataclasses.replace(INTERFACE, up=False)
    assert Drop(0, "interface_down", b"packet") in ours.update(down, NOW)
    assert ours.resolve(PEER, b"late", NOW) == [Drop(0, "interface_down", b"late")]
    assert ours.held_count == 0
    assert ours.knows(PEER)
    assert of_type(Transmit, [out for _, out in run(ours, NOW + 20)]) == []
    up = ours.update(INTERFACE, NOW + 20)
    assert [packet.sender_address for _, packet in spoken(up)] == [ADDRESS], "announced anew"


def test_watched_is_asked_again_when_its_interface_is_up() -> None:
    ours = table()
    ours.watch(PEER, NOW)
    ours.update(dataclasses.replace(INTERFACE, up=False), NOW)
    assert of_type(Transmit, [out for _, out in run(ours, NOW + 20)]) == []
    asked = [packet.target_address for _, packet in spoken(ours.update(INTERFACE, NOW + 20))]
    assert asked == [ADDRESS, PEER]


def test_watched_that_stays_silent_is_reported_again_when_its_interface_was_down() -> None:
    """Whoever spreads flows over gateways has taken all of an interface that is down for dead, and begins anew."""
    ours = table()
    ours.watch(PEER, NOW)
    assert of_type(Forgotten, [out for _, out in run(ours, NOW + 10)]) == [GONE]
    ours.update(dataclasses.replace(INTERFACE, up=False), NOW + 10)
    ours.update(INTERFACE, NOW + 11)
    assert of_type(Forgotten, [out for _, out in run(ours, NOW + 30)]) == [GONE]


def test_neighbor_whose_address_becomes_ours_or_a_broadcast_is_gone() -> None:
    ours = table()
    hear(ours, reply(), NOW)
    own = dataclasses.replace(INTERFACE, addresses=(*INTERFACE.addresses, Address(PEER, 24)))
    assert Forgotten(0, 0, PEER, Loss.REMOVED) in ours.update(own, NOW)
    assert len(ours) == 0
