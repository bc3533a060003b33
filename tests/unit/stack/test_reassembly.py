# SPDX-License-Identifier: Apache-2.0
"""Reassembly under a fake clock: every order, every kind of overlap, every bound, and the time-out."""

import dataclasses
import itertools
from collections import Counter

import pytest

from halo_mp.stack.fragmentation import fragment
from halo_mp.stack.outputs import Drop
from halo_mp.stack.partial_datagram import OVERHEAD_OCTETS, Fragment
from halo_mp.stack.reassembly import Expiry, Reassembler, Result
from halo_mp.stack.reassembly_settings import ReassemblySettings
from halo_mp.wire.ipv4 import Ipv4Packet
from tests.unit.stack.checklist import meets
from tests.unit.stack.harness import ADDRESS, NOW, OTHER, PEER

DATA = bytes(range(251)) * 262
PACKET = Ipv4Packet(src=PEER, dst=ADDRESS, protocol=17, payload=DATA[:100], identification=7, tos=0xB8, ttl=3)


def piece(start: int, end: int, *, last: bool = False, data: bytes = DATA, **fields: int) -> Fragment:
    """The fragment of PACKET, or of one with other fields, with these octets of the payload."""
    packet = dataclasses.replace(
        PACKET, payload=data[start:end], flags=0 if last else 1, fragment_offset_octets=start, **fields
    )
    return framed(packet)


def framed(packet: Ipv4Packet) -> Fragment:
    """As it comes from the stack: the octets here tell one fragment from another."""
    return Fragment(packet, 4, 5, b"frame:" + packet.emit())


def pieces(packet: Ipv4Packet, mtu: int) -> list[Fragment]:
    return [framed(each) for each in fragment(packet, mtu)]


def dropped(reason: str, *fragments: Fragment) -> list[Drop]:
    return [Drop(4, reason, each.octets) for each in fragments]


def assert_empty(made: Reassembler) -> None:
    assert (len(made), made.octets, made.next_deadline()) == (0, 0, None)


def receive(made: Reassembler, *fragments: Fragment, now: float = NOW) -> list[Result]:
    return [made.receive(each, now) for each in fragments]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_fragments_in_any_order_give_the_packet_back(order: tuple[int, ...]) -> None:
    made = Reassembler()
    parts = pieces(PACKET, 52)
    assert len(parts) == 4
    *before, whole = receive(made, *(parts[index] for index in order))
    assert before == [Result()] * 3
    assert whole == Result(PACKET)
    assert whole.packet is not None
    assert whole.packet.emit() == PACKET.emit()
    assert_empty(made)
    assert not made.drops


def test_packet_has_the_header_of_its_first_fragment() -> None:
    options = bytes.fromhex("01 070704 00000000 94040000")
    packet = dataclasses.replace(PACKET, options=options, flags=2)
    first, *later = fragment(dataclasses.replace(packet, flags=0), 60)
    others = [dataclasses.replace(each, ttl=200, tos=0) for each in later]
    assert first.options != others[0].options
    made = Reassembler()
    first = dataclasses.replace(first, flags=3)
    *_, whole = receive(made, *(framed(each) for each in (*reversed(others), first)))
    assert whole == Result(packet)


def test_congestion_that_one_fragment_met_is_the_packets() -> None:
    """RFC 3168 section 5.3."""
    ect = dataclasses.replace(PACKET, tos=0xBA)
    first, *middle, last = fragment(ect, 52)
    marked = dataclasses.replace(middle[0], tos=0xBB)
    *_, whole = receive(Reassembler(), *(framed(each) for each in (first, marked, *middle[1:], last)))
    assert whole.packet == dataclasses.replace(ect, tos=0xBB)


@pytest.mark.parametrize(
    "other", [{"src": OTHER}, {"dst": OTHER}, {"protocol": 1}, {"identification": 8}], ids=str
)
def test_fragments_of_different_packets_are_kept_apart(other: dict[str, int]) -> None:
    made = Reassembler()
    another = dataclasses.replace(PACKET, payload=DATA[50:150], **other)
    mixed = [each for pair in zip(pieces(PACKET, 52), pieces(another, 52), strict=True) for each in pair]
    results = receive(made, *mixed)
    assert results == [Result()] * 6 + [Result(PACKET), Result(another)]
    assert_empty(made)


def test_longest_packet_is_put_together() -> None:
    longest = dataclasses.replace(PACKET, payload=DATA[:65515])
    made = Reassembler()
    results = receive(made, *reversed(pieces(longest, 1500)))
    assert results[-1].packet is not None
    assert results[-1].packet.emit() == longest.emit()
    assert_empty(made)


def test_last_fragment_of_one_octet_is_taken() -> None:
    *_, whole = receive(Reassembler(), piece(96, 97, last=True), piece(0, 96))
    assert whole.packet == dataclasses.replace(PACKET, payload=DATA[:97])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (piece(0, 15), "ipv4_fragment"),
        (piece(8, 9), "ipv4_fragment"),
        (piece(0, 0), "ipv4_fragment"),
        (piece(8, 8), "ipv4_fragment"),
        (piece(8, 8, last=True), "ipv4_fragment"),
        (piece(65528, 65536, last=True), "reassembly_too_long"),
        (piece(65528, 65529, last=True), "reassembly_too_long"),
        (piece(65512, 65520, last=True), "reassembly_too_long"),
        (piece(65512, 65520), "reassembly_too_long"),
        (piece(65512, 65516, last=True), "reassembly_too_long"),
    ],
)
def test_impossible_fragment_is_dropped_and_harms_no_datagram(bad: Fragment, reason: str) -> None:
    made = Reassembler()
    parts = pieces(PACKET, 52)
    receive(made, *parts[:-1])
    assert made.receive(bad, NOW) == Result(drops=dropped(reason, bad))
    assert made.receive(parts[-1], NOW) == Result(PACKET)
    assert made.drops == {reason: 1}
    assert_empty(made)


def test_largest_offset_that_can_be_is_taken() -> None:
    assert receive(Reassembler(), piece(65512, 65515, last=True)) == [Result()]


def test_packet_too_long_with_the_header_of_its_first_fragment_is_refused() -> None:
    """The last fragment alone would be fine: the first one has options that are not copied."""
    last = piece(1600, 65515, last=True)
    first = framed(dataclasses.replace(piece(0, 1600).packet, options=b"\x01" * 40))
    for parts in ((last, first), (first, last)):
        made = Reassembler()
        results = receive(made, *parts)
        assert results == [Result(), Result(drops=dropped("reassembly_too_long", *parts))]
        assert made.octets == 0


@pytest.mark.parametrize("again", range(3))
def test_duplicate_is_ignored_and_counted(again: int) -> None:
    made = Reassembler()
    parts = pieces(PACKET, 52)
    first, second, _, last = parts
    receive(made, first, second, last)
    kept = made.octets
    copy = framed([first, second, last][again].packet)
    assert made.receive(copy, NOW) == Result(drops=dropped("reassembly_duplicate", copy))
    assert made.octets == kept
    assert made.receive(parts[2], NOW) == Result(PACKET)
    assert made.drops == {"reassembly_duplicate": 1}
    assert_empty(made)


@meets("reassembly.overlap")
@pytest.mark.parametrize(
    ("bad", "kept"),
    [
        (piece(8, 24), [(16, 40)]),  # into its start
        (piece(32, 48), [(16, 40)]),  # into its end
        (piece(24, 32), [(16, 40)]),  # inside it: teardrop
        (piece(8, 48), [(16, 40)]),  # around it
        (piece(16, 32), [(16, 40)]),  # from its start
        (piece(16, 48), [(16, 40)]),
        (piece(24, 40), [(16, 40)]),  # up to its end
        (piece(16, 40, data=DATA[1:]), [(16, 40)]),  # in its place, but with other octets
        (piece(16, 40, last=True), [(16, 40)]),  # in its place, but the last
        (piece(8, 48), [(0, 16), (40, 56)]),  # into two
        (piece(0, 8, last=True), [(16, 40)]),  # the last one, in front of another
        (piece(8, 24, last=True), [(16, 40)]),
        (piece(24, 25, last=True), [(16, 40)]),
        (piece(24, 32), [(24, 25)]),  # what follows the last one
        (piece(32, 40), [(24, 25)]),
        (piece(32, 33, last=True), [(24, 25)]),  # another last one
        (piece(24, 26, last=True), [(24, 25)]),
        (piece(16, 32), [(24, 25)]),
    ],
)
def test_overlap_drops_the_whole_datagram_and_what_comes_later(
    bad: Fragment, kept: list[tuple[int, int]]
) -> None:
    made = Reassembler()
    held = [piece(start, end, last=end == 25) for start, end in kept]
    assert receive(made, *held) == [Result()] * len(held)
    assert made.receive(bad, NOW) == Result(drops=dropped("reassembly_overlap", *held, bad))
    assert made.octets == 0
    later = piece(80, 88)
    assert made.receive(later, NOW) == Result(drops=dropped("reassembly_overlap", later))
    assert made.receive(held[0], NOW) == Result(drops=dropped("reassembly_overlap", held[0]))
    assert made.drops == {"reassembly_overlap": len(held) + 3}
    assert made.poll(NOW + 30) == [Expiry(None, [])], "and nobody is told"
    assert_empty(made)


def test_packet_of_the_same_key_is_taken_after_the_refused_one_has_timed_out() -> None:
    made = Reassembler()
    receive(made, piece(0, 16), piece(8, 24))
    made.poll(NOW + 30)
    assert receive(made, *pieces(PACKET, 52), now=NOW + 30)[-1] == Result(PACKET)


def test_hole_is_waited_for() -> None:
    made = Reassembler()
    assert receive(made, piece(0, 8), piece(16, 24), piece(32, 40, last=True), piece(8, 16)) == [Result()] * 4
    assert made.receive(piece(24, 32), NOW) == Result(dataclasses.replace(PACKET, payload=DATA[:40]))


def test_one_fragment_too_many_drops_the_whole_datagram() -> None:
    made = Reassembler(ReassemblySettings(fragments=3))
    parts = [piece(start, start + 8) for start in (0, 16, 8, 24)]
    *before, refused = receive(made, *parts)
    assert before == [Result()] * 3
    inside = [parts[0], parts[2], parts[1], parts[3]]  # by offset
    assert refused == Result(drops=dropped("reassembly_fragments", *inside))
    assert made.receive(parts[0], NOW) == Result(drops=dropped("reassembly_fragments", parts[0]))
    assert made.octets == 0


def test_datagram_in_as_many_fragments_as_allowed_is_put_together() -> None:
    made = Reassembler(ReassemblySettings(fragments=4))
    assert receive(made, *pieces(PACKET, 52))[-1] == Result(PACKET)


@meets("reassembly.bounds")
def test_too_many_datagrams_end_the_least_recently_used() -> None:
    made = Reassembler(ReassemblySettings(datagrams=3))
    first, second, third, fourth, fifth = (piece(0, 8, identification=number) for number in range(5))
    touched = piece(16, 24, identification=0)
    assert receive(made, first, second, third, touched) == [Result()] * 4
    assert made.receive(fourth, NOW) == Result(drops=dropped("reassembly_full", second))
    assert made.receive(fifth, NOW) == Result(drops=dropped("reassembly_full", third))
    assert len(made) == 3
    assert made.receive(piece(32, 40, identification=7), NOW).drops == dropped(
        "reassembly_full", first, touched
    )


@meets("reassembly.bounds")
def test_too_many_octets_end_the_least_recently_used() -> None:
    size = piece(0, 80).charge_octets
    assert size == len(piece(0, 80).octets) + OVERHEAD_OCTETS
    made = Reassembler(ReassemblySettings(octets=3 * size))
    fragments = [piece(0, 80, identification=number) for number in range(4)]
    assert receive(made, *fragments[:3]) == [Result()] * 3
    assert made.octets == 3 * size
    assert made.receive(fragments[3], NOW) == Result(drops=dropped("reassembly_full", fragments[0]))
    assert made.octets == 3 * size


def test_fragment_without_room_even_alone_is_dropped() -> None:
    made = Reassembler(ReassemblySettings(octets=100))
    assert made.receive(piece(0, 80), NOW) == Result(drops=dropped("reassembly_full", piece(0, 80)))
    assert_empty(made)


@meets("reassembly.bounds", "reassembly.timeout")
def test_incomplete_datagram_times_out_with_its_first_fragment() -> None:
    made = Reassembler()
    parts = pieces(PACKET, 52)
    made.receive(parts[1], NOW)
    made.receive(parts[0], NOW + 20)
    made.receive(parts[3], NOW + 29.9)
    assert made.next_deadline() == NOW + 30, "counted from the one that came first"
    assert made.poll(NOW + 29.9) == []
    inside = [parts[0], parts[1], parts[3]]
    assert made.poll(NOW + 30) == [Expiry(parts[0], dropped("reassembly_timeout", *inside))]
    assert made.drops == {"reassembly_timeout": 3}
    assert_empty(made)


def test_datagram_without_its_first_fragment_times_out_without_it() -> None:
    made = Reassembler(ReassemblySettings(timeout_s=2.0))
    late = piece(8, 16)
    made.receive(late, NOW)
    assert made.poll(NOW + 2) == [Expiry(None, dropped("reassembly_timeout", late))]
    assert made.poll(NOW + 200) == []


def test_datagrams_time_out_each_at_its_own_time() -> None:
    made = Reassembler()
    for number in range(5):
        made.receive(piece(0, 8, identification=number), NOW + number)
    for number in range(5):
        assert made.next_deadline() == NOW + number + 30
        [expiry] = made.poll(NOW + number + 30)
        assert expiry.first == piece(0, 8, identification=number)
    assert_empty(made)


def test_tiny_fragments_in_any_number_keep_the_bounds_and_are_counted() -> None:
    """FragmentSmack: 20,000 fragments of 8 octets, none of which completes anything."""
    made = Reassembler()
    settings = ReassemblySettings()
    ended: Counter[str] = Counter()
    for number in range(20_000):
        start = number * 16 % 8192 + 8
        result = made.receive(piece(start, start + 8, identification=number // 100), NOW)
        ended.update(drop.reason for drop in result.drops)
        assert len(made) <= settings.datagrams
        assert made.octets <= settings.octets
    assert made.drops == ended
    held = sum(len(expiry.drops) for expiry in made.poll(NOW + 30))
    assert ended.total() + held == 20_000
    assert_empty(made)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"timeout_s": 0.0}, "timeout_s is 0.0"),
        ({"datagrams": 0}, "datagrams is 0"),
        ({"octets": -1}, "octets is -1"),
        ({"fragments": 1}, "fragments is 1"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ReassemblySettings(**wrong)  # type: ignore[arg-type]
