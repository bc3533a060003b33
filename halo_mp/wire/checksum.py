# SPDX-License-Identifier: Apache-2.0
"""The internet checksum: RFC 1071, its incremental update (RFC 1624), the IPv4 pseudo-header (RFC 768).

The one's complement sum of 16-bit words is the number that the octets spell, modulo 65535: 65536 is congruent
to 1, so each word counts once wherever it stands. CPython computes that in two calls without a loop. One's
complement has two zeros, and a sum of something other than zeros is always the negative one, 0xffff.

Reads the caller's octets, keeps nothing.
"""

from halo_mp.wire.octets import Octets

_ALL_ONES = 0xFFFF


def _fold(number: int) -> int:
    """Any non-negative sum of words as one word: 0 only for 0."""
    return (number % _ALL_ONES or _ALL_ONES) if number else 0


def ones_complement_sum(octets: Octets, initial: int = 0) -> int:
    """The folded 16-bit sum of ``octets`` and ``initial``; an odd last octet gets a zero behind it."""
    number = int.from_bytes(octets, "big")
    if len(octets) & 1:
        number <<= 8
    return _fold(number + initial)


def internet_checksum(octets: Octets, initial: int = 0) -> int:
    """The checksum to store over ``octets`` whose checksum field is 0; over correct octets, the result is 0.

    ``initial`` is a sum computed before, such as that of a pseudo-header.
    """
    return ones_complement_sum(octets, initial) ^ _ALL_ONES


def pseudo_header_sum(*, src: int, dst: int, protocol: int, length_octets: int) -> int:
    """The sum of the IPv4 pseudo-header, for ``initial``. Addresses in host order."""
    return _fold((src >> 16) + (src & 0xFFFF) + (dst >> 16) + (dst & 0xFFFF) + protocol + length_octets)


def update16(checksum: int, *, old: int, new: int) -> int:
    """``checksum`` after a 16-bit word that it covers changed from ``old`` to ``new``.

    RFC 1624 equation 3, HC' = ~(~HC + ~m + m'): right where RFC 1141's form gives the other zero.
    """
    return _fold((checksum ^ _ALL_ONES) + (old ^ _ALL_ONES) + new) ^ _ALL_ONES


def update32(checksum: int, *, old: int, new: int) -> int:
    """As `update16`, for an aligned 32-bit field such as an address."""
    upper = update16(checksum, old=old >> 16, new=new >> 16)
    return update16(upper, old=old & 0xFFFF, new=new & 0xFFFF)
