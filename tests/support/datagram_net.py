# SPDX-License-Identifier: Apache-2.0
"""An event loop whose clock is nobody's, and a network in memory for its datagram endpoints.

Where asyncio would wait for a time, the clock jumps there: an hour of keep-alive takes as long as what happens in it.
A loop that waits for nothing at all fails at once. Code under test runs as it is: it asks the loop for datagram
endpoints.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
Address = tuple[str, int]
Judge = Callable[[Address, Address, bytes], bool]
"""Whether a datagram from here to there gets through."""


class StuckError(Exception):
    """Nothing will ever happen again."""


class _Clock(selectors.DefaultSelector):
    """Never waits: moves the clock."""

    def __init__(self, start_s: float) -> None:
        super().__init__()
        self.now_s = start_s

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise StuckError("every task waits, and no timer is set")
            self.now_s += max(0.0, timeout)
        return ready


class MemoryTransport(asyncio.DatagramTransport):
    """A datagram endpoint of a Net."""

    def __init__(self, net: Net, protocol: Any, name: Address, peer: Address | None) -> None:
        super().__init__({"sockname": name, "peername": peer})
        self.net, self.protocol, self.name, self.peer = net, protocol, name, peer
        self.closed = False

    def sendto(self, data: Any, addr: Any = None) -> None:
        if not self.closed:
            self.net.send(self, addr or self.peer, bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.net.unbind(self)
            self.net.loop.call_soon(self.protocol.connection_lost, None)

    abort = close


class Net:
    """All endpoints, and what happens between them. `judge` decides what gets through; everything is in `log`."""

    def __init__(self, loop: NetLoop, seed: int) -> None:
        self.loop = loop
        self.random = random.Random(seed)
        self.delay_s = 0.005
        self.judge: Judge = lambda src, dst, data: True
        self.loss = 0.0
        self.duplicates = 0.0
        self.jitter_s = 0.0
        self.has_icmp = True
        self.log: list[tuple[Address, Address, bytes]] = []
        self._bound: dict[Address, MemoryTransport] = {}
        self._next_port = 50000

    def bind(self, protocol: Any, local: Any, peer: Any) -> MemoryTransport:
        host, port = (local or ("10.0.0.9", 0))[:2]
        if port == 0:
            self._next_port += 1
            port = self._next_port
        if (host, port) in self._bound:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        transport = MemoryTransport(self, protocol, (host, port), peer)
        self._bound[host, port] = transport
        return transport

    def unbind(self, transport: MemoryTransport) -> None:
        self._bound.pop(transport.name, None)

    def send(self, sender: MemoryTransport, dst: Address, data: bytes) -> None:
        self.log.append((sender.name, dst, data))
        if not self.judge(sender.name, dst, data) or self.random.random() < self.loss:
            return
        for _ in range(2 if self.random.random() < self.duplicates else 1):
            delay_s = self.delay_s + self.random.random() * self.jitter_s
            self.loop.call_later(delay_s, self._arrive, sender, dst, data)

    def inject(self, src: Address, dst: Address, data: bytes) -> None:
        """Have a datagram arrive that says it comes from `src`, also at an endpoint with another peer."""
        transport = self._bound.get(dst)
        assert transport is not None, f"nobody has {dst}"
        self.loop.call_soon(transport.protocol.datagram_received, data, src)

    def _arrive(self, sender: MemoryTransport, dst: Address, data: bytes) -> None:
        transport = self._bound.get(dst)
        if transport is None:
            if self.has_icmp and sender.peer == dst and not sender.closed:
                sender.protocol.error_received(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))
        elif transport.peer in (None, sender.name):
            transport.protocol.datagram_received(data, sender.name)


class NetLoop(asyncio.SelectorEventLoop):
    """An event loop with a Net, and a clock that begins where it is told."""

    def __init__(self, *, seed: int = 1, start_s: float = 1000.0) -> None:
        self.clock = _Clock(start_s)
        super().__init__(self.clock)
        self.net = Net(self, seed)
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda loop, context: self.errors.append(context))

    def time(self) -> float:
        return self.clock.now_s

    async def create_datagram_endpoint(  # type: ignore[override]
        self, protocol_factory: Any, local_addr: Any = None, remote_addr: Any = None, **options: Any
    ) -> Any:
        protocol = protocol_factory()
        transport = self.net.bind(protocol, local_addr, remote_addr)
        protocol.connection_made(transport)
        return transport, protocol


def run(program: Callable[[NetLoop], Coroutine[Any, Any, T]], **options: Any) -> T:
    """Run a program on such a loop to its end. What it leaves behind, a task, a timer or an endpoint, fails."""
    loop = NetLoop(**options)
    asyncio.set_event_loop(loop)
    try:
        result = loop.run_until_complete(program(loop))
        loop.run_until_complete(asyncio.sleep(0.1))
        assert not loop.net._bound, f"still open: {list(loop.net._bound)}"
        assert not asyncio.all_tasks(loop), "tasks are left"
        timers = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        assert not timers, timers
        assert not loop.errors, loop.errors
        return result
    finally:
        asyncio.set_event_loop(None)
        loop.close()
