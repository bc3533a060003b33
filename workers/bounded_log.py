# SPDX-License-Identifier: Apache-2.0
"""Tracebacks of an application at a bounded rate: who fails for each packet must not fill the log."""

from __future__ import annotations

from halo_mp import logs

INTERVAL_S = 1.0
"""Between two tracebacks of one name; those between are counted."""
MOST_NAMES = 256

log = logs.get("app")


class BoundedLog:
    """Logs exceptions, each name by itself."""

    def __init__(self) -> None:
        self._next: dict[str, tuple[float, int]] = {}  # when the next may be logged, and how many were not

    def exception(self, event: str, name: str, now: float) -> None:
        """Log the exception that is being handled, unless one of that name was logged just now."""
        at, suppressed = self._next.get(name, (0.0, 0))
        if now < at:
            self._next[name] = at, suppressed + 1
            return
        if len(self._next) >= MOST_NAMES:
            self._next.clear()
        self._next[name] = now + INTERVAL_S, 0
        more = {"suppressed": suppressed} if suppressed else {}
        log.exception(event, name=name, **more)
