# SPDX-License-Identifier: Apache-2.0
"""Packets cut into fragments: RFC 791's rules, octet by octet."""

import dataclasses

import pytest

from halo_mp.stack.fragmentation import copied_options, fragment
from halo_mp.wire import ipv4
from halo_mp.wire.ipv4 import Ipv4Packet
from halo_mp.wire.octets import WireError
from tests.unit.stack.checklist import meets
from tests.unit.stack.harness import ADDRESS, PEER

DATA = bytes(range(256)) * 256
PACKET = Ipv4Packet(
    src=ADDRESS, dst=PEER, protocol=17, payload=DATA[:4000], identification=7, tos=0xB8, ttl=3
)
ROUTE = bytes.fromhex("070b04 00000000 00000000")  # record route: not copied
ALERT = bytes.fromhex("94040000")  # router alert: copied
NOTHING = b"\x01"


def shape(fragments: list[Ipv4Packet]) -> list[tuple[int, int, int]]:
    """Offset, octets of payload and flags of each."""
    return [(each.fragment_offset_octets, len(each.payload), each.flags) for each in fragments]


def test_packet_that_fits_stays_as_it_is() -> None:
    assert fragment(PACKET, 4020) == [PACKET]
    whole = dataclasses.replace(PACKET, flags=ipv4.FLAG_DONT_FRAGMENT)
    assert fragment(whole, 4020) == [whole]


@meets("fragment.offsets")
def test_packet_longer_by_one_octet_is_cut_at_a_multiple_of_eight() -> None:
    assert shape(fragment(PACKET, 4019)) == [(0, 3992, 1), (3992, 8, 0)]


@pytest.mark.parametrize(
    ("mtu", "wanted"),
    [
        (1500, [(0, 1480, 1), (1480, 1480, 1), (2960, 1040, 0)]),
        (1499, [(0, 1472, 1), (1472, 1472, 1), (2944, 1056, 0)]),
        (2020, [(0, 2000, 1), (2000, 2000, 0)]),
    ],
)
def test_packet_is_cut_into_as_few_parts_as_can_be(mtu: int, wanted: list[tuple[int, int, int]]) -> None:
    fragments = fragment(PACKET, mtu)
    assert shape(fragments) == wanted
    assert b"".join(each.payload for each in fragments) == PACKET.payload
    for each in fragments:
        assert ipv4.check(each.emit()) is None
        same = dataclasses.replace(each, payload=PACKET.payload, flags=0, fragment_offset_octets=0)
        assert same == PACKET, "addresses, protocol, identification, TOS and TTL are the packet's"


def test_longest_packet_on_the_smallest_link() -> None:
    longest = dataclasses.replace(PACKET, payload=DATA[:65475], options=bytes((0x94, 4, 0, 0)) * 10)
    assert longest.size_octets == ipv4.MAX_PACKET_OCTETS
    fragments = fragment(longest, 68)
    assert {each.size_octets for each in fragments[:-1]} == {68}
    assert b"".join(each.payload for each in fragments) == longest.payload


@meets("fragment.flags")
@pytest.mark.parametrize(("flags", "last"), [(1, 1), (0, 0), (4, 4)])
def test_fragment_of_a_fragment_keeps_its_place_and_whether_more_follows(flags: int, last: int) -> None:
    middle = dataclasses.replace(PACKET, payload=DATA[:1480], flags=flags, fragment_offset_octets=2960)
    assert shape(fragment(middle, 620)) == [(2960, 600, flags | 1), (3560, 600, flags | 1), (4160, 280, last)]


def test_packet_that_must_not_be_fragmented_is_refused() -> None:
    with pytest.raises(ValueError, match="4020 octets with DF do not fit into an MTU of 1500"):
        fragment(dataclasses.replace(PACKET, flags=ipv4.FLAG_DONT_FRAGMENT), 1500)


def test_link_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="an MTU of 27 has no room"):
        fragment(PACKET, 27)
    assert len(fragment(PACKET, 28)) == 500


@meets("fragment.options")
def test_only_options_with_the_copied_flag_go_with_later_fragments() -> None:
    options = NOTHING + ROUTE + ALERT
    first, *later = fragment(dataclasses.replace(PACKET, options=options), 1500)
    assert first.options == options
    assert [each.options for each in later] == [ALERT] * 2
    assert shape([first, *later]) == [(0, 1464, 1), (1464, 1472, 1), (2936, 1064, 0)]
    assert all(ipv4.check(each.emit()) is None for each in (first, *later))


@pytest.mark.parametrize(
    ("options", "copied"),
    [
        (b"", b""),
        (ROUTE, b""),
        (ALERT + ROUTE + ALERT, ALERT + ALERT),
        (NOTHING * 3 + bytes.fromhex("820300"), bytes.fromhex("820300")),
        (b"\0" + ALERT, b""),  # behind the end of the list nothing counts
    ],
)
def test_copied_options(options: bytes, copied: bytes) -> None:
    assert copied_options(options) == copied


def test_malformed_options_are_refused() -> None:
    with pytest.raises(WireError, match="ipv4_options"):
        fragment(dataclasses.replace(PACKET, options=b"\x07\x00\x04\x00"), 1500)
