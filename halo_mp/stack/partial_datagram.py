# SPDX-License-Identifier: Apache-2.0
"""One datagram of which not every fragment has come: RFC 791 section 3.2, RFC 815 (holes), RFC 5722 (overlaps).

Fragments lie in the order of their offsets and never overlap, so the datagram is whole when their octets sum
up to its length, which the last fragment tells. A new one is compared with its two neighbors in that order
alone, found by bisection.

Fragments, and the octets of the frames that they came in, are owned by the datagram until it ends.
"""

import dataclasses
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from halo_mp.stack.reasons import (
    REASSEMBLY_DUPLICATE,
    REASSEMBLY_FRAGMENTS,
    REASSEMBLY_OVERLAP,
    REASSEMBLY_TOO_LONG,
)
from halo_mp.wire import ipv4
from halo_mp.wire.ipv4 import Ipv4Packet

# What Python's objects around a fragment take, roughly; counted in, or tiny fragments would cost many times
# their octets.
OVERHEAD_OCTETS: Final = 512

_CONGESTION_EXPERIENCED: Final = 3  # RFC 3168: both bits of the ECN field


@dataclass(frozen=True, slots=True)
class Fragment:
    """A fragment and the frame that it came in: its port, its VLAN, its octets."""

    packet: Ipv4Packet
    port: int
    vlan: int
    octets: bytes

    @property
    def start(self) -> int:
        return self.packet.fragment_offset_octets

    @property
    def end(self) -> int:
        return self.start + len(self.packet.payload)

    @property
    def is_last(self) -> bool:
        return not self.packet.flags & ipv4.FLAG_MORE_FRAGMENTS

    @property
    def charge_octets(self) -> int:
        """What it counts against the limit of memory."""
        return len(self.octets) + OVERHEAD_OCTETS


class PartialDatagram:
    """The fragments of one key. ``refused`` is the reason for which no more of them are taken."""

    def __init__(self) -> None:
        self.refused: str | None = None
        self._fragments: list[Fragment] = []
        self._starts: list[int] = []  # of the fragments, for the bisection
        self._payload_octets = 0
        self._end: int | None = None  # where the last fragment ends

    def __iter__(self) -> Iterator[Fragment]:
        return iter(self._fragments)

    @property
    def first(self) -> Fragment | None:
        """The fragment with the start of the datagram, if it has come."""
        return self._fragments[0] if self._fragments and self._fragments[0].start == 0 else None

    @property
    def is_complete(self) -> bool:
        return self._payload_octets == self._end

    def add(self, fragment: Fragment, limit: int) -> str | None:
        """Keep the fragment, at most ``limit`` of them; the drop reason when it is not kept.

        After any reason but `reassembly_duplicate` the datagram cannot be put together any more.
        """
        at = bisect_left(self._starts, fragment.start)
        if at < len(self._fragments) and _is_same(self._fragments[at], fragment):
            return REASSEMBLY_DUPLICATE
        if self._contradicts(fragment, at):
            return REASSEMBLY_OVERLAP
        if len(self._fragments) == limit:
            return REASSEMBLY_FRAGMENTS
        first = self._fragments[0] if at else fragment
        end = fragment.end if fragment.is_last else self._end
        # The first fragment's header may be longer than that of the last one: it has all the options.
        if end is not None and first.packet.header_octets + end > ipv4.MAX_PACKET_OCTETS:
            return REASSEMBLY_TOO_LONG
        self._fragments.insert(at, fragment)
        self._starts.insert(at, fragment.start)
        self._payload_octets += len(fragment.packet.payload)
        self._end = end
        return None

    def take(self) -> list[Fragment]:
        """All fragments, by offset; none are left."""
        taken, self._fragments, self._starts = self._fragments, [], []
        return taken

    def assemble(self) -> Ipv4Packet:
        """The whole packet, with the header of its first fragment. Its payload is a copy."""
        marks = [fragment.packet.tos & _CONGESTION_EXPERIENCED for fragment in self._fragments]
        first = self._fragments[0].packet
        return dataclasses.replace(
            first,
            payload=b"".join(fragment.packet.payload for fragment in self._fragments),
            tos=first.tos | (_CONGESTION_EXPERIENCED if _CONGESTION_EXPERIENCED in marks else 0),
            flags=first.flags & ~ipv4.FLAG_MORE_FRAGMENTS,
        )

    def _contradicts(self, fragment: Fragment, at: int) -> bool:
        """Whether it overlaps one of its neighbors, or tells another end of the datagram than they do."""
        if at and self._fragments[at - 1].end > fragment.start:
            return True
        if at < len(self._fragments):
            return fragment.is_last or fragment.end > self._fragments[at].start
        return self._end is not None


def _is_same(one: Fragment, other: Fragment) -> bool:
    return (
        one.start == other.start
        and one.is_last == other.is_last
        and one.packet.payload == other.packet.payload
    )
