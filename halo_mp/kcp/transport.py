# SPDX-License-Identifier: Apache-2.0
"""A session as an asyncio transport: for `asyncio.Protocol`, and so for all that is made of it, streams among them.

What differs from TCP's: there is no half-close; in message mode each `write` is a message and each `data_received` one;
`close` ends with `connection_lost` when what was written has been delivered, or its time is over. A reader that pauses
leaves what comes in the session, whose window then closes: the peer waits, and nothing grows here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from halo_mp.kcp.control import EndReason
from halo_mp.kcp.errors import SessionEndedError
from halo_mp.kcp.reader import PullProtocol, PullReader
from halo_mp.kcp.session import Session, SessionState

if TYPE_CHECKING:
    from halo_mp.kcp.endpoint import Endpoint


class KcpTransport(asyncio.Transport):
    """Made by `halo_mp.kcp.streams`, for a session that is open."""

    def __init__(self, endpoint: Endpoint, session: Session, protocol: asyncio.Protocol) -> None:
        """`start` tells the protocol."""
        found = endpoint.carrier.transport.get_extra_info
        super().__init__(
            {
                "peername": session.address,
                "sockname": found("sockname"),
                "socket": found("socket"),
                "halo": found("halo", False),
                "kcp": session,
                "kcp_endpoint": endpoint,
            }
        )
        self._take: Callable[[], Any]
        self._reader: PullReader | None = None
        self._loop = endpoint.loop
        self._session = session
        self._protocol = protocol
        self._is_closing = False
        self._reads = True
        self._attach(protocol)
        self._paused_writing = False
        self._end: SessionEndedError | None = None
        self._lost = False
        self._high = session.settings.high_water_segments
        self._low = self._high // 2
        session.user = self

    def __repr__(self) -> str:
        state = "closed" if self._lost else "closing" if self._is_closing else "open"
        return f"<KcpTransport {state} conv={self._session.conv:#x} peer={self._session.address}>"

    def start(self) -> None:
        """Tell the protocol that it is connected."""
        self._protocol.connection_made(self)

    # ---- what asyncio knows

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """peername (which may change), sockname, socket, halo; kcp: the session, with `counters` and `info`."""
        if name == "peername":
            return self._session.address
        return super().get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol have what comes from now on."""
        if self._reader is not None:
            self._reader.pull_all()
            self._reader.attach(None)
        self._protocol = protocol  # type: ignore[assignment]
        self._attach(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the current protocol."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether it is closing or closed."""
        return self._is_closing

    def is_reading(self) -> bool:
        """Whether the protocol gets what comes."""
        return self._reads and not self._is_closing

    def pause_reading(self) -> None:
        """Leave what comes in the session."""
        self._reads = False
        if self._reader is not None:
            self._reader.attach(None)

    def resume_reading(self) -> None:
        """Give the protocol what has come meanwhile, soon."""
        if not self._reads:
            self._reads = True
            if self._reader is not None:
                self._reader.attach(self._session.pull)
            self._loop.call_soon(self._go_on)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send octets, or a message. Raises ValueError when a message is too long; after the end, it is ignored."""
        if type(data) is not bytes:
            data = bytes(data)
        if self._is_closing or self._session.state is not SessionState.OPEN:
            return  # as asyncio's: the protocol is told of the end
        if not data and self._session.settings.stream:
            return
        self._session.send(data, len(data))
        if not self._paused_writing and self._session.waiting > self._high:
            self._pause_writing()

    def can_write_eof(self) -> bool:
        """Return False: KCP knows no half-close."""
        return False

    def write_eof(self) -> None:
        """Raise NotImplementedError."""
        raise NotImplementedError(
            "KCP has no half-close; close() delivers what was written, and ends the session"
        )

    def get_write_buffer_size(self) -> int:
        """Return about how many octets wait, not acknowledged."""
        return self._session.waiting * self._session.settings.segment_octets

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and the high mark, in octets of full segments."""
        octets = self._session.settings.segment_octets
        return self._low * octets, self._high * octets

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Say at how much that is not acknowledged writers wait, and at how little they go on. Raises ValueError."""
        octets = self._session.settings.segment_octets
        if high is None:
            high = self._high * octets if low is None else 4 * low
        low = high // 2 if low is None else low
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high // octets, low // octets
        if not self._paused_writing and self._session.waiting > self._high:
            self._pause_writing()

    def close(self) -> None:
        """Deliver what was written, then tell the protocol connection_lost(None)."""
        session = self._session
        self.close_with(EndReason.CLIENT_CLOSE if session.is_client else EndReason.SERVER_SHUTDOWN)

    def close_with(self, event: int) -> None:
        """Close, and let the FIN have that reason."""
        if not self._is_closing:
            self._is_closing = True
            if self._reader is not None:
                self._reader.pull_all()
                self._reader.attach(None)
            self._session.close(event)
            self._consider_end()

    def abort(self) -> None:
        """End at once; what was not delivered is lost."""
        self._is_closing = True
        self._session.abort()
        self._consider_end()

    # ---- what the session says

    def data_ready(self) -> None:
        """Give the protocol what is there, until it has enough."""
        if self._reader is None:
            while self._reads and not self._is_closing and (octets := self._take()) is not None:
                self._give(octets)
        elif self._end is None:
            self._reader.wake()
        else:
            self._reader.pull_all()
        if self._end is not None and (self._reads or self._is_closing):
            self._tell_end()

    def room_ready(self) -> None:
        """Writers go on."""
        if self._paused_writing:
            self._paused_writing = False
            self._protocol.resume_writing()

    def ended(self, error: SessionEndedError) -> None:
        """What has come is the protocol's still, when all has; then it is told."""
        self._end = error
        if self._reader is not None:
            self._reader.pull_all()
        if error.graceful and not self._is_closing and not self._reads and self._session.peek() >= 0:
            return  # resume_reading() or close() goes on here
        self._loop.call_soon(self._go_on if error.graceful else self._tell_end)

    # ---- private

    def _give(self, octets: Any) -> None:
        try:
            self._protocol.data_received(octets)
        except BaseException:
            self._is_closing = True  # it gets no more; who called ends the session
            raise

    def _go_on(self) -> None:
        """As `data_ready`, where no endpoint catches what the protocol raises."""
        try:
            self.data_ready()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._loop.call_exception_handler(
                {
                    "message": "the protocol of a KCP session has raised; its session was ended",
                    "exception": error,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
            self.abort()

    def _consider_end(self) -> None:
        """The session may have ended before, with something left that nobody wants any more."""
        if self._end is not None:
            self._loop.call_soon(self._go_on)

    def _attach(self, protocol: asyncio.BaseProtocol) -> None:
        """A StreamReader copies what it is given; what others do with it, bytes or not, is their affair."""
        exactly = type(protocol) is asyncio.StreamReaderProtocol
        self._take = self._session.take_view if exactly else self._session.take
        self._reader = None
        if isinstance(protocol, PullProtocol) and self._session.settings.stream:
            self._reader = protocol.reader
        if self._reader is None:
            self._session.allow(0)
        else:
            self._reader.attach(self._session.pull if self._reads else None)
            self._session.allow(2 * self._reader.limit)

    def _pause_writing(self) -> None:
        self._paused_writing = True
        self._protocol.pause_writing()
        self._session.want(self._low)

    def _tell_end(self) -> None:
        if self._lost or self._end is None:
            return
        self._lost = True
        error = None if self._end.graceful else self._end
        tells_eof, self._is_closing = error is None and not self._is_closing, True
        try:
            if tells_eof:
                self._protocol.eof_received()
        finally:
            self._protocol.connection_lost(error)
