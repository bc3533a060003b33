# SPDX-License-Identifier: Apache-2.0
"""The way out: from a destination to an interface and a next hop, and from a packet to frames on the link.
RFC 1122 sections 3.3.1 and 3.3.6, RFC 1812 section 5.2.4.

What is longer than the MTU leaves in fragments, or is refused when it must not be fragmented.
"""

from typing import Final

from halo_mp.stack.arrival import HandOver, Refusal
from halo_mp.stack.fragmentation import fragment
from halo_mp.stack.links import Links
from halo_mp.stack.neighbor import NeighborTable
from halo_mp.stack.outputs import Deliver, NeighborOutput
from halo_mp.stack.reasons import (
    INTERFACE_DOWN,
    IPV4_BLACKHOLE,
    IPV4_NO_ROUTE,
    IPV4_PROHIBITED,
    IPV4_UNREACHABLE,
    NEIGHBOR_UNRESOLVED,
)
from halo_mp.stack.route import Route, RouteKind
from halo_mp.wire import ethernet, icmpv4, ipv4
from halo_mp.wire.ipv4 import Ipv4Packet
from halo_mp.wire.octets import WireError

Way = tuple[NeighborTable, int]  # out of this table's interface, to this next hop

_REFUSED: Final = {
    RouteKind.NONE: (IPV4_NO_ROUTE, icmpv4.NET_UNREACHABLE),
    RouteKind.UNREACHABLE: (IPV4_UNREACHABLE, icmpv4.HOST_UNREACHABLE),
    RouteKind.PROHIBIT: (IPV4_PROHIBITED, icmpv4.ADMINISTRATIVELY_PROHIBITED),
}


class Sender:
    """Sends on the links that it is given. Nothing is kept here."""

    def __init__(self, links: Links) -> None:
        self._links = links

    def way(self, route: Route, dst: int) -> Way:
        """Where a route leads that is not LOCAL; Refusal or WireError when nowhere."""
        if route.kind is RouteKind.BLACKHOLE:
            raise WireError(IPV4_BLACKHOLE)
        if refused := _REFUSED.get(route.kind):
            raise Refusal(refused[0], icmpv4.UNREACHABLE, refused[1])
        table = self._links.tables.get(route.key)
        if table is None:
            raise Refusal(IPV4_NO_ROUTE, icmpv4.UNREACHABLE, icmpv4.NET_UNREACHABLE)
        is_gateway = route.kind is RouteKind.GATEWAY
        if not table.interface.up:
            code = icmpv4.NET_UNREACHABLE if is_gateway else icmpv4.HOST_UNREACHABLE
            raise Refusal(INTERFACE_DOWN, icmpv4.UNREACHABLE, code)
        return table, route.next_hop if is_gateway else dst

    def own_way(self, packet: Ipv4Packet, near: NeighborTable | None) -> Way:
        """Where a packet of ours goes: on the link that it answers to, if its destination is there."""
        if near is not None and near.interface.up and near.interface.contains(packet.dst):
            return near, packet.dst
        return self.way(self._links.lookup(packet.dst, packet), packet.dst)

    def check_home(self, way: Way, *, may_hand: bool) -> None:
        """HandOver, where that may be, when only the worker that keeps the neighbors of this link can find the next
        hop; Refusal when nobody keeps them.
        """
        table, next_hop = way
        if not table.foreign or table.interface.is_broadcast(next_hop) or ipv4.is_multicast(next_hop):
            return
        if table.knows(next_hop):
            return
        home = self._links.homes[table.interface.port]
        if home is None:
            raise Refusal(NEIGHBOR_UNRESOLVED, icmpv4.UNREACHABLE, icmpv4.HOST_UNREACHABLE)
        if may_hand:
            raise HandOver(home)

    def send(self, packet: Ipv4Packet, way: Way, reason: str, now: float) -> list[NeighborOutput]:
        """Send a packet, whole or in fragments; Refusal, for that reason, when it is too long to be sent."""
        mtu = way[0].interface.mtu
        return [out for part in fit(packet, mtu, reason) for out in self.transmit(part.emit(), way, now)]

    def transmit(self, octets: bytes, way: Way, now: float) -> list[NeighborOutput]:
        """Send a packet that fits."""
        table, next_hop = way
        interface = table.interface
        if interface.is_broadcast(next_hop):
            return [Deliver(*interface.key, octets, ethernet.BROADCAST)]
        if ipv4.is_multicast(next_hop):
            return [Deliver(*interface.key, octets, ethernet.multicast_mac(next_hop))]
        return table.resolve(next_hop, octets, now)


def fit(packet: Ipv4Packet, mtu: int, reason: str) -> list[Ipv4Packet]:
    """The packet, or its fragments; Refusal with the link's MTU when it must not be fragmented (RFC 1191)."""
    if packet.size_octets > mtu and packet.flags & ipv4.FLAG_DONT_FRAGMENT:
        raise Refusal(reason, icmpv4.UNREACHABLE, icmpv4.FRAGMENTATION_NEEDED, mtu)
    return fragment(packet, mtu)
