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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self, TypeVar

from halo_mp.control import calls, config_calls, frame
from halo_mp.control.async_client import AsyncClient
from halo_mp.control.calls import Call, ControlError, Hops, NotReachableError, RefusedError, Results
from halo_mp.control.frame import LENGTH_OCTETS, FrameError, Message
from halo_mp.control.notices import EventInfo, Notice, Notices, StatisticsInfo
from halo_mp.control.public import (
    DiffInfo,
    InstanceInfo,
    InterfaceInfo,
    KeptInfo,
    LookupInfo,
    NeighborInfo,
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
                raise NotReachableError(f"{self._path}: the instance closed the connection.")
            self._unread += more


class Interfaces:
    """`client.interfaces`."""

    def __init__(self, client: Client) -> None:
        self._run = client.run

    def list(self) -> list[InterfaceInfo]:
        """Return all of them."""
        return self._run(calls.interfaces())

    def set(
        self,
        interface: str,
        *,
        up: bool | None = None,
        mtu: int | None = None,
        forward: bool | None = None,
        proxy_arp: bool | None = None,
        directed_broadcast: bool | None = None,
        redirects: bool | None = None,
    ) -> None:
        """Change what is given, and leave the rest."""
        settings = {"up": up, "mtu": mtu, "forward": forward, "proxy_arp": proxy_arp}
        more = {"directed_broadcast": directed_broadcast, "redirects": redirects}
        self._run(calls.done("interfaces.set", interface=interface, **settings, **more))


class Addresses:
    """`client.addresses`."""

    def __init__(self, client: Client) -> None:
        self._run = client.run

    def add(self, interface: str, address: str, *, primary: bool = False) -> None:
        """Add `ADDRESS/LENGTH` to an interface; a VLAN that has none yet becomes an interface."""
        self._run(calls.done("addresses.add", interface=interface, address=address, primary=primary))

    def delete(self, interface: str, address: str) -> None:
        """Take `ADDRESS/LENGTH` away."""
        self._run(calls.done("addresses.delete", interface=interface, address=address))


class Neighbors:
    """`client.neighbors`."""

    def __init__(self, client: Client) -> None:
        self._run = client.run

    def list(self, interface: str | None = None) -> list[NeighborInfo]:
        """Return those of an interface, or all."""
        return self._run(calls.neighbors(interface))

    def add(self, interface: str, address: str, mac: str) -> None:
        """Add a static one, or change its MAC address."""
        self._run(calls.done("neighbors.add", interface=interface, address=address, mac=mac))

    def delete(self, interface: str, address: str) -> None:
        """Forget one, static or learned."""
        self._run(calls.done("neighbors.delete", interface=interface, address=address))

    def flush(self, interface: str | None = None) -> int:
        """Forget what was learned, on an interface or on all; return how many neighbors that were."""
        return self._run(calls.flush(interface))


class Routes:
    """`client.routes`. The methods in the plural make very many changes, in large requests."""

    def __init__(self, client: Client) -> None:
        self._run = client.run

    def iterate(self, within: str | None = None) -> Iterator[RouteInfo]:
        """Yield the routes, or those within a prefix, as they come. What changes meanwhile may be there or not."""
        start: int | None = 0
        while start is not None:
            page, start = self._run(calls.routes_page(within, start))
            yield from page

    def list(self, within: str | None = None) -> list[RouteInfo]:
        """Return the same as a list."""
        return [*self.iterate(within)]

    def add(self, prefix: str, via: Hops) -> None:
        """Add a route that is not there yet."""
        self._run(calls.change_route("routes.add", calls.route(prefix, via)))

    def replace(self, prefix: str, via: Hops) -> None:
        """Add a route, or put it in the place of the one that is there."""
        self._run(calls.change_route("routes.replace", calls.route(prefix, via)))

    def delete(self, prefix: str) -> None:
        """Take a route away."""
        self._run(calls.change_route("routes.delete", prefix))

    def add_all(self, routes: Iterable[tuple[str, Hops]]) -> Results:
        """Add routes; return for each None, or the sentence that says why it was refused."""
        return self._run(calls.change_routes("routes.add", (calls.route(*each) for each in routes)))

    def replace_all(self, routes: Iterable[tuple[str, Hops]]) -> Results:
        """Add or replace routes, likewise."""
        return self._run(calls.change_routes("routes.replace", (calls.route(*each) for each in routes)))

    def delete_all(self, prefixes: Iterable[str]) -> Results:
        """Take routes away, likewise."""
        return self._run(calls.change_routes("routes.delete", prefixes))

    def lookup(
        self,
        address: str,
        *,
        src: str | None = None,
        protocol: int | None = None,
        src_port: int | None = None,
        dst_port: int | None = None,
    ) -> LookupInfo | None:
        """Return where a flow to this address goes, None where no route leads there."""
        return self._run(calls.lookup(address, src, protocol, src_port, dst_port))


class Configuration:
    """`client.config`. A candidate is a file that was sent and not applied yet; the instance keeps the latest few."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def show(self, part: config_calls.Part = "all") -> str:
        """Return the configuration as a file that leads to the same state; routes by themselves as a routes file."""
        return self._run(config_calls.show(part))

    def stage(
        self,
        text: str,
        *,
        file: str = "the candidate",
        routes: Iterable[tuple[str, Sequence[str]]] | None = None,
    ) -> int:
        """Send a file, and return the number of the candidate; `file` is what sentences call it.

        `routes` are those of the routes file that it names: the instance opens no file for us.
        """
        return self._run(config_calls.stage(text, file, routes))

    def diff(self, candidate: int) -> DiffInfo:
        """Return what a candidate would change."""
        return self._run(config_calls.diff(candidate))

    def apply(self, candidate: int) -> DiffInfo:
        """Bring a candidate about, whole or not at all, while packets flow; return what was changed."""
        return self._run(config_calls.apply(candidate))

    def rollback(self, steps: int = 1) -> DiffInfo:
        """Bring back what was there before the last application, or before so many of them."""
        return self._run(config_calls.rollback(steps))

    def reload(self) -> DiffInfo:
        """Have the flags and the file that the instance was started with read anew, and brought about."""
        return self._run(config_calls.reload())

    def history(self) -> list[KeptInfo]:
        """Return what can be gone back to, the latest first."""
        return self._run(config_calls.history())

    def _run(self, call: calls.Call[T]) -> T:
        return self._client.run(call, extra_s=config_calls.PATIENCE_S)
