# SPDX-License-Identifier: Apache-2.0
"""How things are that were touched, as clients are told: the same values as lists have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address

from halo_mp.control.messages import Place
from halo_mp.control.public import InterfaceInfo, NeighborInfo, RouteInfo
from halo_mp.shm.tables import interface_name
from halo_mp.supervisor.config_model import (
    InterfaceConfig,
)
from halo_mp.supervisor.published import Published
from halo_mp.supervisor.routes import Route


class Describer:
    """Looks at what one supervisor publishes."""

    def __init__(
        self,
        published: Published,
        interface: Callable[[InterfaceConfig], InterfaceInfo],
        route: Callable[[Route], RouteInfo],
    ) -> None:
        """`interface` and `route` make what lists show."""
        self._published = published
        self._interface = interface
        self._route = route
        self._names: dict[int, str] = {}  # of interfaces, those that are gone among them

    def neighbors(self, places: Sequence[Place]) -> Iterator[tuple[str, NeighborInfo | None]]:
        """Describe neighbors by port, VLAN and address."""
        static = {
            (each.port, each.vlan, each.address): each.mac for each in self._published.running.neighbors
        }
        for place in places:
            port, vlan, number = place
            interface, address = interface_name(port, vlan), str(IPv4Address(number))
            mac = static.get(place) or self._published.neighbors.mac(place)
            found = None
            if mac is not None:
                found = NeighborInfo(
                    interface=interface, address=address, mac=mac.hex(":"), static=place in static
                )
            yield f"{address}@{interface}", found

    def interface_numbers(self) -> list[int]:
        """Return the numbers of the interfaces that there are."""
        return [each.number for each in self._published.running.interfaces]

    def interfaces(self, numbers: Sequence[int]) -> Iterator[tuple[str, InterfaceInfo | None]]:
        """Describe interfaces by number."""
        there = {each.number: each for each in self._published.running.interfaces}
        self._names.update((number, each.name) for number, each in there.items())
        for number in numbers:
            found = there.get(number)
            yield self._names.get(number, str(number)), None if found is None else self._interface(found)

    def routes(self, prefixes: Sequence[tuple[int, int]]) -> Iterator[tuple[str, RouteInfo | None]]:
        """Describe routes by prefix and length."""
        for prefix, length in prefixes:
            route = self._published.routes.find(prefix, length)
            name = f"{IPv4Address(prefix)}/{length}"
            yield name, None if route is None else self._route(route)
