# SPDX-License-Identifier: Apache-2.0
"""The interfaces of one worker as its router has them: a neighbor table for each, and all own addresses.

`Links.update` goes from one set of interfaces to another: what both have keeps its neighbors, claims and held
packets; what is gone drops what it held by name; what is new begins to announce.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from halo_mp.stack.addresses import OwnAddresses
from halo_mp.stack.interface import Interface, Key
from halo_mp.stack.neighbor import NeighborTable
from halo_mp.stack.neighbor_cache import Neighbor, NeighborState
from halo_mp.stack.outputs import Forgotten, NeighborOutput
from halo_mp.stack.route import ConnectedRoutes, Lookup, Route
from halo_mp.wire import ipv4
from halo_mp.wire.ipv4 import Ipv4Packet

MakeTable = Callable[[Interface], NeighborTable]


class Links:
    """``lookup`` says where destinations are; without one, only what is on a link is found."""

    def __init__(self, make_table: MakeTable, *, lookup: Lookup | None, router_id: int) -> None:
        self.tables: dict[Key, NeighborTable] = {}
        self.addresses = OwnAddresses(router_id=router_id)
        # The slot whose worker keeps a port's neighbors, for each that is not ours; None: nobody does.
        self.homes: dict[int, int | None] = {}
        self.ports: frozenset[int] = frozenset()
        self._make_table = make_table
        self._lookup = lookup
        self._connected: Lookup = ConnectedRoutes(())
        self._router_id = router_id

    def __iter__(self) -> Iterator[NeighborTable]:
        return iter(self.tables.values())

    def update(
        self, interfaces: Iterable[Interface], homes: Mapping[int, int | None], now: float
    ) -> list[NeighborOutput]:
        """Use these interfaces from now on; ValueError when two of them are of one port and VLAN."""
        wanted = _by_key(interfaces)
        self.homes = dict(homes)
        self.ports = frozenset(port for port, _ in wanted)
        self.addresses = OwnAddresses(wanted.values(), router_id=self._router_id)
        self._connected = ConnectedRoutes(wanted.values())
        outputs, moved = self._close_others(wanted)
        for key, interface in wanted.items():
            outputs += self._go_on(key, interface, now)
        for key, neighbors in moved.items():
            outputs += self._take_over(self.tables[key], neighbors, now)
        return outputs

    def lookup(self, dst: int, packet: Ipv4Packet) -> Route:
        """Where the destination is."""
        return (self._lookup or self._connected)(dst, packet)

    def is_usable(self, address: int) -> bool:
        """Whether an own address may be answered for and sent from."""
        owner = self.addresses.owner(address)
        return owner is not None and self.tables[owner].is_usable(address)

    def may_speak_as(self, address: int) -> bool:
        """Whether packets of ours may come from the address: a usable one, or the router's own name."""
        if address in self.addresses:
            return self.is_usable(address)
        return address == self.addresses.router_id != 0

    def is_host(self, address: int) -> bool:
        """Whether a host can have the address: a packet may come from it, and an error may go to it."""
        return ipv4.is_unicast(address) and not self.addresses.is_broadcast(address)

    def _close_others(
        self, wanted: Mapping[Key, Interface]
    ) -> tuple[list[NeighborOutput], dict[Key, list[Neighbor]]]:
        """End the tables of interfaces that are gone, or whose neighbors have got another keeper: what those know
        is not forgotten.
        """
        outputs: list[NeighborOutput] = []
        moved: dict[Key, list[Neighbor]] = {}
        for key, table in list(self.tables.items()):
            if key not in wanted:
                outputs += self.tables.pop(key).close()
            elif table.foreign != (key[0] in self.homes):
                moved[key] = list(table)
                closed = self.tables.pop(key).close()
                outputs += [out for out in closed if not isinstance(out, Forgotten)]
        return outputs, moved

    def _take_over(
        self, table: NeighborTable, neighbors: Iterable[Neighbor], now: float
    ) -> list[NeighborOutput]:
        outputs: list[NeighborOutput] = []
        for each in neighbors:
            if each.mac is None or not table.interface.is_neighbor(each.address):
                continue
            if each.state is NeighborState.STATIC:
                outputs += table.set_static(each.address, each.mac, now)
            else:
                outputs += table.adopt(each.address, each.mac, now)
        return outputs

    def _go_on(self, key: Key, interface: Interface, now: float) -> list[NeighborOutput]:
        table = self.tables.get(key)
        is_new = table is None
        if table is None:
            table = self.tables[key] = self._make_table(interface)
        table.borrowed_address = self.addresses.router_id
        if is_new:
            return table.start(now)
        return [] if table.interface == interface else table.update(interface, now)


def _by_key(interfaces: Iterable[Interface]) -> dict[Key, Interface]:
    wanted: dict[Key, Interface] = {}
    for interface in interfaces:
        if interface.key in wanted:
            raise ValueError(f"port {interface.port}, VLAN {interface.vlan} has two interfaces")
        wanted[interface.key] = interface
    return wanted
