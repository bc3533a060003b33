# SPDX-License-Identifier: Apache-2.0
"""The routes of an instance: what was asked for and what follows from the interfaces, as targets of the FIB.

- Connected routes follow the interfaces: each address of ours (LOCAL), its subnet (CONNECTED), and the subnet's
  two broadcast addresses (RFC 1122 section 3.3.6), but for /31 (RFC 3021) and /32.
- A gateway is reached on the interface whose subnet it is in, or on the one that was named with it. While there is
  none, routes behind it answer with unreachable; they stay, and work again when there is one.
- Several gateways make a group: flows are spread over those that are alive (`halo_mp.supervisor.ecmp`).
- A route that was asked for and has the prefix of a connected one waits until that goes.

What is not used any more is reused when every worker's epoch has passed: see `collect`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

from halo_mp.shm.fib import (
    Change,
    ChangeKind,
    Columns,
    FibFullError,
    FibWriter,
    Origin,
    RouteEntry,
    Target,
    TargetKind,
    Usage,
)
from halo_mp.shm.tables import Interface, InterfaceFlag, TablesWriter
from halo_mp.supervisor import ecmp

Verdict = Literal["blackhole", "unreachable", "prohibit"]

MAX_HOPS = 512
MAX_WEIGHT = 256
_VERDICTS = {
    "blackhole": TargetKind.BLACKHOLE,
    "unreachable": TargetKind.UNREACHABLE,
    "prohibit": TargetKind.PROHIBIT,
}
REFUSALS_TOLD = 20  # of very many routes
_ALL_ONES = 0xFFFFFFFF


class RouteError(Exception):
    """A change that can not be made; the sentence is for who asked."""


@dataclass(frozen=True, slots=True)
class Hop:
    """A next hop: a gateway's address, or 0 for hosts on the link itself; the interface by number, or None for any."""

    address: int
    interface: int | None = None
    weight: int = 1


Via = tuple[Hop, ...] | Verdict


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
        self._by_target: dict[Target, int] = {}
        self._asked: dict[int, Target] = {}  # the same, turned round
        self._by_members: dict[tuple[tuple[int, int], ...], int] = {}
        self._groups_of: dict[int, set[int]] = {}  # target -> groups that it is a member of
        self._dead: set[int] = set()
        self._connections: dict[tuple[int, int], int] = {}  # connected routes: target
        self._waiting: dict[tuple[int, int], int] = {}  # asked for, behind a connected route: target
        self._take_over()

    # ---- changes

    def set_interfaces(self, interfaces: Mapping[int, Interface]) -> None:
        """Let connected routes and gateways follow these interfaces. Raises RouteError when there is no room."""
        self._interfaces = dict(interfaces)
        for target, number in list(self._by_target.items()):
            self._resolve(target, number)
        wanted = dict(self._connected())
        for key in self._connections.keys() - wanted.keys():
            self._disconnect(key)
        for key, target in wanted.items():
            self._connect(key, self._number(target))
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

        Return how many were refused, and for some of them a sentence.
        """
        numbers: list[int] = []
        problems: dict[int, str] = {}  # of a via
        for which, via in enumerate(vias):
            try:
                numbers.append(self._number_of(via))
            except RouteError as error:
                numbers.append(0)  # which the table refuses
                problems[which] = str(error)
        count, refused = self._fib.load(columns, numbers, REFUSALS_TOLD)
        for number in filter(None, numbers):
            self._drop_if_unused(number)
        self.collect()
        sentences = []
        for position, number in refused:
            prefix, length = columns.prefixes[position], columns.lengths[position]
            problem = problems.get(columns.which[position])
            name = f"{IPv4Address(prefix)}/{length}"
            sentences.append(f"{name}: {problem}" if problem else _sentence(number, prefix, length))
        return count, sentences

    def set_hop(self, interface: int, address: int, *, alive: bool) -> None:
        """A gateway died or came back: flows leave it, or return."""
        self.set_hops([(interface, address)], alive=alive)

    def set_hops(self, hops: Collection[tuple[int, int]], *, alive: bool) -> list[tuple[int, int]]:
        """The same for many (interface, address), each group spread once; return for which that is news."""
        news: dict[tuple[int, int], None] = {}
        groups: set[int] = set()
        addresses = {address for _, address in hops}
        for target, number in self._by_target.items():
            if target.address not in addresses or (number in self._dead) != alive:
                continue
            hop = self._fib.target(number).interface, target.address
            if target.kind is TargetKind.GATEWAY and hop in hops:
                (self._dead.discard if alive else self._dead.add)(number)
                groups |= self._groups_of.get(number, set())
                news[hop] = None
        self._spread_again(groups)
        return list(news)

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
        return self._via(self._fib.flow_target(src, dst, protocol, src_port, dst_port))

    def gateways(self) -> Iterator[tuple[int, int]]:
        """Return the (interface, address) of each gateway that is one of several: worth watching."""
        for number in self._groups_of:
            target = self._fib.target(number)
            if target.kind is TargetKind.GATEWAY:
                yield target.interface, target.address

    def is_alive(self, interface: int, address: int) -> bool:
        """Whether flows are sent to a gateway."""
        return not any(
            (target.interface, target.address) == (interface, address)
            for target in map(self._fib.target, self._dead)
        )

    def usage(self) -> Usage:
        """Return how full the tables are."""
        return self._fib.usage()

    def collect(self) -> bool:
        """Begin an epoch if something was given back; reuse what every worker has passed. Tells whether more waits."""
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
            number = self._number_of(via, like=entry)
        except RouteError as error:
            return str(error)
        refusal = self._apply(Change(ChangeKind.REPLACE, prefix, length, number))
        if refusal:
            self._drop_if_unused(number)
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
                self._waiting[prefix, length] = self._number_of(via)
            except RouteError as error:
                return str(error)
        if waiting is not None:
            self._drop_if_unused(waiting)
        return None

    def _apply(self, change: Change) -> str | None:
        (outcome,) = self._fib.apply([change])
        if outcome.error:
            return _sentence(outcome.error, change.prefix, change.length)
        if outcome.previous and outcome.previous != change.target:
            self._drop_if_unused(outcome.previous)
        return None

    # ---- targets

    def _number_of(self, via: Via, like: RouteEntry | None = None) -> int:
        """Return the target that `via` means. Raises RouteError."""
        if isinstance(via, str):
            return self._number(Target(_VERDICTS[via]))
        if not 1 <= len(via) <= MAX_HOPS:
            raise RouteError(f"{len(via)} next hops; name 1 to {MAX_HOPS}.")
        weights: dict[int, int] = {}
        for hop in via:
            if not 1 <= hop.weight <= MAX_WEIGHT:
                raise RouteError(f"weight {hop.weight} is not within 1 to {MAX_WEIGHT}.")
            number = self._number(self._target_of(hop))
            weights[number] = weights.get(number, 0) + hop.weight
        if len(weights) == 1:
            return next(iter(weights))
        try:
            return self._group(tuple(weights.items()), like)
        finally:
            for number in weights:
                self._drop_if_unused(number)

    def _target_of(self, hop: Hop) -> Target:
        if hop.interface is not None and hop.interface not in self._interfaces:
            raise RouteError(f"there is no interface {hop.interface} for the next hop.")
        if hop.address == 0:
            if hop.interface is None:
                raise RouteError("a next hop needs an address, or an interface.")
            return Target(TargetKind.CONNECTED, hop.interface, pinned=True)
        if hop.interface is None and self._interface_of(hop.address) is None:
            raise RouteError(
                f"no interface has the next hop {IPv4Address(hop.address)} on its link; name one that is on a "
                "subnet of ours, or say on which interface it is."
            )
        if any(hop.address == own for entry in self._interfaces.values() for own, _ in entry.addresses):
            raise RouteError(f"the next hop {IPv4Address(hop.address)} is an address of our own.")
        return Target(TargetKind.GATEWAY, hop.interface or 0, hop.address, hop.interface is not None)

    def _number(self, target: Target) -> int:
        """Return the number of a target, the one that is there or a new one. Raises RouteError."""
        number = self._by_target.get(target)
        if number is None:
            try:
                number = self._fib.new_target(target)
            except FibFullError as error:
                raise RouteError(f"{error}; delete routes with other next hops first.") from None
            self._by_target[target], self._asked[number] = number, target
            self._resolve(target, number)
        return number

    def _group(self, members: tuple[tuple[int, int], ...], like: RouteEntry | None) -> int:
        number = self._by_members.get(members)
        if number is not None:
            return number
        buckets = [0] * ecmp.bucket_count([weight for _, weight in members])
        if like is not None and self._fib.target(like.target).kind is TargetKind.GROUP:
            before = self._fib.buckets(like.target)
            buckets = before if len(before) >= len(buckets) else buckets
        try:
            number = self._fib.new_group(members, self._spread(buckets, members))
        except FibFullError as error:
            raise RouteError(f"{error}; delete routes with several next hops first.") from None
        self._remember_group(number, members)
        return number

    def _remember_group(self, number: int, members: tuple[tuple[int, int], ...]) -> None:
        self._by_members[members] = number
        for target, _ in members:
            self._groups_of.setdefault(target, set()).add(number)

    def _spread(self, buckets: Sequence[int], members: Sequence[tuple[int, int]]) -> list[int]:
        """Spread over the members that are alive; over all when none is: somebody must notice when one returns."""
        alive = {target: weight for target, weight in members if self._is_usable(target)}
        return ecmp.spread(buckets, alive or dict(members))

    def _is_usable(self, number: int) -> bool:
        return number not in self._dead and self._fib.target(number).kind is not TargetKind.UNREACHABLE

    def _spread_groups_of(self, number: int) -> None:
        self._spread_again(self._groups_of.get(number, ()))

    def _spread_again(self, groups: Iterable[int]) -> None:
        for group in groups:
            buckets = self._spread(self._fib.buckets(group), self._fib.members(group))
            self._fib.set_buckets(group, buckets)

    def _resolve(self, target: Target, number: int) -> None:
        """Find a target's interface anew."""
        if target.kind is TargetKind.GATEWAY:
            wanted = target.interface if target.pinned else self._interface_of(target.address)
        elif target.kind is TargetKind.CONNECTED:
            wanted = target.interface
        else:
            return
        usable = wanted is not None and self._is_up(wanted)
        kind = target.kind if usable else TargetKind.UNREACHABLE
        found = self._fib.target(number)
        if (found.kind, found.interface) != (kind, wanted or 0):
            self._fib.retarget(number, kind, wanted or 0)
            self._dead.discard(number)
            self._spread_groups_of(number)

    def _is_up(self, number: int) -> bool:
        interface = self._interfaces.get(number)
        return interface is not None and bool(interface.flags & InterfaceFlag.UP)

    def _interface_of(self, address: int) -> int | None:
        """Return the interface that has an address on its link, the one with the longest prefix."""
        found = [
            (length, number)
            for number, interface in self._interfaces.items()
            for own, length in interface.addresses
            if length < 32 and interface.flags & InterfaceFlag.UP and (own ^ address) >> (32 - length) == 0
        ]
        return max(found)[1] if found else None

    def _drop_if_unused(self, number: int) -> None:
        """Give a target back that nothing names any more, and its members with it."""
        if self._fib.references(number) or self._groups_of.get(number) or number in self._waiting.values():
            return
        if self._fib.target(number).kind is TargetKind.GROUP:
            members = self._fib.members(number)
            self._by_members.pop(members, None)
            self._fib.retire(number)
            for member, _ in members:
                self._groups_of[member].discard(number)
                if not self._groups_of[member]:
                    del self._groups_of[member]
                self._drop_if_unused(member)
            return
        asked = self._asked.pop(number, None)
        if asked is not None:  # else it is on its way already
            del self._by_target[asked]
            self._dead.discard(number)
            self._fib.retire(number)

    def _take_over(self) -> None:
        """Learn what a predecessor made."""
        for number in self._fib.targets():
            target = self._fib.target(number)
            if target.kind is TargetKind.GROUP:
                self._remember_group(number, self._fib.members(number))
            elif target.kind is not TargetKind.NONE:
                asked = _asked(target)
                self._by_target[asked], self._asked[number] = number, asked
        for _, entry in self._fib.routes(origin=Origin.CONNECTED):
            self._connections[entry.prefix, entry.length] = entry.target
        for number in [*self._by_members.values(), *self._by_target.values()]:
            self._drop_if_unused(number)

    # ---- for people

    def _route(self, entry: RouteEntry) -> Route:
        target = self._fib.target(entry.target)
        local = target.kind in (TargetKind.LOCAL, TargetKind.BROADCAST)
        return Route(entry.prefix, entry.length, self._via(entry.target), entry.origin, local)

    def _via(self, number: int) -> Via:
        target = self._fib.target(number)
        if target.kind is TargetKind.GROUP:
            return tuple(self._hop(member, weight) for member, weight in self._fib.members(number))
        for name, kind in _VERDICTS.items():
            if target.kind is kind and not target.address and not target.pinned:
                return _verdict(name)
        return (self._hop(number, 1),)

    def _hop(self, number: int, weight: int) -> Hop:
        target = self._fib.target(number)
        unresolved = target.kind is TargetKind.UNREACHABLE and not target.pinned
        return Hop(target.address, None if unresolved else target.interface, weight)


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


def _asked(target: Target) -> Target:
    """Return what was asked for: a gateway without interface may have found one, or lost it."""
    if target.address:
        interface = target.interface if target.pinned else 0
        return Target(TargetKind.GATEWAY, interface, target.address, target.pinned)
    if target.kind is TargetKind.UNREACHABLE and target.pinned:
        return Target(TargetKind.CONNECTED, target.interface, pinned=True)
    return target


def _network(prefix: int, length: int) -> str:
    return f"{IPv4Address(prefix & ~(_ALL_ONES >> length))}/{length}"


def _verdict(name: str) -> Verdict:
    match name:
        case "blackhole" | "unreachable" | "prohibit":
            return name
    raise ValueError(name)


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
