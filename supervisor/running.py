# SPDX-License-Identifier: Apache-2.0
"""Interfaces and static neighbors as they are wanted at present: as configured, and changed at run time since.

Values and pure functions. Each change returns what it leads to, or raises RefusedError with a sentence; what comes of
it is the matter of `published`. Saved in the state file, so that the next supervisor knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from halo_mp.shm.layout import MAX_ADDRESSES, MAX_INTERFACES
from halo_mp.shm.tables import interface_name
from halo_mp.supervisor.config_interfaces import LEAST_MTU, overlap
from halo_mp.supervisor.config_model import (
    AddressConfig,
    Config,
    InterfaceConfig,
    NeighborConfig,
)

MAX_NEIGHBORS = 4096
"""Static ones: they are kept in the state file, and told to each worker that starts."""

Key = tuple[int, int]


class RefusedError(Exception):
    """What was asked for can not be done; `str()` is the sentence for who asked."""


@dataclass(frozen=True, slots=True)
class Running:
    """What is wanted of an instance that runs."""

    interfaces: tuple[InterfaceConfig, ...]
    neighbors: tuple[NeighborConfig, ...]

    @classmethod
    def of(cls, config: Config) -> Running:
        """Return what an instance starts with."""
        return cls(config.interfaces, config.neighbors)

    def interface(self, key: Key) -> InterfaceConfig:
        """Return an interface by port and VLAN. Raises RefusedError."""
        found = next((each for each in self.interfaces if each.key == key), None)
        if found is None:
            names = ", ".join(each.name for each in self.interfaces)
            raise RefusedError(f"there is no interface {interface_name(*key)}; there are {names}.")
        return found


def with_address(running: Running, key: Key, address: AddressConfig, *, primary: bool = False) -> Running:
    """Return the same with one address more. A VLAN that is named for the first time becomes an interface."""
    owner = _owner(running, address.address)
    if owner is not None:
        sentence = f"{IPv4Address(address.address)} is an address of interface {owner.name} already"
        raise RefusedError(f"{sentence}; delete it there first.")
    if sum(len(each.addresses) for each in running.interfaces) >= MAX_ADDRESSES:
        raise RefusedError(f"there are {MAX_ADDRESSES} addresses already, and room for no more.")
    running = _with_interface(running, key)
    before = running.interface(key).addresses
    after = (address, *before) if primary else (*before, address)
    changed = _replaced(running, dataclasses.replace(running.interface(key), addresses=after))
    if problem := overlap(changed.interfaces):
        raise RefusedError(f"{problem}.")
    # A static neighbor of that address would be ourselves.
    kept = tuple(each for each in changed.neighbors if each.address != address.address)
    return dataclasses.replace(changed, neighbors=kept)


def without_address(running: Running, key: Key, address: AddressConfig) -> Running:
    """Return the same without an address."""
    interface = running.interface(key)
    if address not in interface.addresses:
        has = ", ".join(map(str, interface.addresses)) or "none"
        raise RefusedError(f"interface {interface.name} has no address {address}; it has {has}.")
    after = tuple(each for each in interface.addresses if each != address)
    return _replaced(running, dataclasses.replace(interface, addresses=after))


def with_settings(running: Running, key: Key, most_mtu: int, **settings: Any) -> Running:
    """Return the same with other settings of an interface: `up`, `mtu` up to its device's, `forward` and so on.

    No VLAN keeps a longer MTU than its port has.
    """
    interface = running.interface(key)
    mtu = settings.get("mtu", LEAST_MTU)
    if not LEAST_MTU <= mtu <= most_mtu:
        sentence = f"an MTU of {mtu} is not possible on interface {interface.name}"
        raise RefusedError(f"{sentence}, but {LEAST_MTU} to {most_mtu}: the port was started for no more.")
    changed = _replaced(running, dataclasses.replace(interface, **settings))
    if "mtu" not in settings or interface.vlan:
        return changed
    return dataclasses.replace(
        changed,
        interfaces=tuple(
            dataclasses.replace(each, mtu=min(each.mtu, mtu)) if each.port == interface.port else each
            for each in changed.interfaces
        ),
    )


def with_neighbor(running: Running, neighbor: NeighborConfig) -> Running:
    """Return the same with a static neighbor more, or with another MAC address for it."""
    running.interface((neighbor.port, neighbor.vlan))
    if owner := _owner(running, neighbor.address):
        raise RefusedError(
            f"{IPv4Address(neighbor.address)} is an address of our own, on interface {owner.name}."
        )
    others = tuple(each for each in running.neighbors if _place(each) != _place(neighbor))
    if len(others) >= MAX_NEIGHBORS:
        raise RefusedError(f"there are {MAX_NEIGHBORS} static neighbors already, and room for no more.")
    return dataclasses.replace(running, neighbors=(*others, neighbor))


def without_neighbors(running: Running, places: Sequence[tuple[int, int, int]]) -> Running:
    """Return the same without the static neighbors among these (port, VLAN, address)."""
    gone = set(places)
    kept = tuple(each for each in running.neighbors if _place(each) not in gone)
    return dataclasses.replace(running, neighbors=kept)


def _with_interface(running: Running, key: Key) -> Running:
    """Return the same with an interface for a VLAN of a port that is there."""
    if not key[1] or any(each.key == key for each in running.interfaces):
        return running
    port = running.interface((key[0], 0))
    taken = {each.number for each in running.interfaces}
    number = next((number for number in range(MAX_INTERFACES) if number not in taken), None)
    if number is None:
        raise RefusedError(f"there are {MAX_INTERFACES} interfaces already, and room for no more.")
    made = InterfaceConfig(number=number, port=key[0], vlan=key[1], mtu=port.mtu, forward=port.forward)
    return dataclasses.replace(running, interfaces=(*running.interfaces, made))


def _replaced(running: Running, interface: InterfaceConfig) -> Running:
    after = tuple(interface if each.key == interface.key else each for each in running.interfaces)
    return dataclasses.replace(running, interfaces=after)


def _owner(running: Running, address: int) -> InterfaceConfig | None:
    return next(
        (each for each in running.interfaces if any(entry.address == address for entry in each.addresses)),
        None,
    )


def _place(neighbor: NeighborConfig) -> tuple[int, int, int]:
    return neighbor.port, neighbor.vlan, neighbor.address
