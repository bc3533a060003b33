# SPDX-License-Identifier: Apache-2.0
"""The tables region: written by the supervisor only, read by workers without a lock.

There are two blocks of interfaces. The writer fills the one that is not active, then names it active, then
raises the epoch; a reader publishes the epoch that it read, and reads `active` behind that. A block is
written again only when every live worker has published an epoch of the last switch or later, or 0, which
says that it reads nothing. The epoch also moves, with nothing new here, when something else is to be reused
that workers may look at (`halo_mp.shm.fib`).

An interface keeps its place, which is its number, for as long as it is there: targets of the FIB name it.

Python's stores stay in program order on x86-64, the only machine this runs on so far; elsewhere `write`
needs a release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import Any

from halo_mp.shm.layout import MAX_ADDRESSES, MAX_INTERFACES, RegionKind, ffi, lib, size_of
from halo_mp.shm.region import Region, region_name
from halo_mp.shm.sockets import Socket, fill_sockets


class InterfaceFlag(IntFlag):
    """See enum halo_interface_flag."""

    NONE = 0
    UP = lib.HALO_INTERFACE_UP
    FORWARD = lib.HALO_INTERFACE_FORWARD
    DIRECTED_BROADCAST = lib.HALO_INTERFACE_DIRECTED_BROADCAST
    PROXY_ARP = lib.HALO_INTERFACE_PROXY_ARP
    REDIRECTS = lib.HALO_INTERFACE_REDIRECTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A port, or one VLAN of it. The first of its addresses is the primary one."""

    port: int
    mac: bytes
    mtu: int
    addresses: tuple[tuple[int, int], ...] = ()  # address in host order, prefix length
    vlan: int = 0
    home_slot: int = 0  # NO_SLOT where no queue of the port feeds one
    flags: InterfaceFlag = InterfaceFlag.UP | InterfaceFlag.FORWARD

    @property
    def key(self) -> tuple[int, int]:
        """Port and VLAN: what tells one interface from another."""
        return self.port, self.vlan


def interface_name(port: int, vlan: int) -> str:
    """Return what an interface is called by flags, files, the control socket and sentences."""
    return f"{port}.{vlan}" if vlan else str(port)


def create_tables(instance: str, *, generation: int) -> Region:
    """Create the tables with no interface, at epoch 1. Raises EnvironmentProblem."""
    name = region_name(instance, "tables")
    region = Region.create(name, RegionKind.TABLES, size_of("halo_tables"), generation=generation)
    region.pointer.epoch = 1
    return region


class TablesWriter:
    """The one writer of the tables."""

    def __init__(self, region: Region, on_written: Callable[[], None] = lambda: None) -> None:
        """`on_written` is called after each change, of the epoch alone too."""
        self._on_written = on_written
        self._tables = region.pointer
        self._switched_at = int(self._tables.epoch)

    @property
    def epoch(self) -> int:
        """The current epoch, never 0."""
        return int(self._tables.epoch)

    def resume(self) -> None:
        """Go on after a writer that is dead, perhaps since the middle of a switch: let every reader look anew."""
        self._tables.interface_generation += 1
        self._tables.socket_generation += 1
        self._switched_at = self.advance()

    def advance(self) -> int:
        """Raise the epoch, and return it: who publishes it, or 0, has finished with all that was unlinked before."""
        self._tables.epoch += 1
        self._on_written()
        return int(self._tables.epoch)

    def can_write(self, reader_epochs: Iterable[int]) -> bool:
        """Tell from what every live worker has published whether nobody reads the inactive block."""
        return all(epoch == 0 or epoch >= self._switched_at for epoch in reader_epochs)

    def write(self, interfaces: Mapping[int, Interface]) -> int:
        """Fill the inactive block, switch to it, and return the new epoch. Only when `can_write` says so.

        `interfaces` has each interface at its number. Raises ValueError when there are too many, or too many addresses.
        """
        count = max(interfaces, default=-1) + 1
        if count > MAX_INTERFACES:
            raise ValueError(f"{count} interfaces; the tables have room for {MAX_INTERFACES}")
        addresses = sum(len(interface.addresses) for interface in interfaces.values())
        if addresses > MAX_ADDRESSES:
            raise ValueError(f"{addresses} addresses; the tables have room for {MAX_ADDRESSES}")
        tables = self._tables
        inactive = 1 - tables.active
        block = tables.interfaces[inactive]
        ffi.memmove(ffi.addressof(block), bytes(ffi.sizeof(block)), ffi.sizeof(block))
        for number, interface in interfaces.items():
            _fill(block, number, interface)
        block.count = count
        tables.active = inactive
        tables.interface_generation += 1
        self._switched_at = self.advance()
        return self._switched_at

    def write_sockets(self, sockets: Iterable[Socket]) -> int:
        """Fill the inactive block of sockets, and switch as `write` does. Raises ValueError when there are too many."""
        fill_sockets(self._tables, sockets)
        self._switched_at = self.advance()
        return self._switched_at


def read_interfaces(region: Region) -> dict[int, Interface]:
    """Return the interfaces of the active block by number, read again when the epoch moved meanwhile."""
    tables = region.pointer
    while True:
        epoch = tables.epoch
        block = tables.interfaces[tables.active % 2]
        count = min(block.count, MAX_INTERFACES)
        found = {i: read_interface(block, block.entry[i]) for i in range(count) if block.entry[i].mtu}
        if tables.epoch == epoch:
            return found


def read_interface(block: Any, entry: Any) -> Interface:
    """Return an entry of a block, which has its addresses."""
    first = min(entry.first_address, MAX_ADDRESSES)
    last = min(first + entry.address_count, MAX_ADDRESSES)
    return Interface(
        port=entry.port,
        mac=bytes(ffi.buffer(entry.mac)),
        mtu=entry.mtu,
        addresses=tuple(
            (block.address[i].address, block.address[i].prefix_length) for i in range(first, last)
        ),
        vlan=entry.vlan,
        home_slot=entry.home_slot,
        flags=InterfaceFlag(entry.flags),
    )


def _fill(block: Any, number: int, interface: Interface) -> None:
    entry = block.entry[number]
    entry.port = interface.port
    entry.home_slot = interface.home_slot
    entry.vlan = interface.vlan
    entry.mac = interface.mac
    entry.mtu = interface.mtu
    entry.flags = interface.flags
    entry.first_address = block.address_count
    entry.address_count = len(interface.addresses)
    for address, prefix_length in interface.addresses:
        place = block.address[block.address_count]
        place.address, place.prefix_length, place.interface = address, prefix_length, number
        block.address_count += 1
