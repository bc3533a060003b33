# SPDX-License-Identifier: Apache-2.0
"""From the static routes that there are to those that are wanted. There may be a million of either: the event loop is
given a turn now and then, and what somebody else changes meanwhile may stay.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from halo_mp.shm.fib import RouteEntry
from halo_mp.supervisor import config_toml
from halo_mp.supervisor.config_model import HopConfig, InterfaceConfig, RouteConfig
from halo_mp.supervisor.config_routes import RouteList, via_of
from halo_mp.supervisor.published import Published
from halo_mp.supervisor.routes import Routes
from halo_mp.supervisor.running import RefusedError
from halo_mp.supervisor.targets import Hop, Via

BATCH = 64
"""Routes between two looks at the clock."""
TURN_S = 0.02
"""After which the event loop gets a turn: workers are watched, and other clients wait."""


@dataclass(frozen=True, slots=True)
class RouteChange:
    """A route that comes, goes, or leads elsewhere."""

    prefix: int
    length: int
    before: Via | None
    after: Via | None

    def undone(self) -> RouteChange:
        """Return what takes it back."""
        return RouteChange(self.prefix, self.length, self.after, self.before)


class Pause:
    """Gives the event loop a turn when it has waited long enough."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    async def if_due(self) -> bool:
        """Let others go on, if it is time; tell whether it was."""
        if time.monotonic() - self._since < TURN_S:
            return False
        await asyncio.sleep(0)
        self._since = time.monotonic()
        return True


async def find_changes(
    routes: Routes, wanted: RouteList, interfaces: Iterable[InterfaceConfig]
) -> list[RouteChange]:
    """Return what leads from the static routes to the wanted ones. Raises RefusedError."""
    known = list(interfaces)
    try:
        vias = [_normal(via_of(hops, known)) for hops in wanted.hops]
    except ValueError as error:
        raise RefusedError(f"{error}.") from None
    missing: dict[int, int] = {}
    pause = Pause()
    for position, (prefix, length) in enumerate(
        zip(wanted.columns.prefixes, wanted.columns.lengths, strict=True)
    ):
        missing[prefix << 6 | length] = position
        if not position % BATCH:
            await pause.if_due()
    changes: list[RouteChange] = []
    which = wanted.columns.which
    async for entry, via in _static(routes):
        position = missing.pop(entry.prefix << 6 | entry.length, -1)
        after = None if position < 0 else vias[which[position]]
        if after is None or _key(via) != _key(after):
            changes.append(RouteChange(entry.prefix, entry.length, via, after))
    new = [RouteChange(key >> 6, key & 63, None, vias[which[position]]) for key, position in missing.items()]
    # What comes is there before what it may stand in for goes.
    return [*new, *sorted(changes, key=lambda change: change.after is None)]


async def make_changes(routes: Routes, changes: Sequence[RouteChange]) -> None:
    """Make them. Raises RefusedError with the first that was refused, and all of them taken back."""
    pause = Pause()
    for start in range(0, len(changes), BATCH):
        some = changes[start : start + BATCH]
        refusals = _make(routes, some)
        first = next(filter(None, refusals), None)
        if first is not None:
            done = [change for change, refusal in zip(some, refusals, strict=True) if refusal is None]
            _make(routes, [change.undone() for change in reversed([*changes[:start], *done])])
            raise RefusedError(f"nothing was changed: {first}")
        await pause.if_due()


async def static_routes(published: Published) -> RouteList:
    """Return the static routes that there are."""
    texts = RouteTexts(published)
    found = RouteList()
    async for entry, via in _static(published.routes):
        found.append(entry.prefix, entry.length, texts.hops(via))
    return found


class RouteTexts:
    """Routes in words, with interfaces by their names."""

    def __init__(self, published: Published, more: Iterable[InterfaceConfig] = ()) -> None:
        self._routes = published.routes
        self._keys = {each.number: each.key for each in (*published.running.interfaces, *more)}
        self._hops: dict[int, tuple[HopConfig, ...]] = {}

    def table(self, entry: RouteEntry) -> str:
        """Return a route as a table of a configuration file."""
        return config_toml.route(_name(entry), self._hops_of(entry))

    def line(self, entry: RouteEntry) -> str:
        """Return a route as a line of a routes file."""
        return f"{_name(entry)} {' '.join(map(str, self._hops_of(entry)))}\n"

    def change(self, change: RouteChange) -> str:
        """Return a change as a line of a difference."""
        name = str(RouteConfig(change.prefix, change.length, ()))
        before, after = self._list(change.before), self._list(change.after)
        if change.before is None:
            return f"+ route {name} via {after}"
        return f"- route {name}" if change.after is None else f"~ route {name} via {before} -> {after}"

    def hops(self, via: Via) -> tuple[HopConfig, ...]:
        """Return hops as a file has them."""
        return (HopConfig(kind=via),) if isinstance(via, str) else tuple(map(self._hop, via))

    def _hops_of(self, entry: RouteEntry) -> tuple[HopConfig, ...]:
        if entry.target not in self._hops:
            self._hops[entry.target] = self.hops(self._routes.targets.asked(entry.target))
        return self._hops[entry.target]

    def _hop(self, hop: Hop) -> HopConfig:
        port, vlan = (None, 0) if hop.interface is None else self._keys[hop.interface]
        return HopConfig(hop.address, port, vlan, hop.weight)

    def _list(self, via: Via | None) -> str:
        return "" if via is None else ", ".join(map(str, self.hops(via)))


async def _static(routes: Routes) -> AsyncIterator[tuple[RouteEntry, Via]]:
    vias: dict[int, Via] = {}
    pause = Pause()
    for count, (_, entry) in enumerate(routes.static(), 1):
        via = vias.get(entry.target)
        if via is None:
            via = vias[entry.target] = routes.targets.asked(entry.target)
        yield entry, via
        if not count % BATCH and await pause.if_due():
            vias.clear()  # a target may be another one now


def _make(routes: Routes, changes: Sequence[RouteChange]) -> list[str | None]:
    kinds: list[tuple[Literal["add", "replace", "delete"], int, int, Via]] = [
        ("delete", each.prefix, each.length, ())
        if each.after is None
        else ("replace", each.prefix, each.length, each.after)
        for each in changes
    ]
    return routes.change(kinds)


def _normal(via: Via) -> Via:
    """Return what the FIB makes of it: the weight of a hop that is alone says nothing."""
    return (Hop(via[0].address, via[0].interface),) if not isinstance(via, str) and len(via) == 1 else via


def _key(via: Via) -> object:
    return via if isinstance(via, str) else frozenset(via)


def _name(entry: RouteEntry) -> str:
    return str(RouteConfig(entry.prefix, entry.length, ()))
