# SPDX-License-Identifier: Apache-2.0
"""From what an instance is to what a file says: what changes, in words and as values, and what can not while it runs.

Values and pure functions; `configuration` brings it about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from halo_mp.shm.layout import MAX_INTERFACES
from halo_mp.shm.tables import interface_name
from halo_mp.supervisor import desired
from halo_mp.supervisor.config_interfaces import overlap
from halo_mp.supervisor.config_model import (
    AddressConfig,
    Config,
    InterfaceConfig,
    NeighborConfig,
)
from halo_mp.supervisor.config_routes import RouteList
from halo_mp.supervisor.running import MAX_NEIGHBORS, RefusedError, Running

LIVE = {
    "adopt": "instance.adopt",
    "hang_timeout_s": "instance.hang_timeout",
    "log_level": "logs.level",
    "restart_limit": "instance.restart_limit",
    "stats_log": "logs.stats",
}
"""Fields of Config that the supervisor takes over at once, and their keys."""
TOLD, LINE, TOLD_OCTETS = 200, 200, 24 << 10
"""Lines of one answer, characters of a line, and octets of all: it has to fit into a frame, twice."""
_WANTED = ("interfaces", "neighbors", "routes", "routes_file")
"""Those that `running` and the routes stand for."""
_DERIVED = ("hugepages_auto", "warnings")
_SETTINGS = ("mtu", "up", "forward", "proxy_arp", "directed_broadcast", "redirects")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an instance is to be."""

    config: Config
    routes: RouteList
    """All static ones; those of `config` are among them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The way there, but for routes, of which there may be very many."""

    running: Running
    changes: tuple[str, ...]
    restart: tuple[str, ...]
    """What can not change while it runs."""


def told(lines: Sequence[str], count: int | None = None) -> list[str]:
    """Return as many of the lines, and as much of each, as an answer has room for; `count` is how many there are."""
    some: list[str] = []
    octets = 0
    for line in lines[:TOLD]:
        some.append(line if len(line) <= LINE else f"{line[:LINE]}...")
        octets += len(some[-1].encode())
        if octets > TOLD_OCTETS:
            break
    more = (len(lines) if count is None else count) - len(some)
    return [*some, f"and {more} more"] if more else some


def plan(started: Config, now: Running, wanted: Config) -> Plan:
    """Return what leads from what an instance is to what is wanted. Raises RefusedError for what never can be.

    `started` is what it was started with, with LIVE fields as they are.
    """
    if wanted.instance != started.instance:
        raise RefusedError(
            f"that is for an instance named {wanted.instance!r}, and this is {started.instance!r}. Name the other "
            f"one by --name {wanted.instance}, or take the name out of [instance]."
        )
    if len(wanted.neighbors) > MAX_NEIGHBORS:
        raise RefusedError(f"{len(wanted.neighbors)} static neighbors are too many, at most {MAX_NEIGHBORS}.")
    running = Running(_numbered(now, wanted), wanted.neighbors)
    return Plan(
        running,
        (*_settings(started, wanted), *_interfaces(now, running), *_neighbors(now, running)),
        tuple(desired.differences(started, _as_live(started, wanted), ())),
    )


def united(before: Running, wanted: Running) -> Running:
    """Return what has the addresses and interfaces of both, so that routes can move from one to the other.

    What is wanted alone, where both would contradict each other.
    """
    ours = {entry.address for each in wanted.interfaces for entry in each.addresses}
    keys = {each.key for each in wanted.interfaces}
    old = {each.key: each for each in before.interfaces}
    both = [
        dataclasses.replace(each, addresses=(*each.addresses, *_left(old[each.key], ours)))
        if each.key in old
        else each
        for each in wanted.interfaces
    ]
    gone = [each for key, each in old.items() if key not in keys]
    both += [dataclasses.replace(each, addresses=_left(each, ours)) for each in gone]
    if overlap(both) or len(both) > MAX_INTERFACES:
        return wanted
    return Running(tuple(both), wanted.neighbors)


def _left(interface: InterfaceConfig, ours: set[int]) -> tuple[AddressConfig, ...]:
    return tuple(entry for entry in interface.addresses if entry.address not in ours)


def _numbered(now: Running, wanted: Config) -> tuple[InterfaceConfig, ...]:
    """Return the wanted interfaces, with the numbers that they have, and free ones for those that are new."""
    numbers = {each.key: each.number for each in now.interfaces}
    free = (number for number in range(MAX_INTERFACES) if number not in numbers.values())
    found = []
    for each in wanted.interfaces:
        number = numbers.get(each.key)
        if number is None:
            number = next(free, None)
        if number is None:
            raise RefusedError(
                f"there is room for {MAX_INTERFACES} interfaces, those that are to go among them."
            )
        found.append(dataclasses.replace(each, number=number))
    return tuple(found)


def _as_live(started: Config, wanted: Config) -> Config:
    """Return what is wanted without what may change while an instance runs."""
    same = {name: getattr(started, name) for name in (*LIVE, *_WANTED, *_DERIVED)}
    mtus = {port.number: port.mtu for port in started.ports}
    ports = tuple(
        # A device that takes more than is asked for is good enough.
        dataclasses.replace(port, mtu=max(port.mtu, mtus.get(port.number, 0)))
        for port in wanted.ports
    )
    data = max(wanted.data_octets, started.data_octets)
    # With auto it is what was free when it started: by now they are taken, by itself.
    pages = started.hugepages if wanted.hugepages_auto else wanted.hugepages
    return dataclasses.replace(wanted, **same, ports=ports, data_octets=data, hugepages=pages)


def _settings(started: Config, wanted: Config) -> Iterator[str]:
    for field, key in LIVE.items():
        before, after = getattr(started, field), getattr(wanted, field)
        if before != after:
            yield f"~ {key}: {_text(before)} -> {_text(after)}"


def _interfaces(now: Running, wanted: Running) -> Iterator[str]:
    before, after = ({each.key: each for each in side.interfaces} for side in (now, wanted))
    for key, each in before.items():
        if key not in after:
            yield f"- interface {each.name}"
    for key, each in after.items():
        old = before.get(key)
        if old is None:
            yield f"+ interface {each.name}"
            old = InterfaceConfig(number=each.number, port=each.port, vlan=each.vlan)
        yield from _interface(old, each)


def _interface(old: InterfaceConfig, new: InterfaceConfig) -> Iterator[str]:
    for name in _SETTINGS:
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield f"~ interface {new.name} {name}: {_text(before)} -> {_text(after)}"
    yield from (f"- address {new.name} {entry}" for entry in old.addresses if entry not in new.addresses)
    yield from (f"+ address {new.name} {entry}" for entry in new.addresses if entry not in old.addresses)
    if set(old.addresses) == set(new.addresses) and old.addresses != new.addresses:
        yield f"~ order of the addresses of {new.name}: {', '.join(map(str, new.addresses))}"


def _neighbors(now: Running, wanted: Running) -> Iterator[str]:
    before, after = ({_place(each): each for each in side.neighbors} for side in (now, wanted))
    yield from (f"- neighbor {_neighbor(each)}" for place, each in before.items() if place not in after)
    for place, each in after.items():
        if before.get(place) != each:
            yield f"{'~' if place in before else '+'} neighbor {_neighbor(each)} {each.mac.hex(':')}"


def _place(neighbor: NeighborConfig) -> tuple[int, int, int]:
    return neighbor.port, neighbor.vlan, neighbor.address


def _neighbor(neighbor: NeighborConfig) -> str:
    return f"{interface_name(neighbor.port, neighbor.vlan)} {IPv4Address(neighbor.address)}"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "/".join(map(str, value))
    return "none" if value is None else str(value)
