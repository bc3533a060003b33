# SPDX-License-Identifier: Apache-2.0
"""An application that does what a test tells it, over a kernel socket in the worker's own loop (see `remote`)."""

from __future__ import annotations

import asyncio
import json
import textwrap
from typing import Any

from halo_mp.app import App, Worker

app = App("remote")
FIRST_PORT = 9100
kept: dict[str, Any] = {}


class Inbox(asyncio.DatagramProtocol):
    """Keeps what happens to an endpoint; `echo` sends everything back."""

    def __init__(self, *, echo: bool = False) -> None:
        self.echo = echo
        self.got: list[tuple[int, str, int]] = []
        self.last = b""
        self.events: list[str] = []
        self.news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._note("made")

    def connection_lost(self, exc: Exception | None) -> None:
        self._note("lost" if exc is None else f"lost {type(exc).__name__}")

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.got.append((len(data), *addr))
        self.last = data
        if self.echo:
            self.transport.sendto(data, addr)
        self.news.set()

    def error_received(self, exc: Exception) -> None:
        self._note(type(exc).__name__)

    async def wait(self, *, got: int = 0, events: int = 0, timeout_s: float = 10.0) -> None:
        """Wait until so much has happened."""
        async with asyncio.timeout(timeout_s):
            while len(self.got) < got or len(self.events) < events:
                self.news.clear()
                await self.news.wait()

    def _note(self, event: str) -> None:
        self.events.append(event)
        self.news.set()


class Remote(asyncio.DatagramProtocol):
    """Runs the body of a coroutine for each datagram, and answers with what it returns or raises."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = self.worker.loop.create_task(self._run(data.decode(), addr))
        kept.setdefault("tasks", set()).add(task)

    async def _run(self, body: str, addr: tuple[str, int]) -> None:
        scope = {
            "worker": self.worker,
            "loop": self.worker.loop,
            "asyncio": asyncio,
            "kept": kept,
            "Inbox": Inbox,
        }
        try:
            exec("async def main():\n" + textwrap.indent(textwrap.dedent(body), "    "), scope)
            answer = {"result": await scope["main"]()}
        except Exception as error:
            answer = {
                "error": type(error).__name__,
                "errno": getattr(error, "errno", None),
                "text": str(error),
            }
        self.transport.sendto(json.dumps(answer).encode(), addr)


@app.on_start
async def listen(worker: Worker) -> None:
    """Be there for the test, on a socket of the kernel."""
    address = ("127.0.0.1", FIRST_PORT + worker.slot)
    transport, _ = await worker.loop.create_datagram_endpoint(lambda: Remote(worker), local_addr=address)
    assert transport.get_extra_info("halo") is None
