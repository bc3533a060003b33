# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is to change the configuration: a whole one is brought about alone, single changes between those.

An application looks at what there is and replaces it a while later: what somebody set meanwhile would be gone without a
word. So a single change that comes while a whole one is under way, or waits, waits for it, and is refused when that
takes too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from halo_mp.supervisor.running import RefusedError

PATIENCE_S = 5.0
"""For which a single change waits. Clients wait for 10 s, and then would not know what became of it."""


class ChangeOrder:
    """First come, first served; single changes do not wait for each other."""

    def __init__(self) -> None:
        self._gate = asyncio.Lock()  # held by who changes all; its waiters are served in order
        self._singles = 0
        self._calm = asyncio.Event()
        self._calm.set()

    @asynccontextmanager
    async def whole(self) -> AsyncIterator[None]:
        """Wait until nobody changes anything, and let nobody do so until the end of the block."""
        async with self._gate:
            await self._calm.wait()
            yield

    @asynccontextmanager
    async def single(self, patience_s: float | None = None) -> AsyncIterator[None]:
        """Wait until no whole change is under way, and let none begin until the end of the block.

        Raises RefusedError when that takes longer than `patience_s`; None: it may take as long as it takes.
        """
        try:
            async with asyncio.timeout(patience_s):
                await self._gate.acquire()
        except TimeoutError:
            raise RefusedError(
                "nothing was changed, since a whole configuration is being applied at the moment (config.applied in "
                "the log tells of its end): try again when that is done."
            ) from None
        self._gate.release()
        self._singles += 1
        self._calm.clear()
        try:
            yield
        finally:
            self._singles -= 1
            if not self._singles:
                self._calm.set()
