# SPDX-License-Identifier: Apache-2.0
"""Reassembly of IPv4 datagrams: RFC 791 section 3.2, RFC 815, RFC 1122 section 3.3.2, RFC 5722's rule for
overlaps.

A datagram is known by source, destination, protocol and identification.

=========== =================================== ================================================== ==========
state       event                               action                                             next
=========== =================================== ================================================== ==========
(none)      fragment                            keep it; the time-out begins                       PARTIAL
PARTIAL     fragment that fits                  keep it                                            PARTIAL
PARTIAL     the same fragment again             drop it: `reassembly_duplicate`                    PARTIAL
PARTIAL     the last one missing                hand out the whole packet                          (none)
PARTIAL     one that overlaps, or contradicts   drop all: `reassembly_overlap`                     REFUSED
            where the datagram ends
PARTIAL     one more than ``fragments``         drop all: `reassembly_fragments`                   REFUSED
PARTIAL     one that ends past 65,535 octets    drop all: `reassembly_too_long`                    REFUSED
PARTIAL     ``timeout_s``                       drop all: `reassembly_timeout`; Expiry             (none)
PARTIAL     no room for another, least          drop all: `reassembly_full`                        (none)
            recently used
REFUSED     fragment                            drop it, for the same reason                       REFUSED
REFUSED     ``timeout_s``, or no room           nothing                                            (none)
=========== =================================== ================================================== ==========

REFUSED remembers, without any octets, what RFC 5722 asks for: fragments that come later end as well. Fragments
that no datagram can have are dropped before they are compared with any: `ipv4_fragment` (empty, or in the
middle and no multiple of 8 octets), `reassembly_too_long` (beyond 65,535 octets).

A fragment costs a bisection among those of its own datagram, and each that was kept is taken out once. Kept
fragments, and the frames that they came in, are owned here until they come back in a Drop.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from halo_mp.stack.deadlines import Deadlines
from halo_mp.stack.outputs import Drop
from halo_mp.stack.partial_datagram import Fragment, PartialDatagram
from halo_mp.stack.reasons import (
    REASSEMBLY_DUPLICATE,
    REASSEMBLY_FULL,
    REASSEMBLY_TIMEOUT,
    REASSEMBLY_TOO_LONG,
)
from halo_mp.stack.reassembly_settings import ReassemblySettings
from halo_mp.wire import ipv4
from halo_mp.wire.ipv4 import Ipv4Packet
from halo_mp.wire.reasons import IPV4_FRAGMENT

Key = tuple[int, int, int, int]  # source, destination, protocol, identification


@dataclass(frozen=True, slots=True)
class Result:
    """What a fragment led to: the whole packet, if it was the last one missing, and what ended for it."""

    packet: Ipv4Packet | None = None
    drops: list[Drop] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Expiry:
    """A datagram that was not completed in time; ``first`` is its fragment at offset 0, if that had come."""

    first: Fragment | None
    drops: list[Drop]


class Reassembler:
    """The state machine above, for all datagrams. ``drops`` counts by reason what ended here."""

    def __init__(
        self, settings: ReassemblySettings | None = None, *, drops: Counter[str] | None = None
    ) -> None:
        self.drops: Counter[str] = Counter() if drops is None else drops
        self._settings = settings or ReassemblySettings()
        self._datagrams: OrderedDict[Key, PartialDatagram] = OrderedDict()  # the least recently used first
        self._deadlines: Deadlines[Key] = Deadlines()
        self._octets = 0

    def __len__(self) -> int:
        """Datagrams that are known, the refused ones too."""
        return len(self._datagrams)

    @property
    def octets(self) -> int:
        """What is kept: the octets of frames, and what Python takes around them."""
        return self._octets

    def receive(self, fragment: Fragment, now: float) -> Result:
        """Take a fragment whose header is good. It is kept, or part of the result."""
        if reason := check(fragment.packet):
            return Result(drops=[self._drop(fragment, reason)])
        packet = fragment.packet
        key = (packet.src, packet.dst, packet.protocol, packet.identification)
        datagram = self._find(key, now)
        reason = datagram.refused or datagram.add(fragment, self._settings.fragments)
        if reason == REASSEMBLY_DUPLICATE or (reason and datagram.refused):
            return Result(drops=[self._drop(fragment, reason)])
        if reason:
            return Result(drops=self._refuse(datagram, fragment, reason))
        self._octets += fragment.charge_octets
        if datagram.is_complete:
            whole = datagram.assemble()
            self._remove(key)
            return Result(whole)
        return Result(drops=self._make_room())

    def poll(self, now: float) -> list[Expiry]:
        """End what has waited too long."""
        return [self._expire(key) for key in self._deadlines.take_due(now, len(self._datagrams))]

    def next_deadline(self) -> float | None:
        """When `poll` has something to do."""
        return self._deadlines.next()

    def _find(self, key: Key, now: float) -> PartialDatagram:
        datagram = self._datagrams.get(key)
        if datagram is None:
            datagram = self._datagrams[key] = PartialDatagram()
            self._deadlines.set(key, now + self._settings.timeout_s)
        self._datagrams.move_to_end(key)
        return datagram

    def _refuse(self, datagram: PartialDatagram, fragment: Fragment, reason: str) -> list[Drop]:
        """Drop all that is kept, and the fragment."""
        datagram.refused = reason
        return [self._drop(each, reason) for each in (*self._take(datagram), fragment)]

    def _expire(self, key: Key) -> Expiry:
        first = self._datagrams[key].first
        return Expiry(first, [self._drop(each, REASSEMBLY_TIMEOUT) for each in self._remove(key)])

    def _make_room(self) -> list[Drop]:
        """End the datagrams that were used least recently, until all bounds are kept."""
        drops: list[Drop] = []
        while len(self._datagrams) > self._settings.datagrams or self._octets > self._settings.octets:
            oldest = next(iter(self._datagrams))
            drops += (self._drop(each, REASSEMBLY_FULL) for each in self._remove(oldest))
        return drops

    def _remove(self, key: Key) -> list[Fragment]:
        self._deadlines.cancel(key)
        return self._take(self._datagrams.pop(key))

    def _take(self, datagram: PartialDatagram) -> list[Fragment]:
        taken = datagram.take()
        self._octets -= sum(fragment.charge_octets for fragment in taken)
        return taken

    def _drop(self, fragment: Fragment, reason: str) -> Drop:
        self.drops[reason] += 1
        return Drop(fragment.port, reason, fragment.octets)


def check(packet: Ipv4Packet) -> str | None:
    """The drop reason of a fragment that no datagram can have, or None."""
    payload_octets = len(packet.payload)
    if not payload_octets or (packet.flags & ipv4.FLAG_MORE_FRAGMENTS and payload_octets % 8):
        return IPV4_FRAGMENT
    if packet.fragment_offset_octets + packet.size_octets > ipv4.MAX_PACKET_OCTETS:
        return REASSEMBLY_TOO_LONG
    return None
