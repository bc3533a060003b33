# SPDX-License-Identifier: Apache-2.0
"""The topic `events`: what the supervisor logs, from a level on that each client chooses, whatever level is written."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping
from typing import Any

import msgpack

from halo_mp import logs
from halo_mp.control import frame
from halo_mp.supervisor.feed_state import GATHER_S
from halo_mp.supervisor.operations import PAGE_OCTETS
from halo_mp.supervisor.outbox import Outbox

MAX_GATHERED = 1000
"""Events between two notices; more are missed."""
MAX_FIELDS_OCTETS = 16 << 10
MAX_NOTICE_OCTETS = 256 << 10
_MOST_CHARACTERS = 4096


class EventFeed:
    """Listens to the log while anybody has subscribed."""

    def __init__(self) -> None:
        self._levels: dict[Outbox, int] = {}
        self._gathered: list[tuple[float, int, str, dict[str, Any]]] = []
        self._missed = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0

    def subscribe(self, outbox: Outbox, level: str) -> None:
        """Tell somebody of events from a level on."""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._levels[outbox] = logs.LEVELS[level]
        self._listen()

    def unsubscribe(self, outbox: Outbox) -> None:
        """Tell it no more."""
        if self._levels.pop(outbox, None) is not None:
            self._listen()

    def close(self) -> None:
        """Tell nobody."""
        self._levels.clear()
        self._listen()

    def _listen(self) -> None:
        if self._levels:
            logs.listen(logs.level_name(min(self._levels.values())), self._on_event)
            return
        logs.unlisten()
        self._gathered.clear()
        self._missed = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_event(self, at: float, level: int, event: str, fields: Mapping[str, object]) -> None:
        """Take note of an event, by whichever thread logs it: fields may change later."""
        if len(self._gathered) >= MAX_GATHERED:
            self._missed = True
            return
        self._gathered.append((at, level, event, logs.plain(fields)))
        if threading.get_ident() == self._thread:
            self._schedule()
        elif self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._schedule)

    def _schedule(self) -> None:
        if self._timer is None and self._levels and self._loop is not None:
            self._timer = self._loop.call_later(GATHER_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        gathered, self._gathered = self._gathered, []
        missed, self._missed = self._missed, False
        entries: list[tuple[int, dict[str, Any]]] = []
        octets = 0
        for each in gathered:
            entries.append((each[1], _entry(*each)))
            octets += len(msgpack.packb(entries[-1][1]))
            if octets > MAX_NOTICE_OCTETS:
                missed = True
                break
        made: dict[int, bytes] = {}
        for outbox, level in list(self._levels.items()):
            if level not in made:
                made[level] = _frames([entry for at, entry in entries if at >= level], missed=missed)
            if made[level]:
                outbox.put(made[level])


def _entry(at: float, level: int, event: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return an event as clients get it: what is too long for a notice is cut."""
    found = {
        name: value[:_MOST_CHARACTERS] if isinstance(value, str) else value for name, value in fields.items()
    }
    try:
        fits = len(msgpack.packb(found)) <= MAX_FIELDS_OCTETS
    except (OverflowError, ValueError):  # a number, or a depth, that msgpack has not
        fits = False
    if not fits:
        most = MAX_FIELDS_OCTETS // (4 * len(found))
        found = {
            name: repr(value).encode(errors="backslashreplace")[:most].decode(errors="replace")
            for name, value in found.items()
        }
    return {"at": at, "level": logs.level_name(level), "event": event, "fields": found}


def _frames(entries: list[dict[str, Any]], *, missed: bool) -> bytes:
    frames: list[bytes] = []
    page: list[dict[str, Any]] = []
    octets = 0

    def end_page() -> None:
        frames.append(
            frame.emit({"type": "notice", "topic": "events", "missed": missed and not frames, "events": page})
        )

    for entry in entries:
        page.append(entry)
        octets += len(msgpack.packb(entry))
        if octets > PAGE_OCTETS:
            end_page()
            page, octets = [], 0
    if page or (missed and not frames):
        end_page()
    return b"".join(frames)
