# SPDX-License-Identifier: Apache-2.0
"""KCP in the manner of asyncio.streams: `open_connection`, `start_server`; and by protocols, and by messages.

    reader, writer = await kcp.open_connection("192.0.2.1", 4000)
    server = await kcp.start_server(serve, "0.0.0.0", 4000)
    connection = await kcp.connect("192.0.2.1", 4000)          messages
    listener = await kcp.listen("0.0.0.0", 4000)               messages

Readers and writers are asyncio's own, with all their manners; deadlines are cancellations.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

from halo_mp.kcp.connection import Connection
from halo_mp.kcp.control import EndReason
from halo_mp.kcp.endpoint import MOST_SESSIONS, Endpoint
from halo_mp.kcp.opening import open_client, open_endpoint
from halo_mp.kcp.peers import Address
from halo_mp.kcp.reader import PullProtocol, PullReader
from halo_mp.kcp.session import Session
from halo_mp.kcp.settings import Settings
from halo_mp.kcp.transport import KcpTransport

LIMIT_OCTETS: Final = 256 * 1024
"""Of a StreamReader: with twice as much unread it leaves what comes in the session."""
BACKLOG: Final = 128
STREAMS: Final = Settings()
MESSAGES: Final = Settings(stream=False)

ClientConnected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]


async def create_connection(
    factory: Callable[[], asyncio.Protocol],
    host: str,
    port: int,
    *,
    settings: Settings = STREAMS,
    conv: int | None = None,
    local_addr: Address | None = None,
    batch: bool = True,
) -> tuple[KcpTransport, asyncio.Protocol]:
    """Connect a protocol with a server. `conv` is for the classic format. Raises TimeoutError, OSError, ValueError."""
    endpoint, session = await open_client(host, port, settings, conv=conv, local_addr=local_addr, batch=batch)
    try:
        protocol = factory()
        transport = KcpTransport(endpoint, session, protocol)
        transport.start()
        session.start()
    except BaseException:
        session.abort()
        raise
    return transport, protocol


async def open_connection(
    host: str,
    port: int,
    *,
    settings: Settings = STREAMS,
    conv: int | None = None,
    local_addr: Address | None = None,
    limit: int = LIMIT_OCTETS,
    batch: bool = True,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect with a server, as `asyncio.open_connection`. Raises TimeoutError, OSError, ValueError."""
    loop = asyncio.get_running_loop()
    reader = PullReader(limit, loop)
    protocol = PullProtocol(reader, loop)
    transport, _ = await create_connection(
        lambda: protocol, host, port, settings=settings, conv=conv, local_addr=local_addr, batch=batch
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def connect(
    host: str,
    port: int,
    *,
    settings: Settings = MESSAGES,
    conv: int | None = None,
    local_addr: Address | None = None,
    batch: bool = True,
) -> Connection:
    """Connect with a server, for messages. Raises TimeoutError, OSError, ValueError."""
    endpoint, session = await open_client(host, port, settings, conv=conv, local_addr=local_addr, batch=batch)
    connection = Connection(endpoint, session)
    session.start()
    return connection


class Server:
    """A server of sessions on one socket. Made by `start_server`, `create_server` or `listen`.

    Unlike one of TCP its sessions end with it, for their socket is its socket.
    """

    def __init__(self) -> None:
        self._endpoint: Endpoint | None = None
        self._is_closing = False

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint: its `counters`, `pending.counters`, `totals` and `sessions`."""
        assert self._endpoint is not None
        return self._endpoint

    @property
    def address(self) -> Address:
        """Our own address and port."""
        address: Address = self.endpoint.carrier.transport.get_extra_info("sockname")
        return address

    def is_serving(self) -> bool:
        """Whether new sessions are taken."""
        return self._endpoint is not None and not self._is_closing

    def close(self) -> None:
        """Take no more sessions, and close those that there are: what was written is delivered."""
        self._is_closing = True
        self.endpoint.takes_sessions = False
        for session in list(self.endpoint.sessions.values()):
            self._close_session(session)
        if self.endpoint.sessions:
            self.endpoint.on_idle = self.endpoint.close
        else:
            self.endpoint.close()

    def abort(self) -> None:
        """End all sessions, and the server, at once."""
        self._is_closing = True
        for session in list(self.endpoint.sessions.values()):
            session.abort(EndReason.SERVER_SHUTDOWN)
        self.endpoint.close()

    async def wait_closed(self) -> None:
        """Wait until all sessions and the socket are closed."""
        await asyncio.shield(self.endpoint.closed)

    async def serve_forever(self) -> None:
        """Serve until cancelled; then close."""
        try:
            await asyncio.shield(self.endpoint.closed)
        finally:
            self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()
        await self.wait_closed()

    async def start(self, host: str | None, port: int, settings: Settings, **options: Any) -> None:
        """Open the socket. Raises OSError."""
        self._endpoint = await open_endpoint(
            settings, local_addr=(host or "0.0.0.0", port), accept=self._accept_or_not, **options
        )

    def accept(self, session: Session) -> bool:
        """Give a session its user; False: there is no room for it now."""
        raise NotImplementedError

    def _accept_or_not(self, session: Session) -> bool:
        return not self._is_closing and self.accept(session)

    def _close_session(self, session: Session) -> None:
        close = getattr(session.user, "close", None)
        if close is None:
            session.close(EndReason.SERVER_SHUTDOWN)
        else:
            close()


class ProtocolServer(Server):
    """Gives each session a protocol."""

    def __init__(self, factory: Callable[[], asyncio.Protocol]) -> None:
        super().__init__()
        self._factory = factory

    def accept(self, session: Session) -> bool:
        KcpTransport(self.endpoint, session, self._factory()).start()
        return True


class StreamServer(Server):
    """Gives each session a reader, a writer, and a task that runs the callback."""

    def __init__(self, callback: ClientConnected, limit: int) -> None:
        super().__init__()
        self._callback = callback
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, session: Session) -> bool:
        loop = self.endpoint.loop
        reader = PullReader(self._limit, loop)
        protocol = PullProtocol(reader, loop)
        transport = KcpTransport(self.endpoint, session, protocol)
        transport.start()
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        task = loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Run the callback; an error of its ends the session, and is told as asyncio tells errors."""
        try:
            result = self._callback(reader, writer)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        except Exception as error:
            writer.transport.abort()
            self.endpoint.loop.call_exception_handler(
                {
                    "message": "the callback of a KCP server has raised; its session was ended",
                    "exception": error,
                    "transport": writer.transport,
                }
            )


class Listener(Server):
    """Has sessions wait for `accept_connection`; also an async iterator over them."""

    def __init__(self, backlog: int) -> None:
        super().__init__()
        self._backlog = backlog
        self._waiting: deque[Connection] = deque()
        self._news: set[asyncio.Future[None]] = set()

    def accept(self, session: Session) -> bool:
        while self._waiting and self._waiting[0].is_over:
            self._waiting.popleft()
        if len(self._waiting) >= self._backlog:
            return False
        self._waiting.append(Connection(self.endpoint, session))
        self._wake()
        return True

    async def accept_connection(self) -> Connection:
        """Return the next connection. Raises OSError when the listener is closed."""
        while not self._waiting:
            if self._is_closing:
                raise ConnectionAbortedError("the listener is closed")
            news: asyncio.Future[None] = self.endpoint.loop.create_future()
            self._news.add(news)
            try:
                await news
            finally:
                self._news.discard(news)
        return self._waiting.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Connection:
        try:
            return await self.accept_connection()
        except ConnectionAbortedError:
            raise StopAsyncIteration from None

    def close(self) -> None:
        super().close()
        self._wake()

    def _wake(self) -> None:
        for news in self._news:
            if not news.done():
                news.set_result(None)


async def start_server(
    client_connected_cb: ClientConnected,
    host: str | None,
    port: int,
    *,
    settings: Settings = STREAMS,
    limit: int = LIMIT_OCTETS,
    most_sessions: int = MOST_SESSIONS,
    reuse_port: bool | None = None,
    batch: bool = True,
) -> StreamServer:
    """Serve, as `asyncio.start_server`: a task for each session. Raises OSError.

    In the classic format the first datagram of a conv from an address makes a session.
    """
    server = StreamServer(client_connected_cb, limit)
    await server.start(host, port, settings, most_sessions=most_sessions, batch=batch, **_options(reuse_port))
    return server


async def create_server(
    factory: Callable[[], asyncio.Protocol],
    host: str | None,
    port: int,
    *,
    settings: Settings = STREAMS,
    most_sessions: int = MOST_SESSIONS,
    reuse_port: bool | None = None,
    batch: bool = True,
) -> ProtocolServer:
    """Serve: a protocol for each session. Raises OSError."""
    server = ProtocolServer(factory)
    await server.start(host, port, settings, most_sessions=most_sessions, batch=batch, **_options(reuse_port))
    return server


async def listen(
    host: str | None,
    port: int,
    *,
    settings: Settings = MESSAGES,
    backlog: int = BACKLOG,
    most_sessions: int = MOST_SESSIONS,
    reuse_port: bool | None = None,
    batch: bool = True,
) -> Listener:
    """Serve, for messages: each session waits until `accept_connection` returns it. Raises OSError.

    With `backlog` of them waiting, clients are kept waiting too.
    """
    listener = Listener(backlog)
    await listener.start(
        host, port, settings, most_sessions=most_sessions, batch=batch, **_options(reuse_port)
    )
    return listener


def _options(reuse_port: bool | None) -> dict[str, Any]:
    return {} if reuse_port is None else {"reuse_port": reuse_port}
