# SPDX-License-Identifier: Apache-2.0
"""The client of the control socket for asyncio; `halo_mp.control.client` has both, and says what the methods do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self, TypeVar

from halo_mp.control import calls, config_calls, frame
from halo_mp.control.calls import Call, ControlError, NotReachableError
from halo_mp.control.frame import LENGTH_OCTETS, FrameError, Message
from halo_mp.control.method import AsyncGroup, waiting
from halo_mp.control.notices import Notice, Notices
from halo_mp.control.public import (
    InstanceInfo,
    PingInfo,
    RouteInfo,
    socket_path,
)

T = TypeVar("T")


class AsyncClient:
    """The same for asyncio. Calls of several tasks are made one after the other."""

    def __init__(
        self, instance: str = "default", *, path: Path | None = None, timeout_s: float = 10.0
    ) -> None:
        """Of an instance by name, or of the socket at `path`; `async with`, or `connect`, connects."""
        self._path = path or socket_path(instance)
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._why: BaseException | None = None  # nothing comes any more
        self._reply: asyncio.Future[Message] | None = None
        self._notices = Notices()
        self._came = asyncio.Event()  # notices, or the end
        self.hello: Message = {}
        self.interfaces = AsyncInterfaces(self)
        self.addresses = AsyncAddresses(self)
        self.neighbors = AsyncNeighbors(self)
        self.routes = AsyncRoutes(self)
        self.config = AsyncConfiguration(self)

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Connect. Raises ControlError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                self._reader, self._writer = await asyncio.open_unix_connection(self._path)
                self._writer.write(frame.emit(calls.HELLO))
                self.hello = await self._receive()
                calls.is_answer(self.hello, self._path)
            calls.check_hello(self.hello)
            self._why = None
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(self._on_read_end)
        except OSError as error:  # TimeoutError is one
            await self.close()
            raise calls.not_reachable(self._path, error) from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection. May be called twice."""
        writer, self._writer, self._reader = self._writer, None, None
        reading, self._reading = self._reading, None
        if reading is not None and reading is not asyncio.current_task():
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        self._came.set()
        if writer is not None:
            writer.close()
            try:
                await writer.wait_closed()
            except OSError:
                pass  # it was gone already

    async def version(self) -> tuple[str, int]:
        """See `Client`."""
        return await self.run(calls.version())

    async def show(self) -> InstanceInfo:
        """See `Client`."""
        return await self.run(calls.show())

    async def kcp(self) -> dict[int, Any]:
        """See `Client`."""
        return await self.run(calls.kcp())

    async def stop(self) -> None:
        """See `Client`."""
        await self.run(calls.done("instance.stop"))

    async def ping(
        self,
        address: str,
        *,
        count: int = 4,
        interval_s: float = 1.0,
        timeout_s: float = 1.0,
        size: int = 56,
        df: bool = False,
        ttl: int = 64,
        source: str | None = None,
    ) -> list[PingInfo]:
        """See `Client`. Other calls wait meanwhile; cancelled, it ends, and the connection is closed."""
        call = calls.ping(
            address,
            count=count,
            interval_s=interval_s,
            timeout_s=timeout_s,
            size=size,
            df=df,
            ttl=ttl,
            source=source,
        )
        return await self.run(call, extra_s=calls.ping_seconds(count, interval_s, timeout_s))

    async def subscribe(self, topic: str, *, level: str | None = None, period_s: float | None = None) -> None:
        """See `Client`."""
        await self.run(calls.subscribe(topic, level, period_s))

    async def unsubscribe(self, topic: str) -> None:
        """See `Client`."""
        await self.run(calls.done("unsubscribe", topic=topic))

    async def notices(self, timeout_s: float | None = None) -> AsyncIterator[Notice]:
        """See `Client`. Other tasks may make calls meanwhile; of two that iterate each notice comes to one."""
        while True:
            while (notice := self._notices.take()) is not None:
                yield notice
            if self._reading is None or self._reading.done():
                raise self._end()
            self._came.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._came.wait()
            except TimeoutError:
                return

    async def run(self, call: Call[T], *, extra_s: float = 0.0) -> T:
        """Make a call, whose answers may take that much longer than others. Raises ControlError."""
        try:
            request = next(call)
            while True:
                request = call.send(await self._ask(request, self._timeout_s + extra_s))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _ask(self, request: Message, timeout_s: float) -> Message:
        async with self._turn:
            if self._writer is None:
                raise NotReachableError(f"{self._path}: this client is not connected.")
            try:
                async with asyncio.timeout(timeout_s):
                    self._reply = asyncio.get_running_loop().create_future()
                    if self._reading is None or self._reading.done():
                        raise self._end()
                    self._writer.write(frame.emit({**request, "id": 0}))
                    with contextlib.suppress(ConnectionError):  # what it said before may say why
                        await self._writer.drain()
                    reply = await self._reply
            except BaseException as error:  # in the middle of a frame, perhaps: nothing can be read behind it
                await self.close()
                if isinstance(error, OSError):
                    raise calls.not_reachable(self._path, error) from None
                raise
        return calls.check_reply(reply)

    async def _read(self) -> None:
        """Read for everybody: replies for who waits, notices for who asks later."""
        try:
            while True:
                message = await self._receive()
                if self._notices.put(message):
                    self._came.set()
                elif not calls.is_answer(message, self._path):
                    continue
                elif self._reply is not None and not self._reply.done():
                    self._reply.set_result(message)
        except FrameError as error:
            raise ControlError(f"{self._path} sent {error}; it is no halo-mp.") from None
        except OSError as error:
            raise calls.not_reachable(self._path, error) from None

    def _on_read_end(self, reading: asyncio.Task[None]) -> None:
        """Tell who waits that nothing comes any more."""
        self._why = None if reading.cancelled() else reading.exception()
        self._came.set()
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(self._end())

    def _end(self) -> BaseException:
        return self._why or NotReachableError(f"{self._path}: this client is not connected.")

    async def _receive(self) -> Message:
        assert self._reader is not None
        try:
            length = frame.parse_length(await self._reader.readexactly(LENGTH_OCTETS))
            return frame.parse_body(await self._reader.readexactly(length))
        except FrameError as error:
            raise ControlError(f"{self._path} sent {error}; it is no halo-mp.") from None
        except asyncio.IncompleteReadError:
            raise calls.closed(self._path) from None


class AsyncInterfaces(AsyncGroup):
    """See `Interfaces`."""

    list = waiting(calls.interfaces)
    set = waiting(calls.set_interface)


class AsyncAddresses(AsyncGroup):
    """See `Addresses`."""

    add = waiting(calls.add_address)
    delete = waiting(calls.delete_address)


class AsyncNeighbors(AsyncGroup):
    """See `Neighbors`."""

    list = waiting(calls.neighbors)
    add = waiting(calls.add_neighbor)
    delete = waiting(calls.delete_neighbor)
    flush = waiting(calls.flush)


class AsyncRoutes(AsyncGroup):
    """See `Routes`."""

    async def iterate(self, within: str | None = None) -> AsyncIterator[RouteInfo]:
        """See `Routes`."""
        start: int | None = 0
        while start is not None:
            page, start = await self.client.run(calls.routes_page(within, start))
            for each in page:
                yield each

    list = waiting(calls.routes)
    add = waiting(calls.add_route)
    replace = waiting(calls.replace_route)
    delete = waiting(calls.delete_route)
    add_all = waiting(calls.add_routes)
    replace_all = waiting(calls.replace_routes)
    delete_all = waiting(calls.delete_routes)
    lookup = waiting(calls.lookup)


class AsyncConfiguration(AsyncGroup):
    """See `Configuration`."""

    show = waiting(config_calls.show, extra_s=config_calls.PATIENCE_S)
    stage = waiting(config_calls.stage, extra_s=config_calls.PATIENCE_S)
    diff = waiting(config_calls.diff, extra_s=config_calls.PATIENCE_S)
    apply = waiting(config_calls.apply, extra_s=config_calls.PATIENCE_S)
    confirm = waiting(config_calls.confirm, extra_s=config_calls.PATIENCE_S)
    rollback = waiting(config_calls.rollback, extra_s=config_calls.PATIENCE_S)
    reload = waiting(config_calls.reload, extra_s=config_calls.PATIENCE_S)
    history = waiting(config_calls.history, extra_s=config_calls.PATIENCE_S)
