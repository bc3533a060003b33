# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from halo_mp.wire import ipv4
from halo_mp.wire.ipv4 import Ipv4Packet
from tests.unit.stack.checklist import meets
from tests.unit.wire.harness import emit_into_poison, reason_of, reference_checksum

# The header is the worked example of many textbooks, with its checksum b861.
HEADER = bytes.fromhex("4500 0073 0000 4000 4011 b861 c0a80001 c0a800c7")
OCTETS = HEADER + bytes(range(0x73 - 20))
VALUE = Ipv4Packet(
    src=0xC0A80001,
    dst=0xC0A800C7,
    protocol=17,
    payload=bytes(range(0x73 - 20)),
    ttl=64,
    flags=ipv4.FLAG_DONT_FRAGMENT,
)
WITH_OPTIONS = dataclasses.replace(VALUE, options=b"\x94\x04\0\0\x01\x01\x01\0", payload=b"data")


def broken(at: int, octets: bytes, *, of: bytes = OCTETS) -> bytes:
    """The packet with other octets at a place, and the header checksum that fits."""
    changed = bytearray(of)
    changed[at : at + len(octets)] = octets
    header_octets = max(20, (changed[0] & 0xF) * 4)
    changed[10:12] = bytes(2)
    changed[10:12] = reference_checksum(bytes(changed[:header_octets])).to_bytes(2, "big")
    return bytes(changed)


def test_parse_known_octets() -> None:
    assert ipv4.check(OCTETS) is None
    assert ipv4.parse(OCTETS) == VALUE


def test_emit_known_value() -> None:
    assert VALUE.emit() == OCTETS
    assert emit_into_poison(VALUE.size_octets, VALUE.emit_into) == OCTETS


def test_options_round_trip_as_octets() -> None:
    octets = WITH_OPTIONS.emit()
    assert octets[0] == 0x47
    assert octets[20:28] == WITH_OPTIONS.options
    assert reference_checksum(octets[:28]) == 0
    assert ipv4.parse(octets) == WITH_OPTIONS
    assert emit_into_poison(WITH_OPTIONS.size_octets, WITH_OPTIONS.emit_into) == octets


def test_emit_options_of_every_length_are_filled_with_end_of_list() -> None:
    for length in range(41):
        packet = dataclasses.replace(VALUE, options=b"\x01" * length)
        parsed = ipv4.parse(emit_into_poison(packet.size_octets, packet.emit_into))
        assert parsed.options == b"\x01" * length + bytes(-length % 4)
        assert parsed.payload == VALUE.payload


def test_parse_does_not_copy_the_payload() -> None:
    octets = bytearray(OCTETS)
    packet = ipv4.parse(memoryview(octets))
    octets[20] = 0x77
    assert packet.payload[0] == 0x77
    assert isinstance(packet.payload, memoryview)


@meets("receive.padding")
def test_parse_padding_is_ignored() -> None:
    assert ipv4.parse(OCTETS + b"\xa5" * 9) == VALUE


@pytest.mark.parametrize("packet", [VALUE, WITH_OPTIONS])
def test_truncated_at_every_length(packet: Ipv4Packet) -> None:
    octets = packet.emit()
    for length in range(len(octets)):
        expected = "ipv4_truncated" if length < 20 else "ipv4_total_length"
        assert ipv4.check(octets[:length]) == expected, length
        assert reason_of(ipv4.parse, octets[:length]) == expected


@meets("receive.version")
@pytest.mark.parametrize("version", [v for v in range(16) if v != 4])
def test_check_other_versions(version: int) -> None:
    assert ipv4.check(broken(0, bytes([version << 4 | 5]))) == "ipv4_version"


@meets("receive.version")
@pytest.mark.parametrize("ihl", range(5))
def test_check_header_length_that_lies_low(ihl: int) -> None:
    assert ipv4.check(broken(0, bytes([0x40 | ihl]))) == "ipv4_header_length"


@meets("receive.lengths", "old.total-length")
@pytest.mark.parametrize("total", [0, 1, 19, 0x74, 0x8000, 0xFFFF])
def test_check_total_length_that_lies(total: int) -> None:
    octets = broken(2, total.to_bytes(2, "big"))
    assert ipv4.check(octets) == "ipv4_total_length"
    assert reason_of(ipv4.parse, octets) == "ipv4_total_length"


def test_check_header_length_beyond_the_packet_or_the_octets() -> None:
    assert ipv4.check(broken(0, b"\x4f", of=WITH_OPTIONS.emit() + bytes(60))) == "ipv4_total_length"
    assert ipv4.check(broken(0, b"\x4f", of=WITH_OPTIONS.emit())) == "ipv4_total_length"


def test_parse_total_length_shorter_than_the_octets_cuts_the_payload() -> None:
    assert ipv4.parse(broken(2, b"\0\x16")).payload == b"\0\1"
    assert ipv4.parse(broken(2, b"\0\x14")).payload == b""


@meets("receive.checksum")
@pytest.mark.parametrize("at", range(2, 20))
def test_check_any_flipped_bit_breaks_the_checksum(at: int) -> None:
    if at in (2, 3):  # a lower total length, so that only the checksum can object
        octets = OCTETS[:2] + b"\0\x72" + OCTETS[4:]
    else:
        octets = OCTETS[:at] + bytes([OCTETS[at] ^ 0x20]) + OCTETS[at + 1 :]
    assert ipv4.check(octets) == "ipv4_checksum"


@pytest.mark.parametrize(
    ("flags", "offset", "fragment"),
    [(0, 0, False), (2, 0, False), (4, 0, False), (1, 0, True), (0, 8, True), (1, 65528, True)],
)
def test_fragment_fields_round_trip(flags: int, offset: int, fragment: bool) -> None:
    packet = dataclasses.replace(VALUE, flags=flags, fragment_offset_octets=offset, identification=0xBEEF)
    assert packet.is_fragment is fragment
    assert ipv4.parse(packet.emit()) == packet


def test_construct_impossible_values_is_refused() -> None:
    for wrong in (
        {"src": 1 << 32},
        {"dst": -1},
        {"protocol": 256},
        {"ttl": 256},
        {"tos": -1},
        {"identification": 1 << 16},
        {"flags": 8},
        {"fragment_offset_octets": 4},
        {"fragment_offset_octets": 65536},
        {"options": bytes(41)},
        {"payload": bytes(65516)},
        {"options": bytes(4), "payload": bytes(65512)},
    ):
        with pytest.raises(ValueError, match=r"."):
            dataclasses.replace(VALUE, **wrong)


def test_largest_packet_round_trips() -> None:
    packet = dataclasses.replace(VALUE, payload=bytes(65515))
    assert ipv4.parse(packet.emit()) == packet


def test_emit_into_small_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="114 octets, 115 are needed"):
        VALUE.emit_into(bytearray(114))


@pytest.mark.parametrize("text", ["0.0.0.0", "255.255.255.255", "192.0.2.1", "10.20.30.40"])
def test_address_text_round_trip(text: str) -> None:
    assert ipv4.format_address(ipv4.parse_address(text)) == text


def test_parse_address_is_in_host_order() -> None:
    assert ipv4.parse_address("192.0.2.1") == 0xC0000201


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.2.3", "1.2.3.4.5", "1.2.3.", ".1.2.3", "1..2.3", "256.0.0.1", "1.2.3.1000", "01.2.3.4", "1.2.3.00",
     "-1.2.3.4", "+1.2.3.4", " 1.2.3.4", "1.2.3.4 ", "1.2.3.4\n", "a.b.c.d", "0x1.2.3.4", "1.2.3.٤", "1.2.3.4/8"],
)  # fmt: skip
def test_parse_address_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an IPv4 address"):
        ipv4.parse_address(text)


@pytest.mark.parametrize("address", [-1, 1 << 32])
def test_format_address_out_of_range_is_refused(address: int) -> None:
    with pytest.raises(ValueError, match="32 bits"):
        ipv4.format_address(address)


@pytest.mark.parametrize(
    ("text", "unicast", "multicast", "loopback"),
    [
        ("0.0.0.0", False, False, False),
        ("0.1.2.3", False, False, False),
        ("1.0.0.0", True, False, False),
        ("126.255.255.255", True, False, False),
        ("127.0.0.1", False, False, True),
        ("128.0.0.0", True, False, False),
        ("223.255.255.255", True, False, False),
        ("224.0.0.0", False, True, False),
        ("239.255.255.255", False, True, False),
        ("240.0.0.0", False, False, False),
        ("255.255.255.255", False, False, False),
    ],
)
def test_address_kinds(text: str, unicast: bool, multicast: bool, loopback: bool) -> None:
    address = ipv4.parse_address(text)
    kinds = (ipv4.is_unicast(address), ipv4.is_multicast(address), ipv4.is_loopback(address))
    assert kinds == (unicast, multicast, loopback)
