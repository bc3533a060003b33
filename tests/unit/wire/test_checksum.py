# SPDX-License-Identifier: Apache-2.0
import random

import pytest

from halo_mp.wire import checksum
from tests.unit.stack.checklist import meets
from tests.unit.wire.harness import reference_checksum

RFC_1071_EXAMPLE = bytes.fromhex("0001f203f4f5f6f7")


def test_sum_rfc_1071_example() -> None:
    assert checksum.ones_complement_sum(RFC_1071_EXAMPLE) == 0xDDF2
    assert checksum.internet_checksum(RFC_1071_EXAMPLE) == 0x220D


@pytest.mark.parametrize("octets", [b"", b"\0", b"\0\0", b"\xff\xff", b"\xff\xff\xff\xff", b"\xff", b"\0\1"])
def test_checksum_edges_equal_the_reference(octets: bytes) -> None:
    assert checksum.internet_checksum(octets) == reference_checksum(octets)


def test_checksum_every_length_equals_the_reference() -> None:
    for length in (*range(70), 1499, 1500, 9001, 65535):
        octets = random.Random(length).randbytes(length)
        assert checksum.internet_checksum(octets) == reference_checksum(octets), length
        assert checksum.internet_checksum(memoryview(octets)) == reference_checksum(octets), length


def test_checksum_stored_in_its_octets_gives_zero() -> None:
    octets = bytearray(random.Random(1).randbytes(40))
    octets[10:12] = bytes(2)
    octets[10:12] = checksum.internet_checksum(octets).to_bytes(2, "big")
    assert checksum.internet_checksum(octets) == 0
    octets[3] ^= 0x10
    assert checksum.internet_checksum(octets) != 0


def test_pseudo_header_sum_equals_its_octets() -> None:
    octets = bytes.fromhex("c0000201 c6336407 0011 0123")
    total = checksum.pseudo_header_sum(src=0xC0000201, dst=0xC6336407, protocol=17, length_octets=0x123)
    assert total == checksum.ones_complement_sum(octets)
    assert checksum.internet_checksum(b"abc", total) == reference_checksum(octets + b"abc")


def test_update16_rfc_1624_example_where_rfc_1141_gives_the_other_zero() -> None:
    assert checksum.update16(0xDD2F, old=0x5555, new=0x3285) == 0x0000


@meets("ttl.checksum")
def test_update16_every_ttl_equals_the_full_checksum() -> None:
    header = bytearray.fromhex("4500001c000040000001 0000 0a000001 0a000002")
    for ttl in range(1, 256):
        header[8] = ttl
        header[10:12] = bytes(2)
        before = reference_checksum(header)
        old = int.from_bytes(header[8:10], "big")
        header[8] -= 1
        assert checksum.update16(before, old=old, new=old - 0x100) == reference_checksum(header), ttl


def test_update_random_words_equals_the_full_checksum() -> None:
    rng = random.Random(1624)
    for _ in range(2000):
        octets = bytearray(rng.randbytes(20))
        octets[0] |= 1  # a header is never all zeros
        before = reference_checksum(octets)
        old = int.from_bytes(octets[12:16], "big")
        new = rng.choice((0, 0xFFFFFFFF, 0xFFFF0000, old, rng.getrandbits(32)))
        octets[12:16] = new.to_bytes(4, "big")
        assert checksum.update32(before, old=old, new=new) == reference_checksum(octets), (old, new)
