# SPDX-License-Identifier: Apache-2.0
"""Finding what has stopped making progress, from the progress words in shared memory.

The packet loop itself raises the word, so a busy loop is not taken for a hung one. Only time in which the
watcher itself ran is counted: when the whole machine stood still, nobody is blamed. Who waits for a core is
not blamed either, up to ten times its limit. The only clock is the argument.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from halo_mp.shm.layout import Place

INTERVAL_S = 0.1
NATIVE_LIMIT_S = 1.0
# Sleepers wake at least each 250 ms, so one that is stopped for a second may have been still for that much longer.
ASLEEP_LIMIT_S = 1.25
START_GRACE_S = 10.0  # until the first sign of life
_STARVED_FACTOR = 10
_PLACE_WORDS = {
    Place.NATIVE: "in native code",
    Place.PYTHON: "in Python",
    Place.ASLEEP: "asleep",
}


# (thread, CPU time that it has had in clock ticks) of each thread that runs or waits for a core
Activity = frozenset[tuple[int, int]]
_UNKNOWN: Activity = frozenset({(0, 0)})
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


def read_activity(pid: int) -> Activity:
    """Return the runnable threads of a process; none when it is gone, stopped, or blocked.

    Who can not be looked at, because there are no descriptors left, has the benefit of the doubt.
    """
    found = set()
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError as error:
        return _UNKNOWN if error.errno in _OUT_OF_DESCRIPTORS else frozenset()
    for thread in threads:
        try:
            stat = Path(f"/proc/{pid}/task/{thread}/stat").read_text()
        except OSError as error:
            if error.errno in _OUT_OF_DESCRIPTORS:
                return _UNKNOWN
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        if fields[0] == "R":
            found.add((int(thread), int(fields[11]) + int(fields[12])))
    return frozenset(found)


class HangWatch:
    """Watches one progress word."""

    def __init__(self, python_limit_s: float, activity: Callable[[], Activity]) -> None:
        self._limits = {
            Place.NATIVE: NATIVE_LIMIT_S,
            Place.PYTHON: python_limit_s,
            Place.ASLEEP: ASLEEP_LIMIT_S,
        }
        self._activity = activity
        self._progress: int | None = None
        self._moved = False
        self._stalled_s = 0.0
        self._checked_at: float | None = None
        self._place = Place.NATIVE
        self._suspect: Activity | None = None

    def check(self, now: float, progress: int, place: int) -> str | None:
        """Return why it counts as hung, None while it does not. To be called each INTERVAL_S."""
        passed = 0.0 if self._checked_at is None else min(now - self._checked_at, 2 * INTERVAL_S)
        self._checked_at = now
        found = Place(place) if place in list(Place) else Place.NATIVE
        if progress != self._progress:
            self._moved = self._progress is not None
            self._restart(progress, found)
            return None
        if found != self._place:
            self._restart(progress, found)
        self._stalled_s += passed
        limit = self._limits[found] if self._moved else max(self._limits[found], START_GRACE_S)
        if self._stalled_s < limit or self._is_starved(limit):
            return None
        return f"made no progress for {self._stalled_s:.1f} s {_PLACE_WORDS[found]}"

    def _restart(self, progress: int, place: Place) -> None:
        self._progress = progress
        self._place = place
        self._stalled_s = 0.0
        self._suspect = None

    def _is_starved(self, limit: float) -> bool:
        """Tell whether a thread wants to run and got no CPU since the last check; the first only takes note."""
        before, self._suspect = self._suspect, self._activity()
        if not self._suspect or self._stalled_s >= limit * _STARVED_FACTOR:
            return False
        return before is None or not before.isdisjoint(self._suspect)
