# SPDX-License-Identifier: Apache-2.0
"""When something that died is started again. Knows no clock and no process.

At once, but never more than `count` times in `window_s` seconds; past that it counts as failed and is tried
after 1, 2, 4 ... 30 seconds, and not before the window allows. A life that was useful for a whole window
wipes the slate.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

LONGEST_DELAY_S = 30.0


@dataclass(frozen=True, slots=True)
class Restart:
    """What to do about one death."""

    delay_s: float
    failed: bool


class RestartPolicy:
    """Decides for one child. Times are seconds of any monotonic clock."""

    def __init__(self, count: int, window_s: float) -> None:
        self._count = count
        self._window_s = window_s
        self._restarts: deque[float] = deque(maxlen=max(count, 1))
        self._failures = 0

    def died(self, now: float, *, useful_s: float) -> Restart:
        """Return when to restart what just died after having been useful for `useful_s` seconds."""
        if useful_s >= self._window_s:
            self._failures = 0
        allowed = self._allowed_at(now)
        failed = self._failures > 0 or allowed > now or self._count == 0
        at = now
        if failed:
            at = max(allowed, now + min(LONGEST_DELAY_S, 2.0**self._failures))
            self._failures = min(self._failures + 1, 16)
        self._restarts.append(at)
        return Restart(delay_s=at - now, failed=failed)

    def _allowed_at(self, now: float) -> float:
        """Return when the window has room for one more restart."""
        if self._count == 0 or len(self._restarts) < self._count:
            return now
        return max(now, self._restarts[0] + self._window_s)
