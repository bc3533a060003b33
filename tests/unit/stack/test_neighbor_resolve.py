# SPDX-License-Identifier: Apache-2.0
"""Packets to send: asking, holding, giving up, and the bounds of each."""

from itertools import pairwise

import pytest

from halo_mp.stack.neighbor_cache import Neighbor, NeighborState
from halo_mp.stack.outputs import Deliver, Drop, Learned, Transmit, Undelivered
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
    fresh_table,
    hear,
    of_type,
    reply,
    request,
    run,
    spoken,
    table,
)


def test_unknown_packet_is_held_and_asked_for_by_broadcast() -> None:
    ours = table()
    outputs = ours.resolve(PEER, b"packet", NOW)
    assert spoken(outputs) == [
        (
            ethernet.BROADCAST,
            arp.ArpPacket(
                operation=arp.REQUEST,
                sender_mac=MAC,
                sender_address=ADDRESS,
                target_mac=bytes(6),
                target_address=PEER,
            ),
        )
    ]
    assert len(outputs) == 1
    assert ours.held_count == 1
    assert ours.lookup(PEER) == Neighbor(PEER, None, NeighborState.INCOMPLETE)


def test_request_frame_is_padded_with_zeros() -> None:
    [transmit] = of_type(Transmit, table().resolve(PEER, b"packet", NOW))
    assert len(transmit.frame) == 60
    assert transmit.frame[42:] == bytes(18)


@meets("arp.hold")
def test_incomplete_reply_delivers_in_order_and_reports() -> None:
    ours = table()
    for packet in (b"one", b"two", b"three"):
        ours.resolve(PEER, packet, NOW)
    assert hear(ours, reply(), NOW + 0.5) == [
        Learned(0, 0, PEER, PEER_MAC),
        Deliver(0, 0, b"one", PEER_MAC),
        Deliver(0, 0, b"two", PEER_MAC),
        Deliver(0, 0, b"three", PEER_MAC),
    ]
    assert ours.held_count == 0
    assert ours.lookup(PEER) == Neighbor(PEER, PEER_MAC, NeighborState.REACHABLE)


def test_incomplete_request_from_the_neighbor_delivers_too() -> None:
    ours = table()
    ours.resolve(PEER, b"packet", NOW)
    outputs = hear(ours, request(OTHER))
    assert of_type(Deliver, outputs) == [Deliver(0, 0, b"packet", PEER_MAC)]
    assert ours.lookup(PEER) == Neighbor(PEER, PEER_MAC, NeighborState.DELAY)


def test_known_packet_is_delivered_at_once() -> None:
    ours = table()
    hear(ours, reply())
    assert ours.resolve(PEER, b"packet", NOW) == [Deliver(0, 0, b"packet", PEER_MAC)]


@meets("arp.throttle", "old.arp-sweep")
def test_requests_at_most_one_a_second_for_each_destination() -> None:
    ours = table()
    asked = [
        now
        for now in (NOW + tick / 16 for tick in range(160))
        for _, packet in spoken(ours.poll(now) + ours.resolve(PEER, b"packet", now))
        if packet.target_address == PEER
    ]
    assert asked[0] == NOW
    assert min(later - earlier for earlier, later in pairwise(asked)) >= 1.0
    # Three, a pause of 1 s + failed_s, three more (the packet at NOW + 6 asks at once).
    assert asked == [NOW, NOW + 1, NOW + 2, NOW + 6, NOW + 7, NOW + 8]


def test_two_destinations_do_not_share_the_limit() -> None:
    ours = table()
    assert len(spoken(ours.resolve(PEER, b"packet", NOW))) == 1
    assert len(spoken(ours.resolve(OTHER, b"packet", NOW))) == 1


@meets("arp.failure")
def test_third_request_unanswered_drops_the_queue_as_unresolved() -> None:
    ours = table()
    ours.resolve(PEER, b"one", NOW)
    ours.resolve(PEER, b"two", NOW)
    outputs = run(ours, NOW + 3)
    assert [at for at, output in outputs if isinstance(output, Transmit)] == [NOW + 1, NOW + 2]
    assert [(at, output) for at, output in outputs if isinstance(output, Drop)] == [
        (NOW + 3, Drop(0, "neighbor_unresolved", b"one")),
        (NOW + 3, Drop(0, "neighbor_unresolved", b"two")),
    ]
    assert ours.drops == {"neighbor_unresolved": 2}
    assert ours.held_count == 0
    assert ours.lookup(PEER) == Neighbor(PEER, None, NeighborState.FAILED)


@meets("arp.failure")
def test_failed_packet_is_dropped_without_a_request_until_the_negative_cache_ends() -> None:
    ours = table(failed_s=4.0)
    ours.resolve(PEER, b"one", NOW)
    run(ours, NOW + 3)
    failed = [Drop(0, "neighbor_unresolved", b"two"), Undelivered(b"two")]
    assert ours.resolve(PEER, b"two", NOW + 6.9) == failed
    assert run(ours, NOW + 7) == []
    assert ours.lookup(PEER) is None
    assert len(spoken(ours.resolve(PEER, b"three", NOW + 7))) == 1
    assert ours.drops == {"neighbor_unresolved": 2}


def test_failed_heard_is_usable_again_at_once() -> None:
    ours = table()
    ours.resolve(PEER, b"one", NOW)
    run(ours, NOW + 3)
    assert hear(ours, request(OTHER), NOW + 3.5) == [Learned(0, 0, PEER, PEER_MAC)]
    assert ours.resolve(PEER, b"two", NOW + 3.5) == [Deliver(0, 0, b"two", PEER_MAC)]


@meets("arp.hold")
def test_hold_queue_full_keeps_the_newest_and_reports_the_oldest() -> None:
    ours = table(held_per_neighbor=2)
    outputs = [output for packet in (b"1", b"2", b"3", b"4") for output in ours.resolve(PEER, packet, NOW)]
    assert of_type(Drop, outputs) == [
        Drop(0, "neighbor_hold_full", b"1"),
        Drop(0, "neighbor_hold_full", b"2"),
    ]
    assert ours.drops == {"neighbor_hold_full": 2}
    assert ours.held_count == 2
    assert [output.packet for output in of_type(Deliver, hear(ours, reply()))] == [b"3", b"4"]


def test_hold_queue_full_in_all_keeps_the_newest_of_each_neighbor() -> None:
    ours = table(held_per_neighbor=2, held_in_all=3)
    for address, packet in ((PEER, b"1"), (PEER, b"2"), (OTHER, b"3")):
        assert of_type(Drop, ours.resolve(address, packet, NOW)) == []
    assert ours.resolve(OTHER, b"4", NOW) == [Drop(0, "neighbor_hold_full", b"3")]
    third = parse_address("192.0.2.4")
    outputs = ours.resolve(third, b"5", NOW)
    assert of_type(Drop, outputs) == [Drop(0, "neighbor_hold_full", b"5")]
    assert len(spoken(outputs)) == 1
    assert ours.held_count == 3
    assert [output.packet for output in of_type(Deliver, hear(ours, reply()))] == [b"1", b"2"]
    assert ours.held_count == 1


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "192.0.2.1", "192.0.2.255", "255.255.255.255", "224.0.0.1", "127.0.0.1", "240.0.0.1"]
)  # fmt: skip
def test_address_of_no_neighbor_is_unresolved_without_asking(address: str) -> None:
    ours = table()
    outputs = ours.resolve(parse_address(address), b"packet", NOW)
    assert outputs == [Drop(0, "neighbor_unresolved", b"packet"), Undelivered(b"packet")]
    assert len(ours) == 0


def test_address_not_ours_yet_drops_and_asks_nobody() -> None:
    ours = fresh_table(probe=True)
    ours.start(NOW)
    assert ours.resolve(PEER, b"packet", NOW) == [Drop(0, "address_tentative", b"packet")]
    assert ours.drops == {"address_tentative": 1}
    assert len(ours) == 0


def test_remove_while_incomplete_drops_what_is_held() -> None:
    ours = table()
    ours.resolve(PEER, b"packet", NOW)
    assert ours.remove(PEER) == [Drop(0, "neighbor_unresolved", b"packet")]
    assert ours.held_count == 0
    assert ours.next_deadline() is None


def test_too_many_unanswered_addresses_are_refused_and_the_first_ones_still_resolve() -> None:
    ours = table(pending_capacity=4, capacity=100)
    for host in range(2, 6):
        assert of_type(Drop, ours.resolve(ADDRESS - 1 + host, b"packet", NOW)) == []
    refused = parse_address("192.0.2.77")
    assert ours.resolve(refused, b"late", NOW) == [Drop(0, "neighbor_hold_full", b"late")]
    assert of_type(Deliver, hear(ours, reply())) == [Deliver(0, 0, b"packet", PEER_MAC)]
    assert len(spoken(ours.resolve(refused, b"later", NOW))) == 1


@meets("old.arp-sweep")
def test_flood_of_unresolvable_destinations_is_bounded_and_leaves_nothing() -> None:
    ours = table(pending_capacity=256, capacity=1000, held_per_neighbor=2, held_in_all=300)
    network = parse_address("10.0.0.0")
    sent, outputs = 100_000, []
    for number in range(sent):
        outputs += ours.resolve(network + 1 + number, b"packet", NOW)
    assert ours.held_count == 256
    assert len(spoken(outputs)) == 256
    outputs += [output for _, output in run(ours, NOW + 60)]
    assert len(spoken(outputs)) == 256 * 3
    assert len(of_type(Drop, outputs)) == sent
    assert ours.drops == {"neighbor_hold_full": sent - 256, "neighbor_unresolved": 256}
    assert (len(ours), ours.held_count, ours.next_deadline()) == (0, 0, None)
