# SPDX-License-Identifier: Apache-2.0
"""Packets that go on: RFC 1812 sections 5.2.1, 5.2.7 and 5.3, RFC 3927 section 2.7, RFC 2644.

The received octets go on as they are, with a lower TTL and the checksum to it, so type of service,
identification, flags and unknown options stay. Record route and timestamp get our entry; who wants to choose the
route is refused before (`halo_mp.stack.router`).

In this order: is forwarding on (`ipv4_not_local`), may these addresses be forwarded (`ipv4_link_local`), is there a
route and its interface (`ipv4_no_route` and its kin, `interface_down`), may the subnet's broadcast be used
(`ipv4_directed_broadcast`), is there time to live (`ipv4_ttl`), does it fit (`ipv4_too_big`).
"""

import dataclasses
from typing import Final

from halo_mp.stack.arrival import Arrival, Refusal
from halo_mp.stack.icmp_errors import IcmpErrors, Subject
from halo_mp.stack.links import Links
from halo_mp.stack.option_records import record
from halo_mp.stack.outputs import NeighborOutput
from halo_mp.stack.reasons import (
    IPV4_DIRECTED_BROADCAST,
    IPV4_LINK_LOCAL,
    IPV4_NOT_LOCAL,
    IPV4_TOO_BIG,
    IPV4_TTL,
)
from halo_mp.stack.route import Route, RouteKind
from halo_mp.stack.sending import Sender, Way, fit
from halo_mp.wire import icmpv4, ipv4
from halo_mp.wire.checksum import update16
from halo_mp.wire.octets import Octets, WireError

_TTL_AT: Final = 8
_CHECKSUM_AT: Final = 10


class Forwarder:
    """Decides for packets that are not for us."""

    def __init__(self, links: Links, sender: Sender, errors: IcmpErrors, *, enabled: bool) -> None:
        self.enabled = enabled
        self._links = links
        self._sender = sender
        self._errors = errors

    def route(self, arrival: Arrival) -> Route:
        """Where the packet leads; WireError when it may lead nowhere. LOCAL is not for `forward`."""
        packet = arrival.packet
        if not self.enabled or not arrival.table.interface.forward:
            raise WireError(IPV4_NOT_LOCAL)
        if ipv4.is_link_local(packet.src) or ipv4.is_link_local(packet.dst):
            raise WireError(IPV4_LINK_LOCAL)
        return self._links.lookup(packet.dst, packet)

    def forward(self, arrival: Arrival, route: Route, now: float) -> list[NeighborOutput]:
        """Send the packet on; Refusal or WireError when it is dropped, HandOver when another worker has to."""
        packet = arrival.packet
        way = self._sender.way(route, packet.dst)
        if route.kind is RouteKind.BROADCAST or self._links.addresses.is_broadcast(packet.dst):
            self._check_broadcast(arrival, way)
        if packet.ttl <= 1:
            raise Refusal(IPV4_TTL, icmpv4.TIME_EXCEEDED, icmpv4.IN_TRANSIT)
        parts = self._parts(arrival, way, now)
        self._sender.check_home(way, may_hand=arrival.may_hand)
        outputs = [out for part in parts for out in self._sender.transmit(part, way, now)]
        return outputs + self._redirect(arrival, way, now)

    def _check_broadcast(self, arrival: Arrival, way: Way) -> None:
        """RFC 1812 section 5.3.5.2 as RFC 2644 has it: only where the interface allows it, and never back."""
        if way[0] is arrival.table or not way[0].interface.directed_broadcast:
            raise WireError(IPV4_DIRECTED_BROADCAST)

    def _parts(self, arrival: Arrival, way: Way, now: float) -> list[bytes]:
        """The packet as it leaves, in as many parts as the link needs."""
        mtu = way[0].interface.mtu
        if not arrival.packet.options and len(arrival.quote) <= mtu:
            return [lower_ttl(arrival.quote)]
        onward = dataclasses.replace(
            arrival.packet, ttl=arrival.packet.ttl - 1, options=self._recorded(arrival, way, now)
        )
        return [part.emit() for part in fit(onward, mtu, IPV4_TOO_BIG)]

    def _recorded(self, arrival: Arrival, way: Way, now: float) -> bytes:
        if not arrival.packet.options:
            return b""
        source = self._links.addresses.source(way[0].interface, way[1])
        return record(arrival.packet.options, source, now)

    def _redirect(self, arrival: Arrival, way: Way, now: float) -> list[NeighborOutput]:
        """RFC 1812 section 5.2.7.2: back on the link that it came from, to a neighbor of its source."""
        out, next_hop = way
        if out is not arrival.table or not out.interface.redirects:
            return []
        src = arrival.packet.src
        if not any(each.contains(src) and each.contains(next_hop) for each in out.interface.addresses):
            return []
        subject = Subject(arrival.packet, arrival.quote, out, arrival.to_stations)
        better = Refusal("", icmpv4.REDIRECT, icmpv4.REDIRECT_HOST, next_hop)
        return self._errors.tell(better, subject, now)


def lower_ttl(packet: Octets) -> bytes:
    """The packet with its TTL one lower, which must be above 0, and its checksum updated (RFC 1624)."""
    octets = bytearray(packet)
    word = octets[_TTL_AT] << 8 | octets[_TTL_AT + 1]
    octets[_TTL_AT] -= 1
    checksum = octets[_CHECKSUM_AT] << 8 | octets[_CHECKSUM_AT + 1]
    lowered = update16(checksum, old=word, new=word - 0x100)
    octets[_CHECKSUM_AT : _CHECKSUM_AT + 2] = lowered.to_bytes(2, "big")
    return bytes(octets)
