# SPDX-License-Identifier: Apache-2.0
"""UDP services of an application, and the datagram that one is shown.

A datagram stands for a frame that is still in its buffer: it ends when the function returns, and is released then
unless it was sent back or dropped. Octets that are to be kept are copied, by `bytes(datagram.data)`.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from halo_mp.wire.ipv4 import format_address, parse_address

UdpForm = Literal["datagram", "burst"]

ENDED = "this {} has ended: it is valid until the function that was given it returns; copy what is to be kept"


@dataclass(frozen=True, slots=True)
class UdpService:
    """A function that gets what comes to a port, in each worker."""

    function: Callable[..., Any]
    name: str
    port: int
    address: int | None
    """None: all of ours."""
    form: UdpForm
    shared: bool
    """Whether each worker has the same place, and takes what comes in by its own queues."""


def make_service(
    function: Callable[..., Any], port: int, address: str | None, *, form: str, reuse_port: bool
) -> UdpService:
    """Return a service. Raises ValueError, TypeError with a sentence when it makes no sense."""
    called = str(getattr(function, "__name__", "service"))
    if form not in ("datagram", "burst"):
        raise ValueError(f"app.udp, {called}: form {form!r} is neither 'datagram' nor 'burst'")
    if not 0 < port < 65536:
        raise ValueError(f"app.udp, {called}: port {port} is none; UDP ports are 1 to 65535")
    if inspect.iscoroutinefunction(function):
        raise TypeError(
            f"app.udp, {called}: a coroutine can not be waited for here; write def, and start tasks in it"
        )
    own = None if address in (None, "0.0.0.0") else parse_address(str(address))
    return UdpService(function, called, port, own, "burst" if form == "burst" else "datagram", reuse_port)


def parse_destination(to: tuple[str, int]) -> tuple[int, int]:
    """Return address and port as numbers. Raises ValueError for what can not be one."""
    address, port = parse_address(to[0]), to[1]
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is none; UDP ports are 1 to 65535")
    return address, port


class Parked(Protocol):
    """The datagrams of one poll, in their buffers; made by halo_mp.workers."""

    def view(self, offset: int, length: int) -> memoryview:
        """Return octets of the pool, writable."""

    def reply(self, index: int, octets: bytes | None) -> bool:
        """Send a datagram back, with other octets or its own; False when it does not fit."""

    def reply_all(self, which: Any, lengths: Any) -> int:
        """Send datagrams back as they are; return how many went."""

    def drop(self, index: int) -> None:
        """Count a datagram as dropped by the application."""

    def send(self, octets: bytes, address: int, port: int) -> bool:
        """Send a datagram from the service's socket; False when it was dropped, which is counted."""


class Datagram:
    """A datagram in its buffer. Addresses are `int` in host order; `source` has them as asyncio does."""

    __slots__ = (
        "_index",
        "_offset",
        "_parked",
        "_source",
        "_view",
        "dst",
        "interface",
        "length",
        "timestamp_ns",
    )

    def __init__(
        self, parked: Parked, index: int, record: tuple[int, int, int, int, int, int], timestamp_ns: int
    ) -> None:
        """Made by the worker."""
        self._parked: Parked | None = parked
        self._index = index
        self._view: memoryview | None = None
        self._source, self._offset, _, self.dst, self.length, self.interface = record
        self.timestamp_ns = timestamp_ns
        """When its burst was taken off the ring, by time.monotonic_ns()."""

    @property
    def src(self) -> int:
        """The address that it came from."""
        return self._source >> 16

    @property
    def sport(self) -> int:
        """The port that it came from."""
        return self._source & 0xFFFF

    @property
    def source(self) -> tuple[str, int]:
        """Address and port that it came from, as text and number."""
        return format_address(self._source >> 16), self._source & 0xFFFF

    @property
    def data(self) -> memoryview:
        """Its octets, without a copy; what is written there is what `reply()` sends. Raises RuntimeError at the end."""
        if self._view is None:
            self._view = self._living().view(self._offset, self.length)
        return self._view

    def reply(self, octets: bytes | bytearray | memoryview | None = None) -> bool:
        """Send it back to where it came from: in its own buffer, with these octets, or its own.

        Only once. False when it is too long for the link's MTU. Raises RuntimeError at the end.
        """
        return self._living().reply(self._index, None if octets is None else bytes(octets))

    def send(self, octets: bytes | bytearray | memoryview, to: tuple[str, int]) -> bool:
        """Send another datagram from the same socket; False when it was dropped, which is counted.

        Raises ValueError for what can not be an address or a port, and RuntimeError at the end.
        """
        return self._living().send(bytes(octets), *parse_destination(to))

    def drop(self) -> None:
        """Count it as dropped by the application (app_drop)."""
        self._living().drop(self._index)

    def _living(self) -> Parked:
        if self._parked is None:
            raise RuntimeError(ENDED.format("datagram"))
        return self._parked

    def _end(self) -> None:
        self._parked = None
        if self._view is not None:
            with contextlib.suppress(
                BufferError
            ):  # somebody keeps a part of it, and sees other octets there soon
                self._view.release()
