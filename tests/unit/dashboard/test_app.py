# SPDX-License-Identifier: Apache-2.0
"""The dashboard under its library's pilot: each key, at both sizes, while the instance changes, dies and comes back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from halo_mp.control.public import NeighborInfo, RouteInfo
from halo_mp.dashboard.app import MAKERS, Dashboard
from halo_mp.dashboard.feed import KEPT, Asked, Feed
from halo_mp.shm.layout import lib
from tests.support.regions import Regions

SMALL, LARGE = (80, 24), (200, 50)
ASKED = Asked(
    neighbors=(
        NeighborInfo(interface="0", address="10.77.0.10", mac="02:00:00:00:00:0a", static=False),
        NeighborInfo(interface="0", address="10.77.0.9", mac="02:00:00:00:00:09", static=True),
    ),
    routes=(RouteInfo(prefix="10.0.0.0/8", hops=("10.77.0.9",), origin="static"),),
)

Scene = Callable[[Dashboard, Pilot[None]], Awaitable[None]]


@asynccontextmanager
async def opened(feed: Feed, size: tuple[int, int] = SMALL) -> AsyncIterator[tuple[Dashboard, Pilot[None]]]:
    feed.asked = ASKED
    app = Dashboard(feed, lambda: ASKED, ticking=False)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        yield app, pilot


def play(feed: Feed, scene: Scene, size: tuple[int, int] = SMALL) -> None:
    """Open the dashboard and play a scene in it."""

    async def run() -> None:
        async with opened(feed, size) as (app, pilot):
            await scene(app, pilot)

    asyncio.run(run())


def cells(app: Dashboard) -> list[list[str]]:
    """Return the rows of the table that is shown."""
    table, drawn = app.query_one(f"#table-{app.tab}", DataTable), app.drawn
    assert drawn is not None
    assert drawn.name == app.tab
    lines = [str(table.get_row_at(at)[0]) for at in range(table.row_count)]
    found = [[cell.text for cell in row] for row in drawn.rows]
    assert ["".join(line.split()) for line in lines] == ["".join("".join(row).split()) for row in found]
    return found


def titles(app: Dashboard) -> list[str]:
    table = app.query_one(f"#table-{app.tab}", DataTable)
    return re.split(r"\s{2,}", str(table.ordered_columns[0].label).strip())


def top(app: Dashboard) -> str:
    return str(app.query_one("#top", Static).content)


def said(app: Dashboard) -> str:
    """Return what stands above the tabs."""
    return str(app.query_one("#problems", Static).content)


def test_each_tab_has_its_rows(feed: Feed, regions: Regions) -> None:
    regions.forward(64000)
    regions.add_hook(1, "filter", packets=5)
    expected = {
        "now": 5,
        "ports": 2,
        "workers": 2,
        "drops": 2,
        "processes": 4,
        "neighbors": 2,
        "routes": 1,
        "hooks": 1,
        "logs": 1,
    }

    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        for at, name in enumerate(MAKERS):
            await pilot.press(str(at))
            await pilot.pause()
            assert app.tab == name
            assert len(cells(app)) == expected[name], name
        assert cells(app)[0][0].endswith("ERROR supervisor the worker of slot 0 was killed by SIGKILL")

    play(feed, scene)


def test_frames_are_shown_as_they_come(feed: Feed, regions: Regions) -> None:
    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        assert "in 0 pps" in top(app)
        regions.forward(64000)
        app.take()
        await pilot.pause()
        assert "in 0 pps" not in top(app)
        assert "NOT WELL" not in top(app)
        [port, other] = cells(app)
        assert port[1] == "up"
        assert port[2] != "0"
        assert port[7].endswith("█")
        assert other[2] == "0"
        regions.say(state="stopping")
        app.take()
        assert "NOT WELL" in top(app)
        assert app.query_one("#top").has_class("unwell")

    play(feed, scene)


@pytest.mark.parametrize(("size", "wide"), [(SMALL, False), (LARGE, True)])
def test_columns_are_those_that_there_is_room_for(feed: Feed, size: tuple[int, int], wide: bool) -> None:
    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        assert ("MAC" in titles(app)) == wide
        for at, name in enumerate(MAKERS):
            await pilot.press(str(at))
            await pilot.pause()
            table = app.query_one(f"#table-{name}", DataTable)
            if name != "logs":
                assert table.virtual_size.width <= size[0], name
        await pilot.resize_terminal(*(SMALL if wide else LARGE))
        await pilot.press("1")
        await pilot.pause()
        assert ("MAC" in titles(app)) != wide

    play(feed, scene, size)


def test_sort_goes_through_the_columns_and_can_be_turned_around(feed: Feed) -> None:
    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        await pilot.press("5")
        addresses = [row[1] for row in cells(app)]
        assert addresses == ["10.77.0.10", "10.77.0.9"]
        await pilot.press("s", "s")
        assert "address ▲" in titles(app)
        assert [row[1] for row in cells(app)] == ["10.77.0.9", "10.77.0.10"]
        await pilot.press("r")
        assert "address ▼" in titles(app)
        assert [row[1] for row in cells(app)] == ["10.77.0.10", "10.77.0.9"]
        await pilot.press("s", "s", "s")
        assert app.orders["neighbors"].column is None
        assert app.orders["ports"].column is None

    play(feed, scene)


def test_click_on_a_column_sorts_by_it(feed: Feed) -> None:
    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        await pilot.click("#table-ports", offset=(2, 0))
        assert titles(app)[0] == "port ▲"
        await pilot.click("#table-ports", offset=(2, 0))
        assert titles(app)[0] == "port ▼"
        assert [row[0] for row in cells(app)] == ["1", "0"]

    play(feed, scene)


def test_filter_is_kept_by_enter_and_ended_by_escape(feed: Feed) -> None:
    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        await pilot.press("4")
        await pilot.press("slash", *"WORKER 1")
        await pilot.pause()
        assert [row[0] for row in cells(app)] == ["worker 1"]
        await pilot.press("enter")
        app.take()
        await pilot.pause()
        assert [row[0] for row in cells(app)] == ["worker 1"]
        assert "Filter: WORKER 1" in str(app.query_one("#note", Static).content)
        await pilot.press("1")
        await pilot.pause()
        assert len(cells(app)) == 2
        await pilot.press("4", "slash", "escape")
        await pilot.pause()
        assert len(cells(app)) == 4

    play(feed, scene)


def test_freeze_stands_still_until_it_goes_on(feed: Feed, regions: Regions) -> None:
    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        await pilot.press("space")
        regions.forward(64000)
        app.take()
        app.take()
        await pilot.pause()
        assert top(app).startswith("FROZEN, 2 s ago")
        assert cells(app)[0][7].strip() == ""
        await pilot.press("space")
        assert not top(app).startswith("FROZEN")
        assert cells(app)[0][7].strip() == "█"

    play(feed, scene)


def test_steps_back_and_forward_end_at_what_is_kept(feed: Feed, regions: Regions) -> None:
    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        for _ in range(4):
            regions.forward(64000)
            app.take()
        await pilot.press("comma", "comma")
        assert top(app).startswith("FROZEN, 2 s ago")
        assert cells(app)[0][7].count("█") + cells(app)[0][7].count("▇") <= 2
        await pilot.press("full_stop")
        assert top(app).startswith("FROZEN, 1 s ago")
        await pilot.press("less_than_sign")
        assert top(app).startswith("FROZEN, 4 s ago")
        assert "in 0 pps" in top(app)
        await pilot.press("greater_than_sign")
        assert top(app).startswith("FROZEN, 0 s ago")
        app.take()
        assert top(app).startswith("FROZEN, 1 s ago")
        await pilot.press("escape")
        assert not top(app).startswith("FROZEN")

    play(feed, scene)


def test_frozen_longer_than_what_is_kept_shows_the_oldest(feed: Feed) -> None:
    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        await pilot.press("space")
        for _ in range(KEPT + 5):
            feed.frame()
            app._taken += 1
        app.show_frame()
        assert len(feed.frames) == KEPT
        assert top(app).startswith(f"FROZEN, {KEPT - 1} s ago")

    play(feed, scene)


def test_cursor_stays_where_it_is(feed: Feed) -> None:
    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        await pilot.press("4", "down", "down")
        app.take()
        await pilot.pause()
        assert app.query_one("#table-processes", DataTable).cursor_row == 2

    play(feed, scene)


def test_instance_that_is_started_anew_counts_anew_and_what_was_before_can_be_seen(
    feed: Feed, regions: Regions
) -> None:
    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        regions.forward(64000)
        app.take()
        before = top(app)
        regions.stop()
        regions.start()
        app.take()
        await pilot.pause()
        assert "in 0 pps" in top(app)
        await pilot.press("comma")
        assert top(app) == f"FROZEN, 1 s ago · {before}"

    play(feed, scene)


def test_instance_that_ends_is_waited_for_and_its_last_is_shown(feed: Feed, regions: Regions) -> None:
    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        regions.forward(64000)
        app.take()
        before = top(app)
        regions.stop()
        app.take()
        app.take()
        await pilot.pause()
        assert top(app).startswith("GONE 0 s ago; this was its last: ")
        assert top(app).endswith(before)
        assert "is not running" in said(app)
        assert app.query_one("#top").has_class("unwell")
        assert len(cells(app)) == 2
        await pilot.press("comma")
        assert "FROZEN, 1 s ago" in top(app)
        await pilot.press("escape")
        regions.start()
        app.take()
        await pilot.pause()
        assert top(app).startswith(f"{regions.instance} up")
        assert "is not running" not in said(app)

    play(feed, scene)


def test_instance_of_another_layout_is_a_sentence_and_waited_for(feed: Feed, regions: Regions) -> None:
    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        regions.stop()
        regions.start()
        regions.ports.pointer.header.layout_version += 1
        app.take()
        await pilot.pause()
        assert "layout" in said(app)
        regions.ports.pointer.header.layout_version -= 1
        app.take()
        assert top(app).startswith(f"{regions.instance} up")

    play(feed, scene)


def test_what_is_wrong_is_seen_from_each_tab(feed: Feed, regions: Regions) -> None:
    regions.say(reports=())

    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        app.take()
        assert said(app) == ""
        assert not app.query_one("#problems").display
        regions.forward(64000)  # no route is no fault of ours, a ring that was full is
        regions.ports.pointer.port[1].link_up = 0
        regions.say_of_worker(0, pid=None, state="failed", failed_because="its application has no main")
        app.take()
        await pilot.pause()
        lines = said(app).splitlines()
        assert [line.split(":")[0] for line in lines] == ["worker 0", "port 1", "worker 0"]
        assert all(len(line) <= SMALL[0] for line in lines)
        regions.add_hook(1, "filter", errors=3, state=lib.HALO_HOOK_QUARANTINED)
        regions.forward(64000)
        app.take()
        assert said(app).splitlines()[-1] == "and 2 problems more: 0 shows all"
        await pilot.press("0")
        await pilot.pause()
        assert said(app) == ""
        shown = [row[0] for row in cells(app)]
        assert [where for where in shown if where] == [
            "worker 0",
            "port 1",
            "worker 1",
            "worker 0",
            "worker 0",
        ]
        assert app.query_one("#table-now", DataTable).virtual_size.width <= SMALL[0]
        await pilot.press("slash", *"its application")
        await pilot.pause()
        assert [row[0] for row in cells(app)] == ["worker 0"]

    play(feed, scene)


def test_supervisor_that_is_gone_is_said_in_red(feed: Feed, regions: Regions) -> None:
    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        regions.say(supervisor_start_ticks=1)
        app.take()
        await pilot.pause()
        assert "without a supervisor" in top(app)
        assert app.query_one("#top").has_class("unwell")
        assert said(app).startswith("supervisor: It is dead.")

    play(feed, scene)


def test_instance_whose_orphans_have_ended_says_what_removes_it(feed: Feed, regions: Regions) -> None:
    async def scene(app: Dashboard, pilot: Pilot[None]) -> None:
        dead = tuple(replace(each, start_ticks=1) for each in regions.status.processes)
        regions.say(supervisor_start_ticks=1, processes=dead)
        app.take()
        await pilot.pause()
        assert "ended, was up" in top(app)
        assert said(app).startswith("instance: It has ended, and not in order.")
        assert "supervisor" not in said(app)

    play(feed, scene)


def test_supervisor_is_asked_while_its_answer_is_shown(feed: Feed) -> None:
    asked, answer = 0, ASKED

    def ask() -> Asked:
        nonlocal asked
        asked += 1
        return answer

    async def run() -> None:
        nonlocal answer
        app = Dashboard(feed, ask)
        async with app.run_test(size=SMALL) as pilot:
            await pilot.pause()
            assert asked == 0
            await pilot.press("5")
            for _ in range(300):
                if len(cells(app)) == 2:
                    break
                await pilot.pause(0.05)
            assert len(cells(app)) == 2
            answer = Asked(problem="The supervisor could not be asked: it is dead.")
            for _ in range(300):
                if "it is dead" in str(app.query_one("#note", Static).content):
                    break
                await pilot.pause(0.05)
            assert "it is dead" in str(app.query_one("#note", Static).content)
            assert len(cells(app)) == 2

    asyncio.run(run())
