# SPDX-License-Identifier: Apache-2.0
"""What the workers' KCP says of itself (`halo_mp.kcp.report`), asked of one worker after the other.

Only who is asked knows: sessions live in the worker. One that is not ready, or does not answer, has nothing to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from halo_mp.control.channel import ChannelError, RequestFailed
from halo_mp.supervisor.keeper_worker import WorkerKeeper

PATIENCE_S: Final = 5.0


class KcpReports:
    """Asks the workers."""

    def __init__(self, workers: Mapping[int, WorkerKeeper]) -> None:
        self._workers = workers

    async def list(self, start: int) -> dict[str, Any]:
        """Return what the first worker from slot `start` on says, and which slot is next; None: there are no more."""
        slots = sorted(slot for slot in self._workers if slot >= start)
        if not slots:
            return {"slot": None, "kcp": None, "next": None}
        following = slots[1] if len(slots) > 1 else None
        return {"slot": slots[0], "kcp": await self._ask(slots[0]), "next": following}

    async def _ask(self, slot: int) -> object:
        worker = self._workers[slot]
        if not worker.is_useful or worker.life is None or worker.life.channel is None:
            return None
        try:
            reply = await worker.life.channel.request({"type": "kcp"}, timeout_s=PATIENCE_S)
        except (ChannelError, RequestFailed, TimeoutError):
            return None
        found = reply.get("kcp")
        return found if isinstance(found, dict) else None
