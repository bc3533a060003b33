# SPDX-License-Identifier: Apache-2.0
"""The store of reports: what it keeps, what it lets go, and what it tells the log. Then deaths of fake children."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from halo_mp import blackbox
from halo_mp.supervisor import boxes, reports
from halo_mp.supervisor.boxes import Boxes
from halo_mp.supervisor.reports import Report, Reports, bounded
from halo_mp.supervisor.restart import Restart
from halo_mp.supervisor.state import Member
from tests.unit.supervisor.tree import Tree, scenario, until

AT_ONCE = Restart(delay_s=0.0, failed=False)


def report(slot: int = 0, pid: int = 1, *, text: str = "") -> Report:
    return Report(
        name=f"the worker of slot {slot}",
        role="worker",
        slot=slot,
        pid=pid,
        ended_at=1000.0 + pid,
        lived_s=2.0,
        useful_s=1.0,
        exit_code=None,
        signal="SIGKILL",
        reason="was killed by SIGKILL",
        failure=None,
        silence=None,
        lines=("a", "b"),
        traceback=text,
        restarts=0,
        failed=False,
        restart_in_s=0.0,
    )


def pids(store: Reports) -> list[int | None]:
    return [each.pid for each in store.all()]


def test_each_process_has_its_last_eight() -> None:
    store = Reports()
    for pid in range(20):
        store.add(report(pid % 2, pid))
    assert pids(store) == list(range(4, 20))
    store.add(report(0, 100))
    assert pids(store) == [5, *range(6, 20), 100], "the oldest of the same process made room"


def test_sixty_four_in_all() -> None:
    store = Reports()
    for pid in range(100):
        store.add(report(pid, pid))
    assert pids(store) == list(range(36, 100))


def test_octets_are_bounded() -> None:
    text = "z" * (reports.OCTETS // 4)
    kept = bounded([report(pid, pid, text=text) for pid in range(10)])
    assert [each.pid for each in kept] == [7, 8, 9]
    assert sum(each.octets for each in kept) <= reports.OCTETS
    assert bounded([report(text=text * 5)]) == []


def test_next_supervisor_finds_them(tmp_path: Path) -> None:
    store = Reports(tmp_path)
    assert store.all() == []
    store.add(report(1, 1, text="Traceback ä"))
    assert not (tmp_path / "reports").exists(), "not before a restart is under way"
    store.save()
    assert Reports(tmp_path).all() == store.all() == [report(1, 1, text="Traceback ä")]
    assert stat.S_IMODE((tmp_path / "reports").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["reports"]


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"name": 1}]', "null", "[{}]", '{"a": 1}', "\xff"])
def test_file_that_makes_no_sense_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "reports").write_text(text, encoding="latin-1")
    assert Reports(tmp_path).all() == []


def test_directory_that_is_gone_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Reports(tmp_path / "gone")
    store.add(report())
    store.save()
    store.save()
    assert [record.msg for record in caplog.records] == ["reports.not_saved"]
    assert pids(store) == [1]


def test_box_ends_in_the_report(tmp_path: Path) -> None:
    """Of a worker that died while there was no supervisor, and of one that lives."""
    made = Boxes(tmp_path / "last")
    with made.new("worker.0") as box, made.new("worker.1") as other:
        lines = blackbox.LineBox(box.fds[0])
        for number in range(200):
            lines.write(b"%d %b\n" % (number, b"x" * 300))
        blackbox.trace_path(str(box.path)).write_text("Fatal")
    dead = Member("worker", 0, 2**22 + 1, 1, box.path)
    store = Reports(tmp_path)
    store.take_over([Member("supervisor", None, 2**22 + 1, 1), dead])
    [found] = store.all()
    assert (found.pid, found.slot, found.traceback) == (dead.pid, 0, "Fatal")
    assert found.lines[-1].startswith("199 ")
    assert 20 < len(found.lines) <= reports.LINES
    assert sum(map(len, found.lines)) <= reports.LINES_OCTETS
    made.sweep([dead])
    assert list((tmp_path / "last").iterdir()) == []
    assert other.path is not None


def test_boxes_of_two_supervisors_have_different_names(tmp_path: Path) -> None:
    with Boxes(tmp_path).new("driver") as first, Boxes(tmp_path).new("driver") as second:
        assert first.path != second.path
    with Boxes(tmp_path).new("worker.0") as third:
        pass
    assert len({first.path, second.path, third.path}) == 3
    for box in (first, second, third):
        boxes.remove(box.path)
        boxes.remove(box.path)
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_a_box_is_no_reason_not_to_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with Boxes(tmp_path / "file").new("driver") as box:
        assert (box.path, box.fds, box.environment) == (None, (), {})
    assert [record.msg for record in caplog.records] == ["box.not_made"]


def test_traceback_is_logged_once_in_ten_seconds_for_each_process() -> None:
    store = Reports()
    crash, other = report(0, text="Fatal"), report(1, text="Fatal")
    told = [store._traceback(crash, now) for now in (0.0, 0.1, 9.9, 10.0, 10.1)]
    assert told == [{"traceback": "Fatal"}, {}, {}, {"traceback": "Fatal"}, {}]
    assert store._traceback(other, 10.1) == {"traceback": "Fatal"}
    assert store._traceback(report(2), 10.1) == {}


def test_end_of_what_never_started_is_reported() -> None:
    store = Reports()
    fields = store.ended(
        "the driver",
        "driver",
        None,
        None,
        AT_ONCE,
        reason="could not be started",
        failure=None,
        silence=None,
        useful_s=0.0,
        restarts=0,
    )
    assert fields == {}
    [found] = store.all()
    assert (found.pid, found.lived_s, found.lines, found.traceback) == (None, None, (), "")
    assert found.reason == "could not be started"


# ---- fake children


def test_deaths_in_a_tree_are_reported(tmp_path: Path) -> None:
    plan = {"worker.0": ["exit:3@soon", ""], "driver": ["kill@soon", ""], "worker.1": [""]}

    async def play() -> None:
        tree = Tree(tmp_path, plan, "--spare", "0")
        await tree.up()
        first = tree.pids("driver", "worker.0")
        await tree.wait_for("worker.0", "ready", 2)
        await tree.wait_for("driver", "ready", 2)
        found = {each.name: each for each in tree.supervisor._reports.all()}
        assert set(found) == {"the driver", "the worker of slot 0"}
        driver, worker = found["the driver"], found["the worker of slot 0"]
        assert [driver.pid, worker.pid] == first
        assert (driver.signal, driver.exit_code) == ("SIGKILL", None)
        assert (worker.signal, worker.exit_code) == (None, 3)
        assert worker.reason == "ended with exit code 3"
        assert worker.lived_s is not None
        assert worker.lived_s >= worker.useful_s > 0
        path = tree.instance.directory / "reports"
        await until(lambda: len(reports.load(path)) == 2)
        boxes_left = {file.stem for file in (tree.instance.directory / "last").iterdir()}
        assert len(boxes_left) == 3, "of those that live"
        assert await tree.stop() == 0

    scenario(tmp_path, play)


def test_process_that_can_not_be_asked_is_killed_all_the_same(tmp_path: Path) -> None:
    """A fake child does not catch SIGUSR2, and would end by it."""
    plan = {"worker.0": ["freeze@soon", ""], "worker.1": [""], "driver": [""]}

    async def play() -> None:
        tree = Tree(tmp_path, plan, "--spare", "0")
        await tree.up()
        await tree.wait_for("worker.0", "ready", 2)
        [found] = tree.supervisor._reports.all()
        assert found.signal == "SIGKILL"
        assert found.reason.startswith("made no progress for ")
        assert found.silence is not None
        assert found.silence.startswith("It did not catch SIGUSR2 yet")
        assert await tree.stop() == 0
        assert not [task for task in asyncio.all_tasks() if "_ask_and_kill" in repr(task)]

    scenario(tmp_path, play)


def test_reports_are_of_no_one_who_was_asked_to_end(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {"worker.0": [""], "worker.1": [""], "driver": [""]}, "--spare", "0")
        await tree.up()
        assert await tree.stop() == 0
        assert tree.supervisor._reports.all() == []

    scenario(tmp_path, play)
