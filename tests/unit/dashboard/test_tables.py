# SPDX-License-Identifier: Apache-2.0
"""Rows, figures and plain text, without a terminal."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from halo_mp import blackbox
from halo_mp.control.public import RouteInfo
from halo_mp.dashboard import figures, plain, tables
from halo_mp.dashboard.feed import KEPT, Asked, Feed, Frame, first
from halo_mp.dashboard.problems import OURS, problems
from halo_mp.shm.layout import DROP_NAMES, PortState
from halo_mp.stats.reader import Reader
from halo_mp.supervisor.boxes import OWN
from tests.support.regions import Regions


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (7, "7"),
        (0.25, "0.25"),
        (99.96, "100"),
        (999, "999"),
        (999.6, "1.00k"),
        (1234, "1.23k"),
        (45_600_000, "45.6M"),
        (148_800_000, "149M"),
        (1e10, "10.0G"),
        (2**64, "18447P"),
    ],
)
def test_si(value: float, shown: str) -> None:
    assert figures.si(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0 B"), (512, "512 B"), (47 << 20, "47.0 MiB"), (3 << 40, "3072 GiB")]
)
def test_octets(value: float, shown: str) -> None:
    assert figures.octets(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (1.6e-5, "16µs"), (4.2e-3, "4.20ms"), (0.9996, "1.00s"), (90, "90s")]
)
def test_seconds(value: float, shown: str) -> None:
    assert figures.seconds(value) == shown


def test_cores() -> None:
    assert [figures.cores(c) for c in ((), (3,), (0, 1, 2, 8), (5, 3, 4))] == ["", "3", "0-2,8", "3-5"]


def test_spark() -> None:
    assert figures.spark([0, 1, 4, 8], 3) == "▂▅█"
    assert figures.spark([0, 8], 12) == " █"
    assert figures.spark([0, 0], 12) == "  "
    assert figures.spark([], 12) == ""
    assert figures.spark([8, 1e-9], 2) == "█▁"


def frame_after(feed: Feed, regions: Regions, frames: int = 64000) -> Frame:
    regions.forward(frames)
    made = feed.frame()
    return replace(made, now=replace(made.now, now=made.before.now + 1))


def texts(table: tables.Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_ports_and_their_queues(tmp_path: Path) -> None:
    with (
        Regions("q", tmp_path, queues=2) as regions,
        Reader("q", base=tmp_path) as reader,
    ):
        feed = Feed(reader, tmp_path / "q")
        regions.ports.pointer.port[0].xstat[2].value = 640
        table = tables.ports([frame_after(feed, regions)])
    rows = texts(table.shown(wide=False))
    assert [row[0] for row in rows] == ["0", "0 q0", "0 q1", "1", "1 q0", "1 q1"]
    assert rows[0][2:7] == ["64.0k", "32.0k", "32.8M", "16.4M", "0"]
    assert rows[2][2] == "640"


def test_workers(feed: Feed, regions: Regions) -> None:
    [row, other] = texts(tables.workers(frame_after(feed, regions)).shown(wide=False))
    assert row[2:5] == ["64.0k", "32.0k", "7.04k"]
    assert row[-3:] == ["50.0", "16.4µs", "75"]
    assert other[-3:] == ["0.0", "0", "-"]


def test_drops_most_frequent_first_with_their_sentence(feed: Feed, regions: Regions) -> None:
    rows = texts(tables.drops(frame_after(feed, regions)))
    assert [row[:5] for row in rows] == [
        ["0", "ipv4_no_route", "6.40k", "6.40k", "90.9%"],
        ["0", "rx_ring_full", "640", "640", "9.1%"],
    ]
    assert all(row[5] for row in rows)


def test_peak_of_a_ring_is_the_highest_that_was_sampled(feed: Feed, regions: Regions) -> None:
    slot = regions.slots[0].pointer
    slot.rx.producer = 700
    feed.sample()
    slot.rx.producer = 5
    assert feed.frame().peaks[0] == 700
    assert feed.frame().peaks[0] == 5


def test_processes_that_took_another_place_start_from_zero(feed: Feed, regions: Regions) -> None:
    frame = feed.frame()
    assert {row[3] for row in texts(tables.processes(frame))} != set()
    regions.say_of_worker(0, pid=None, state="failed", failed_because="it ended too often")
    row = texts(tables.processes(feed.frame()))[2]
    assert (row[0], row[1], row[2], row[3], row[-1]) == (
        "worker 0",
        "-",
        "failed",
        "0.0%",
        "it ended too often",
    )


def test_routes_are_cut_and_sorted_by_number(feed: Feed) -> None:
    def routes() -> Iterator[RouteInfo]:
        for number in range(20, 0, -1):
            yield RouteInfo(prefix=f"10.{number}.0.0/16", hops=("10.77.0.2",), origin="static")

    found, more = first(routes(), 15)
    feed.asked = Asked(routes=found, more_routes=more)
    table = tables.routes(feed.frame())
    assert (len(table.rows), table.note) == (15, "The first 15; there are more.")
    ordered = texts(table.ordered(0, reverse=False))
    assert (ordered[0][0], ordered[-1][0]) == ("10.6.0.0/16", "10.20.0.0/16")
    assert first(routes(), 20)[1] is False


def test_logs_are_those_of_all_boxes_in_order_of_time(feed: Feed, regions: Regions) -> None:
    directory = regions.base / regions.instance / "last"
    directory.mkdir()
    for name, minute in (("driver", 5), ("worker.0", 3)):
        with blackbox.lines_path(str(directory / name)).open("wb") as file:
            blackbox.LineBox(file.fileno()).write(
                b"2026-11-22T15:%02d:48.123Z INFO  %s up\n" % (minute, name.encode())
            )
    rows = texts(tables.logs(feed.frame()))
    assert [row[0].split()[2] for row in rows[:2]] == ["worker.0", "driver"]
    assert "was killed by SIGKILL" in rows[2][0]


def test_now_has_what_the_supervisor_logged_newest_first_without_its_rates(
    feed: Feed, regions: Regions
) -> None:
    regions.say(reports=())
    assert texts(tables.now(feed.frame())) == []
    logged = (
        "2026-11-22T15:01:00.123Z INFO  supervisor instance.up instance=default",
        "2026-11-22T15:02:00.123Z WARN  supervisor worker.died slot=0",
        "2026-11-22T15:03:00.123Z INFO  supervisor stats port=0 rx_pps=0",
        '{"time":"2026-11-22T15:04:00.123Z","level":"info","event":"slot.reset"}',
    )
    with blackbox.lines_path(str(regions.base / regions.instance / OWN)).open("wb") as file:
        box = blackbox.LineBox(file.fileno())
        for line in logged:
            box.write(f"{line}\n".encode())
    frame = feed.frame()
    assert list(frame.events) == list(logged)
    rows = texts(tables.now(frame))
    assert "".join(row[1] for row in rows[:2]) == logged[3].replace(" ", "")
    assert rows[2:] == [
        ["15:02:00", "WARN worker.died slot=0"],
        ["15:01:00", "instance.up instance=default"],
    ]
    assert tables.now(frame).note == "Nothing is wrong."
    assert texts(tables.logs(frame)) == [[line] for line in logged]


def test_problems_say_where_and_what(feed: Feed, regions: Regions) -> None:
    regions.say(
        reports=tuple(
            replace(regions.status.reports[0], ended_at=at) for at in (5.0, time.time(), time.time())
        )
    )
    found = {problem.where: problem.what for problem in problems(feed.frame())}
    assert list(found) == ["worker 0"]
    assert re.fullmatch(
        r"It was killed by SIGKILL \d+ s ago; it ended 2 times in five minutes\.", found["worker 0"]
    )
    regions.say(reports=())
    regions.say_of_port(1, state="failed", failed_because="its interface is gone")
    regions.ports.pointer.port[0].rx_no_mbuf += 5
    regions.ports.pointer.port[1].state = PortState.FAILED
    regions.slots[0].pointer.rx.producer = 1000
    regions.ports.pointer.pool_free = 0
    regions.say_of_worker(1, state="starting")
    frame = feed.frame()
    found = {problem.where: problem.what for problem in problems(frame)}
    assert list(found) == ["worker 1", "port 0", "port 1", "pool", "worker 0"]
    assert found["port 0"].endswith("/s times no buffer was free to receive into: see --pool-size.")
    assert found["port 1"] == "its interface is gone; it is looked for."
    assert found["worker 0"].startswith("Its rx ring was 97.7% full")
    assert [each["where"] for each in plain.as_json(frame)["problems"]] == list(found)
    assert "\nworker 1  It is starting, for " in plain.as_text([frame])


def test_feed_keeps_the_last_minutes_and_no_more(feed: Feed) -> None:
    for _ in range(KEPT + 3):
        feed.frame()
    assert len(feed.frames) == KEPT


def test_plain_text_fits_and_says_all(feed: Feed, regions: Regions) -> None:
    shown = plain.as_text([frame_after(feed, regions)])
    assert all(len(line) <= 80 for line in shown.splitlines() if "SIGKILL" not in line), shown
    assert not set(shown) & set("─│┌┐└┘\x1b")
    for title in ("Ports", "Workers", "Drops", "Processes", "Neighbors", "Routes", "Hooks", "Logs"):
        assert f"\n{title}\n" in shown
    wide = plain.as_text([frame_after(feed, regions)], 200)
    assert "what it means" in wide
    assert "what it means" not in shown
    assert set(DROP_NAMES) > OURS


def test_json_has_rates_and_processes(feed: Feed, regions: Regions) -> None:
    found = json.loads(json.dumps(plain.as_json(frame_after(feed, regions))))
    assert found["rates"]["ports"]["0"]["rx_pps"] == pytest.approx(64000)
    assert found["rates"]["slots"]["0"]["drops"]["rx_ring_full"] == pytest.approx(640)
    assert [process["name"] for process in found["processes"]][:2] == ["supervisor", "driver"]
