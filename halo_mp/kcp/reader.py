# SPDX-License-Identifier: Apache-2.0
"""asyncio's StreamReader, which has what has come left in the session until somebody reads it.

asyncio's own is given all that comes, and copies it into a bytearray and out of it again. Here `read` takes from the
session itself, and what the other methods want goes into that bytearray when they wait for more. Unread may be as much
as with asyncio's: twice `limit`, and then what the session's window allows (`halo_kcp_allow`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class PullReader(asyncio.StreamReader):
    """For a protocol of `PullProtocol`, whose transport calls `attach`."""

    # Of asyncio's own class, in all its versions; its documentation does not tell of them.
    _buffer: bytearray
    _eof: bool
    _exception: BaseException | None
    _wakeup_waiter: Callable[[], None]

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=limit, loop=loop)
        self.limit = limit
        self._pull: Callable[[int], bytes | None] = _pull_nothing
        self.wake = self._wakeup_waiter
        """There is more to pull."""

    def attach(self, pull: Callable[[int], bytes | None] | None) -> None:
        """Say how up to so many octets are read from the session, None: there are none; or None, for now not at all."""
        self._pull = pull or _pull_nothing

    def pull_all(self) -> None:
        """Have everything that there is: the session goes."""
        while self._pull_more():
            pass
        self.wake()

    async def read(self, n: int = -1) -> bytes:
        if n > 0 and not self._buffer and self._exception is None:
            data = self._pull(n)
            if data is None and not self._eof:
                await super()._wait_for_data("read")  # type: ignore[misc]
                data = None if self._buffer else self._pull(n)
            if data is not None:
                return data
        return await super().read(n)

    # ---- private

    async def _wait_for_data(self, function: str) -> None:
        """As asyncio's methods call it, until the buffer has what they want. Who was woken for nothing waits on.

        `read` takes a return without octets for the end.
        """
        before = len(self._buffer)
        while not self._pull_more() and len(self._buffer) == before and not self._eof:
            if self._exception is not None:
                raise self._exception
            await super()._wait_for_data(function)  # type: ignore[misc]

    def _pull_more(self) -> bool:
        data = self._pull(self.limit)
        if data is None:
            return False
        self._buffer += data
        return True


class PullProtocol(asyncio.StreamReaderProtocol):
    """Whose reader takes what it wants."""

    def __init__(self, reader: PullReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self.reader = reader


def _pull_nothing(room: int) -> None:
    """Stand for the session that is not there yet."""
