# SPDX-License-Identifier: Apache-2.0
"""Something died: what is kept of it, and what `status` tells. Real processes, real deaths."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from halo_mp.errors import BootFailed
from halo_mp.supervisor import status
from halo_mp.supervisor.status_text import WIDTH
from tests.proc.conftest import ADDRESSES, assert_answered, everybody, wait_for_end
from tests.support import cues, lives
from tests.support.instance import Instance, run_supervisor
from tests.support.leftovers import leftovers
from tests.support.namespace import Namespace, wait_until
from tests.support.pinger import Pinger

NAME = f"r{os.getpid() % 100000}"


@pytest.fixture(autouse=True, scope="module")
def nothing_left() -> Iterator[None]:
    """As the fixture of all tests, behind all of these: successors live as long as their instance."""
    yield
    wait_until(lambda: not ours(), what="the end of everything")


def ours() -> list[str]:
    """Return what instances of this run have left."""
    names = (NAME, f"t{os.getpid() % 100000}-")
    return [left for left in leftovers() if any(name in left for name in names)]


@pytest.fixture(scope="module")
def mortal() -> Iterator[Instance]:
    """An instance whose children may die often, and do so on cue."""
    flags = ("--ports", "0,1", "--restart-limit", "1000/10", "--hang-timeout", "1", "--spare", "0")
    with (
        Namespace() as namespace,
        cues.environment() as environment,
        Instance(namespace, *flags, env=environment) as instance,
    ):
        texts = [entry["text"] for entry in instance.events("config.warning")]
        assert not [text for text in texts if "could not read" in text], (
            "workers are nobody, where that can be"
        )
        yield instance
        assert instance.stop() == 0
        assert not instance.runtime.exists()


def ask(namespace: Namespace, name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the reader where the instance runs."""
    return namespace.run(
        sys.executable, "-m", "halo_mp.supervisor.status", "--name", name, *flags, check=False
    )


def told(instance: Instance, *flags: str) -> dict[str, Any]:
    """Return everything that the reader has to say."""
    found: dict[str, Any] = json.loads(ask(instance.namespace, instance.name, "--json", *flags).stdout)
    return found


def die(instance: Instance, number: int, role: lives.Role = "worker", slot: int | None = 0) -> dict[str, Any]:
    """End a child by a signal, wait for its successor, and return the report."""
    victim = lives.pid(instance, role, slot)
    os.kill(victim, number)
    lives.wait_for_successor(instance, role, victim, slot)
    return report_of(instance, victim)


def report_of(instance: Instance, victim: int) -> dict[str, Any]:
    """Wait for the report on a process."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = [each for each in told(instance, "--reports")["reports"] if each["pid"] == victim]
        return bool(found)

    wait_until(is_there, what=f"a report on {victim}")
    [report] = found
    return report


def events(report: dict[str, Any]) -> list[str]:
    """Return the names of the last events that a process logged."""
    return [json.loads(line)["event"] for line in report["lines"]]


# ---- deaths


def test_killed_worker_leaves_its_last_lines(mortal: Instance) -> None:
    report = die(mortal, signal.SIGKILL)
    assert (report["signal"], report["exit_code"], report["reason"]) == (
        "SIGKILL",
        None,
        "was killed by SIGKILL",
    )
    assert (report["role"], report["slot"], report["name"]) == ("worker", 0, "the worker of slot 0")
    assert report["traceback"] == ""
    assert events(report) == ["worker.attached", "worker.ready", "interface.up"]
    assert report["lived_s"] > report["useful_s"] > 0
    assert (report["failed"], report["restart_in_s"]) == (False, 0)


def test_crashed_worker_leaves_its_traceback(mortal: Instance) -> None:
    report = die(mortal, signal.SIGSEGV)
    assert report["signal"] == "SIGSEGV"
    assert report["traceback"].startswith("Fatal Python error: Segmentation fault")
    assert re.search(r'File ".*selector.py", line \d+ in select', report["traceback"])
    assert events(report)[-1] == "interface.up"
    [died] = lives.said(mortal, "worker.died", pid=report["pid"])
    assert died["traceback"] == report["traceback"]
    again = die(mortal, signal.SIGSEGV)
    assert again["traceback"].startswith("Fatal Python error")
    assert again["restarts"] == report["restarts"] + 1
    [died] = lives.said(mortal, "worker.died", pid=again["pid"])
    assert died["reason"] == "was killed by SIGSEGV"


def test_crashed_driver_leaves_its_traceback(mortal: Instance) -> None:
    before = told(mortal)["counters"]
    report = die(mortal, signal.SIGABRT, "driver", None)
    assert (report["signal"], report["name"], report["slot"]) == ("SIGABRT", "the driver", None)
    assert report["traceback"].startswith("Fatal Python error: Aborted")
    assert "driver.ready" in events(report)
    assert_answered(mortal.namespace, *ADDRESSES)
    for port, counters in told(mortal)["counters"].items():
        assert counters["frames_in"] > before[port]["frames_in"], "totals go on"
        assert counters["frames_out"] > before[port]["frames_out"]


def test_worker_that_leaves_by_itself(mortal: Instance) -> None:
    report = die(mortal, cues.LEAVE)
    assert (report["exit_code"], report["signal"]) == (cues.LEAVES_WITH, None)
    assert report["reason"] == f"ended with exit code {cues.LEAVES_WITH}"
    assert report["traceback"] == ""


@pytest.mark.parametrize(("role", "slot"), [("worker", 1), ("driver", None)])
def test_exception_that_nobody_caught(mortal: Instance, role: lives.Role, slot: int | None) -> None:
    report = die(mortal, cues.RAISE, role, slot)
    assert (report["exit_code"], report["signal"]) == (1, None)
    assert report["traceback"].startswith("Traceback (most recent call last):")
    assert "in stumble" in report["traceback"]
    assert report["traceback"].endswith("RuntimeError: stumbled on a cue")


def test_worker_that_stands_still_in_python_says_where(mortal: Instance) -> None:
    with Pinger(mortal.namespace, ADDRESSES[1]) as other:
        other.wait_for_more()
        report = die(mortal, cues.STAND_STILL)
        other.wait_for_more()
    assert other.lost == set(), "the other port noticed"
    assert re.fullmatch(
        r"made no progress for \d\.\d s in Python, and was killed by SIGKILL", report["reason"]
    )
    assert "in stand_still_in_python" in report["traceback"]
    assert report["silence"] is None
    [died] = lives.said(mortal, "worker.died", pid=report["pid"])
    assert died["reason"] == report["reason"]


def test_driver_whose_main_thread_waits_says_where(mortal: Instance) -> None:
    """Its lcores go on, so nobody notices before it is asked for something: to reset a slot."""
    driver = lives.pid(mortal, "driver")
    os.kill(driver, cues.WAIT)
    die(mortal, signal.SIGKILL)
    report = report_of(mortal, driver)
    assert report["reason"] == "did not answer slot.reset for 5 s, and was killed by SIGKILL"
    assert "in wait_for_nothing" in report["traceback"]
    assert_answered(mortal.namespace, *ADDRESSES)


def test_stopped_worker_can_not_say_where(mortal: Instance) -> None:
    report = die(mortal, signal.SIGSTOP)
    assert report["signal"] == "SIGKILL"
    assert report["reason"].startswith("made no progress for 1.")
    assert report["silence"].startswith("It was stopped")
    assert report["traceback"] == ""
    assert events(report)[-1] == "interface.up"


def test_asked_by_hand_it_says_where_it_is_and_goes_on(mortal: Instance) -> None:
    """As docs/operating.md has it."""
    worker = lives.pid(mortal, "worker", 1)
    os.kill(worker, signal.SIGUSR2)
    [trace] = (mortal.runtime / "last").glob("worker.1.*.trace")
    wait_until(lambda: "in select" in trace.read_text(), what="a traceback")
    assert_answered(mortal.namespace, *ADDRESSES)
    assert lives.pid(mortal, "worker", 1) == worker


def test_many_lines_leave_the_last(mortal: Instance) -> None:
    victim = lives.pid(mortal, "worker", 0)
    os.kill(victim, cues.SAY)
    mortal.wait_for("cue.said", count=cues.SAYS)
    report = die(mortal, signal.SIGKILL)
    assert [json.loads(line)["number"] for line in report["lines"]] == list(range(cues.SAYS - 32, cues.SAYS))


def test_boxes_are_of_those_who_live_and_for_the_owner(mortal: Instance) -> None:
    directory = mortal.runtime / "last"
    wait_until(
        lambda: len(list(directory.iterdir())) == 2 * len(everybody(mortal)), what="two files for each"
    )
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    files = [mortal.runtime / "status.json", mortal.runtime / "reports", *directory.iterdir()]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert max(file.stat().st_size for file in directory.glob("*.lines")) == 32768


# ---- the reader


def test_status_of_an_instance_that_is_well(mortal: Instance) -> None:
    assert_answered(mortal.namespace, *ADDRESSES)
    done = ask(mortal.namespace, mortal.name)
    assert (done.returncode, done.stderr) == (status.EXIT_WELL, "")
    assert max(map(len, done.stdout.splitlines())) <= WIDTH
    assert mortal.process is not None
    assert done.stdout.startswith(f"Instance '{mortal.name}' is up since ")
    for child in everybody(mortal):
        assert re.search(rf"^(driver|worker \d) +{child} +ready ", done.stdout, re.MULTILINE)
    found = told(mortal)
    assert (found["verdict"], found["pid"]) == ("well", mortal.process.pid)
    processes = {each["role"] + str(each["slot"] or ""): each for each in found["status"]["processes"]}
    assert [each["pid"] for each in processes.values()] == everybody(mortal)
    assert [each["ports"] for each in processes.values()] == [[], [0], [1]]
    ports = mortal.ports()["ports"]
    for port in found["status"]["ports"]:
        here = ports[port["number"]]
        assert (port["device"], port["driver"], port["mtu"]) == (here["device"], here["driver"], here["mtu"])
        assert (port["mac"], port["state"], port["link_up"]) == (here["mac"].hex(":"), "started", True)
        counters = found["counters"][str(port["number"])]
        assert counters["frames_in"] >= 3
        assert counters["frames_out"] >= 3


def test_status_of_no_such_instance_names_those_that_there_are(mortal: Instance) -> None:
    done = ask(mortal.namespace, f"{NAME}-no")
    assert done.returncode == status.EXIT_NONE
    assert done.stdout.startswith(f"There is no instance '{NAME}-no'. There is: ")
    assert mortal.name in done.stdout


def test_status_is_not_for_others(mortal: Instance) -> None:
    words = [sys.executable, "-m", "halo_mp.supervisor.status", "--name", mortal.name]
    program = f"import os; os.setuid(65534); os.execv({words[0]!r}, {words!r})"
    done = mortal.namespace.run("env", "XDG_RUNTIME_DIR=/run", sys.executable, "-c", program, check=False)
    assert done.returncode == status.EXIT_NONE
    assert "is not yours to read" in done.stderr
    assert "Traceback" not in done.stderr


def test_slot_that_has_failed_is_shown_with_its_reason(namespace: Namespace) -> None:
    with Instance(namespace, "--ports", "0,1", "--restart-limit", "1/600", "--spare", "0") as instance:
        with Pinger(namespace, ADDRESSES[1]) as other:
            other.wait_for_more()
            die(instance, signal.SIGKILL)
            lives.kill(lives.pid(instance, "worker", 0))
            instance.wait_for("worker.failed")
            wait_until(lambda: told(instance)["verdict"] == "unwell", what="word of it")
            done = ask(namespace, instance.name)
            other.wait_for_more()
        assert other.lost == set()
        assert done.returncode == status.EXIT_UNWELL
        failed = r"^worker 0 +- +failed .*\n  was killed by SIGKILL; next try in \d+ min"
        assert re.search(failed, done.stdout, re.MULTILINE), done.stdout
        assert re.search(r"^worker 1 +\d+ +ready ", done.stdout, re.MULTILINE)
        first, last = told(instance, "--reports")["reports"]
        assert (first["failed"], first["restart_in_s"]) == (False, 0)
        assert last["failed"]
        assert last["restart_in_s"] > 60
        assert instance.stop() == 0
        assert not instance.runtime.exists()


def test_spare_is_shown_and_leaves_a_report_whatever_became_of_it(namespace: Namespace) -> None:
    with Instance(namespace, "--spare", "1", "--restart-limit", "1000/10") as instance:
        first, taken = wait_for_spare(instance), die(instance, signal.SIGKILL)
        assert taken["name"] == "the worker of slot 0"
        assert lives.pid(instance, "worker", 0) == first, "it took the place of the one that died"
        as_worker = die(instance, signal.SIGSEGV)
        assert as_worker["pid"] == first
        assert as_worker["traceback"].startswith("Fatal Python error: Segmentation fault")
        assert events(as_worker)[-1] == "interface.up"
        idle = wait_for_spare(instance)
        os.kill(idle, signal.SIGABRT)
        report = report_of(instance, idle)
        assert (report["name"], report["role"], report["slot"]) == ("a spare worker", "spare", None)
        assert report["signal"] == "SIGABRT"
        assert report["traceback"].startswith("Fatal Python error: Aborted")
        assert instance.stop() == 0
        assert not instance.runtime.exists()


def wait_for_spare(instance: Instance) -> int:
    """Wait until status tells of a spare that lives; return its pid."""
    found: list[int] = []

    def is_there() -> bool:
        processes = told(instance)["status"]["processes"]
        found[:] = [
            each["pid"] for each in processes if each["role"] == "spare" and lives.is_running(each["pid"])
        ]
        return bool(found)

    wait_until(is_there, what="a spare")
    return found[0]


def test_configuration_that_can_not_boot_is_reported_once(namespace: Namespace) -> None:
    done = run_supervisor(namespace, ["--name", NAME, "--vdev", "net_pcap0,rx_pcap=/nonexistent"])
    assert done.returncode == BootFailed.exit_code
    said = [line for line in done.stderr.splitlines() if line.startswith("halo-mp: ")]
    assert len(said) == 1
    assert "DPDK found no device net_pcap0" in said[0]
    assert "driver.died" not in done.stderr
    assert ask(namespace, NAME).returncode == status.EXIT_NONE
    assert not [left for left in ours() if NAME in left]


def test_supervisor_that_died_leaves_the_reports_to_the_next(namespace: Namespace) -> None:
    flags = ("--spare", "0", "--orphan-timeout", "60")
    with Instance(namespace, *flags) as first:
        old = die(first, signal.SIGSEGV)
        first.signal(signal.SIGKILL)
        first.wait()
        done = ask(namespace, first.name)
        assert done.returncode == status.EXIT_UNWELL
        assert "is running without a supervisor" in " ".join(done.stdout.split())
        assert told(first)["alive"] == ["driver", "worker 0"]
        # This one dies while nobody looks after it.
        lost = lives.pid(first, "worker", 0)
        lives.kill(lost)
        wait_until(lambda: not lives.is_running(lost), what="its end")
        assert told(first)["alive"] == ["driver"]
        with Instance(namespace, *flags, name=first.name) as successor:
            wait_until(lambda: told(successor)["verdict"] == "well", what="an instance that is well")
            by_pid = {each["pid"]: each for each in told(successor, "--reports")["reports"]}
            assert by_pid[old["pid"]] == old
            unseen = by_pid[lost]
            assert unseen["reason"].startswith("ended while there was no supervisor")
            assert events(unseen)[-1] == "supervisor.lost"
            adopted = report_after_death_of_adopted_driver(successor)
            assert adopted["traceback"].startswith("Fatal Python error: Segmentation fault")
            assert "only its parent" in adopted["reason"]
            assert successor.stop() == 0
            assert not successor.runtime.exists()


def report_after_death_of_adopted_driver(instance: Instance) -> dict[str, Any]:
    """Crash a driver whose parent is dead; its box was made by another supervisor."""
    victim = int(instance.events("driver.adopted")[0]["pid"])
    os.kill(victim, signal.SIGSEGV)
    instance.wait_for("driver.spawned")
    return report_of(instance, victim)


def test_dead_instance_is_not_running_and_its_successor_has_its_reports(namespace: Namespace) -> None:
    with Instance(namespace, "--orphan-timeout", "0", "--spare", "0") as first:
        crashed = die(first, signal.SIGSEGV)
        first.signal(signal.SIGKILL)
        first.wait()
        wait_for_end(*lives.pids(first, "worker"), *lives.pids(first, "driver"))
        done = ask(namespace, first.name)
        assert done.returncode == status.EXIT_NONE
        assert "is not running" in done.stdout
        with Instance(namespace, name=first.name) as successor:
            assert not successor.events("instance.adopted")
            assert report_of(successor, crashed["pid"]) == crashed
            assert successor.stop() == 0
            assert not successor.runtime.exists()
