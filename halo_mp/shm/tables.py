# SPDX-License-Identifier: Apache-2.0
"""The tables region: written by the supervisor only, read by workers without a lock.

There are two blocks of interfaces. The writer fills the one that is not active, then names it active, then
raises the epoch; a reader publishes the epoch that it read, and reads `active` behind that. A block is
written again only when every live worker has published an epoch of the last switch or later, or 0, which
says that it reads nothing.

Python's stores stay in program order on x86-64, the only machine this runs on so far; elsewhere `write`
needs a release.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from halo_mp.shm.layout import MAX_INTERFACES, RegionKind, ffi, lib, size_of
from halo_mp.shm.region import Region, region_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """An address of the stack on a port. A port without address has one interface with address 0: its MAC."""

    port: int
    mac: bytes
    mtu: int
    address: int = 0
    prefix_length: int = 0
    vlan: int = 0
    up: bool = True


def create_tables(instance: str, *, generation: int) -> Region:
    """Create the tables with no interface, at epoch 1. Raises EnvironmentProblem."""
    name = region_name(instance, "tables")
    region = Region.create(name, RegionKind.TABLES, size_of("halo_tables"), generation=generation)
    region.pointer.epoch = 1
    return region


class TablesWriter:
    """The one writer of the tables."""

    def __init__(self, region: Region) -> None:
        self._tables = region.pointer
        self._switched_at = int(self._tables.epoch)

    @property
    def epoch(self) -> int:
        """The current epoch, never 0."""
        return int(self._tables.epoch)

    def resume(self) -> None:
        """Go on after a writer that is dead, perhaps since the middle of a switch: let every reader look anew."""
        self._switched_at = int(self._tables.epoch) + 1
        self._tables.epoch = self._switched_at

    def can_write(self, reader_epochs: Iterable[int]) -> bool:
        """Tell from what every live worker has published whether nobody reads the inactive block."""
        return all(epoch == 0 or epoch >= self._switched_at for epoch in reader_epochs)

    def write(self, interfaces: Sequence[Interface]) -> int:
        """Fill the inactive block, switch to it, and return the new epoch. Only when `can_write` says so."""
        if len(interfaces) > MAX_INTERFACES:
            raise ValueError(f"{len(interfaces)} interfaces; the tables have room for {MAX_INTERFACES}")
        tables = self._tables
        inactive = 1 - tables.active
        block = tables.interfaces[inactive]
        for entry, interface in zip(block.entry, interfaces, strict=False):
            _fill(entry, interface)
        block.count = len(interfaces)
        tables.active = inactive
        self._switched_at = tables.epoch + 1
        tables.epoch = self._switched_at
        return self._switched_at


def read_interfaces(region: Region) -> tuple[Interface, ...]:
    """Return the interfaces of the active block, read again when the epoch moved meanwhile."""
    tables = region.pointer
    while True:
        epoch = tables.epoch
        block = tables.interfaces[tables.active]
        found = tuple(_read(block.entry[i]) for i in range(min(block.count, MAX_INTERFACES)))
        if tables.epoch == epoch:
            return found


def _fill(entry: Any, interface: Interface) -> None:
    entry.port = interface.port
    entry.prefix_length = interface.prefix_length
    entry.vlan = interface.vlan
    entry.address = interface.address
    entry.mac = interface.mac
    entry.mtu = interface.mtu
    entry.flags = lib.HALO_INTERFACE_UP if interface.up else 0


def _read(entry: Any) -> Interface:
    return Interface(
        port=entry.port,
        mac=bytes(ffi.buffer(entry.mac)),
        mtu=entry.mtu,
        address=entry.address,
        prefix_length=entry.prefix_length,
        vlan=entry.vlan,
        up=bool(entry.flags & lib.HALO_INTERFACE_UP),
    )
