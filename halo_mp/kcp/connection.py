# SPDX-License-Identifier: Apache-2.0
"""A session as messages: what one side sends in one piece, the other receives in one piece, in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from halo_mp.kcp.control import EndReason
from halo_mp.kcp.counters import Counters, Info
from halo_mp.kcp.errors import SessionEndedError
from halo_mp.kcp.peers import Address
from halo_mp.kcp.session import Session, SessionState

if TYPE_CHECKING:
    from halo_mp.kcp.endpoint import Endpoint


class Connection:
    """Made by `connect`, or by a listener. An async context manager, and an async iterator over messages.

    Waits are ended by cancellation (`asyncio.timeout`), which loses nothing: a message is taken by who returns it.
    """

    def __init__(self, endpoint: Endpoint, session: Session) -> None:
        self._loop = endpoint.loop
        self._endpoint = endpoint
        self._session = session
        self._readers: set[asyncio.Future[None]] = set()
        self._writers: set[asyncio.Future[None]] = set()
        self._closed: asyncio.Future[None] = endpoint.loop.create_future()
        self._high = session.settings.high_water_segments
        session.user = self
        if session.error is not None:
            self.ended(session.error)

    def __repr__(self) -> str:
        return f"<Connection {self._session.state.name.lower()} conv={self.conv:#x} peer={self.peer}>"

    @property
    def conv(self) -> int:
        """The number of the session."""
        return self._session.conv

    @property
    def peer(self) -> Address:
        """Where the peer is now."""
        return self._session.address

    @property
    def counters(self) -> Counters:
        """What was counted since the beginning."""
        return self._session.counters

    @property
    def info(self) -> Info:
        """How the session is now."""
        return self._session.info

    @property
    def waiting(self) -> int:
        """Segments that were sent, or are to be, and are not acknowledged."""
        return self._session.waiting

    @property
    def end(self) -> SessionEndedError | None:
        """Why the session has ended; None: it has not."""
        return self._session.error

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and nothing is left to be read."""
        return self._session.state is SessionState.ENDED and self._session.peek() < 0

    # ---- messages

    def send_nowait(self, message: bytes | bytearray | memoryview) -> None:
        """Have a message sent, however many wait already.

        Raises SessionEndedError when the session is closed or has ended, ValueError when the message is too long.
        """
        octets = message if type(message) is bytes else bytes(message)
        self._session.send(octets, len(octets))

    async def send(self, message: bytes | bytearray | memoryview) -> None:
        """Send a message, when no more than the settings' write buffer waits. Raises as `send_nowait`."""
        while self._session.waiting > self._high and self._session.state is SessionState.OPEN:
            self._session.want(self._high // 2)
            await self._wait(self._writers)
        self.send_nowait(message)

    async def drain(self) -> None:
        """Wait until all that was sent is acknowledged. Raises SessionEndedError when that will never be."""
        while self._session.waiting:
            if self._session.state is SessionState.ENDED:
                raise self._ending()
            self._session.want(0)
            await self._wait(self._writers)

    def receive_nowait(self) -> bytes | None:
        """Return the next message, or None. Raises SessionEndedError behind the last one."""
        message = self._session.take()
        if message is None and self._session.state is SessionState.ENDED:
            raise self._ending()
        return message

    async def receive(self) -> bytes:
        """Return the next message. Raises SessionEndedError behind the last one."""
        while (message := self.receive_nowait()) is None:
            await self._wait(self._readers)
        return message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next message; the end is the end when all has arrived, else SessionEndedError."""
        try:
            return await self.receive()
        except SessionEndedError as error:
            if error.graceful:
                raise StopAsyncIteration from None
            raise

    # ---- the end

    def close(self, event: int | None = None) -> None:
        """Deliver what was sent, then end the session; `event` is the reason that the peer is told (`EndReason`)."""
        default = EndReason.CLIENT_CLOSE if self._session.is_client else EndReason.SERVER_SHUTDOWN
        self._session.close(default if event is None else event)
        self._wake(self._readers)
        self._wake(self._writers)

    def abort(self, event: int = EndReason.TRANSFER_FAILED) -> None:
        """End the session at once."""
        self._session.abort(event)

    async def wait_closed(self) -> None:
        """Wait for the end, whatever it was."""
        await asyncio.shield(self._closed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()
        await self.wait_closed()

    # ---- what the session says

    def data_ready(self) -> None:
        """There is a message."""
        self._wake(self._readers)

    def room_ready(self) -> None:
        """Fewer segments wait."""
        self._wake(self._writers)

    def ended(self, error: SessionEndedError) -> None:
        """It has ended."""
        self._wake(self._readers)
        self._wake(self._writers)
        if not self._closed.done():
            self._closed.set_result(None)

    # ---- private

    async def _wait(self, waiters: set[asyncio.Future[None]]) -> None:
        waiter = self._loop.create_future()
        waiters.add(waiter)
        try:
            await waiter
        finally:
            waiters.discard(waiter)

    def _wake(self, waiters: set[asyncio.Future[None]]) -> None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _ending(self) -> SessionEndedError:
        """A new one for each who waits: a traceback belongs to one."""
        error = self._session.error
        assert error is not None
        return type(error)(error.reason, str(error), graceful=error.graceful)
