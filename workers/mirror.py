# SPDX-License-Identifier: Apache-2.0
"""What the Python stack decides about neighbors and routes, in the fast path's terms, and back.

The stack names interfaces by port and VLAN, the tables by their numbers. Neighbors that another worker keeps are
reported when they are used, so that it goes on keeping them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from halo_mp import logs
from halo_mp.shm import tables
from halo_mp.shm.fib import TargetKind
from halo_mp.shm.layout import NO_SLOT
from halo_mp.shm.tables import InterfaceFlag
from halo_mp.stack.interface import Address, Interface, Key
from halo_mp.stack.outputs import NeighborUpdate, Usability
from halo_mp.stack.route import NO_ROUTE, Route, RouteKind
from halo_mp.wire.ipv4 import PROTOCOL_TCP, PROTOCOL_UDP, Ipv4Packet
from halo_mp.workers.fastpath import FastPath, NeighborState

log = logs.get("worker")

_STATES: Final = {
    Usability.REACHABLE: NeighborState.REACHABLE,
    Usability.STALE: NeighborState.STALE,
    Usability.INCOMPLETE: NeighborState.INCOMPLETE,
    Usability.REPORT: NeighborState.REPORT,
    Usability.FAILED: NeighborState.FAILED,
}
_KINDS: Final[dict[int, RouteKind]] = {
    TargetKind.LOCAL: RouteKind.LOCAL,
    TargetKind.BROADCAST: RouteKind.BROADCAST,
    TargetKind.CONNECTED: RouteKind.CONNECTED,
    TargetKind.GATEWAY: RouteKind.GATEWAY,
}
_REFUSALS: Final[dict[int, RouteKind]] = {
    TargetKind.BLACKHOLE: RouteKind.BLACKHOLE,
    TargetKind.UNREACHABLE: RouteKind.UNREACHABLE,
    TargetKind.PROHIBIT: RouteKind.PROHIBIT,
}
_PORTS_OCTETS: Final = 4


class Mirror:
    """The interfaces of the tables by both names; neighbors one way, routes the other."""

    def __init__(self, fastpath: FastPath, *, slot: int) -> None:
        self._fastpath = fastpath
        self._slot = slot
        self._numbers: dict[Key, int] = {}
        self._keys: dict[int, Key] = {}
        self._full = False
        self.homes: dict[int, int | None] = {}
        """The slot whose worker keeps a port's neighbors, for each port of which that is not ours; None: nobody's."""

    def use(self, interfaces: Mapping[int, tables.Interface]) -> None:
        """Know these interfaces, and no others."""
        self._keys = {number: entry.key for number, entry in interfaces.items()}
        self._numbers = {entry.key: number for number, entry in interfaces.items()}
        self.homes = {
            entry.port: None if entry.home_slot == NO_SLOT else entry.home_slot
            for entry in interfaces.values()
            if entry.home_slot != self._slot
        }

    def key(self, number: int) -> Key | None:
        """Return the port and VLAN of an interface of the tables."""
        return self._keys.get(number)

    def update(self, update: NeighborUpdate) -> None:
        """Let the fast path know what the stack knows of a neighbor."""
        number = self._numbers.get((update.port, update.vlan))
        if number is None:
            return  # the fast path forgot its neighbors with the interface
        if update.usability is Usability.GONE:
            self._fastpath.remove_neighbor(number, update.address)
            return
        state = _STATES[update.usability]
        if self._fastpath.set_neighbor(number, update.address, update.mac, state) or self._full:
            return
        self._full = True  # slower and no worse: packets for it are punted
        log.warning("neighbor.not_mirrored", neighbors=self._fastpath.neighbor_count)

    def lookup(self, dst: int, packet: Ipv4Packet) -> Route:
        """Look up as the fast path does, past gateways that have failed; a `halo_mp.stack.route.Lookup`."""
        ports = (0, 0)
        if packet.protocol in (PROTOCOL_TCP, PROTOCOL_UDP) and not packet.is_fragment:
            octets = bytes(packet.payload[:_PORTS_OCTETS])
            if len(octets) == _PORTS_OCTETS:
                ports = int.from_bytes(octets[:2], "big"), int.from_bytes(octets[2:], "big")
        kind, number, address = self._fastpath.route(packet.src, dst, packet.protocol, *ports)
        if (refusal := _REFUSALS.get(kind)) is not None:
            return Route(refusal)
        found, key = _KINDS.get(kind), self._keys.get(number)
        if (
            found is None or key is None
        ):  # shared memory may hold anything, and an interface may be gone by now
            return NO_ROUTE
        return Route(found, *key, address)


def interface(entry: tables.Interface, *, probe: bool) -> Interface:
    """Return an interface of the tables as the stack has it. `probe`: its addresses before they are used."""
    flags = entry.flags
    return Interface(
        port=entry.port,
        vlan=entry.vlan,
        mac=entry.mac,
        mtu=entry.mtu,
        addresses=tuple(Address(address, length, probe=probe) for address, length in entry.addresses),
        up=bool(flags & InterfaceFlag.UP),
        forward=bool(flags & InterfaceFlag.FORWARD),
        directed_broadcast=bool(flags & InterfaceFlag.DIRECTED_BROADCAST),
        redirects=bool(flags & InterfaceFlag.REDIRECTS),
        proxy_arp=bool(flags & InterfaceFlag.PROXY_ARP),
    )
