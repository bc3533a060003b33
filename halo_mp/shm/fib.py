# SPDX-License-Identifier: Apache-2.0
"""The regions `fib` and `routes`, from their one writer's side: targets, groups of them, and routes to them.

A *target* is what a packet meets at the end of a lookup: an own address, a link, a gateway, a group of gateways,
or a refusal. A *route* is a prefix and its target. Routes and trie are kept in C (native/fib); this module
gives them out and takes them back.

What readers may still look at is not used again at once: a target or a node of the trie that nothing names any
more waits until it is sealed with an epoch, and every reader has passed that. `seal` must follow on raising
the epoch of the tables, and come before the readers' epochs are read.
"""

from __future__ import annotations

import errno
import os
from array import array
from bisect import bisect
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from halo_mp.errors import EnvironmentProblem
from halo_mp.shm.layout import RegionKind, ffi, lib, size_of
from halo_mp.shm.region import Region, region_name

MAX_TARGETS: int = lib.HALO_MAX_TARGETS
MAX_BUCKETS: int = lib.HALO_MAX_BUCKETS
MAX_MEMBERS: int = lib.HALO_MAX_MEMBERS
MAX_ROUTES: int = lib.HALO_MAX_ROUTES
MIN_GROUP_BUCKETS = 64
MAX_GROUP_BUCKETS = 16384

_NODE_OCTETS = 4 * lib.HALO_FIB_NODE
_FIB_OCTETS = size_of("halo_fib") + lib.HALO_FIB_MAX_NODES * _NODE_OCTETS
_ROUTES_OCTETS = size_of("halo_routes") + lib.HALO_MAX_ROUTES * size_of("halo_route")
STEP_OCTETS = (1024 * _NODE_OCTETS, 65536 * size_of("halo_route"))  # by which memory grows (native/fib)
_PINNED = 1  # in a target's flags: the gateway was asked for on that interface


class TargetKind(IntEnum):
    """See enum halo_target_kind."""

    NONE = lib.HALO_TARGET_NONE
    LOCAL = lib.HALO_TARGET_LOCAL
    BROADCAST = lib.HALO_TARGET_BROADCAST
    CONNECTED = lib.HALO_TARGET_CONNECTED
    GATEWAY = lib.HALO_TARGET_GATEWAY
    GROUP = lib.HALO_TARGET_GROUP
    BLACKHOLE = lib.HALO_TARGET_BLACKHOLE
    UNREACHABLE = lib.HALO_TARGET_UNREACHABLE
    PROHIBIT = lib.HALO_TARGET_PROHIBIT


class Origin(IntEnum):
    """Why a route is there; see enum halo_route_origin."""

    CONNECTED = lib.HALO_ROUTE_CONNECTED
    STATIC = lib.HALO_ROUTE_STATIC


class ChangeKind(IntEnum):
    """See enum halo_route_change_kind."""

    ADD = lib.HALO_FIB_ADD
    REPLACE = lib.HALO_FIB_REPLACE
    DELETE = lib.HALO_FIB_DELETE


@dataclass(frozen=True, slots=True)
class Target:
    """What stands behind a route. `address` is a gateway's; `pinned`: it was asked for on that very interface."""

    kind: TargetKind
    interface: int = 0
    address: int = 0
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the routes. `prefix` is in host order, and 0 behind its length."""

    kind: ChangeKind
    prefix: int
    length: int
    target: int = 0
    origin: Origin = Origin.STATIC


@dataclass(frozen=True, slots=True)
class Columns:
    """Very many routes in little memory: columns of the same length, of unsigned words of 4, 1 and 4 octets."""

    prefixes: array[int]
    lengths: array[int]
    which: array[int]

    def __len__(self) -> int:
        return len(self.prefixes)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change: an errno, or 0, and the target that was there before, 0 for none."""

    error: int
    previous: int


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """A route as it stands in the table."""

    prefix: int
    length: int
    target: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class Usage:
    """What the tables hold. Octets are those that memory is reserved for."""

    routes: int
    nodes: int
    nodes_waiting: int
    octets: int


class FibFullError(Exception):
    """There is no room for one more target, group or route."""


def create_fib(instance: str, *, generation: int, hash_seed: int) -> Region:
    """Create a FIB in which no destination has a route. Raises EnvironmentProblem."""
    region = Region.create(
        region_name(instance, "fib"),
        RegionKind.FIB,
        _FIB_OCTETS,
        generation=generation,
        reserve_octets=size_of("halo_fib"),
    )
    region.pointer.hash_seed = hash_seed
    return region


def create_routes(instance: str, *, generation: int) -> Region:
    """Create an empty table of routes. Raises EnvironmentProblem."""
    return Region.create(
        region_name(instance, "routes"),
        RegionKind.ROUTES,
        _ROUTES_OCTETS,
        generation=generation,
        reserve_octets=size_of("halo_routes"),
    )


class FibWriter:
    """The one writer of both regions, which must stay open for as long as it is used."""

    def __init__(self, fib: Region, routes: Region) -> None:
        """Take over what stands there. Raises EnvironmentProblem when it makes no sense."""
        self._fib = fib.pointer
        self._routes = ffi.cast("struct halo_route *", routes.pointer + 1)
        self._header = routes.pointer
        out = ffi.new("struct halo_fib_table **")
        error = lib.halo_fib_table_open(fib.pointer, fib.fd, routes.pointer, routes.fd, out)
        if error:
            raise EnvironmentProblem(f"the routes in shared memory can not be used: {os.strerror(-error)}.")
        self._table = out[0]
        self._waiting: deque[tuple[int, int]] = deque()  # epoch, target
        self._unsealed: list[int] = []
        whats = _first_words(self._fib.target, MAX_TARGETS)
        used = {number for number, what in enumerate(whats) if what}
        self._free = [number for number in range(MAX_TARGETS - 1, 0, -1) if number not in used]
        self._take_over_groups(used)

    def close(self) -> None:
        """Forget the private part. May be called twice."""
        if self._table:
            lib.halo_fib_table_close(self._table)
            self._table = ffi.NULL

    # ---- targets

    def new_target(self, target: Target) -> int:
        """Return the number of a new target. Raises FibFullError."""
        number = self._take_target()
        place = self._fib.target[number]
        place.address = target.address
        place.flags = _PINNED if target.pinned else 0
        place.what = _what(target.kind, target.interface)
        return number

    def retarget(self, number: int, kind: TargetKind, interface: int) -> None:
        """Change kind and interface of a target that may be in use, at once."""
        self._fib.target[number].what = _what(kind, interface)

    def target(self, number: int) -> Target:
        """Return a target by its number."""
        place = self._fib.target[number]
        return Target(
            TargetKind(place.what & 0xFFFF), place.what >> 16, place.address, bool(place.flags & _PINNED)
        )

    def targets(self) -> Iterator[int]:
        """Return the numbers of all targets that are there."""
        gone = {number for _, number in self._waiting} | set(self._unsealed) | set(self._free)
        return (number for number in range(1, MAX_TARGETS) if number not in gone)

    def references(self, number: int) -> int:
        """Return how many routes name a target."""
        return int(lib.halo_fib_table_references(self._table, number))

    def retire(self, number: int) -> None:
        """Give a target back that no route and no group names any more."""
        self._unsealed.append(number)

    # ---- groups

    def new_group(self, members: Sequence[tuple[int, int]], buckets: Sequence[int]) -> int:
        """Return a group of (target, weight) that spreads flows over buckets. Raises FibFullError."""
        if len(self._free_members) < len(members):
            raise FibFullError(f"all {MAX_MEMBERS} members of groups are in use")
        first = self._take_buckets(len(buckets))
        try:
            number = self._take_target()
        except FibFullError:
            self._free_buckets(first, first + len(buckets))
            raise
        self._members[number] = []
        for order, (target, weight) in enumerate(members):
            place = self._free_members.pop()
            self._members[number].append(place)
            member = self._fib.member[place]
            member.target, member.weight, member.order = target, weight, order
            member.group = number
        place = self._fib.target[number]
        place.address, place.flags, place.first, place.count = 0, 0, first, len(buckets)
        self.set_buckets(number, buckets)
        place.what = _what(TargetKind.GROUP, 0)
        return number

    def members(self, number: int) -> tuple[tuple[int, int], ...]:
        """Return the (target, weight) of a group in the order in which they were given."""
        found = sorted((self._fib.member[place] for place in self._members[number]), key=lambda m: m.order)
        return tuple((member.target, member.weight) for member in found)

    def buckets(self, number: int) -> list[int]:
        """Return which target each bucket of a group leads to."""
        place = self._fib.target[number]
        return [self._fib.bucket[place.first + i] for i in range(place.count)]

    def set_buckets(self, number: int, buckets: Sequence[int]) -> None:
        """Let the buckets lead elsewhere; each changes at once."""
        first = self._fib.target[number].first
        for i, target in enumerate(buckets):
            if self._fib.bucket[first + i] != target:
                self._fib.bucket[first + i] = target

    # ---- routes

    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Apply changes in order, each with its own outcome."""
        packed = ffi.new("struct halo_route_change[]", len(changes))
        for place, change in zip(packed, changes, strict=True):
            place.prefix, place.length, place.target = change.prefix, change.length, change.target
            place.kind, place.origin = change.kind, change.origin
        lib.halo_fib_table_apply(self._table, packed, len(changes))
        return [Outcome(-place.result, place.previous) for place in packed]

    def load(self, columns: Columns, targets: Sequence[int], limit: int) -> tuple[int, list[tuple[int, int]]]:
        """Add very many static routes, or put them in the place of those that are there.

        `columns.which` says which of `targets` each one gets. Return how many were refused, and the first `limit` of
        them as (position, errno): EADDRINUSE for a prefix that is connected.
        """
        refused = ffi.new("struct halo_route_refusal[]", limit)
        load = ffi.new("struct halo_route_load *")
        kept = (  # as long as C looks at them
            ffi.from_buffer("uint32_t[]", columns.prefixes),
            ffi.from_buffer("uint8_t[]", columns.lengths),
            ffi.from_buffer("uint32_t[]", columns.which),
            ffi.new("uint32_t[]", list(targets)),
        )
        load.prefix, load.length, load.which, load.target = kept
        load.count, load.target_count = len(columns.prefixes), len(targets)
        count = lib.halo_fib_table_load(self._table, load, refused, limit)
        return count, [(refused[i].position, -refused[i].error) for i in range(min(count, limit))]

    def find(self, prefix: int, length: int) -> RouteEntry | None:
        """Return the route of exactly this prefix."""
        return self._entry(lib.halo_fib_table_find(self._table, prefix, length))

    def covering(self, address: int) -> RouteEntry | None:
        """Return the longest route that covers an address."""
        return self._entry(lib.halo_fib_table_covering(self._table, address))

    def flow_target(self, src: int, dst: int, protocol: int, src_port: int, dst_port: int) -> int:
        """Return the target that a flow meets, of a group the member that its hash chooses."""
        flow = lib.halo_flow_hash(self._fib.hash_seed, src, dst, protocol, src_port, dst_port)
        found: int = lib.halo_fib_lookup_flow(self._fib, dst, flow)
        return found

    def routes(self, start: int = 0, origin: Origin | None = None) -> Iterator[tuple[int, RouteEntry]]:
        """Return routes, or those of an origin, with their places, from one on. A place stays as long as its route."""
        place = lib.halo_fib_table_next(self._table, start, origin or 0)
        while place >= 0:
            yield place, self._read(place)
            place = lib.halo_fib_table_next(self._table, place + 1, origin or 0)

    def usage(self) -> Usage:
        """Return how full the tables are."""
        usage = ffi.new("struct halo_fib_usage *")
        lib.halo_fib_table_usage(self._table, usage)
        octets = size_of("halo_fib") + usage.nodes_reserved * _NODE_OCTETS
        octets += size_of("halo_routes") + self._header.count * size_of("halo_route")
        return Usage(usage.routes, usage.nodes, usage.nodes_waiting, octets)

    # ---- reuse

    def seal(self, epoch: int) -> bool:
        """Bind what was given back so far to an epoch that was just begun. Tells whether anything was."""
        self._waiting.extend((epoch, number) for number in self._unsealed)
        sealed = len(self._unsealed)
        self._unsealed.clear()
        return bool(lib.halo_fib_table_seal(self._table, epoch)) or sealed > 0

    @property
    def has_waste(self) -> bool:
        """Whether something waits for its readers, sealed or not."""
        return bool(self._waiting or self._unsealed or self.usage().nodes_waiting)

    def reclaim(self, epoch: int) -> None:
        """Every reader has passed this epoch: what was sealed up to it may be used again."""
        lib.halo_fib_table_reclaim(self._table, epoch)
        while self._waiting and self._waiting[0][0] <= epoch:
            self._free_target(self._waiting.popleft()[1])

    # ---- private

    def _take_target(self) -> int:
        if not self._free:
            raise FibFullError(f"all {MAX_TARGETS - 1} targets are in use")
        return self._free.pop()

    def _free_target(self, number: int) -> None:
        place = self._fib.target[number]
        if place.what & 0xFFFF == TargetKind.GROUP:
            for member in self._members.pop(number):
                self._fib.member[member].group = 0
                self._free_members.append(member)
            self._free_buckets(place.first, place.first + place.count)
        place.what = place.address = place.flags = place.first = place.count = 0
        self._free.append(number)

    def _take_buckets(self, count: int) -> int:
        """Return the first of `count` buckets in a row."""
        for position, (first, end) in enumerate(self._gaps):
            if end - first >= count:
                self._gaps[position : position + 1] = [(first + count, end)] if end - first > count else []
                return first
        raise FibFullError(f"all {MAX_BUCKETS} buckets of groups are in use")

    def _free_buckets(self, first: int, end: int) -> None:
        """Give buckets back; gaps that touch become one."""
        position = bisect(self._gaps, (first, end))
        if position < len(self._gaps) and self._gaps[position][0] == end:
            end = self._gaps.pop(position)[1]
        if position and self._gaps[position - 1][1] == first:
            position -= 1
            first = self._gaps.pop(position)[0]
        self._gaps.insert(position, (first, end))

    def _take_over_groups(self, used: set[int]) -> None:
        self._members: dict[int, list[int]] = {
            number: [] for number in used if self._fib.target[number].what & 0xFFFF == TargetKind.GROUP
        }
        self._free_members: list[int] = []
        for place, group in enumerate(_first_words(self._fib.member, MAX_MEMBERS)):
            if group in self._members:
                self._members[group].append(place)
                continue
            if group:  # a writer died while it made the group
                self._fib.member[place].group = 0
            self._free_members.append(place)
        self._gaps: list[tuple[int, int]] = []  # of buckets that no group has: first and end, in order
        end = 0
        for first, count in sorted((place.first, place.count) for place in map(self._place, self._members)):
            if end < first:
                self._gaps.append((end, first))
            end = first + count
        if end < MAX_BUCKETS:
            self._gaps.append((end, MAX_BUCKETS))

    def _place(self, number: int) -> Any:
        return self._fib.target[number]

    def _entry(self, place: int) -> RouteEntry | None:
        return None if place == -errno.ENOENT else self._read(place)

    def _read(self, place: int) -> RouteEntry:
        route: Any = self._routes[place]
        return RouteEntry(route.prefix, route.length, route.target, Origin(route.origin))


def _first_words(array: Any, count: int) -> list[int]:
    """Return the first word of each of `count` structs of four words."""
    words: list[int] = ffi.unpack(ffi.cast("uint32_t *", array), 4 * count)
    return words[::4]


def _what(kind: TargetKind, interface: int) -> int:
    return int(kind) | interface << 16
