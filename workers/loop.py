# SPDX-License-Identifier: Apache-2.0
"""The event loop of a worker: asyncio's, with datagram endpoints on the halo stack where they belong there.

Which stack an endpoint gets:

    sock=, a Unix socket, IPv6 but for ::     the kernel
    local address is one of the interfaces'   halo
    local address is loopback, or no one's    the kernel (which says what is wrong with it)
    local address is a wildcard, or none      halo, unless `wildcard` says "kernel"
    only a remote address                     halo if one of its routes leads there, else the kernel
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

from halo_mp.app.application import Wildcard
from halo_mp.wire.ipv4 import format_address, parse_address
from halo_mp.workers.endpoints import HaloDatagramTransport
from halo_mp.workers.selector import RingSelector
from halo_mp.workers.udp import UdpSockets

_WILDCARDS: Final = ("", "0.0.0.0", "::")
_OPTIONS: Final = {"family", "proto", "flags", "reuse_port", "allow_broadcast", "sock"}
"""Others are for asyncio to refuse."""


class WorkerLoop(asyncio.SelectorEventLoop):
    """A selector loop. Until a worker gives it sockets, all endpoints are the kernel's."""

    def __init__(self, selector: RingSelector) -> None:
        super().__init__(selector)
        self.sockets: UdpSockets | None = None
        self.wildcard: Wildcard = "halo"

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], Any],
        local_addr: Any = None,
        remote_addr: Any = None,
        **options: Any,
    ) -> tuple[Any, Any]:
        """As of `asyncio.loop`, on the stack that the endpoint belongs to. Raises OSError as that does."""
        place = None
        if self.sockets is not None and options.keys() <= _OPTIONS:
            place = await self._place(self.sockets, local_addr, remote_addr, options)
        if self.sockets is None or place is None:
            return await super().create_datagram_endpoint(
                protocol_factory, local_addr=local_addr, remote_addr=remote_addr, **options
            )
        local, peer = place
        shared = bool(options.get("reuse_port"))
        number = self.sockets.open(*local, *(peer or (0, 0)), shared=shared)
        try:
            await self.sockets.confirm(number)
            protocol = protocol_factory()
            transport = HaloDatagramTransport(
                self.sockets,
                number,
                protocol,
                peer=None if peer is None else (format_address(peer[0]), peer[1]),
                broadcast=bool(options.get("allow_broadcast")),
                shared=shared,
            )
        except BaseException:  # who has asked may be cancelled meanwhile
            self.sockets.close(number)
            raise
        waiter = self.create_future()
        transport.start(waiter)
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    async def _place(
        self, sockets: UdpSockets, local: Any, remote: Any, options: dict[str, Any]
    ) -> tuple[tuple[int, int], tuple[int, int] | None] | None:
        """Return our address and port, and the peer's, of an endpoint on the halo stack; None: the kernel's."""
        if options.get("sock") is not None or options.get("family", 0) not in (0, socket.AF_INET):
            return None
        if isinstance(local, str) or isinstance(remote, str):
            return None
        if local is None and remote is None and not options.get("family"):
            return None  # asyncio refuses that
        for pair in (local, remote):
            if pair is not None and not (isinstance(pair, tuple) and len(pair) == 2):
                raise TypeError("2-tuple is expected")
        peer = None if remote is None else await self._resolve(remote)
        if remote is not None and peer is None:
            return None
        if local is not None and local[0] not in (None, *_WILDCARDS):
            own = await self._resolve(local)
            return (own, peer) if own is not None and sockets.is_own(own[0]) else None
        port = 0 if local is None else int(local[1])
        if peer is None:
            return ((0, port), None) if self.wildcard == "halo" else None
        source = sockets.source_towards(peer[0])
        return ((source, port), peer) if source else None

    async def _resolve(self, pair: Any) -> tuple[int, int] | None:
        """Return the first IPv4 address of a host, and the port; None when it has none."""
        host, port = str(pair[0]), int(pair[1])
        try:
            return parse_address(host), port
        except ValueError:
            pass
        try:
            found = await self.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
        except OSError:
            return None
        return (parse_address(str(found[0][4][0])), port) if found else None
