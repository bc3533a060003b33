# SPDX-License-Identifier: Apache-2.0
"""What a person is told of an instance, from files in a directory: every verdict, and no line wider than a terminal."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from halo_mp.shm.identity import own_start_ticks
from halo_mp.stats.status_model import (
    FILE,
    PortStatus,
    ProcessStatus,
    ReportLine,
    Status,
    from_json,
    to_json,
)
from halo_mp.supervisor import status, status_reader, status_text
from halo_mp.supervisor.reports import Reports
from halo_mp.supervisor.status_reader import Found, PortCounters, Verdict, look
from halo_mp.supervisor.status_text import WIDTH, duration
from tests.unit.supervisor.test_reports import report
from tests.unit.supervisor.tree import Tree, scenario, until

NOW = 1_000_000.0
GONE = 2**22 + 1  # no pid is that high


def process(role: str = "driver", slot: int | None = None, **fields: object) -> ProcessStatus:
    made = ProcessStatus(
        role=role,
        slot=slot,
        ports=() if slot is None else (slot,),
        pid=os.getpid(),
        start_ticks=own_start_ticks(),
        state="ready",
        since=NOW - 10,
        restarts=0,
        failed_because=None,
        retry_at=None,
    )
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def port(number: int = 0, **fields: object) -> PortStatus:
    made = PortStatus(
        number=number,
        device=f"net_af_packet{number}",
        driver="net_af_packet",
        mac="02:00:00:00:00:01",
        mtu=1500,
        state="started",
        link_up=True,
    )
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def instance(**fields: object) -> Status:
    made = Status(
        instance="x",
        state="up",
        supervisor_pid=os.getpid(),
        supervisor_start_ticks=own_start_ticks(),
        since=NOW - 100,
        processes=(process(), process("worker", 0), process("worker", 1), process("spare")),
        ports=(port(0), port(1)),
        reports=(ReportLine(name="the driver", pid=1, ended_at=NOW, reason="was killed by SIGKILL"),),
    )
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def found(verdict: Verdict, told: Status | None, **fields: object) -> Found:
    return dataclasses.replace(Found(name="x", verdict=verdict, pid=1, status=told), **fields)  # type: ignore[arg-type]


def left(base: Path, told: Status | None, lock: str = "") -> Path:
    """Make what an instance has in its directory."""
    directory = base / "x"
    directory.mkdir()
    (directory / "lock").write_text(lock)
    if told is not None:
        (directory / FILE).write_text(to_json(told))
    return directory


# ---- the model


def test_model_survives_its_file() -> None:
    told = instance(processes=(process("worker", 1, failed_because="ä", retry_at=1.5, pid=None),))
    assert from_json(to_json(told)) == told


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "{", '{"version": 1}', '{"version": 2}', '{"version": 1, "ports": 3}']
)
def test_file_that_makes_no_sense_is_no_status(text: str) -> None:
    assert from_json(text) is None


WORSE = {
    "starting": instance(state="starting"),
    "stopping": instance(state="stopping"),
    "a worker failed": instance(processes=(process(), process("worker", 0, state="failed", pid=None))),
    "a worker starts": instance(processes=(process(), process("worker", 0, state="starting"))),
    "a port failed": instance(ports=(port(0), port(1, state="failed"))),
}


def test_all_ready_is_well() -> None:
    assert instance().is_well


@pytest.mark.parametrize("told", WORSE.values(), ids=[name.replace(" ", "-") for name in WORSE])
def test_anything_else_is_not(told: Status, tmp_path: Path) -> None:
    left(tmp_path, told)
    assert look(tmp_path, "x").verdict is Verdict.UNWELL


# ---- the verdict


def test_no_directory_is_unknown(tmp_path: Path) -> None:
    assert look(tmp_path, "x") == Found(name="x", verdict=Verdict.UNKNOWN)
    assert look(tmp_path / "no", "x").verdict is Verdict.UNKNOWN
    assert status_reader.others(tmp_path / "no") == []


def test_living_supervisor_is_well(tmp_path: Path) -> None:
    left(tmp_path, instance())
    seen = look(tmp_path, "x")
    assert (seen.verdict, seen.pid, seen.status) == (Verdict.WELL, os.getpid(), instance())
    assert seen.counters_missing is not None, "there is no shared memory of that name"
    assert status_reader.others(tmp_path) == ["x"]


@pytest.mark.parametrize("mine", [{"supervisor_pid": GONE}, {"supervisor_start_ticks": 1}])
def test_dead_supervisor_with_living_children_has_orphans(tmp_path: Path, mine: dict[str, int]) -> None:
    told = instance(**mine, processes=(process(), process("worker", 0, pid=GONE)))
    left(tmp_path, told)
    seen = look(tmp_path, "x")
    assert (seen.verdict, seen.pid, seen.alive) == (Verdict.ORPHANED, None, ("driver",))
    assert status.exit_code(seen) == 1


def test_everybody_dead_is_dead(tmp_path: Path) -> None:
    left(tmp_path, instance(supervisor_pid=GONE, processes=(process(pid=GONE), process(pid=None))))
    assert look(tmp_path, "x").verdict is Verdict.DEAD


@pytest.mark.parametrize("lock", ["", "x", str(GONE), str(os.getpid())])
def test_lock_of_nobody_is_dead(tmp_path: Path, lock: str) -> None:
    """The last is a process that got the pid of a supervisor."""
    left(tmp_path, None, lock)
    assert look(tmp_path, "x").verdict is Verdict.DEAD


@pytest.fixture
def stranger() -> Iterator[int]:
    """The pid of a process that is a supervisor by its command line."""
    command = [sys.executable, "-c", "print(flush=True); input()", "halo_mp.supervisor"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.communicate(b"\n")


def test_supervisor_that_has_said_nothing_yet_is_starting(tmp_path: Path, stranger: int) -> None:
    left(tmp_path, None, f"{stranger}\n")
    seen = look(tmp_path, "x")
    assert (seen.verdict, seen.pid, status.exit_code(seen)) == (Verdict.STARTING, stranger, 1)


def test_reports_are_found_with_it(tmp_path: Path) -> None:
    store = Reports(left(tmp_path, instance()))
    store.add(report())
    store.save()
    assert look(tmp_path, "x").reports == (report(),)


# ---- the text

COUNTERS = {
    0: PortCounters(frames_in=2**60, frames_out=2**60, drops={f"reason_{i}": 2**40 for i in range(20)}),
    1: PortCounters(frames_in=0, frames_out=0, drops={}),
}
FAILED = process("worker", 1, pid=None, state="failed", failed_because="was killed, " * 20, retry_at=NOW + 3)
SCENES = {
    "well": found(Verdict.WELL, instance(), counters=COUNTERS),
    "failed": found(
        Verdict.UNWELL,
        instance(processes=(process(), process("worker", 0), FAILED)),
        counters_missing="there is no shared memory /halo-mp.x.ports: is the instance running? " * 2,
    ),
    "orphans": found(Verdict.ORPHANED, instance(), alive=("driver", "worker 0"), reports=(report(),) * 9),
    "starting": found(Verdict.STARTING, None),
    "dead": found(Verdict.DEAD, instance(), reports=(report(),)),
    "unknown": found(Verdict.UNKNOWN, None),
}


@pytest.mark.parametrize("scene", SCENES.values(), ids=list(SCENES))
def test_no_line_is_wider_than_a_terminal(scene: Found) -> None:
    text = status_text.text(scene, [f"instance-{i}" for i in range(20)], NOW)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.endswith("\n")
    assert "\n\n\n" not in text


def said(scene: str, *names: str) -> str:
    """Return a scene's text without its line breaks."""
    return " ".join(status_text.text(SCENES[scene], names, NOW).split())


def test_text_says_what_is_the_matter() -> None:
    assert "Instance 'x' is up since 1970-01-12T13:45:00Z (1 min 40 s), supervisor 1." in said("well")
    assert "reason_0 1099511627776" in said("well")
    assert "worker 1 - failed 10 s 0 was killed, was killed," in said("failed")
    assert "; next try in 3 s" in said("failed")
    assert "No counters: there is no shared memory" in said("failed")
    assert "running without a supervisor: that is dead, and driver, worker 0 go on" in said("orphans")
    assert "Start it again with the same flags and the same file" in said("orphans")
    assert "9 reports of processes" in said("orphans")
    assert "is starting as process 1" in said("starting")
    assert "is not running" in said("dead")
    assert "1 report of processes" in said("dead")
    assert said("unknown") == "There is no instance 'x'. Nor is there any other."
    assert said("unknown", "a", "b") == "There is no instance 'x'. There is: a, b."


def test_report_has_everything() -> None:
    full = dataclasses.replace(
        report(text="Fatal\n  File"),
        failure="EAL did not start.",
        silence="It was stopped.",
        restarts=1,
        failed=True,
    )
    text = status_text.reports_text([report(), full])
    first, second = text.split("\n\n")
    assert first.splitlines() == [
        "the worker of slot 0 (pid 1) was killed by SIGKILL",
        "  1970-01-01T00:16:41Z after 2.0 s, of which it did its work for 1.0 s. Ended",
        "  too often (1 restart before): tried again 0.0 s later.",
        "  It said: EAL did not start.",
        "  It was stopped.",
        "  Traceback:",
        "    Fatal",
        "      File",
        "  Last log lines:",
        "    a",
        "    b",
    ]
    assert "Restarted at once (0 restarts before)." in second
    assert "Traceback" not in second


def test_report_of_one_that_left_nothing_says_where_to_look() -> None:
    text = status_text.reports_text([dataclasses.replace(report(), lines=(), lived_s=None)])
    assert "it ended before its log was set up" in " ".join(text.split())
    assert "standard error" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.4, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# ---- the file


def all_ready(path: Path, restarts: int = 0) -> bool:
    """Whether everybody of a tree does its work, after so many restarts; fake drivers have no ports."""
    told = from_json(path.read_text())
    if told is None or told.state != "up" or sum(each.restarts for each in told.processes) != restarts:
        return False
    return {each.state for each in told.processes} == {"ready"}


def test_file_is_replaced_when_something_has_changed_and_only_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {"worker.0": [""], "worker.1": [""], "driver": [""]}, "--spare", "0")
        path = tree.instance.directory / FILE
        await tree.up()
        await until(lambda: all_ready(path))
        before, writer = path.stat(), tree.supervisor._status
        assert writer is not None
        for _ in range(100):
            writer.update()
        assert path.stat() == before
        os.kill(tree.pid("worker.0"), signal.SIGKILL)
        await until(lambda: all_ready(path, restarts=1))
        told = from_json(path.read_text())
        assert told is not None
        assert [process.restarts for process in told.processes] == [0, 1, 0]
        assert [line.name for line in told.reports] == ["the worker of slot 0"]
        assert path.stat().st_mode & 0o777 == 0o600
        # What can not be written is a warning, one of them, and nobody stops for it.
        (path.parent / f"{FILE}.new").mkdir()
        os.kill(tree.pid("worker.1"), signal.SIGKILL)
        await tree.wait_for("worker.1", "ready", 2)
        await until(lambda: "status.not_saved" in [record.msg for record in caplog.records])
        writer.update(stopping=True)
        assert [record.msg for record in caplog.records].count("status.not_saved") == 1
        assert from_json(path.read_text()) is not None, "there is never half of one"
        assert await tree.stop() == 0

    scenario(tmp_path, play)


# ---- the program


def test_help_documents_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        status.main(["--help"])
    assert caught.value.code == 0
    assert "Exit code: 0 everything is well; 1 " in capsys.readouterr().out


def test_name_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        status.main(["--name", "a/b"])
    assert caught.value.code == status.EXIT_USAGE
    assert "a/b" in capsys.readouterr().err


def test_failed_port_says_why() -> None:
    reason = "the interface eth7 is gone"
    lost = port(1, state="failed", failed_because=reason)
    shown = status_text.text(found(Verdict.UNWELL, instance(ports=(port(0), lost))), ["x"], NOW)
    assert f"{reason}; it is looked for" in shown
    back = port(1, failed_because=reason)  # the driver has said so, and its message is under way
    assert reason not in status_text.text(found(Verdict.WELL, instance(ports=(port(0), back))), ["x"], NOW)
