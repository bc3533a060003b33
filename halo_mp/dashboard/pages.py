# SPDX-License-Identifier: Apache-2.0
"""Pages that browsers have open, as the server of the web mode has them: a socket and a process each, and how many.

A process is killed when its page ends: it has nothing to save, and one that hangs would keep its memory. Nothing here
waits for a browser or a process without an end. `page` is the process's own side.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from aiohttp import WSCloseCode, web
from textual_serve.app_service import AppService
from textual_serve.download_manager import DownloadManager

from halo_mp import logs

log = logs.get("dashboard")

HEARTBEAT_S: Final = 10.0
"""A browser that has not answered to the last one by half of that has gone."""
STUCK_S: Final = 10.0
"""So long a browser or a process may take nothing of what it is sent."""
CLOSE_S: Final = 1.0
"""So long a browser may take to say good-bye."""
MOST_COLUMNS: Final = 500
MOST_ROWS: Final = 250
"""A screen takes memory in its process; that of a large one, at the smallest letters, is within these."""
MOST_MESSAGE: Final = 1 << 16  # octets from a browser: keys, or what was pasted


class Places:
    """How many pages there may be, are, and were refused since one was free."""

    def __init__(self, most: int) -> None:
        """`most` pages at once."""
        self.most = most
        self.taken = 0
        self.refused = 0

    @property
    def full(self) -> bool:
        """Whether who comes now comes too late."""
        return self.taken >= self.most

    def refuse(self) -> None:
        """Count one who came too late. The first is logged, and how many they were when a place is free again."""
        self.refused += 1
        if self.refused == 1:
            log.warning("pages.full", pages=self.taken, advice="close one, or raise --web-pages")

    def take(self) -> None:
        """Take a place; there has to be one."""
        assert not self.full
        self.taken += 1

    def leave(self) -> None:
        """Give a place back."""
        self.taken -= 1
        if self.refused:
            log.info("pages.free", pages=self.taken, refused=self.refused)
            self.refused = 0


class Socket(web.WebSocketResponse):
    """A browser's end. One that takes nothing is cut off: cancelling what waits for it would leave others waiting."""

    def __init__(self, transport: asyncio.Transport | None) -> None:
        """`transport` is that of the request; None: it has ended already."""
        super().__init__(heartbeat=HEARTBEAT_S, timeout=CLOSE_S, max_msg_size=MOST_MESSAGE)
        self._transport = transport

    async def send_bytes(self, data: bytes, compress: int | None = None) -> None:
        """Send what is to be drawn."""
        with self._within(STUCK_S):
            await super().send_bytes(data, compress)

    async def send_str(self, data: str, compress: int | None = None) -> None:
        """Send what is to be done."""
        with self._within(STUCK_S):
            await super().send_str(data, compress)

    async def hang_up(self) -> None:
        """Say good-bye, and wait a moment for the answer."""
        with self._within(CLOSE_S):
            await self.close(code=WSCloseCode.GOING_AWAY)

    def cut_off(self) -> None:
        """End the connection, with what was not sent yet."""
        if self._transport is not None:
            self._transport.abort()

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        timer = asyncio.get_running_loop().call_later(seconds, self.cut_off)
        try:
            yield
        finally:
            timer.cancel()


class Page(AppService):
    """A page: what its browser types goes to its process, what that draws to the browser. One ends with the other."""

    def __init__(self, command: str, socket: Socket, downloads: DownloadManager) -> None:
        """`command` is what its process runs."""
        super().__init__(
            command,
            write_bytes=socket.send_bytes,
            write_str=socket.send_str,
            close=socket.hang_up,
            download_manager=downloads,
        )
        self.socket = socket
        self._pidfd: int | None = None

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        """Start the process, in a session of its own: Ctrl-C is for the server, which ends its pages."""
        width, height = screen(width, height)
        self._process = process = await asyncio.create_subprocess_exec(
            *shlex.split(self.command),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=self._build_environment(width, height),
            start_new_session=True,
        )
        self._stdin = process.stdin
        with suppress(ProcessLookupError):  # it has died at once
            self._pidfd = os.pidfd_open(process.pid)
        return process

    async def set_terminal_size(self, width: int, height: int) -> None:
        """Tell the process how large its screen is."""
        await super().set_terminal_size(*screen(width, height))

    async def send_bytes(self, data: bytes) -> bool:
        """Pass on keys."""
        return await self._unless_stuck(super().send_bytes(data))

    async def send_meta(self, data: dict[str, str | int | bool | None]) -> bool:
        """Pass on what is no key."""
        return await self._unless_stuck(super().send_meta(data))

    async def _unless_stuck(self, sending: Awaitable[bool]) -> bool:
        try:
            async with asyncio.timeout(STUCK_S):
                return await sending
        except TimeoutError:
            log.warning("page.stuck", pid=self._process.pid if self._process else None, for_s=STUCK_S)
            self.kill()
            return False

    async def run(self) -> None:
        """Pass on what the process draws until it ends, and the socket with it."""
        try:
            await super().run()
        finally:
            await self.socket.hang_up()

    def kill(self) -> None:
        """End the process. Past its handle, which would take its end from who waits for it."""
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def stop(self) -> None:
        """End the process and the connection; return when they have. May be called twice."""
        self.kill()
        self.socket.cut_off()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        if self._process is not None:
            await (
                self._process.communicate()
            )  # or what it wrote last would be waited for by who waits for its end
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def screen(width: int, height: int) -> tuple[int, int]:
    """Return the size of a screen that somebody asked for, in characters, as one that it may have."""
    return min(max(width, 1), MOST_COLUMNS), min(max(height, 1), MOST_ROWS)
