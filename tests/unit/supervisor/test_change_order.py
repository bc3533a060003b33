# SPDX-License-Identifier: Apache-2.0
"""Whole configurations are brought about alone, in the order in which they were asked for; single changes between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from halo_mp.supervisor.change_order import ChangeOrder
from halo_mp.supervisor.running import RefusedError

Turn = AbstractAsyncContextManager[None]


class Story:
    """Tasks that take their turns, and what happened in which order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._end: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, name: str, turn: Turn) -> None:
        self._end[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._play(name, turn))
        await _settled()

    async def end(self, name: str) -> None:
        self._end[name].set()
        await _settled()

    def cancel(self, name: str) -> None:
        self._tasks[name].cancel()

    async def _play(self, name: str, turn: Turn) -> None:
        async with turn:
            self.told.append(f"+{name}")
            await self._end[name].wait()
        self.told.append(f"-{name}")

    @asynccontextmanager
    async def told_of(self) -> AsyncIterator[None]:
        yield
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


async def _settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_single_changes_do_not_wait_for_each_other() -> None:
    async def play() -> None:
        order, story = ChangeOrder(), Story()
        async with story.told_of():
            await story.begin("a", order.single())
            await story.begin("b", order.single())
            assert story.told == ["+a", "+b"]

    asyncio.run(play())


def test_whole_one_waits_for_single_ones_and_those_behind_it_for_its_end() -> None:
    async def play() -> None:
        order, story = ChangeOrder(), Story()
        async with story.told_of():
            await story.begin("a", order.single())
            await story.begin("W", order.whole())
            await story.begin("b", order.single())
            await story.begin("V", order.whole())
            assert story.told == ["+a"]
            await story.end("a")
            assert story.told == ["+a", "-a", "+W"]
            await story.end("W")
            assert story.told[3:] == ["-W", "+b"]
            await story.end("b")
            assert story.told[5:] == ["-b", "+V"]

    asyncio.run(play())


def test_single_one_is_refused_with_a_sentence_and_the_next_one_is_not() -> None:
    async def play() -> None:
        order, story = ChangeOrder(), Story()
        async with story.told_of():
            await story.begin("W", order.whole())
            with pytest.raises(RefusedError, match=r"nothing was changed.*try again when that is done"):
                async with order.single(0.01):
                    story.told.append("+a")
            await story.end("W")
            await story.begin("b", order.single(0.01))
            assert story.told == ["+W", "-W", "+b"]

    asyncio.run(play())


def test_who_gives_up_keeps_nobody() -> None:
    async def play() -> None:
        order, story = ChangeOrder(), Story()
        async with story.told_of():
            await story.begin("a", order.single())
            await story.begin("W", order.whole())
            await story.begin("b", order.single())
            story.cancel("W")
            await _settled()
            assert story.told == ["+a", "+b"]
            story.cancel("a")
            await story.end("b")
            await story.begin("V", order.whole())
            assert story.told == ["+a", "+b", "-b", "+V"]

    asyncio.run(play())
