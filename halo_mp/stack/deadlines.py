# SPDX-License-Identifier: Apache-2.0
"""Deadlines for very many keys, one each: setting, moving and cancelling are O(1), not a scan.

Deadlines are rounded up to 1/64 s (a power of two, so that rounding is exact) and keys wait in one bucket per
such instant. Only the instants stand in a heap, so it holds as many entries as there are different instants,
at most 64 for each second of the longest timeout, however many keys there are and however often their
deadlines move. A heap of keys would fill with outdated entries instead: a neighbor that is heard every second
moves its deadline each time.

Nothing happens early; what is due may happen up to 1/64 s late.
"""

import heapq
import math
from typing import Final, Generic, TypeVar

Key = TypeVar("Key")

TICKS_PER_SECOND: Final = 64


class Deadlines(Generic[Key]):
    """At most one deadline for each key."""

    def __init__(self) -> None:
        self._tick_of: dict[Key, int] = {}
        self._keys_at: dict[int, dict[Key, None]] = {}
        self._ticks: list[int] = []  # a heap of the keys of _keys_at, of empty buckets too

    def __len__(self) -> int:
        return len(self._tick_of)

    def set(self, key: Key, deadline: float) -> None:
        """Call for ``key`` at ``deadline``, and not at the time that was set before."""
        self.cancel(key)
        tick = math.ceil(deadline * TICKS_PER_SECOND)
        bucket = self._keys_at.get(tick)
        if bucket is None:
            bucket = self._keys_at[tick] = {}
            heapq.heappush(self._ticks, tick)
        bucket[key] = None
        self._tick_of[key] = tick

    def cancel(self, key: Key) -> None:
        """Forget the deadline of ``key``, if it has one."""
        tick = self._tick_of.pop(key, None)
        if tick is not None:
            del self._keys_at[tick][key]

    def take_due(self, now: float, limit: int) -> list[Key]:
        """At most ``limit`` keys whose deadline has come, the earliest first; it is taken from them."""
        due: list[Key] = []
        last = math.floor(now * TICKS_PER_SECOND)
        while len(due) < limit and (tick := self._first_tick()) is not None and tick <= last:
            key, _ = self._keys_at[tick].popitem()
            del self._tick_of[key]
            due.append(key)
        return due

    def next(self) -> float | None:
        """The earliest deadline there is."""
        tick = self._first_tick()
        return None if tick is None else tick / TICKS_PER_SECOND

    def _first_tick(self) -> int | None:
        """The first instant with a key; empty buckets before it are thrown away."""
        while self._ticks and not self._keys_at[self._ticks[0]]:
            del self._keys_at[heapq.heappop(self._ticks)]
        return self._ticks[0] if self._ticks else None
