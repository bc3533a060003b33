# SPDX-License-Identifier: Apache-2.0
"""What the tests of every header share."""

from collections.abc import Callable
from typing import TypeVar

from halo_mp.wire import WireError

T = TypeVar("T")

POISON = 0xA5
_SPARE_OCTETS = 7


def emit_into_poison(size_octets: int, emit_into: Callable[[memoryview], int]) -> bytes:
    """What emit_into writes to a buffer full of poison; it must return the size and leave the rest alone."""
    buffer = bytearray([POISON]) * (size_octets + _SPARE_OCTETS)
    assert emit_into(memoryview(buffer)) == size_octets
    assert buffer[size_octets:] == bytearray([POISON]) * _SPARE_OCTETS
    return bytes(buffer[:size_octets])


def reason_of(parse: Callable[[T], object], argument: T) -> str:
    """The reason with which parse refuses."""
    try:
        value = parse(argument)
    except WireError as error:
        return error.reason
    raise AssertionError(f"parsed: {value}")


def reference_checksum(octets: bytes | bytearray) -> int:
    """RFC 1071 section 4.1, word by word."""
    total = 0
    for at in range(0, len(octets), 2):
        total += int.from_bytes(octets[at : at + 2].ljust(2, b"\0"), "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
