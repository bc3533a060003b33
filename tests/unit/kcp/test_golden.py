# SPDX-License-Identifier: Apache-2.0
"""The golden octets keep to the formats they were written from: lengths, order of octets, checks."""

import struct
import zlib

import pytest

from tests.unit.kcp import golden
from tests.unit.kcp.golden import ControlPacket, Segment

HEADERS = {"classic": struct.Struct("<IBBHIIII"), "halo": struct.Struct("<QBBHIIII")}
MAGICS = {
    "syn": (0x000000FF, 0xFFFFFFFF),
    "est": (0x00000145, 0x14514545),
    "fin": (0x00000194, 0x19419494),
    "ping": (0x00000227, 0x22722727),
}


def xxh3_low(payload: bytes) -> int:
    """The low half of XXH3-64 of 1 to 3 octets, by the rule that golden.py states."""
    combined = payload[0] << 16 | payload[len(payload) // 2] << 24 | payload[-1] | len(payload) << 8
    value = combined ^ 0x396CFEB8 ^ 0xBE4BA423
    value ^= value >> 33
    value = value * 0xC2B2AE3D27D4EB4F % 2**64
    value ^= value >> 29
    value = value * 0x165667B19E3779F9 % 2**64
    return (value ^ value >> 32) & 0xFFFFFFFF


def test_stated_checks_follow_from_their_rules() -> None:
    assert zlib.crc32(b"abc") == golden.CRC32_ABC
    assert zlib.crc32(b"123456789") == golden.CRC32_DIGITS
    assert xxh3_low(b"abc") == golden.XXH3_ABC


@pytest.mark.parametrize("row", golden.SEGMENTS, ids=lambda row: row.name)
def test_segment_has_its_fields_in_their_places(row: Segment) -> None:
    header = HEADERS[row.format]
    assert header.size == {"classic": 24, "halo": 28}[row.format]
    fields = (row.conv, row.cmd, row.frg, row.wnd, row.ts, row.sn, row.una, len(row.payload))
    assert header.unpack_from(row.octets) == fields
    rest = row.octets[header.size :]
    if row.check != "off":
        made = {"zero": lambda _: 0, "crc32": zlib.crc32, "xxh3": xxh3_low}[row.check]
        check = made(row.payload) if row.cmd == golden.PUSH else 0
        assert rest[:4] == check.to_bytes(4, "little")
        rest = rest[4:]
    assert rest == row.payload


@pytest.mark.parametrize("row", golden.CONTROL_PACKETS, ids=lambda row: row.name)
def test_control_packet_has_its_fields_in_their_places(row: ControlPacket) -> None:
    head, tail = MAGICS[row.kind]
    assert struct.unpack(">5I", row.octets) == (head, row.session_id, row.random_half, row.event, tail)
