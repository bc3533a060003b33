# SPDX-License-Identifier: Apache-2.0
"""The union of workers' sockets: who is refused, when the others know, and what is left of a worker that ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from halo_mp.control.channel import ProtocolError
from halo_mp.shm.region import Region
from halo_mp.shm.sockets import read_sockets
from halo_mp.shm.tables import TablesWriter, create_tables
from halo_mp.supervisor.sockets import Sockets


class Told:
    """Stands for the life of a worker: what it is told, and by its channel what it is asked."""

    def __init__(self, on_request: Callable[[], None] | None = None) -> None:
        self.messages: list[dict[str, Any]] = []
        self.heard = asyncio.Event()
        self.channel = self if on_request else None
        self._on_request = on_request

    def tell(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        self.heard.set()

    async def request(self, message: dict[str, Any], *, timeout_s: float) -> None:
        assert self._on_request is not None
        self._on_request()


@pytest.fixture
def region() -> Iterator[Region]:
    made = create_tables(f"s{os.getpid() % 100000}", generation=1)
    made.unlink()
    yield made
    made.close()


def opened(*places: tuple[int, int, int], first: bool = False) -> dict[str, Any]:
    """`sockets.open` with each number, address and port."""
    sockets = [[number, address, port, 0, 0, 17, 0] for number, address, port in places]
    return {"type": "sockets.open", "first": first, "sockets": sockets}


def places(region: Region) -> list[tuple[int, int, int]]:
    return sorted((each.slot, each.address, each.port) for each in read_sockets(region))


def test_second_who_wants_a_place_is_refused_and_the_first_is_told_when_it_stands(region: Region) -> None:
    async def scenario() -> None:
        sockets = Sockets(TablesWriter(region), list)
        one, two = Told(), Told()
        sockets.receive(0, one, opened((5, 1, 53), (6, 1, 54)))  # type: ignore[arg-type]
        sockets.receive(1, two, opened((7, 0, 53), (8, 2, 53)))  # type: ignore[arg-type]
        assert (one.messages, two.messages, places(region)) == ([], [], [])
        await asyncio.sleep(0)
        assert places(region) == [(0, 1, 53), (0, 1, 54), (1, 2, 53)]
        assert one.messages == [{"type": "sockets.accepted", "numbers": [5, 6]}]
        refused, accepted = sorted(two.messages, key=lambda message: message["type"], reverse=True)
        assert refused == {"type": "sockets.refused", "numbers": [7]}
        assert accepted == {"type": "sockets.accepted", "numbers": [8]}
        assert region.pointer.epoch == 2, "what comes together is written together"
        sockets.receive(0, one, {"type": "sockets.close", "numbers": [5, 99]})  # type: ignore[arg-type]
        sockets.receive(1, two, opened((9, 0, 55), first=True))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert places(region) == [(0, 1, 54), (1, 0, 55)]
        sockets.drop(1)
        sockets.drop(1)
        await asyncio.sleep(0)
        assert places(region) == [(0, 1, 54)]

    asyncio.run(scenario())


def test_place_whose_close_is_on_its_way_is_not_refused(region: Region) -> None:
    """Who closes and then tells another to open is right, whichever of the two is heard first."""

    async def scenario() -> None:
        sockets = Sockets(TablesWriter(region), list)
        closing = {"type": "sockets.close", "numbers": [1]}
        one = Told(lambda: sockets.receive(0, one, closing))  # type: ignore[arg-type]
        two = Told()
        sockets.receive(0, one, opened((1, 0, 53)))  # type: ignore[arg-type]
        sockets.receive(1, two, opened((2, 0, 53)))  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            await two.heard.wait()
        assert two.messages == [{"type": "sockets.accepted", "numbers": [2]}]
        assert places(region) == [(1, 0, 53)]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "end",
    [{"type": "sockets.close", "numbers": [2]}, {"type": "sockets.open", "first": True, "sockets": []}, None],
)
def test_socket_that_waits_to_be_refused_may_end(region: Region, end: dict[str, Any] | None) -> None:
    async def scenario() -> None:
        sockets = Sockets(TablesWriter(region), list)
        two = Told()

        def request() -> None:
            if end is None:
                sockets.drop(1)
            else:
                sockets.receive(1, two, end)  # type: ignore[arg-type]
            sockets.drop(0)

        one = Told(request)
        sockets.receive(0, one, opened((1, 0, 53)))  # type: ignore[arg-type]
        sockets.receive(1, two, opened((2, 0, 53)))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        assert places(region) == []
        assert {"type": "sockets.refused", "numbers": [2]} not in two.messages
        assert list(sockets) == []

    asyncio.run(scenario())


def test_number_that_is_none_closes_the_channel(region: Region) -> None:
    sockets = Sockets(TablesWriter(region), list)
    with pytest.raises(ProtocolError, match="as the number of a socket"):
        sockets.receive(0, Told(), {"type": "sockets.close", "numbers": [[1]]})  # type: ignore[arg-type]


def test_tables_are_written_when_no_worker_reads_the_block(region: Region) -> None:
    async def scenario() -> None:
        writer, epochs = TablesWriter(region), [1]
        sockets = Sockets(writer, lambda: epochs)
        one = Told()
        sockets.receive(0, one, opened((1, 0, 53)))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        sockets.receive(0, one, opened((2, 0, 54)))  # type: ignore[arg-type]
        await asyncio.sleep(0.02)
        assert places(region) == [(0, 0, 53)], "a worker is still at the epoch before"
        one.heard.clear()
        epochs[:] = [writer.epoch]
        async with asyncio.timeout(10):
            await one.heard.wait()
        assert places(region) == [(0, 0, 53), (0, 0, 54)]
        sockets.receive(0, one, opened((3, 0, 55)))  # type: ignore[arg-type]
        sockets.stop()
        sockets.drop(0)
        await asyncio.sleep(0.01)
        assert len(places(region)) == 2, "the tables may be gone"

    asyncio.run(scenario())


def test_successor_keeps_what_stands_until_the_workers_have_spoken(region: Region) -> None:
    async def scenario() -> None:
        first = Sockets(TablesWriter(region), list)
        first.receive(0, Told(), opened((1, 0, 53)))  # type: ignore[arg-type]
        first.receive(1, Told(), opened((1, 0, 54)))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        second = Sockets(TablesWriter(region), list)
        second.resume(read_sockets(region))
        second.receive(0, Told(), opened((4, 0, 60), first=True))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert sorted(places(region)) == [(0, 0, 60), (1, 0, 54)]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "entry",
    [
        [],
        [1],
        [1, 2, 3, 4, 5, 17],
        [1, -1, 53, 0, 0, 17, 0],
        [1, 0, 0, 0, 0, 17, 0],
        [1, 0, 65536, 0, 0, 17, 0],
        "x",
    ],
)
def test_what_is_no_socket_closes_the_channel(region: Region, entry: object) -> None:
    sockets = Sockets(TablesWriter(region), list)
    with pytest.raises(ProtocolError, match="as a socket"):
        sockets.receive(0, Told(), {"type": "sockets.open", "sockets": [entry]})  # type: ignore[arg-type]
