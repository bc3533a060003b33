# SPDX-License-Identifier: Apache-2.0
"""The checks of KCP's payloads against zlib, and against the vectors that XXH3's author publishes."""

import random
import zlib

import pytest

from halo_mp._native import ffi, lib
from tests.unit.kcp import golden

CRC32 = 2
XXH3 = 3

# Length and XXH3-64, seed 0, of the buffer that xxHash's own self-test makes (`sanity_buffer`).
PUBLISHED = {
    0: 0x2D06800538D394C2,
    1: 0xC44BDFF4074EECDB,
    6: 0x27B56A84CD2D7325,
    12: 0xA713DAF0DFBB77E7,
    24: 0xA3FE70BF9D3510EB,
    48: 0x397DA259ECBA1F11,
    80: 0xBCDEFBBB2C47C90A,
    195: 0xCD94217EE362EC3A,
    403: 0xCDEB804D65C6DEA4,
    512: 0x617E49599013CB6B,
    2048: 0xDD59E2C3A5F038E0,
    2240: 0x6E73A90539CF2948,
    2367: 0xCB37AEB9E5D361ED,
}


def sanity_buffer(length: int) -> bytes:
    octets = bytearray()
    state = 2654435761
    for _ in range(length):
        octets.append(state >> 56)
        state = state * 11400714785074694797 % 2**64
    return bytes(octets)


def check(kind: int, octets: bytes) -> int:
    return lib.halo_kcp_check_value(kind, ffi.from_buffer(octets), len(octets))


def test_crc32_is_zlibs_at_every_length_and_alignment() -> None:
    octets = random.Random(1).randbytes(2100)
    view = memoryview(octets)
    for length in [*range(260), 1372, 1376, 2047, 2048]:
        for begin in (0, 1, 3, 8):
            part = view[begin : begin + length]
            got = lib.halo_kcp_check_value(CRC32, ffi.from_buffer(part), length)
            assert got == zlib.crc32(part), (length, begin)


def test_crc32_of_each_single_bit_differs() -> None:
    values = {check(CRC32, (1 << bit).to_bytes(172, "little")) for bit in range(172 * 8)}
    assert len(values) == 172 * 8


@pytest.mark.parametrize("length", PUBLISHED)
def test_xxh3_is_the_low_half_of_the_published_hash(length: int) -> None:
    assert check(XXH3, sanity_buffer(length)) == PUBLISHED[length] & 0xFFFFFFFF


def test_checks_are_the_golden_ones() -> None:
    assert check(CRC32, b"abc") == golden.CRC32_ABC
    assert check(CRC32, b"123456789") == golden.CRC32_DIGITS
    assert check(XXH3, b"abc") == golden.XXH3_ABC
    assert check(XXH3, b"") == golden.XXH3_EMPTY


@pytest.mark.parametrize("kind", [0, 1, 4, 0xFFFFFFFF])
def test_other_modes_have_no_value(kind: int) -> None:
    assert check(kind, b"abc") == 0
