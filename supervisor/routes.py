# SPDX-License-Identifier: Apache-2.0
"""The routes of an instance: what was asked for and what follows from the interfaces, as targets of the FIB.

- Connected routes follow the interfaces: each address of ours (LOCAL), its subnet (CONNECTED), and the subnet's
  two broadcast addresses (RFC 1122 section 3.3.6), but for /31 (RFC 3021) and /32.
- What they lead to is looked after by `halo_mp.supervisor.targets`.
- A route that was asked for and has the prefix of a connected one waits until that goes.

What is not used any more is reused when every worker's epoch has passed: see `collect`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

from halo_mp.shm.fib import (
    Change,
    ChangeKind,
    Columns,
    FibWriter,
    Origin,
    RouteEntry,
    Target,
    TargetKind,
    Usage,
)
from halo_mp.shm.tables import Interface, InterfaceFlag, TablesWriter
from halo_mp.supervisor.targets import Hop, RouteError, Targets, Verdict, Via

REFUSALS_TOLD = 20  # of very many routes
_ALL_ONES = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Route:
    """A route as people see it. `via` of connected routes is one hop without address."""

    prefix: int
    length: int
    via: Via
    origin: Origin
    local: bool = False  # an address of ours, or a subnet's broadcast address

    def __str__(self) -> str:
        return f"{IPv4Address(self.prefix)}/{self.length}"


@dataclass(frozen=True, slots=True)
class WaitingRoute:
    """A route that was asked for, behind a connected one: the FIB does not hold it, so it is saved by itself."""

    prefix: int
    length: int
    hops: tuple[Hop, ...]
    verdict: Verdict | None
    """In place of hops."""

    @property
    def via(self) -> Via:
        """What it leads to."""
        return self.verdict or self.hops


class Routes:
    """The one owner of the FIB's writer.

    `reader_epochs` tells what each live worker has published: the epoch that it works in, or 0.
    """

    def __init__(
        self, fib: FibWriter, tables: TablesWriter, reader_epochs: Callable[[], Iterable[int]]
    ) -> None:
        """Take over what stands in the FIB; `set_interfaces` comes before anything else."""
        self._fib = fib
        self._tables = tables
        self._reader_epochs = reader_epochs
        self._interfaces: Mapping[int, Interface] = {}
        self._connections: dict[tuple[int, int], int] = {}  # connected routes: target
        self._waiting: dict[tuple[int, int], int] = {}  # asked for, behind a connected route: target
        self._told_waiting: dict[tuple[int, int], int] = {}
        self.on_waiting: Callable[[], None] = lambda: None
        """Called when other routes wait: nothing but the caller's memory knows of them."""
        self.on_touched: Callable[[Iterable[tuple[int, int]]], None] = lambda _keys: None
        """Called with prefix and length of what was changed, has come, or has gone."""
        self.targets = Targets(fib, lambda number: number in self._waiting.values())
        for _, entry in fib.routes(origin=Origin.CONNECTED):
            self._connections[entry.prefix, entry.length] = entry.target

    # ---- changes

    def set_interfaces(self, interfaces: Mapping[int, Interface]) -> None:
        """Let connected routes and gateways follow these interfaces. Raises RouteError when there is no room."""
        self._interfaces = dict(interfaces)
        self.targets.follow(self._interfaces)
        wanted = dict(self._connected())
        for key in self._connections.keys() - wanted.keys():
            self._disconnect(key)
        for key, target in wanted.items():
            self._connect(key, self.targets.number(target))
        self.collect()

    def add(self, prefix: int, length: int, via: Via, *, replace: bool = False) -> None:
        """Add a route, or put it in the place of the one that is there. Raises RouteError."""
        (refusal,) = self.change([("replace" if replace else "add", prefix, length, via)])
        if refusal:
            raise RouteError(refusal)

    def delete(self, prefix: int, length: int) -> None:
        """Take a route away. Raises RouteError."""
        (refusal,) = self.change([("delete", prefix, length, ())])
        if refusal:
            raise RouteError(refusal)

    def change(
        self, changes: Sequence[tuple[Literal["add", "replace", "delete"], int, int, Via]]
    ) -> list[str | None]:
        """Make changes in order; return for each a sentence that says why it was refused, or None."""
        try:
            return [self._change(*change) for change in changes]
        finally:
            self.collect()

    def load(self, columns: Columns, vias: Sequence[Via]) -> tuple[int, list[str]]:
        """Add very many routes, replacing those that are there; `columns.which` says which of `vias` each one has.

        One that has the prefix of a connected route waits behind that, where these are no more than REFUSALS_TOLD.
        Return how many were refused, and for some of them a sentence.
        """
        numbers: list[int] = []
        problems: dict[int, str] = {}  # of a via
        for which, via in enumerate(vias):
            try:
                numbers.append(self.targets.number_of(via))
            except RouteError as error:
                numbers.append(0)  # which the table refuses
                problems[which] = str(error)
        count, refused = self._fib.load(columns, numbers, REFUSALS_TOLD)
        self.on_touched(zip(columns.prefixes, columns.lengths, strict=True))
        waiting = set(
            self._wait_behind(columns, vias, [at for at, why in refused if why == errno.EADDRINUSE])
        )
        for number in filter(None, numbers):
            self.targets.release(number)
        self.collect()
        sentences = []
        for position, number in (entry for entry in refused if entry[0] not in waiting):
            prefix, length = columns.prefixes[position], columns.lengths[position]
            problem = problems.get(columns.which[position])
            name = f"{IPv4Address(prefix)}/{length}"
            sentences.append(f"{name}: {problem}" if problem else _sentence(number, prefix, length))
        return count - len(waiting), sentences

    def _wait_behind(self, columns: Columns, vias: Sequence[Via], positions: Iterable[int]) -> Iterator[int]:
        """Let routes that have the prefix of a connected one wait behind it; yield the positions of those that do."""
        for at in positions:
            prefix, length = columns.prefixes[at], columns.lengths[at]
            if self._change_waiting("replace", prefix, length, vias[columns.which[at]]) is None:
                yield at

    # ---- questions

    def routes(self, start: int = 0, limit: int = 1000) -> tuple[list[Route], int | None]:
        """Return at most `limit` routes, and where to go on, None at the end."""
        found: list[Route] = []
        for place, entry in self._fib.routes(start):
            if len(found) == limit:
                return found, place
            found.append(self._route(entry))
        return found, None

    def entries(self, start: int) -> Iterator[tuple[int, RouteEntry]]:
        """Yield routes as they stand in the table, each with its place, which is where to go on; see `describe`."""
        return self._fib.routes(start)

    def static(self, start: int = 0) -> Iterator[tuple[int, RouteEntry]]:
        """Yield the routes that were asked for, in the same way; those that wait behind connected ones come first."""
        waiting = list(self._waiting.items())
        for place, ((prefix, length), target) in enumerate(waiting[start:], start):
            yield place, RouteEntry(prefix, length, target, Origin.STATIC)
        behind = max(0, start - len(waiting))
        for place, entry in self._fib.routes(behind, Origin.STATIC):
            yield len(waiting) + place, entry

    def describe(self, entry: RouteEntry) -> Route:
        """Return a route as people see it."""
        return self._route(entry)

    def find(self, prefix: int, length: int) -> Route | None:
        """Return the route of exactly this prefix."""
        entry = self._fib.find(prefix, length)
        return None if entry is None else self._route(entry)

    def lookup(self, address: int) -> Route | None:
        """Return the longest route that covers an address."""
        entry = self._fib.covering(address)
        return None if entry is None else self._route(entry)

    def choose(self, src: int, dst: int, protocol: int, src_port: int = 0, dst_port: int = 0) -> Via:
        """Return what a flow meets, of several hops the one that it is sent to; ports are 0 where there are none."""
        return self.targets.via(self._fib.flow_target(src, dst, protocol, src_port, dst_port))

    def usage(self) -> Usage:
        """Return how full the tables are."""
        return self._fib.usage()

    def waiting(self) -> list[WaitingRoute]:
        """Return the routes that wait behind connected ones, as they were asked for."""
        asked = ((key, self.targets.asked(target)) for key, target in self._waiting.items())
        return [
            WaitingRoute(*key, (), via) if isinstance(via, str) else WaitingRoute(*key, via, None)
            for key, via in asked
        ]

    def resume_waiting(self, waiting: Iterable[WaitingRoute]) -> list[str]:
        """Have routes wait again, as a predecessor had; one whose connected route is gone does not wait any more.

        Return a sentence for each that is refused.
        """
        refusals = self.change([("replace", each.prefix, each.length, each.via) for each in waiting])
        return [refusal for refusal in refusals if refusal]

    def collect(self) -> bool:
        """Begin an epoch if something was given back; reuse what every worker has passed. Tells whether more waits."""
        if self._waiting != self._told_waiting:
            self._told_waiting = dict(self._waiting)
            self.on_waiting()
        if not self._fib.has_waste:
            return False
        self._fib.seal(self._tables.advance())
        passed = [epoch for epoch in self._reader_epochs() if epoch]
        self._fib.reclaim(min(passed, default=self._tables.epoch))
        return self._fib.has_waste

    # ---- connected routes

    def _connected(self) -> Iterator[tuple[tuple[int, int], Target]]:
        """Return what follows from the interfaces; of two that claim the same the first has it."""
        seen: set[tuple[int, int]] = set()
        for kind in (TargetKind.LOCAL, TargetKind.BROADCAST, TargetKind.CONNECTED):
            for number, interface in self._interfaces.items():
                if not interface.flags & InterfaceFlag.UP:
                    continue
                for key in _keys(kind, interface):
                    if key not in seen:
                        seen.add(key)
                        yield key, Target(kind, number, pinned=True)

    def _connect(self, key: tuple[int, int], number: int) -> None:
        if self._connections.get(key) == number:
            return
        asked = None if key in self._connections else self._fib.find(*key)
        if asked is not None:
            self._waiting[key] = asked.target
        refusal = self._apply(Change(ChangeKind.REPLACE, *key, number, Origin.CONNECTED))
        if refusal:
            raise RouteError(refusal)
        self._connections[key] = number

    def _disconnect(self, key: tuple[int, int]) -> None:
        del self._connections[key]
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            self._apply(Change(ChangeKind.DELETE, *key))
        else:
            self._apply(Change(ChangeKind.REPLACE, *key, waiting))

    # ---- routes that were asked for

    def _change(self, kind: str, prefix: int, length: int, via: Via) -> str | None:
        name = f"{IPv4Address(prefix)}/{length}"
        if prefix & _ALL_ONES >> length if length < 32 else False:
            return f"{name} has bits behind its length; write {_network(prefix, length)}."
        entry = self._fib.find(prefix, length)
        if entry is not None and entry.origin is Origin.CONNECTED:
            return self._change_waiting(kind, prefix, length, via)
        if kind == "delete":
            return self._apply(Change(ChangeKind.DELETE, prefix, length))
        if kind == "add" and entry is not None:
            return _sentence(errno.EEXIST, prefix, length)
        try:
            number = self.targets.number_of(via, like=entry)
        except RouteError as error:
            return str(error)
        refusal = self._apply(Change(ChangeKind.REPLACE, prefix, length, number))
        if refusal:
            self.targets.release(number)
        return refusal

    def _change_waiting(self, kind: str, prefix: int, length: int, via: Via) -> str | None:
        """Change what waits behind a connected route."""
        waiting = self._waiting.get((prefix, length))
        if kind == "delete":
            if waiting is None:
                return (
                    f"{IPv4Address(prefix)}/{length} is connected; it goes with the address of its interface."
                )
            del self._waiting[prefix, length]
        elif kind == "add":
            return f"{IPv4Address(prefix)}/{length} is connected; no route to it is needed."
        else:
            try:
                self._waiting[prefix, length] = self.targets.number_of(via)
            except RouteError as error:
                return str(error)
        if waiting is not None:
            self.targets.release(waiting)
        return None

    def _apply(self, change: Change) -> str | None:
        (outcome,) = self._fib.apply([change])
        if outcome.error:
            return _sentence(outcome.error, change.prefix, change.length)
        self.on_touched(((change.prefix, change.length),))
        if outcome.previous and outcome.previous != change.target:
            self.targets.release(outcome.previous)
        return None

    # ---- for people

    def _route(self, entry: RouteEntry) -> Route:
        target = self._fib.target(entry.target)
        local = target.kind in (TargetKind.LOCAL, TargetKind.BROADCAST)
        return Route(entry.prefix, entry.length, self.targets.via(entry.target), entry.origin, local)


def _keys(kind: TargetKind, interface: Interface) -> Iterator[tuple[int, int]]:
    """Return the prefixes that an interface's addresses make of a kind."""
    for address, length in interface.addresses:
        host = _ALL_ONES >> length if length < 32 else 0
        if kind is TargetKind.LOCAL:
            yield address, 32
        elif kind is TargetKind.CONNECTED and length < 32:
            yield address & ~host, length
        elif kind is TargetKind.BROADCAST and length < 31:
            yield address & ~host, 32
            yield address | host, 32


def _network(prefix: int, length: int) -> str:
    return f"{IPv4Address(prefix & ~(_ALL_ONES >> length))}/{length}"


def _sentence(error: int, prefix: int, length: int) -> str:
    name = f"{IPv4Address(prefix)}/{length}"
    match error:
        case errno.EEXIST:
            return f"there is a route to {name} already; replace it, or delete it first."
        case errno.ENOENT:
            return f"there is no route to {name}."
        case errno.EADDRINUSE:
            return f"{name} is connected; no route to it is needed."
        case errno.ENOSPC | errno.ENOMEM:
            return f"there is no room for the route to {name}: the tables are full, or /dev/shm is."
    return f"{name} is no prefix: its length is at most 32, and bits behind it are 0."
