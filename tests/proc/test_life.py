# SPDX-License-Identifier: Apache-2.0
"""The life of an instance without faults: up in order, as little privilege as may be, and down in order."""

from __future__ import annotations

import os
import pwd
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proc.conftest import assert_answered, everybody, interfaces
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import Namespace, wait_until

SLOTS = (0, 1)


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """An instance that several tests only look at."""
    with Namespace() as namespace, Instance(namespace, "--ports", "0,1") as instance:
        yield instance


def worker_mode(instance: Instance) -> str:
    """Return what workers do with root here, which depends on where the checkout lies and who runs the tests."""
    [attached, _] = instance.events("worker.attached")
    return "setuid" if attached["uid"] == pwd.getpwnam("nobody").pw_uid else "capabilities"


# ---- up


def test_start_goes_in_order(running: Instance) -> None:
    order = [
        "driver.spawned",
        "worker.spawned",
        "ports.ready",
        "tables.written",
        "driver.ready",
        "worker.ready",
        "instance.up",
    ]
    by_supervisor = [entry["event"] for entry in running.events() if entry["process"] == "supervisor"]
    firsts = [by_supervisor.index(event) for event in order]
    assert firsts == sorted(firsts)
    assert by_supervisor[-1] == "instance.up"
    assert by_supervisor.count("worker.ready") == 2, "nobody is up before everybody is"
    # From spawned to useful, a worker attaches by itself while the driver starts.
    assert {entry["process"] for entry in running.events("worker.attached")} == {"worker.0", "worker.1"}


def test_started_tells_a_person_what_to_type(running: Instance) -> None:
    told = [line for line in running.text().splitlines() if not line.startswith("{")]
    assert told[0] == f"halo-mp: instance {running.name!r} is up."
    for port, line in enumerate(told[1:3]):
        assert re.fullmatch(
            rf"  port {port}: net_tap{port} [0-9a-f:]{{17}} 10\.77\.{port}\.1/24 "
            rf"\(the kernel is 10\.77\.{port}\.2/24 on {running.name}\.{port}\)",
            line,
        )
    assert told[3:] == ["  Try it:  ping 10.77.0.1", "  Stop it: Ctrl-C"]


@pytest.mark.parametrize("slot", SLOTS)
def test_worker_runs_on_its_core_with_every_thread(running: Instance, slot: int) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    others = allowed[1:] or allowed  # the driver has the first
    worker = lives.pid(running, "worker", slot)
    assert os.sched_getaffinity(worker) == {others[slot % len(others)]}
    for thread in lives.threads(worker):
        assert os.sched_getaffinity(int(thread["Pid"])) == {others[slot % len(others)]}


def test_driver_lcore_has_its_core_and_the_main_thread_floats(running: Instance) -> None:
    driver = lives.pid(running, "driver")
    allowed = os.sched_getaffinity(0)
    assert os.sched_getaffinity(driver) == allowed
    forwarding = [thread for thread in lives.threads(driver) if thread["Name"].startswith("rte-worker")]
    assert [os.sched_getaffinity(int(thread["Pid"])) for thread in forwarding] == [{min(allowed)}]


@pytest.mark.parametrize("slot", SLOTS)
def test_worker_has_no_privilege_in_any_thread(running: Instance, slot: int) -> None:
    found = lives.threads(lives.pid(running, "worker", slot))
    assert len(found) > 1, "one of them writes the log"
    for thread in found:
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(thread[capabilities], 16) == 0, capabilities
        assert thread["NoNewPrivs"] == "1"


@pytest.mark.parametrize("slot", SLOTS)
def test_worker_is_nobody_where_that_can_be(running: Instance, slot: int) -> None:
    root = worker_mode(running) == "capabilities"
    user = pwd.getpwuid(os.geteuid()) if root else pwd.getpwnam("nobody")
    for thread in lives.threads(lives.pid(running, "worker", slot)):
        assert thread["Uid"].split() == [str(user.pw_uid)] * 4
        assert thread["Gid"].split() == [str(user.pw_gid)] * 4
        assert root or not thread["Groups"]


def pop_black_box(instance: Instance, held: dict[int, str]) -> None:
    """Take the two files of its black box out of what a process holds."""
    directory = f"{instance.runtime}/last/"
    box = [number for number, name in held.items() if name.startswith(directory)]
    assert sorted(Path(held.pop(number)).suffix for number in box) == [".lines", ".trace"]


@pytest.mark.parametrize("slot", SLOTS)
def test_worker_holds_no_descriptor_of_memory(running: Instance, slot: int) -> None:
    held = lives.descriptors(lives.pid(running, "worker", slot))
    log = running.log_path
    assert {held.pop(0), held.pop(1), held.pop(2)} == {"/dev/null", log}
    pop_black_box(running, held)
    kinds = sorted(re.sub(r":\[\d+\]", "", held[number]) for number in held)
    # Two doorbells, the event loop's own pair of sockets and selector, and the supervisor's channel.
    assert kinds == ["anon_inode:[eventfd]"] * 2 + ["anon_inode:[eventpoll]"] + ["socket"] * 3


def test_driver_holds_no_descriptor_of_our_memory_but_the_pool(running: Instance) -> None:
    """The pool has no name: a later supervisor gets it from the driver."""
    held = lives.descriptors(lives.pid(running, "driver"))
    pop_black_box(running, held)
    ours = [name for name in held.values() if "halo" in name and name != running.log_path]
    assert ours == ["/memfd:halo-mp.pool (deleted)"]
    assert sum(name == "/dev/net/tun" for name in held.values()) >= 2


def test_children_have_sessions_of_their_own(running: Instance) -> None:
    assert running.process is not None
    mine = os.getsid(running.process.pid)
    children = everybody(running)
    assert [os.getsid(child) for child in children] == children
    assert mine not in children


def test_children_hear_nothing_on_stdin(running: Instance) -> None:
    assert {lives.descriptors(child)[0] for child in everybody(running)} == {"/dev/null"}


# ---- down


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_stops_in_order(pair: Instance, number: signal.Signals) -> None:
    assert interfaces(pair.namespace) >= {f"{pair.name}.0", f"{pair.name}.1"}
    children = everybody(pair)
    pair.signal(number)
    assert pair.wait() == 0
    assert not any(map(lives.is_running, children))
    assert interfaces(pair.namespace) == {"lo"}
    ending = [
        entry for entry in pair.events() if entry["process"] == "supervisor" and "stop" in entry["event"]
    ]
    assert ending[0]["event"] == "instance.stopping"
    assert ending[0]["signal"] == number.name
    assert {entry["event"] for entry in ending[1:3]} == {"worker.stopped"}
    assert [entry["event"] for entry in ending[3:]] == ["driver.stopped", "instance.stopped"]
    # Each by itself, before anybody insisted.
    stopped = {entry["process"] for entry in pair.events() if entry["event"].endswith(".stopped")}
    assert stopped == {"supervisor", "driver", "worker.0", "worker.1"}
    assert not [entry for entry in pair.events() if entry["level"] == "error"]


def test_children_ignore_the_terminal(namespace: Namespace) -> None:
    """Ctrl-C goes to the whole group in front: only the supervisor may hear it."""
    with Instance(namespace, "--ports", "0,1", start_new_session=True) as instance:
        assert instance.process is not None
        os.killpg(instance.process.pid, signal.SIGINT)
        assert instance.wait() == 0
        assert not lives.said(instance, "worker.died")
        assert [entry["signal"] for entry in instance.events("instance.stopping")] == ["SIGINT"]


def test_nohup_outlives_its_terminal(namespace: Namespace) -> None:
    with Instance(namespace, via=("nohup",)) as instance:
        instance.signal(signal.SIGHUP)
        assert_answered(namespace, "10.77.0.1")
        assert instance.stop() == 0
        assert [entry["signal"] for entry in instance.events("instance.stopping")] == ["SIGINT"]


@pytest.mark.parametrize("event", ["driver.spawned", "worker.attached", "ports.ready", "tables.written"])
def test_signal_while_starting_stops(namespace: Namespace, event: str) -> None:
    with Instance(namespace, "--ports", "0,1", wait=False) as instance:
        instance.wait_for(event)
        instance.signal(signal.SIGINT)
        assert instance.wait() == 0
        assert "Traceback" not in instance.text()
    assert interfaces(namespace) == {"lo"}


def test_child_that_hangs_is_killed_at_the_end(pair: Instance) -> None:
    os.kill(lives.pid(pair, "driver"), signal.SIGSTOP)
    pair.signal()
    assert pair.wait() == 0
    assert interfaces(pair.namespace) == {"lo"}


def test_second_signal_forces(pair: Instance) -> None:
    children = everybody(pair)
    os.kill(children[1], signal.SIGSTOP)
    pair.signal(signal.SIGTERM)
    pair.wait_for("instance.stopping")
    # The other worker is told at once; this one is waited for.
    wait_until(lambda: not lives.is_running(children[2]), what="the end of the other worker")
    assert lives.is_running(children[1])
    pair.signal(signal.SIGINT)
    assert pair.wait() == 6
    assert not any(map(lives.is_running, children))
    assert interfaces(pair.namespace) == {"lo"}
    assert [entry["signal"] for entry in pair.events("instance.forced")] == ["SIGINT"]
    assert pair.events("instance.stopped")[0]["forced"] is True
