# SPDX-License-Identifier: Apache-2.0
"""What goes to workers, over a real channel: all of it, however much that is."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

from halo_mp.control.channel import Channel
from halo_mp.control.frame import Message
from halo_mp.shm.fib import FibWriter, create_fib, create_routes
from halo_mp.shm.tables import Interface, TablesWriter, create_tables
from halo_mp.supervisor.life import Life
from halo_mp.supervisor.neighbors import CAPACITY, NeighborTable
from halo_mp.supervisor.news import News
from halo_mp.supervisor.routes import Routes
from halo_mp.supervisor.targets import Hop

MAC = bytes.fromhex("020000000001")
NET = 10 << 24
PORTS = {0: Interface(port=0, mac=MAC, mtu=1500, addresses=((NET + 1, 8),))}


class Told:
    """News with one worker, and the worker's end of its channel."""

    def __init__(self, routes: Routes) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.life = Life(cast("Any", SimpleNamespace(gone=False)), Channel(ours))
        self.channel = Channel(theirs)
        self.table = NeighborTable()
        workers = cast("Any", {0: SimpleNamespace(life=self.life)})
        self.news = News(self.table, routes, workers, lambda: PORTS)

    async def receive(self) -> Message:
        message, _ = await self.channel.receive()
        return message

    def close(self) -> None:
        self.life.close()
        self.channel.close()


def run(work: Callable[[Told, Routes], Awaitable[None]]) -> None:
    """Do it with routes that are made of nothing but `PORTS`."""
    instance = f"news{os.getpid()}"
    fib, kept = create_fib(instance, generation=1, hash_seed=7), create_routes(instance, generation=1)
    tables = create_tables(instance, generation=1)
    writer = FibWriter(fib, kept)

    async def main() -> None:
        routes = Routes(writer, TablesWriter(tables), list)
        routes.set_interfaces(PORTS)
        told = Told(routes)
        try:
            await work(told, routes)
        finally:
            told.close()

    try:
        asyncio.run(main())
    finally:
        writer.close()
        for region in (fib, kept, tables):
            region.unlink()
            region.close()


def test_worker_that_starts_is_told_every_neighbor() -> None:
    """They are more than a channel queues: a worker that reads more slowly than we write is no reason to close it."""

    async def work(told: Told, _routes: Routes) -> None:
        known = [(0, 0, NET + 2 + i, MAC) for i in range(CAPACITY)]
        told.table.merge(known)
        assert told.news.tell_all(told.life) == CAPACITY
        await asyncio.sleep(0)  # it does not read yet
        told.table.remove([known[-1][:3]])  # and is not told of what is forgotten before its turn
        heard: set[int] = set()
        while len(heard) < CAPACITY - 1:
            message = await told.receive()
            if message["type"] == "neighbors":
                heard |= {address for _, _, address, _ in message["neighbors"]}
        assert heard == {address for _, _, address, _ in known[:-1]}
        assert not told.life.channel or not told.life.channel.closed

    run(work)


def test_gateways_beyond_a_message_are_watched_all() -> None:
    async def work(told: Told, routes: Routes) -> None:
        wanted = set()
        for group in range(20):
            gateways = [NET + 0x10000 + group * 512 + i for i in range(512)]
            routes.add((11 << 24) + (group << 16), 16, tuple(map(Hop, gateways)))
            wanted |= {(0, 0, address) for address in gateways}
        told.news.watch_gateways()
        heard: list[tuple[int, ...]] = []
        more = True
        while more:
            message = await told.receive()
            assert message["type"] == "watch"
            heard += map(tuple, message["neighbors"])
            more = message["more"]
        assert len(heard) == len(wanted)
        assert set(heard) == wanted

    run(work)


def test_no_gateways_are_watched_any_more() -> None:
    async def work(told: Told, routes: Routes) -> None:
        routes.add(11 << 24, 8, (Hop(NET + 2), Hop(NET + 3)))
        told.news.watch_gateways()
        routes.delete(11 << 24, 8)
        told.news.watch_gateways()
        found = [await told.receive() for _ in range(2)]
        assert [(len(each["neighbors"]), each["more"]) for each in found] == [(2, False), (0, False)]

    run(work)
