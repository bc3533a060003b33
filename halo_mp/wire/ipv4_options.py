# SPDX-License-Identifier: Apache-2.0
"""The options of an IPv4 header: RFC 791 section 3.1, RFC 2113 (router alert).

Refused as `ipv4_options`, with the octet of the header that is wrong (`OptionError`): a length below 2 or
beyond the end; a record route, source route or timestamp whose length, pointer or flag is impossible, or that
stands there twice; a router alert that is not 4 octets long. Unknown options are skipped by their length (RFC
1122 section 3.2.1.8). What follows an end-of-list is not looked at.

Each step of the walk goes forward by at least one octet, so at most 40 steps end it, whatever the octets are.
Options are copies, owned by who asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from halo_mp.wire.ipv4 import HEADER_OCTETS
from halo_mp.wire.octets import Octets, WireError
from halo_mp.wire.reasons import IPV4_OPTIONS

END_OF_LIST: Final = 0
NO_OPERATION: Final = 1
RECORD_ROUTE: Final = 7
TIMESTAMP: Final = 68
LOOSE_SOURCE_ROUTE: Final = 131
STRICT_SOURCE_ROUTE: Final = 137
ROUTER_ALERT: Final = 148
SOURCE_ROUTES: Final = frozenset((LOOSE_SOURCE_ROUTE, STRICT_SOURCE_ROUTE))

TIMESTAMP_ONLY: Final = 0
TIMESTAMP_AND_ADDRESS: Final = 1
TIMESTAMP_PRESPECIFIED: Final = 3

_ROUTES = SOURCE_ROUTES | {RECORD_ROUTE}
_ONCE = _ROUTES | {TIMESTAMP}


class OptionError(WireError):
    """An option that is wrong; ``pointer`` counts from the start of the header, as RFC 792's does."""

    def __init__(self, offset: int) -> None:
        super().__init__(IPV4_OPTIONS)
        self.pointer = HEADER_OCTETS + offset


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its kind, where it starts in the options, and all its octets (kind and length too)."""

    kind: int
    offset: int
    octets: bytes


def walk(options: Octets) -> Iterator[Option]:
    """The options in order up to the end of the list, without no-operations; OptionError at an overrun."""
    octets = bytes(options)
    at = 0
    while at < len(octets) and octets[at] != END_OF_LIST:
        if octets[at] == NO_OPERATION:
            at += 1
            continue
        length = octets[at + 1] if at + 1 < len(octets) else 0
        if length < 2 or at + length > len(octets):
            raise OptionError(min(at + 1, len(octets) - 1))
        yield Option(octets[at], at, octets[at : at + length])
        at += length


def check(options: Octets) -> str | None:
    """`ipv4_options`, or None."""
    try:
        parse(options)
    except WireError as error:
        return error.reason
    return None


def parse(options: Octets) -> tuple[Option, ...]:
    """All options; OptionError when one of them is malformed."""
    found = tuple(walk(options))
    seen: set[int] = set()
    for option in found:
        if option.kind in seen:
            raise OptionError(option.offset)
        if not _is_well_formed(option):
            raise OptionError(option.offset + (1 if option.kind == ROUTER_ALERT else 2))
        if option.kind in _ONCE:
            seen.add(option.kind)
    return found


def _is_well_formed(option: Option) -> bool:
    if option.kind in _ROUTES:
        return _is_route(option.octets)
    if option.kind == TIMESTAMP:
        return _is_timestamp(option.octets)
    return option.kind != ROUTER_ALERT or len(option.octets) == 4


def _is_route(octets: bytes) -> bool:
    """kind, length, pointer (from 1, so 4 is the first address), addresses."""
    return len(octets) >= 3 and len(octets) % 4 == 3 and octets[2] >= 4 and octets[2] % 4 == 0


def _is_timestamp(octets: bytes) -> bool:
    """kind, length, pointer (5 is the first entry), overflow and flag, entries of one or two words."""
    if len(octets) < 4 or len(octets) % 4 or octets[2] < 5:
        return False
    flag = octets[3] & 0xF
    if flag == TIMESTAMP_ONLY:
        return octets[2] % 4 == 1
    return flag in (TIMESTAMP_AND_ADDRESS, TIMESTAMP_PRESPECIFIED) and octets[2] % 8 == 5
