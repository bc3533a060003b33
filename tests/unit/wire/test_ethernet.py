# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from halo_mp.wire import WireError, ethernet
from halo_mp.wire.ethernet import EthernetFrame, VlanTag
from tests.unit.wire.harness import emit_into_poison, reason_of

DST = bytes.fromhex("020000000001")
SRC = bytes.fromhex("02000000000a")
UNTAGGED = bytes.fromhex("020000000001 02000000000a 0800 01020304")
TAGGED = bytes.fromhex("020000000001 02000000000a 8100 b00a 0806 0102")
QINQ = bytes.fromhex("020000000001 02000000000a 88a8 0064 8100 0fff 0800 ff")
VALUES = [
    (UNTAGGED, EthernetFrame(DST, SRC, 0x0800, b"\1\2\3\4")),
    (TAGGED, EthernetFrame(DST, SRC, 0x0806, b"\1\2", (VlanTag(10, 5, True),))),
    (QINQ, EthernetFrame(DST, SRC, 0x0800, b"\xff", (VlanTag(100, tpid=0x88A8), VlanTag(4095)))),
]


@pytest.mark.parametrize(("octets", "value"), VALUES)
def test_parse_known_octets(octets: bytes, value: EthernetFrame) -> None:
    assert ethernet.check(octets) is None
    assert ethernet.parse(octets) == value
    assert ethernet.parse(bytearray(octets)) == value


@pytest.mark.parametrize(("octets", "value"), VALUES)
def test_emit_known_values(octets: bytes, value: EthernetFrame) -> None:
    assert value.emit() == octets
    assert value.size_octets == len(octets)
    assert emit_into_poison(value.size_octets, value.emit_into) == octets


def test_parse_does_not_copy_the_payload() -> None:
    octets = bytearray(TAGGED)
    frame = ethernet.parse(memoryview(octets))
    octets[18] = 0x77
    assert frame.payload == b"\x77\2"
    assert isinstance(frame.payload, memoryview)


def test_parse_header_changed_afterwards_keeps_the_value() -> None:
    octets = bytearray(QINQ)
    frame = ethernet.parse(octets)
    octets[:22] = bytes(22)
    assert (frame.dst, frame.src, frame.tags, frame.ethertype) == (DST, SRC, VALUES[2][1].tags, 0x0800)


@pytest.mark.parametrize("octets", [UNTAGGED, TAGGED, QINQ])
def test_truncated_at_every_length(octets: bytes) -> None:
    header_octets = ethernet.parse(octets).size_octets - len(ethernet.parse(octets).payload)
    for length in range(header_octets):
        expected = "runt" if length < 14 else "vlan_truncated"
        assert ethernet.check(octets[:length]) == expected, length
        assert reason_of(ethernet.parse, octets[:length]) == expected
    for length in range(header_octets, len(octets)):
        assert ethernet.parse(octets[:length]).payload == octets[header_octets:length]


def test_truncated_between_the_tags_of_a_minimal_frame() -> None:
    assert ethernet.check(UNTAGGED[:12] + b"\x81\0") == "vlan_truncated"
    assert ethernet.check(UNTAGGED[:12] + b"\x81\0\0\1\x81\0") == "vlan_truncated"


def test_parse_third_tag_is_an_ethertype() -> None:
    octets = UNTAGGED[:12] + bytes.fromhex("8100 0001 8100 0002 8100 0003 0800")
    frame = ethernet.parse(octets)
    assert [tag.vid for tag in frame.tags] == [1, 2]
    assert frame.ethertype == 0x8100
    assert frame.emit() == octets


def test_parse_ieee_802_3_length_is_passed_on() -> None:
    assert ethernet.parse(UNTAGGED[:12] + b"\0\x04data").ethertype == 4


@pytest.mark.parametrize("priority", range(8))
def test_tag_priority_and_drop_eligible_round_trip(priority: int) -> None:
    for drop_eligible in (False, True):
        tag = VlanTag(0, priority, drop_eligible)
        assert ethernet.parse(EthernetFrame(DST, SRC, 0x0800, b"", (tag,)).emit()).tags == (tag,)


def test_emit_into_small_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="17 octets, 18 are needed"):
        VALUES[0][1].emit_into(bytearray(17))


def test_construct_impossible_values_is_refused() -> None:
    frame = VALUES[0][1]
    tag = VlanTag(1)
    for wrong in (
        {"dst": DST[:5]},
        {"src": SRC + b"\0"},
        {"ethertype": 0x10000},
        {"ethertype": -1},
        {"ethertype": 0x8100},
        {"tags": (tag, tag, tag)},
    ):
        with pytest.raises(ValueError, match=r"."):
            dataclasses.replace(frame, **wrong)
    for vid, priority, tpid in ((4096, 0, 0x8100), (-1, 0, 0x8100), (1, 8, 0x8100), (1, 0, 0x9100)):
        with pytest.raises(ValueError, match=r"."):
            VlanTag(vid, priority, tpid=tpid)


def test_pad_short_frame_is_filled_with_zeros() -> None:
    assert ethernet.pad(UNTAGGED) == UNTAGGED + bytes(60 - len(UNTAGGED))
    assert ethernet.pad(bytes(61)) == bytes(61)


def test_mac_kinds() -> None:
    assert ethernet.is_broadcast(ethernet.BROADCAST)
    assert ethernet.is_multicast(ethernet.BROADCAST)
    assert ethernet.is_multicast(bytes.fromhex("01005e000001"))
    assert not ethernet.is_broadcast(bytes.fromhex("01005e000001"))
    assert ethernet.is_unicast(DST)
    assert not ethernet.is_multicast(DST)
    assert not ethernet.is_unicast(bytes(6))
    assert not ethernet.is_unicast(ethernet.BROADCAST)


def test_multicast_mac_keeps_23_bits() -> None:
    assert ethernet.multicast_mac(0xE0000001) == bytes.fromhex("01005e000001")
    assert ethernet.multicast_mac(0xEFFFFFFF) == bytes.fromhex("01005e7fffff")


def test_mac_text_round_trip() -> None:
    assert ethernet.parse_mac("02:00:00:00:00:0A") == SRC
    assert ethernet.format_mac(SRC) == "02:00:00:00:00:0a"


@pytest.mark.parametrize(
    "text",
    ["", "02", "02:00:00:00:00", "02:00:00:00:00:00:01", "02-00-00-00-00-01", "2:0:0:0:0:1", "0g:00:00:00:00:01",
     "020000000001", "02:00:00:00:00:01\n", " 02:00:00:00:00:01", "02:00:00:00:00:0１"],
)  # fmt: skip
def test_parse_mac_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a MAC address"):
        ethernet.parse_mac(text)


def test_format_mac_of_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="5 octets"):
        ethernet.format_mac(bytes(5))


def test_parse_raises_only_wire_errors_that_check_names() -> None:
    with pytest.raises(WireError, match=r"^runt$"):
        ethernet.parse(b"")
