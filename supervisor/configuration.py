# SPDX-License-Identifier: Apache-2.0
"""The configuration of an instance that runs: shown, compared with another one, replaced by it, and taken back.

Another configuration is that of the file and the flags that the instance was started with, read anew; or a candidate
that a client has sent; or one that was there before. It is brought about whole or not at all, while packets flow: first
there is what both need, then routes move, then what is not wanted any more goes. What can only be had by a restart is
refused with a list of that, and nothing is changed.

Owned by the supervisor. Files are opened for its own flags alone, never for a client, who may not be let see them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halo_mp import logs
from halo_mp.errors import HaloError
from halo_mp.supervisor import awaited, config_toml, history
from halo_mp.supervisor.awaited import NOBODY, RETRY_S, Awaited
from halo_mp.supervisor.candidates import Candidates
from halo_mp.supervisor.change_order import PATIENCE_S, ChangeOrder
from halo_mp.supervisor.config_changes import LIVE, TOLD, Plan, Wanted, plan, told, united
from halo_mp.supervisor.config_model import Config
from halo_mp.supervisor.history import Kept
from halo_mp.supervisor.published import Published
from halo_mp.supervisor.route_changes import (
    RouteChange,
    RouteTexts,
    find_changes,
    make_changes,
    static_routes,
)
from halo_mp.supervisor.running import RefusedError

KEPT = 10
"""Configurations that can be gone back to."""
KEPT_ROUTES = 2_000_000
"""Routes of all of them together, at 9 octets each: beyond that the oldest configurations go."""
PAGE_OCTETS = 32 << 10
SCANNED = 2048
_ROUTES_FROM = 1 << 31
"""A page that starts there or later is one of routes."""

log = logs.get("supervisor")

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Difference:
    plan: Plan
    routes: list[RouteChange]
    told: list[str]

    @property
    def count(self) -> int:
        return len(self.plan.changes) + len(self.routes)


class Configuration:
    """What `config.*` requests and SIGHUP ask for."""

    def __init__(
        self,
        published: Published,
        *,
        started: Config,
        reread: Callable[[], Wanted] | None,
        on_applied: Callable[[Config, Config | None], None],
        directory: Path,
    ) -> None:
        """`reread` returns what flags and file say at present, and may block; None where nobody knows.

        `on_applied` gets the configuration as it was started, with what was changed of LIVE; and, after reread, that.
        What a predecessor left in `directory` is gone on with.
        """
        self.config = started
        self._published = published
        self._reread = reread
        self._on_applied = on_applied
        self._candidates = Candidates(started.instance)
        self._history_file = directory / history.FILE
        self._kept = history.load(self._history_file)
        self._awaited_file = directory / awaited.FILE
        self.awaited = awaited.load(self._awaited_file)
        """A confirmation, without which what was there before comes back."""
        self._awaiting = asyncio.Event()
        self._order = ChangeOrder()

    # ---- shown

    def show(self, part: str, start: int) -> Fields:
        """Return a page of the configuration as text; `version` changes with everything but routes.

        `part` is all, settings or routes; routes by themselves are lines of a routes file.
        """
        if part not in ("all", "settings", "routes"):
            raise RefusedError(
                f"there is no part {part!r:.40} of a configuration; there are all, settings and routes."
            )
        tables = config_toml.settings(self._present())
        version = hash(tuple(tables)) & 0x7FFFFFFF
        if part != "routes" and start < _ROUTES_FROM:
            octets = 0
            texts: list[str] = []
            for text in tables[start:]:
                octets += len(text)
                if octets > PAGE_OCTETS and texts:
                    return {"text": "".join(texts), "next": start + len(texts), "version": version}
                texts.append(text)
            following = None if part == "settings" else _ROUTES_FROM
            return {"text": "".join(texts), "next": following, "version": version}
        text, following = self._show_routes(max(0, start - _ROUTES_FROM), as_lines=part == "routes")
        return {
            "text": text,
            "next": None if following is None else following + _ROUTES_FROM,
            "version": version,
        }

    def _show_routes(self, start: int, *, as_lines: bool) -> tuple[str, int | None]:
        texts = RouteTexts(self._published)
        found: list[str] = []
        octets = 0
        for count, (place, entry) in enumerate(self._published.routes.static(start)):
            if count == SCANNED or octets > PAGE_OCTETS:
                return "".join(found), place
            found.append(texts.line(entry) if as_lines else texts.table(entry))
            octets += len(found[-1])
        return "".join(found), None

    def _present(self) -> Config:
        """Return the configuration with what has become of it."""
        now = self._published.running
        # In the order of a configuration, whenever an interface came to be one.
        interfaces = sorted(now.interfaces, key=lambda each: each.key if each.vlan else (-1, each.number))
        return dataclasses.replace(self.config, interfaces=tuple(interfaces), neighbors=now.neighbors)

    def history(self) -> Fields:
        """Return what can be gone back to, the latest first."""
        return {
            "kept": [
                {"number": number, "until": each.until, "by": each.by, "changes": each.changes}
                for number, each in enumerate(reversed(self._kept), 1)
            ]
        }

    # ---- changes

    def single_change(self) -> AbstractAsyncContextManager[None]:
        """Return what a change by hand is made within: it waits for a configuration that is being applied.

        Raises RefusedError, when entered, after some seconds of that.
        """
        return self._order.single(PATIENCE_S)

    def stage(
        self, candidate: int | None, file: str, text: str | None, routes: Sequence[Any] | None
    ) -> Fields:
        """Put together a candidate, and return its number, and of each route why it was refused, or None."""
        number, results = self._candidates.add(candidate, file, text, routes)
        return {"candidate": number, "results": results}

    async def diff(self, candidate: int) -> Fields:
        """Return what a candidate would change."""
        wanted = await self._candidates.build(candidate)
        async with self._order.single():
            found = await self._difference(wanted)
        return {"changes": found.told, "count": found.count, "restart": told(found.plan.restart)}

    async def apply(self, candidate: int, by: str, confirm_s: int | None) -> Fields:
        """Bring a candidate about, whole or not at all; take it back unless it is confirmed within `confirm_s`."""
        if confirm_s is not None:
            awaited.check_seconds(confirm_s)
        found = await self._replace(await self._candidates.build(candidate), by, confirm_s=confirm_s)
        return {**found, "confirm_until": self.awaited.until if self.awaited else None}

    async def rollback(self, steps: int, by: str) -> Fields:
        """Bring back what was there before the last application, or that of so many steps ago."""
        if not 1 <= steps <= len(self._kept):
            there = (
                f"1 to {len(self._kept)}"
                if self._kept
                else "none: nothing was applied since this instance started"
            )
            raise RefusedError(f"there is no configuration {steps} to go back to; there are {there}.")
        return await self._replace(self._kept[-steps].wanted, by, goes_back=True)

    async def reload(self, by: str) -> Fields:
        """Read the flags and the file that the instance was started with anew, and bring about what they say now."""
        if self._reread is None:
            raise RefusedError("the flags that this instance was started with are not known.")
        try:
            wanted = await asyncio.to_thread(self._reread)
        except HaloError as error:
            raise RefusedError("\n".join(told(str(error).splitlines()))) from None
        return await self._replace(wanted, by, reread=wanted.config)

    # ---- confirmation

    async def confirm(self, by: str) -> None:
        """Keep what was applied on condition. Raises RefusedError when there is no such thing, or no more."""
        async with self._order.whole():
            if self.awaited is None:
                raise RefusedError(
                    "no confirmation is awaited. If this one is too late, all was taken back: halo-mp config history "
                    "tells, and halo-mp config rollback brings it again."
                )
            try:
                self._awaited_file.unlink(missing_ok=True)
            except OSError as error:  # the next supervisor would still go back
                raise RefusedError(
                    f"{self._awaited_file} can not be removed: {error.strerror}. Do that, and confirm again."
                ) from None
            self._end_awaiting()
        log.info("config.confirmed", by=by)

    async def take_back_in_time(self) -> None:
        """Go back whenever a confirmation does not come, until cancelled."""
        while True:
            self._awaiting.clear()
            waiting = self.awaited
            try:
                async with asyncio.timeout_at(waiting.deadline if waiting else None):
                    await self._awaiting.wait()
            except TimeoutError:
                assert waiting is not None
                await self._take_back(waiting)

    async def _take_back(self, late: Awaited) -> None:
        try:
            await self._replace(late.before.wanted, NOBODY, goes_back=True, late=late)
        except Exception as error:
            if isinstance(error, RefusedError):
                log.error("config.not_taken_back", reason=str(error), retry_in_s=RETRY_S)
            else:  # a mistake of ours: no reason to end what forwards
                log.exception("config.error", by=NOBODY)
            if self.awaited is late:
                self.awaited = dataclasses.replace(late, deadline=time.monotonic() + RETRY_S)

    async def _save_awaited(self, found: Awaited) -> None:
        try:
            await asyncio.to_thread(awaited.save, self._awaited_file, found)
        except OSError as error:
            raise RefusedError(
                f"{self._awaited_file} can not be written ({error.strerror}), without which nobody could take the "
                "configuration back should the supervisor die. Make room there, or apply it without --confirm."
            ) from None

    def _end_awaiting(self) -> None:
        with contextlib.suppress(OSError):  # the next supervisor would go back to what there is
            self._awaited_file.unlink(missing_ok=True)
        self.awaited = None
        self._awaiting.set()

    # ---- how

    async def _difference(self, wanted: Wanted) -> _Difference:
        found = plan(self.config, self._published.running, wanted.config)
        changes = await find_changes(self._published.routes, wanted.routes, found.running.interfaces)
        texts = RouteTexts(self._published, found.running.interfaces)
        lines = [*found.changes, *map(texts.change, changes[:TOLD])]
        return _Difference(found, changes, told(lines, len(found.changes) + len(changes)))

    async def _replace(
        self,
        wanted: Wanted,
        by: str,
        *,
        reread: Config | None = None,
        confirm_s: int | None = None,
        goes_back: bool = False,
        late: Awaited | None = None,
    ) -> Fields:
        """Bring about what is wanted. Going back ends the wait for a confirmation, for `late` if that is still it."""
        async with self._order.whole():
            waiting = self.awaited
            if late is not None and waiting is not late:
                return {}  # confirmed, or taken back by hand, while others had their turn
            if waiting is not None and not goes_back:
                raise RefusedError(_confirmation_needed(waiting))
            found = await self._difference(wanted)
            if found.plan.restart:
                raise RefusedError(_restart_needed(found.plan.restart))
            if found.count:
                await self._bring_about(found, by, confirm_s)
            self.config = _with_live(self.config, wanted.config)
            self._on_applied(self.config, reread)
            if waiting is not None:
                self._end_awaiting()
        log.info("config.applied", by=by, changes=found.count, **_given(confirm_s=confirm_s))
        if waiting is not None:
            log.warning("config.taken_back", by=by, applied_by=waiting.before.by, changes=found.count)
        return {"changes": found.told, "count": found.count}

    async def _bring_about(self, found: _Difference, by: str, confirm_s: int | None) -> None:
        """Make the changes, and keep what was there before. Raises RefusedError, with nothing changed."""
        before = Wanted(self._present(), await static_routes(self._published))
        kept = Kept(before, time.time(), by, found.count)
        if confirm_s is None:
            await self._change(found)
            await self._keep(kept)
            return
        waiting = Awaited(kept, deadline=0.0)
        await self._save_awaited(waiting)
        try:
            await self._change(found)
        except BaseException:
            self._end_awaiting()
            raise
        await self._keep(kept)
        self.awaited = waiting.applied(time.monotonic(), time.time(), confirm_s)
        self._awaiting.set()
        try:
            await self._save_awaited(self.awaited)
        except RefusedError as error:  # a successor would go back at once: that is for who wants to be sure
            log.warning("history.not_saved", reason=str(error))

    async def _change(self, found: _Difference) -> None:
        """Make the changes. Raises RefusedError, with all of them taken back."""
        before, wanted = self._published.running, found.plan.running
        await self._published.change(lambda now: united(now, wanted))
        try:
            await make_changes(self._published.routes, found.routes)
            await self._published.change(lambda _: wanted)
        except RefusedError:
            await self._published.change(lambda _: before)
            raise

    async def _keep(self, kept: Kept) -> None:
        self._kept.append(kept)
        while (
            len(self._kept) > KEPT or sum(len(each.wanted.routes) for each in self._kept[:-1]) > KEPT_ROUTES
        ):
            del self._kept[0]
        try:
            await asyncio.to_thread(history.save, self._history_file, self._kept)
        except OSError as error:
            log.warning("history.not_saved", reason=error.strerror)


def _confirmation_needed(waiting: Awaited) -> str:
    left = max(0, round(waiting.deadline - time.monotonic()))
    return (
        f"nothing was changed, since what {waiting.before.by} has applied still awaits its confirmation, for {left} s. "
        "halo-mp config confirm keeps that, halo-mp config rollback takes it back; then try again."
    )


def _given(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _restart_needed(phrases: Sequence[str]) -> str:
    listed = "\n".join(f"  {phrase}" for phrase in told(phrases))
    return (
        f"nothing was changed, since this can not change while the instance runs:\n{listed}\n"
        "Stop the instance and start it with that."
    )


def _with_live(started: Config, wanted: Config) -> Config:
    return dataclasses.replace(started, **{name: getattr(wanted, name) for name in LIVE})
