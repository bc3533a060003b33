# SPDX-License-Identifier: Apache-2.0
"""A client of the control socket, for programs that block and for those that run an event loop.

    with Client("default") as client:
        client.routes.add("10.0.0.0/8", via="10.77.0.2")

    async with AsyncClient("default") as client:
        await client.routes.add("10.0.0.0/8", via="10.77.0.2")

Both have the same methods. Addresses, prefixes, interfaces and hops are texts, as on the command line. What can not
be done raises RefusedError with a sentence, what can not be asked NotReachableError; both are ControlErrors.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

from halo_mp.control import calls, config_calls, frame
from halo_mp.control.async_client import AsyncClient
from halo_mp.control.calls import Call, ControlError, NotReachableError, RefusedError
from halo_mp.control.frame import LENGTH_OCTETS, FrameError, Message
from halo_mp.control.method import Group, blocking
from halo_mp.control.notices import EventInfo, Notice, Notices, StatisticsInfo
from halo_mp.control.public import (
    InstanceInfo,
    PingInfo,
    RouteInfo,
    socket_path,
)

__all__ = [
    "AsyncClient",
    "Client",
    "ControlError",
    "EventInfo",
    "NotReachableError",
    "Notice",
    "RefusedError",
    "StatisticsInfo",
]

_READ_OCTETS = 64 << 10

T = TypeVar("T")


class Client:
    """A connection that blocks. One thread at a time may use it."""

    def __init__(
        self, instance: str = "default", *, path: Path | None = None, timeout_s: float = 10.0
    ) -> None:
        """Connect to an instance by name, or to the socket at `path`. Raises ControlError."""
        self._path = path or socket_path(instance)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._timeout_s = timeout_s
        self._socket.settimeout(timeout_s)
        self._unread = bytearray()
        self._notices = Notices()
        try:
            self._socket.connect(str(self._path))
            self._send(frame.emit(calls.HELLO))
            self.hello = self._receive()
            """What the instance has answered: its name as `instance`, and whether we are `admin`."""
            calls.check_hello(self.hello)
        except OSError as error:
            self.close()
            raise calls.not_reachable(self._path, error) from None
        except BaseException:
            self.close()
            raise
        self.interfaces = Interfaces(self)
        self.addresses = Addresses(self)
        self.neighbors = Neighbors(self)
        self.routes = Routes(self)
        self.config = Configuration(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. May be called twice."""
        self._socket.close()

    def version(self) -> tuple[str, int]:
        """Return the instance's version of halo-mp, and of the protocol."""
        return self.run(calls.version())

    def show(self) -> InstanceInfo:
        """Return the instance as a whole."""
        return self.run(calls.show())

    def kcp(self) -> dict[int, Any]:
        """Return what the KCP of each worker says of itself, by slot: `endpoints`, `sessions`, `left_out`."""
        return self.run(calls.kcp())

    def stop(self) -> None:
        """Ask for the end of the instance; it has ended a moment later."""
        self.run(calls.done("instance.stop"))

    def ping(
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
        """Have the instance send echo requests; return what became of each, in their order.

        Errors on the path are outcomes. `size` is of the data; `source` one of the instance's addresses. At most 1000
        requests, at least 10 ms apart. Closing the connection ends it.
        """
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
        return self.run(call, extra_s=calls.ping_seconds(count, interval_s, timeout_s))

    def subscribe(self, topic: str, *, level: str | None = None, period_s: float | None = None) -> None:
        """Be told of `events`, `neighbors`, `interfaces`, `routes` or `statistics` from now on; see `notices`.

        Events from a `level` on: debug, info (the default), warning, error. Statistics each `period_s` seconds: 1.0, at
        least 0.1. Subscribing again to a topic takes the place of what was said before. Who does not read is dropped.
        """
        self.run(calls.subscribe(topic, level, period_s))

    def unsubscribe(self, topic: str) -> None:
        """Be told no more of a topic; what has come already is still returned."""
        self.run(calls.done("unsubscribe", topic=topic))

    def notices(self, timeout_s: float | None = None) -> Iterator[Notice]:
        """Yield what comes of what was subscribed to, until nothing has come for `timeout_s` seconds; None: for ever.

        Calls may be made in between. Raises NotReachableError when the instance goes: connect and subscribe again.
        """
        while (notice := self._next_notice(timeout_s)) is not None:
            yield notice

    def _next_notice(self, timeout_s: float | None) -> Notice | None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (notice := self._notices.take()) is None:
            try:
                self._socket.settimeout(None if deadline is None else max(1e-6, deadline - time.monotonic()))
                self._receive(or_notice=True)
            except TimeoutError:  # a part of a frame may be here: it stays
                return None
            except OSError as error:
                self.close()
                raise calls.not_reachable(self._path, error) from None
        return notice

    def run(self, call: Call[T], *, extra_s: float = 0.0) -> T:
        """Make a call, whose answers may take that much longer than others. Raises ControlError."""
        if self._socket.fileno() < 0:
            raise NotReachableError(f"{self._path}: this client is closed; make another one.")
        self._socket.settimeout(self._timeout_s + extra_s)
        try:
            request = next(call)
            while True:
                request = call.send(self._ask(request))
        except StopIteration as end:
            result: T = end.value
            return result

    def _ask(self, request: Message) -> Message:
        octets = frame.emit({**request, "id": 0})
        try:
            self._send(octets)
            reply = self._receive()
        except BaseException as error:
            self.close()  # in the middle of a frame, or before the reply: the next call would get it
            if isinstance(error, OSError):
                raise calls.not_reachable(self._path, error) from None
            raise
        return calls.check_reply(reply)

    def _send(self, octets: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # what was said before may say why
            self._socket.sendall(octets)

    def _receive(self, *, or_notice: bool = False) -> Message:
        """Return the next message that is no notice; these are kept. With `or_notice` the next one that comes."""
        try:
            while True:
                self._read(LENGTH_OCTETS)
                end = LENGTH_OCTETS + frame.parse_length(self._unread)
                self._read(end)
                message = frame.parse_body(bytes(self._unread[LENGTH_OCTETS:end]))
                del self._unread[:end]
                if self._notices.put(message):
                    if or_notice:
                        return message
                elif calls.is_answer(message, self._path):
                    return message
        except FrameError as error:
            raise ControlError(f"{self._path} sent {error}; it is no halo-mp.") from None

    def _read(self, count: int) -> None:
        """Have so many octets unread. Raises OSError, among them TimeoutError, and NotReachableError."""
        while len(self._unread) < count:
            more = self._socket.recv(_READ_OCTETS)
            if not more:
                raise calls.closed(self._path)
            self._unread += more


class Interfaces(Group):
    """`client.interfaces`."""

    list = blocking(calls.interfaces)
    set = blocking(calls.set_interface)


class Addresses(Group):
    """`client.addresses`."""

    add = blocking(calls.add_address)
    delete = blocking(calls.delete_address)


class Neighbors(Group):
    """`client.neighbors`."""

    list = blocking(calls.neighbors)
    add = blocking(calls.add_neighbor)
    delete = blocking(calls.delete_neighbor)
    flush = blocking(calls.flush)


class Routes(Group):
    """`client.routes`. The methods in the plural make very many changes, in large requests."""

    def iterate(self, within: str | None = None) -> Iterator[RouteInfo]:
        """Yield the routes, or those within a prefix, as they come. What changes meanwhile may be there or not."""
        start: int | None = 0
        while start is not None:
            page, start = self.client.run(calls.routes_page(within, start))
            yield from page

    list = blocking(calls.routes)
    add = blocking(calls.add_route)
    replace = blocking(calls.replace_route)
    delete = blocking(calls.delete_route)
    add_all = blocking(calls.add_routes)
    replace_all = blocking(calls.replace_routes)
    delete_all = blocking(calls.delete_routes)
    lookup = blocking(calls.lookup)


class Configuration(Group):
    """`client.config`. A candidate is a file that was sent and not applied yet; the instance keeps the latest few."""

    show = blocking(config_calls.show, extra_s=config_calls.PATIENCE_S)
    stage = blocking(config_calls.stage, extra_s=config_calls.PATIENCE_S)
    diff = blocking(config_calls.diff, extra_s=config_calls.PATIENCE_S)
    apply = blocking(config_calls.apply, extra_s=config_calls.PATIENCE_S)
    confirm = blocking(config_calls.confirm, extra_s=config_calls.PATIENCE_S)
    rollback = blocking(config_calls.rollback, extra_s=config_calls.PATIENCE_S)
    reload = blocking(config_calls.reload, extra_s=config_calls.PATIENCE_S)
    history = blocking(config_calls.history, extra_s=config_calls.PATIENCE_S)
