# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from halo_mp.wire import udp
from halo_mp.wire.udp import UdpDatagram
from tests.unit.stack.checklist import meets
from tests.unit.wire.harness import emit_into_poison, reason_of, reference_checksum

SRC = 0xC0000201
DST = 0xC6336407
PSEUDO = bytes.fromhex("c0000201 c6336407 0011")
VALUE = UdpDatagram(53, 4000, b"hello")


def wire(datagram: UdpDatagram) -> bytes:
    return datagram.emit(src=SRC, dst=DST)


def check(octets: bytes) -> str | None:
    return udp.check(octets, src=SRC, dst=DST)


def parse(octets: bytes) -> UdpDatagram:
    return udp.parse(octets, src=SRC, dst=DST)


def with_fields(length: int, checksum: int, payload: bytes = b"hello") -> bytes:
    return bytes.fromhex("0035 0fa0") + length.to_bytes(2, "big") + checksum.to_bytes(2, "big") + payload


def test_emit_known_value() -> None:
    expected = reference_checksum(PSEUDO + b"\0\x0d" + with_fields(13, 0))
    assert wire(VALUE) == with_fields(13, expected)
    poisoned = emit_into_poison(VALUE.size_octets, lambda out: VALUE.emit_into(out, src=SRC, dst=DST))
    assert poisoned == wire(VALUE)


def test_parse_known_octets() -> None:
    assert check(wire(VALUE)) is None
    assert parse(wire(VALUE)) == VALUE


def test_parse_does_not_copy_the_payload() -> None:
    octets = bytearray(wire(VALUE))
    datagram = udp.parse(memoryview(octets), src=SRC, dst=DST)
    octets[8] = ord("j")
    assert datagram.payload == b"jello"


@pytest.mark.parametrize("length", [0, 1, 2, 17, 1472, 65527])
def test_payload_of_every_kind_of_length_round_trips(length: int) -> None:
    datagram = dataclasses.replace(VALUE, payload=b"\xa7" * length)
    assert parse(wire(datagram)) == datagram


def test_truncated_at_every_length() -> None:
    octets = wire(VALUE)
    for length in range(len(octets)):
        expected = "udp_truncated" if length < 8 else "udp_length"
        assert check(octets[:length]) == expected, length
        reason = reason_of(parse, octets[:length])
        assert reason == expected


@pytest.mark.parametrize("length", [*range(8), 14, 0x8000, 0xFFFF])
def test_length_that_lies_is_refused_even_without_checksum(length: int) -> None:
    assert check(with_fields(length, 0)) == "udp_length"
    assert reason_of(parse, with_fields(length, 0)) == "udp_length"


def test_parse_octets_behind_the_length_are_ignored() -> None:
    assert parse(wire(VALUE) + b"\xa5\xa5") == VALUE


@meets("old.udp-zero")
def test_parse_checksum_zero_means_none_and_is_accepted() -> None:
    datagram = parse(with_fields(13, 0))
    assert datagram == dataclasses.replace(VALUE, has_checksum=False)
    assert wire(datagram) == with_fields(13, 0)
    poisoned = emit_into_poison(13, lambda out: datagram.emit_into(out, src=SRC, dst=DST))
    assert poisoned == with_fields(13, 0)


@meets("old.udp-zero")
def test_emit_computed_zero_is_sent_as_ffff() -> None:
    sum_without = reference_checksum(PSEUDO + b"\0\x0a" + with_fields(10, 0, b"\0\0"))
    datagram = UdpDatagram(53, 4000, sum_without.to_bytes(2, "big"))
    assert wire(datagram)[6:8] == b"\xff\xff"
    assert parse(wire(datagram)) == datagram


@pytest.mark.parametrize("at", [0, 1, 2, 3, 6, 7, 8, 12])
def test_check_any_flipped_bit_breaks_the_checksum(at: int) -> None:
    octets = bytearray(wire(VALUE))
    octets[at] ^= 4
    assert check(bytes(octets)) == "udp_checksum"


def test_check_other_addresses_break_the_checksum() -> None:
    assert udp.check(wire(VALUE), src=SRC + 1, dst=DST) == "udp_checksum"
    assert udp.check(wire(VALUE), src=SRC, dst=DST + 1) == "udp_checksum"


def test_construct_impossible_values_is_refused() -> None:
    for wrong in ({"src_port": 65536}, {"dst_port": -1}, {"payload": bytes(65528)}):
        with pytest.raises(ValueError, match=r"."):
            dataclasses.replace(VALUE, **wrong)


def test_emit_into_small_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="12 octets, 13 are needed"):
        VALUE.emit_into(bytearray(12), src=SRC, dst=DST)
