# SPDX-License-Identifier: Apache-2.0
"""The selector that makes asyncio poll a slot's rings.

When the event loop has nothing to run it asks its selector to wait. Ours then runs the native poll loop, which returns
when Python is needed: a punt, a readable descriptor, or the loop's next timer. Kernel sockets, signals, executors and
subprocesses work as ever; under load the descriptors are still looked at each millisecond, by C.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable

from halo_mp.workers.fastpath import FastPath, PollReason

_HOST_REASONS = ~(PollReason.DEADLINE | PollReason.FDS)
_FDS = int(PollReason.FDS)

Events = list[tuple[selectors.SelectorKey, int]]


class RingSelector(selectors.EpollSelector):
    """An epoll selector until a fast path is attached, and the poll loop from then on."""

    def __init__(self) -> None:
        super().__init__()
        self._fastpath: FastPath | None = None
        self._on_work: Callable[[int], None] | None = None
        self._doorbell_fd = -1

    def attach(self, fastpath: FastPath, doorbell_fd: int, on_work: Callable[[int], None]) -> None:
        """Poll from now on. `on_work` gets the reasons of each poll that has work for the host; it must not block."""
        self._fastpath, self._on_work, self._doorbell_fd = fastpath, on_work, doorbell_fd

    def detach(self) -> None:
        """Be an ordinary selector again."""
        self._fastpath = self._on_work = None

    def select(self, timeout: float | None = None) -> Events:
        """Wait as `selectors.BaseSelector.select` says, moving frames meanwhile."""
        fastpath = self._fastpath
        if fastpath is None or self._on_work is None:
            return super().select(timeout)
        reasons = fastpath.poll(-1 if timeout is None else max(0, int(timeout * 1e9)))
        if reasons & _HOST_REASONS:
            self._on_work(reasons)
        return self._descriptors() if reasons & _FDS else []

    def _descriptors(self) -> Events:
        # The doorbell may ring again between C's look and ours: asyncio knows nothing of it.
        return [event for event in super().select(0) if event[0].fd != self._doorbell_fd]
