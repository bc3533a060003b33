# SPDX-License-Identifier: Apache-2.0
"""Events about links that go up and down, few enough to be read: one a second for each port, the last one true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

INTERVAL_S = 1.0


@dataclass(slots=True)
class _Link:
    up: bool
    changes: int = 0  # since then
    quiet_until: float = 0.0


class LinkLog:
    """`write(port, up, changes)` makes an event; `changes` have happened since the one before, this one included."""

    def __init__(self, write: Callable[[int, bool, int], None]) -> None:
        self._write = write
        self._links: dict[int, _Link] = {}

    def start(self, port: int, up: bool) -> None:
        """Take note of the state of a port that was just opened: no event, and none about its past."""
        self._links[port] = _Link(up)

    def set(self, port: int, up: bool, now: float) -> None:
        """Take note of a state that may be a new one."""
        link = self._links.get(port)
        if link is None:
            self.start(port, up)
        elif link.up != up:
            link.up = up
            link.changes += 1
            self._settle(port, link, now)

    def poll(self, now: float) -> None:
        """Write what had to wait."""
        for port, link in self._links.items():
            if link.changes:
                self._settle(port, link, now)

    def forget(self, port: int) -> None:
        """Write nothing more of a port that is lost."""
        self._links.pop(port, None)

    def _settle(self, port: int, link: _Link, now: float) -> None:
        if now >= link.quiet_until:
            self._write(port, link.up, link.changes)
            link.changes = 0
            link.quiet_until = now + INTERVAL_S
