# SPDX-License-Identifier: Apache-2.0
"""What a look-up of a destination leads to, and the routes that interfaces bring by themselves. No clock.

The worker looks up in the tables that the fast path uses too (`Lookup`). Where there are none, the subnets of
the interfaces are all there is: `ConnectedRoutes`, which is a scan and made for few of them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from halo_mp.stack.interface import Address, Interface, Key
from halo_mp.wire.ipv4 import Ipv4Packet


class RouteKind(Enum):
    """Of several next hops, the look-up has chosen one already."""

    NONE = auto()  # nothing leads there
    LOCAL = auto()  # an address of ours
    BROADCAST = auto()  # the broadcast address of a subnet of the interface
    CONNECTED = auto()  # the destination is on the interface's link
    GATEWAY = auto()  # ``next_hop`` is on the interface's link
    BLACKHOLE = auto()  # dropped, and nobody hears of it
    UNREACHABLE = auto()  # dropped, and told: host unreachable
    PROHIBIT = auto()  # dropped, and told: prohibited


@dataclass(frozen=True, slots=True)
class Route:
    """``port`` and ``vlan`` name the interface of the kinds that have one; ``next_hop`` is a gateway's."""

    kind: RouteKind
    port: int = 0
    vlan: int = 0
    next_hop: int = 0

    @property
    def key(self) -> Key:
        return self.port, self.vlan


NO_ROUTE = Route(RouteKind.NONE)

# The destination, and the packet, by which flow one of several equal next hops is chosen.
Lookup = Callable[[int, Ipv4Packet], Route]


class ConnectedRoutes:
    """A `Lookup` that knows interfaces and nothing else; the longest prefix wins, then the first interface."""

    def __init__(self, interfaces: Iterable[Interface]) -> None:
        own = [(each, interface) for interface in interfaces for each in interface.addresses]
        self._local = {each.address: Route(RouteKind.LOCAL, *interface.key) for each, interface in own}
        self._subnets: list[tuple[Address, Key]] = [(each, interface.key) for each, interface in own]
        self._subnets.sort(key=lambda subnet: -subnet[0].prefix_length)

    def __call__(self, dst: int, packet: Ipv4Packet) -> Route:
        if local := self._local.get(dst):
            return local
        for subnet, key in self._subnets:
            if subnet.contains(dst):
                kind = RouteKind.BROADCAST if subnet.is_broadcast(dst) else RouteKind.CONNECTED
                return Route(kind, *key)
        return NO_ROUTE
