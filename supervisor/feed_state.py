# SPDX-License-Identifier: Apache-2.0
"""A topic that is a set of things by their keys: which of them were touched is gathered, and how they are then is told.

So many changes of one thing are one, and what a flood of changes costs is bounded: each slice of them takes a moment,
and when too many wait they are forgotten, and clients told to list anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

import msgpack

from halo_mp.control import frame
from halo_mp.plain import to_plain
from halo_mp.supervisor.operations import PAGE_OCTETS
from halo_mp.supervisor.outbox import Outbox

GATHER_S = 0.05
"""From the first change to the notice."""
SLICE = 500
"""Things that are described at once, and the pause behind them: others have their turn."""
PAUSE_S = 0.01
SLICE_OCTETS = 128 << 10
MAX_TOUCHED = 65_536

K = TypeVar("K")
Describe = Callable[[Sequence[K]], Iterable[tuple[str, object | None]]]
"""For each key what it is called, and how the thing is now, None if it is not."""


class StateFeed(Generic[K]):
    """One topic. It `remembers` what it has told where touching does not mean changing."""

    def __init__(self, topic: str, describe: Describe[K], *, remembers: bool = False) -> None:
        self._topic = topic
        self._describe = describe
        self._told: dict[K, object | None] | None = {} if remembers else None
        self._outboxes: set[Outbox] = set()
        self._touched: dict[K, None] = {}  # in their order
        self._missed = False
        self._timer: asyncio.TimerHandle | None = None

    def subscribe(self, outbox: Outbox, keys: Iterable[K] = ()) -> None:
        """Tell somebody of changes from now on. `keys` are those that there are, for who remembers."""
        if not self._outboxes and self._told is not None:
            there = list(keys)
            self._told = {key: what for key, (_, what) in zip(there, self._describe(there), strict=True)}
        self._outboxes.add(outbox)

    def unsubscribe(self, outbox: Outbox) -> None:
        """Tell it no more."""
        self._outboxes.discard(outbox)
        if not self._outboxes:
            self.close()

    def close(self) -> None:
        """Tell nobody."""
        self._outboxes.clear()
        self._touched.clear()
        self._missed = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def touch(self, keys: Iterable[K]) -> None:
        """Take note that things were changed, have come, or have gone."""
        if not self._outboxes:
            return
        if self._told is not None:
            self._touched.update(dict.fromkeys(self._told))
        for key in keys:
            self._touched[key] = None
            if len(self._touched) > MAX_TOUCHED:
                self._touched.clear()
                self._missed = True
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        notices = _Notices(self._topic)
        if self._missed:
            notices.tell_missed()
            self._missed = False
        keys = list(islice(self._touched, SLICE))
        for key, (name, what) in zip(keys, self._describe(keys), strict=True):
            del self._touched[key]
            if self._is_news(key, what):
                notices.add(name, what)
            if notices.octets > SLICE_OCTETS:
                break
        if octets := notices.done():
            for outbox in list(self._outboxes):
                outbox.put(octets)
        if self._touched and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE_S, self._flush)

    def _is_news(self, key: K, what: object | None) -> bool:
        if self._told is None:
            return True
        if what == self._told.get(key):
            return False
        if what is None:
            del self._told[key]
        else:
            self._told[key] = what
        return True


class _Notices:
    """Frames of notices, of which none is too long."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._frames: list[bytes] = []
        self.octets = 0
        self._begin()

    def _begin(self) -> None:
        self._changed: list[Any] = []
        self._gone: list[str] = []
        self._missed = False
        self._page_octets = 0

    def tell_missed(self) -> None:
        """Say in the next one that not all is told."""
        self._missed = True

    def add(self, name: str, what: object | None) -> None:
        """Tell of one thing."""
        if what is None:
            self._gone.append(name)
            size = len(name) + 2
        else:
            self._changed.append(to_plain(what))
            size = len(msgpack.packb(self._changed[-1]))
        self.octets += size
        self._page_octets += size
        if self._page_octets > PAGE_OCTETS:
            self._end_page()

    def done(self) -> bytes:
        """Return all of them."""
        if self._missed or self._changed or self._gone:
            self._end_page()
        return b"".join(self._frames)

    def _end_page(self) -> None:
        notice = {"type": "notice", "topic": self._topic, "missed": self._missed}
        self._frames.append(frame.emit({**notice, "changed": self._changed, "gone": self._gone}))
        self._begin()
