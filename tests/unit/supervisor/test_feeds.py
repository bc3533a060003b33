# SPDX-License-Identifier: Apache-2.0
"""What is told of what was touched: together, as it is then, bounded, and to nobody who did not ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest

from halo_mp import logs
from halo_mp.control.frame import LENGTH_OCTETS, MAX_FRAME_OCTETS, parse_body, parse_length
from halo_mp.control.notices import Notice, Notices
from halo_mp.control.public import RouteInfo
from halo_mp.stats.model import InterfaceStats, Snapshot
from halo_mp.supervisor import feed_events, feed_state, feed_statistics
from halo_mp.supervisor.feed_events import EventFeed
from halo_mp.supervisor.feed_state import StateFeed
from halo_mp.supervisor.feed_statistics import StatisticsFeed
from halo_mp.supervisor.outbox import Outbox
from tests.unit.supervisor.tree import until


class Box:
    """An outbox that keeps what is put into it, as notices."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self._reading = Notices()

    def put(self, octets: bytes, *, is_state: bool = False) -> None:
        while octets:
            end = LENGTH_OCTETS + parse_length(octets)
            assert self._reading.put(parse_body(octets[LENGTH_OCTETS:end]))
            octets = octets[end:]
        while (notice := self._reading.take()) is not None:
            assert is_state == (notice.topic == "statistics")
            self.notices.append(notice)

    @property
    def outbox(self) -> Outbox:
        return cast("Outbox", self)


class Table:
    """Routes by number."""

    def __init__(self) -> None:
        self.there: dict[int, RouteInfo] = {}
        self.described = 0

    def set(self, number: int, hops: int = 1) -> None:
        self.there[number] = RouteInfo(prefix=str(number), hops=("h" * 20,) * hops, origin="static")

    def describe(self, keys: Sequence[int]) -> list[tuple[str, object | None]]:
        self.described += len(keys)
        return [(str(key), self.there.get(key)) for key in keys]


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))  # type: ignore[arg-type]


def test_what_is_touched_is_told_together_as_it_is_then() -> None:
    async def scenario() -> None:
        table, box, other = Table(), Box(), Box()
        feed = StateFeed("routes", table.describe)
        feed.touch([1])
        feed.subscribe(box.outbox)
        feed.subscribe(other.outbox)
        for number in (2, 3, 2, 4):
            table.set(number)
            feed.touch([number])
        del table.there[3]
        await until(lambda: bool(box.notices))
        [notice] = box.notices
        assert [each.prefix for each in notice.changed if isinstance(each, RouteInfo)] == ["2", "4"]
        assert (notice.gone, notice.missed) == (("3",), False)
        assert other.notices == box.notices
        assert table.described == 3, "once for both"
        feed.unsubscribe(other.outbox)
        feed.touch([4])
        await until(lambda: len(box.notices) == 2)
        assert len(other.notices) == 1
        feed.close()
        feed.touch([4])
        await asyncio.sleep(0)
        assert table.described == 4

    play(scenario)


def test_very_many_changes_are_told_in_frames_that_are_not_too_long() -> None:
    async def scenario() -> None:
        table, box = Table(), Box()
        feed = StateFeed("routes", table.describe)
        feed.subscribe(box.outbox)
        numbers = range(2000)
        for number in numbers:
            table.set(number, hops=512 if number % 50 == 0 else 1)
        feed.touch(numbers)
        await until(lambda: sum(len(each.changed) for each in box.notices) == len(numbers))
        assert not any(each.missed for each in box.notices)
        feed.close()

    play(scenario)


def test_too_many_changes_are_said_to_be_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_state, "MAX_TOUCHED", 100)

    async def scenario() -> None:
        table, box = Table(), Box()
        feed = StateFeed("routes", table.describe)
        feed.subscribe(box.outbox)
        feed.touch(range(150))
        await until(lambda: bool(box.notices))
        assert [each.missed for each in box.notices] == [True]
        assert len(box.notices[0].gone) == 49
        feed.touch([1])
        await until(lambda: len(box.notices) == 2)
        assert not box.notices[1].missed
        feed.close()

    play(scenario)


def test_who_remembers_tells_only_what_is_another() -> None:
    async def scenario() -> None:
        table, box = Table(), Box()
        for number in (1, 2, 3):
            table.set(number)
        feed = StateFeed("routes", table.describe, remembers=True)
        feed.subscribe(box.outbox, [1, 2, 3])
        table.set(2, hops=2)
        del table.there[3]
        table.set(4)
        feed.touch(table.there)
        await until(lambda: bool(box.notices))
        [notice] = box.notices
        assert ([each.prefix for each in notice.changed if isinstance(each, RouteInfo)], notice.gone) == (
            ["2", "4"],
            ("3",),
        )
        feed.close()

    play(scenario)


def names(box: Box) -> list[str]:
    return [event.event for notice in box.notices for event in notice.events]


def test_events_come_from_each_ones_level_on_by_any_thread() -> None:
    async def scenario() -> None:
        log, everything, problems = logs.get("test"), Box(), Box()
        feed = EventFeed()
        feed.subscribe(everything.outbox, "debug")
        feed.subscribe(problems.outbox, "warning")
        log.debug("a.debug", n=1)
        log.warning("a.warning", octets=b"\x01\x02", what=Exception("x"), names={"b", "a"})
        thread = threading.Thread(target=log.error, args=("an.error",))
        thread.start()
        thread.join()
        await until(lambda: len(names(everything)) == 3)
        assert names(everything) == ["a.debug", "a.warning", "an.error"]
        assert names(problems) == ["a.warning", "an.error"]
        [_, event, _] = [event for notice in everything.notices for event in notice.events]
        assert (event.level, event.fields) == (
            "warning",
            {"octets": "01:02", "what": "x", "names": ["a", "b"]},
        )
        feed.unsubscribe(everything.outbox)
        assert not log.enabled("debug")
        feed.close()
        assert logs._listener is None

    play(scenario)


def test_events_that_are_odd_or_too_many_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_events, "MAX_GATHERED", 50)

    async def scenario() -> None:
        log, box = logs.get("test"), Box()
        feed = EventFeed()
        feed.subscribe(box.outbox, "info")
        log.info("odd", number=1 << 70, text="\udc80", long="x" * 100_000, many=["y" * 100] * 1000)
        for _ in range(60):
            log.info("flood", text="z" * 3000)
        await until(lambda: len(names(box)) == 50)
        assert names(box) == ["odd"] + ["flood"] * 49
        assert box.notices[0].missed
        odd = box.notices[0].events[0].fields
        assert odd["number"] == str(1 << 70)
        assert all(len(str(value)) < MAX_FRAME_OCTETS for value in odd.values())
        feed.close()

    play(scenario)


def snapshot(interfaces: int = 1) -> Snapshot:
    one: Any = InterfaceStats(name="0", number=0, mac="", mtu=1500, up=True, addresses=())
    return Snapshot(
        instance="x",
        generation=1,
        at=1.0,
        now=2.0,
        driver_pid=1,
        pool_free=7,
        withheld=0,
        lcores=(),
        ports={},
        slots={},
        interfaces={str(number): one for number in range(interfaces)},
        status=cast("Any", None),
    )


def test_those_with_one_period_share_a_sample() -> None:
    async def scenario() -> None:
        samples = 0

        def sample() -> Snapshot:
            nonlocal samples
            samples += 1
            return snapshot(interfaces=2000)

        boxes = [Box() for _ in range(50)]
        feed = StatisticsFeed(sample)
        for box in boxes:
            feed.subscribe(box.outbox, 0.1)
        await until(lambda: all(len(box.notices) >= 3 for box in boxes))
        assert samples == max(len(box.notices) for box in boxes)
        found = boxes[0].notices[0].statistics
        assert found is not None
        assert (found.pool_free, len(found.interfaces)) == (7, 2000)  # in several frames
        for box in boxes:
            feed.unsubscribe(box.outbox)
        assert feed._timer is None

    play(scenario)


def test_sample_that_can_not_be_had_is_left_out() -> None:
    async def scenario() -> None:
        problems = [OSError(24, "Too many open files"), OSError(24, "Too many open files")]

        def sample() -> Snapshot:
            if problems:
                raise problems.pop()
            return snapshot()

        box = Box()
        feed = StatisticsFeed(sample)
        feed.subscribe(box.outbox, feed_statistics.TOGETHER_S * 4)
        await until(lambda: bool(box.notices))
        assert not problems
        feed.close()

    play(scenario)
