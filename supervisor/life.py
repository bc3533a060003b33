# SPDX-License-Identifier: Apache-2.0
"""One process of a keeper, from spawn to end: its channel, what it said, and why it will have ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterable

from halo_mp.control.channel import Channel, ChannelError
from halo_mp.control.frame import Message
from halo_mp.supervisor import last_words
from halo_mp.supervisor.process import Process


class Life:
    """Everything that goes with the process when it goes."""

    def __init__(
        self,
        child: Process,
        channel: Channel | None = None,
        *,
        adopted: bool = False,
        was_spare: bool = False,
    ) -> None:
        """`channel` where the process has greeted before; `adopted` when another supervisor configured it."""
        self.child = child
        self.channel = channel
        self.adopted = adopted
        self.was_spare = was_spare
        self.ended = asyncio.Event()
        self.left = asyncio.Event()  # it has handed its place over in order, and ends for itself
        self.drained = asyncio.Event()  # everything that it said was handled
        self.failure: str | None = None  # the child's own sentence on why it can not start
        self.blamed_for: str | None = None
        self.useful_since: float | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self.silence: str | None = None  # why it could not say where it stood still
        self._asking: asyncio.Task[None] | None = None

    def kill(self, reason: str) -> None:
        """End it now, for a reason that the log and perhaps a sentence will tell."""
        if not self.child.gone:
            self.blame(reason)
            self.child.signal(signal.SIGKILL)

    def kill_hung(self, reason: str) -> None:
        """End it for standing still, as soon as it has had a moment to say where. May be called time and again."""
        if not self.child.gone and self._asking is None:
            self.blame(reason)
            self._asking = asyncio.create_task(self._ask_and_kill(reason))

    async def _ask_and_kill(self, reason: str) -> None:
        try:
            self.silence = await last_words.ask(self.child)
        finally:
            self.kill(reason)

    def blame(self, reason: str) -> None:
        """Take note of why it will have ended; the first reason counts."""
        self.blamed_for = self.blamed_for or reason

    def tell(self, message: Message) -> None:
        """Send a message without waiting; a child that is not there yet or any more misses it."""
        if self.channel is not None and not self.channel.closed:
            self._send_in_background(self.channel, (message,))

    def tell_each(self, messages: Iterable[Message]) -> None:
        """Send many messages without waiting, each made when the one before is gone: the channel queues only one."""
        if self.channel is not None and not self.channel.closed:
            self._send_in_background(self.channel, messages)

    def _send_in_background(self, channel: Channel, messages: Iterable[Message]) -> None:
        task = asyncio.create_task(_send(channel, messages))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    @property
    def ending(self) -> str:
        """Why it ended, as the end of a sentence."""
        return f"{self.blamed_for}, and {self.child.ending}" if self.blamed_for else self.child.ending

    def close(self) -> None:
        """Let go of the channel and of what was still to be sent."""
        for task in self._sending:
            task.cancel()
        if self._asking is not None:
            self._asking.cancel()
        if self.channel is not None:
            self.channel.close()
        self.ended.set()


async def _send(channel: Channel, messages: Iterable[Message]) -> None:
    with contextlib.suppress(ChannelError):  # the end of the channel is noticed elsewhere
        for message in messages:
            await channel.send(message)
