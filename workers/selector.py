# SPDX-License-Identifier: Apache-2.0
"""The selector that makes asyncio poll a slot's rings.

When the event loop has nothing to run it asks its selector to wait. Ours then runs the native poll loop, which returns
when Python is needed: a punt, a readable descriptor, or the loop's next timer. Kernel sockets, signals, executors and
subprocesses work as ever; under load the descriptors are still looked at each millisecond, by C.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable

from halo_mp.workers.fastpath import FastPath, PollReason

_HOST_REASONS = ~int(PollReason.DEADLINE | PollReason.FDS | PollReason.HOOK)
_FDS = int(PollReason.FDS)
_HOOK = int(PollReason.HOOK)
_HOOKS_NS = (
    1_000_000  # that hooks may go on without the event loop: as long as its descriptors wait under load
)

Events = list[tuple[selectors.SelectorKey, int]]


class RingSelector(selectors.EpollSelector):
    """An epoll selector until a fast path is attached, and the poll loop from then on."""

    def __init__(self) -> None:
        super().__init__()
        self._fastpath: FastPath | None = None
        self._on_work: Callable[[int], None] | None = None
        self._on_hook: Callable[[], None] = _nothing
        self._parked = False
        self._doorbell_fd = -1
        self.in_hook = False
        """Whether a hook of the application's runs."""

    def attach(
        self,
        fastpath: FastPath,
        doorbell_fd: int,
        on_work: Callable[[int], None],
        on_hook: Callable[[], None] | None = None,
    ) -> None:
        """Poll from now on.

        `on_work` gets the reasons of each poll that has work for the host; it must not block. `on_hook` runs the
        application's hook that a poll came back for, behind any other work of that poll.
        """
        self._fastpath, self._on_work, self._doorbell_fd = fastpath, on_work, doorbell_fd
        self._on_hook = on_hook or _nothing

    def detach(self) -> None:
        """Be an ordinary selector again."""
        self._fastpath = self._on_work = None
        self._parked = False

    def select(self, timeout: float | None = None) -> Events:
        """Wait as `selectors.BaseSelector.select` says, moving frames meanwhile."""
        fastpath = self._fastpath
        if fastpath is None or self._on_work is None:
            return super().select(timeout)
        reasons = self._turn(fastpath, -1 if timeout is None else max(0, int(timeout * 1e9)))
        if reasons & _HOST_REASONS:
            self._on_work(reasons)
        return self._descriptors() if reasons & _FDS else []

    def turn(self, timeout_ns: int) -> int:
        """Poll once, not for the event loop; return the reasons, whose work is the caller's."""
        return self._turn(self._fastpath, timeout_ns) if self._fastpath is not None else 0

    def _turn(self, fastpath: FastPath, timeout_ns: int) -> int:
        if self._parked:
            self._parked = False
            self._run_hook()
        reasons = fastpath.poll(timeout_ns)
        return self._run_hooks(fastpath, reasons, timeout_ns) if reasons & _HOOK else reasons

    def _run_hook(self) -> None:
        self.in_hook = True
        try:
            self._on_hook()
        finally:
            self.in_hook = False

    def _run_hooks(self, fastpath: FastPath, reasons: int, timeout_ns: int) -> int:
        """Run hooks until a poll has other reasons too, or it is time for the event loop; return the reasons."""
        until_ns = time.monotonic_ns() + (_HOOKS_NS if timeout_ns < 0 else min(timeout_ns, _HOOKS_NS))
        while reasons == _HOOK:
            self._run_hook()
            left_ns = until_ns - time.monotonic_ns()
            if left_ns <= 0:
                return 0
            reasons = fastpath.poll(left_ns)
        self._parked = bool(reasons & _HOOK)
        return reasons

    def _descriptors(self) -> Events:
        # The doorbell may ring again between C's look and ours: asyncio knows nothing of it.
        return [event for event in super().select(0) if event[0].fd != self._doorbell_fd]


def _nothing() -> None:
    """Stand for the hooks of a worker without an application."""
