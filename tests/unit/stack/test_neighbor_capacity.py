# SPDX-License-Identifier: Apache-2.0
"""Floods and scale: who may push out whom, and that nothing is scanned."""

from halo_mp.stack.interface import Address, Interface
from halo_mp.stack.neighbor import POLL_LIMIT, NeighborTable
from halo_mp.stack.neighbor_cache import NeighborState
from halo_mp.stack.outputs import Deliver, Forgotten, Learned, Loss, NeighborOutput
from halo_mp.wire.ipv4 import parse_address
from tests.unit.stack.checklist import meets
from tests.unit.stack.harness import MAC, NOW, hear, of_type, reply, request, run, spoken, table

NETWORK = parse_address("10.0.0.0")
WIDE = Interface(port=0, mac=MAC, addresses=(Address(parse_address("10.255.0.1"), 8),))
FLOOD = 100_000


def mac_of(number: int) -> bytes:
    return (0x020001000000 + number).to_bytes(6, "big")


def hear_stranger(ours: NeighborTable, number: int, now: float = NOW) -> list[NeighborOutput]:
    return hear(ours, request(WIDE.address, sender=NETWORK + number, mac=mac_of(number)), now)


def learn_and_use(ours: NeighborTable, number: int) -> None:
    packet = reply(sender=NETWORK + number, mac=mac_of(number), target=WIDE.address)
    hear(ours, packet)
    ours.touch(NETWORK + number, NOW)


def known(ours: NeighborTable) -> set[int]:
    return {neighbor.address - NETWORK for neighbor in ours}


@meets("arp.capacity")
def test_full_table_evicts_the_least_recently_learned_stranger_and_counts_it() -> None:
    ours = table(WIDE, capacity=8, pending_capacity=2)
    for number in range(1, 9):
        hear_stranger(ours, number)
    outputs = hear_stranger(ours, 9)
    assert of_type(Forgotten, outputs) == [Forgotten(0, 0, NETWORK + 1, Loss.EVICTED)]
    assert known(ours) == set(range(2, 10))
    assert ours.events["neighbor_evicted"] == 1


@meets("arp.capacity")
def test_full_of_used_neighbors_evicts_the_least_recently_used() -> None:
    ours = table(WIDE, capacity=8, pending_capacity=2)
    for number in range(1, 9):
        learn_and_use(ours, number)
    ours.touch(NETWORK + 1, NOW)
    learn_and_use(ours, 9)
    assert known(ours) == {1, *range(3, 10)}


def test_full_neighbor_not_used_for_long_goes_first_although_its_state_changed_since() -> None:
    ours = table(WIDE, capacity=8, pending_capacity=2)
    for number in range(1, 9):
        learn_and_use(ours, number)
    run(ours, NOW + 30)
    assert {neighbor.state for neighbor in ours} == {NeighborState.STALE}
    assert of_type(Forgotten, hear_stranger(ours, 9)) == [Forgotten(0, 0, NETWORK + 1, Loss.EVICTED)]


def test_flood_of_strangers_never_evicts_used_or_static_neighbors() -> None:
    ours = table(WIDE, capacity=1000, pending_capacity=100)
    ours.set_static(NETWORK + 1, mac_of(1), NOW)
    for number in range(2, 102):
        learn_and_use(ours, number)
    before = len(ours)
    learned = 0
    flood = FLOOD // 5
    for number in range(1000, 1000 + flood):
        outputs = hear_stranger(ours, number)
        learned += len(of_type(Learned, outputs))
        assert len(spoken(outputs)) == 1
    assert learned == flood
    assert len(ours) == 1001  # static ones do not count
    assert known(ours) >= set(range(1, 102))
    assert ours.events["neighbor_evicted"] == before - 1 + flood - 1000


def test_flood_of_strangers_leaves_unanswered_packets_alone() -> None:
    ours = table(WIDE, capacity=50, pending_capacity=10)
    ours.resolve(NETWORK + 7, b"packet", NOW)
    for number in range(1000, 2000):
        hear_stranger(ours, number)
    answer = reply(sender=NETWORK + 7, mac=mac_of(7), target=WIDE.address)
    assert of_type(Deliver, hear(ours, answer)) == [Deliver(0, 0, b"packet", mac_of(7))]


def test_static_entries_do_not_count_against_the_capacity() -> None:
    ours = table(WIDE, capacity=4, pending_capacity=2)
    for number in range(1, 21):
        ours.set_static(NETWORK + number, mac_of(number), NOW)
    for number in range(101, 105):
        hear_stranger(ours, number)
    assert len(ours) == 24
    assert ours.events["neighbor_evicted"] == 0


def test_evicted_neighbor_leaves_no_deadline() -> None:
    ours = table(WIDE, capacity=4, pending_capacity=2)
    for number in range(1, 100):
        hear_stranger(ours, number)
    outputs = run(ours, NOW + 1000)
    assert len(of_type(Forgotten, (output for _, output in outputs))) == 4
    assert (len(ours), ours.next_deadline()) == (0, None)


def test_hundred_thousand_neighbors_age_out_in_bounded_polls() -> None:
    ours = table(WIDE, capacity=FLOOD, pending_capacity=1000)
    for number in range(1, FLOOD + 1):
        ours.adopt(NETWORK + number, mac_of(number), NOW + number / FLOOD)
    assert len(ours) == FLOOD
    # Some are heard again: what waits for its time must not pile up.
    for number in range(1, FLOOD // 5):
        ours.adopt(NETWORK + number, mac_of(number), NOW + 2)
    assert len(ours._deadlines) == FLOOD
    assert all(neighbor.state is NeighborState.REACHABLE for neighbor in ours)
    assert ours.poll(NOW + 32) == []
    assert sum(neighbor.state is NeighborState.STALE for neighbor in ours) == POLL_LIMIT
    deadline = ours.next_deadline()
    assert deadline is not None
    assert deadline <= NOW + 32
    outputs = run(ours, NOW + 1000)
    assert len(outputs) == FLOOD
    assert (len(ours), ours.next_deadline()) == (0, None)
    assert ours.events == {"neighbor_aged": FLOOD}
