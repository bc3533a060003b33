# SPDX-License-Identifier: Apache-2.0
"""What one client of the control socket is still to be sent of what it subscribed to: bounded, in octets and in time.

Nobody waits for it. A client that lets too much come together, or takes nothing for too long, is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path

from halo_mp import logs
from halo_mp.control.channel import Channel, ChannelError, Peer
from halo_mp.control.notices import MAX_WAITING_OCTETS

STALL_TIMEOUT_S = 5.0
_SENT_TOGETHER_OCTETS = 64 << 10

log = logs.get("supervisor")


class Outbox:
    """Of one client. It closes the client's channel when it drops it."""

    def __init__(self, channel: Channel, on_dropped: Callable[[Outbox], None]) -> None:
        """`on_dropped` is called before the log is, and must have nothing more put here."""
        self._channel = channel
        self._on_dropped = on_dropped
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._octets = 0
        self._sending: asyncio.Task[None] | None = None

    @property
    def octets(self) -> int:
        """How many wait."""
        return self._octets

    def put(self, octets: bytes, *, is_state: bool = False) -> None:
        """Have whole frames sent. With `is_state` they take the place of those that wait of that kind."""
        if self._channel.closed:
            return
        if self._sending is None:
            self._begin(octets)
            return
        if is_state:
            self._forget_state()
        self._waiting.append((octets, is_state))
        self._octets += len(octets)
        if self._octets > MAX_WAITING_OCTETS:
            self._drop(f"does not read what it subscribed to, of which {self._octets} octets wait")

    def close(self) -> None:
        """Send nothing more. May be called twice."""
        self._waiting.clear()
        self._octets = 0
        if self._sending is not None:
            self._sending.cancel()

    def _forget_state(self) -> None:
        for entry in [entry for entry in self._waiting if entry[1]]:
            self._waiting.remove(entry)
            self._octets -= len(entry[0])

    def _begin(self, octets: bytes) -> None:
        """Send what nothing waits before: mostly the kernel takes it at once."""
        try:
            rest = self._channel.send_now(octets)
        except ChannelError:
            self._on_dropped(self)  # who reads from it finds it closed, too
            return
        if rest is not None:
            self._sending = asyncio.create_task(self._send(rest))

    async def _send(self, rest: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(STALL_TIMEOUT_S):
                await rest
            while self._waiting:
                async with asyncio.timeout(STALL_TIMEOUT_S):
                    await self._channel.send_frames(self._take())
        except TimeoutError:
            self._drop(f"has not read what it subscribed to for {STALL_TIMEOUT_S:g} s")
        except ChannelError:
            self._on_dropped(self)  # who reads from it finds it closed, too
        finally:
            self._sending = None

    def _take(self) -> bytes:
        """Return the next frames, several small ones at once."""
        found = [self._waiting.popleft()[0]]
        size = len(found[0])
        while self._waiting and size + len(self._waiting[0][0]) <= _SENT_TOGETHER_OCTETS:
            found.append(self._waiting.popleft()[0])
            size += len(found[-1])
        self._octets -= size
        return b"".join(found)

    def _drop(self, reason: str) -> None:
        self._on_dropped(self)
        self._waiting.clear()
        self._octets = 0
        self._channel.close()
        peer = self._channel.peer
        log.warning("control.dropped", pid=peer.pid, uid=peer.uid, program=program(peer), reason=reason)


def program(peer: Peer) -> str:
    """Return what a process calls itself, as far as anybody knows."""
    try:
        return Path(f"/proc/{peer.pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
