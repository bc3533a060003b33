# SPDX-License-Identifier: Apache-2.0
"""A child's line to its supervisor, which outlives supervisors: when one dies, the next of its name takes it up.

    connected → serving ⇄ lost: tries to reach one, four times a second, until the time-out → orphaned

That somebody listens is not enough to be found: only a supervisor that has a word for us is ours. Who is connected and
not configured yet ends with its supervisor.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from halo_mp import logs
from halo_mp.control.channel import Channel, ChannelError, Handler, connect
from halo_mp.control.frame import Message
from halo_mp.control.messages import PRIVATE_VERSION
from halo_mp.shm.identity import boot_id

ORPHAN_TIMEOUT_S = 60.0
_PAUSES_S = (0.05, 0.25)  # first and longest

log = logs.get("control")


class Lifeline:
    """One for each child. `channel` is the present one; what is sent on a lost one raises ChannelError."""

    channel: Channel

    def __init__(self, runtime: Path, identity: Callable[[], Mapping[str, Any]], handle: Handler) -> None:
        """`identity` is who we say we are: role and slot. `handle` gets every message, and owns its descriptors."""
        self.orphan_timeout_s = ORPHAN_TIMEOUT_S
        self._path = runtime / "private.sock"
        self._identity = identity
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._lost_at: float | None = None  # since when no supervisor has had a word for us

    async def connect(self) -> None:
        """Greet the supervisor. Raises ChannelClosed when there is none."""
        self.channel = await connect(self._path)
        hello = {"type": "hello", "pid": os.getpid(), "version": PRIVATE_VERSION, "boot_id": boot_id()}
        await self.channel.send({**hello, **self._identity()})

    async def serve(self, is_configured: Callable[[], bool]) -> bool:
        """Handle messages for as long as there is a supervisor, or may be one again. Raises what the handler raises.

        True: an orphan, no supervisor came in time. False: its supervisor is gone, and it was not configured yet.
        """
        while True:
            reason = "it closed the channel"
            try:
                await self.channel.serve(self._on_message)
            except ChannelError as error:
                reason = str(error)
            if not is_configured():
                return False
            if self._lost_at is None:
                log.warning("supervisor.lost", reason=reason)
            if not await self._reconnect():
                return True

    def close(self) -> None:
        """Hang up."""
        self.channel.close()

    async def _on_message(self, message: Message, fds: list[int]) -> None:
        if self._lost_at is not None:
            self._lost_at = None
            log.info("supervisor.found")
        await self._handle(message, fds)

    async def _reconnect(self) -> bool:
        pause, longest = _PAUSES_S
        if self._lost_at is None:
            self._lost_at = self._loop.time()
        else:
            pause = longest
        while self._loop.time() < self._lost_at + self.orphan_timeout_s:
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
            try:
                await self.connect()
            except (OSError, ChannelError, MemoryError):
                continue
            return True
        return False
