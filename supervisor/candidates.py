# SPDX-License-Identifier: Apache-2.0
"""Configurations that clients have sent, in parts, and not applied yet: a few, of bounded size.

The text is a configuration file. `routing.routes_file` in it is the client's matter, who can read its own files: its
lines are sent as routes.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from halo_mp.errors import HaloError
from halo_mp.supervisor import arguments, config
from halo_mp.supervisor.config_changes import LINE, Wanted, told
from halo_mp.supervisor.config_file import FileReader
from halo_mp.supervisor.config_model import InterfaceConfig
from halo_mp.supervisor.config_routes import MAX_ROUTES, HopChecker, RouteList, parse_hops, parse_prefix
from halo_mp.supervisor.running import RefusedError

MAX_CANDIDATES = 4
REFUSALS_TOLD = 20
MAX_TEXT = 4 << 20
"""Characters. A file of that many takes seconds to read: more routes go by themselves."""


@dataclass(slots=True)
class Candidate:
    """What was sent so far."""

    file: str
    """What sentences call it."""
    texts: list[str] = field(default_factory=list)
    routes: RouteList | None = None
    """None: none were sent, not even an empty list."""
    numbers: dict[tuple[str, ...], int] = field(default_factory=dict)
    """What `routes` calls the hops that were there before: mostly there are few."""


class Candidates:
    """The latest ones, by number."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._found: dict[int, Candidate] = {}
        self._next = 1

    def add(
        self, number: int | None, file: str, text: str | None, routes: Sequence[Any] | None
    ) -> tuple[int, list[str | None]]:
        """Begin a candidate, or add to one; return its number, and for each route None or why it was refused."""
        if number is None:
            number = self._begin(file)
        found = self._candidate(number)
        if text is not None:
            if sum(map(len, found.texts)) + len(text) > MAX_TEXT:
                raise RefusedError(
                    f"a candidate has at most {MAX_TEXT} characters; send its routes by themselves."
                )
            found.texts.append(text)
        if routes is None:
            return number, []
        if found.routes is None:
            found.routes = RouteList()
        results = [_add_route(found.routes, found.numbers, *each) for each in routes]
        return number, _few(results)

    async def build(self, number: int) -> Wanted:
        """Return what a candidate stands for. Raises RefusedError with all that is wrong with it."""
        found = self._candidate(number)
        try:
            return await asyncio.to_thread(_build, found, self._instance)
        except HaloError as error:
            raise RefusedError("\n".join(told(str(error).splitlines()))) from None

    def _begin(self, file: str) -> int:
        while len(self._found) >= MAX_CANDIDATES:
            del self._found[min(self._found)]
        number, self._next = self._next, self._next + 1
        self._found[number] = Candidate(file)
        return number

    def _candidate(self, number: int) -> Candidate:
        found = self._found.get(number)
        if found is None:
            raise RefusedError(
                f"there is no candidate {number}: the latest {MAX_CANDIDATES} are kept; send it again."
            )
        return found


def whole(built: config.Config, more: RouteList | None) -> Wanted:
    """Return a configuration with the routes of its file behind its own. Raises RefusedError."""
    routes = RouteList()
    for route in built.routes:
        routes.append(route.prefix, route.length, route.hops)
    if more is not None:
        _check_more(built.interfaces, {(each.prefix, each.length) for each in built.routes}, more)
        for prefix, length, hops in more:
            routes.append(prefix, length, hops)
    return Wanted(built, routes)


def _build(candidate: Candidate, instance: str) -> Wanted:
    text = "".join(candidate.texts)
    named = "name" in FileReader(candidate.file, text).values
    words = ["--config", candidate.file, *([] if named else ["--name", instance])]
    built = config.build(arguments.parse(words, text))
    if built.routes_file is not None and candidate.routes is None:
        raise RefusedError(
            f"{candidate.file}, routing.routes_file: files are read by who sends a candidate; send its routes too."
        )
    return whole(dataclasses.replace(built, routes_file=None), candidate.routes)


def _check_more(interfaces: Iterable[InterfaceConfig], taken: set[tuple[int, int]], more: RouteList) -> None:
    checker = HopChecker(interfaces)
    for hops in more.hops:
        if problem := next(filter(None, map(checker.problem, hops)), ""):
            raise RefusedError(f"the routes file: {problem}.")
    seen = {prefix << 6 | length for prefix, length in taken}
    for prefix, length in zip(more.columns.prefixes, more.columns.lengths, strict=True):
        key = prefix << 6 | length
        if key in seen:
            raise RefusedError(
                f"the route {config.RouteConfig(prefix, length, ())} is there twice; write it once."
            )
        seen.add(key)


def _few(results: list[str | None]) -> list[str | None]:
    """Return the results, with sentences for some of the refusals: all of them might not fit into the answer."""
    refused = [place for place, result in enumerate(results) if result is not None]
    return [
        result if result is None or place in refused[:REFUSALS_TOLD] else "refused, too."
        for place, result in enumerate(results)
    ]


def _add_route(
    routes: RouteList, numbers: dict[tuple[str, ...], int], prefix: str, hops: Sequence[str]
) -> str | None:
    key = tuple(hops)
    try:
        if key not in numbers:
            numbers[key] = routes.number(parse_hops(hops))
        place = parse_prefix(prefix)
    except ValueError as error:
        return f"{str(error)[:LINE]}."
    if len(routes) >= MAX_ROUTES:
        return f"there are more than {MAX_ROUTES} routes, for which there is no room."
    routes.append_numbered(*place, numbers[key])
    return None
