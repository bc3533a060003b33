# SPDX-License-Identifier: Apache-2.0
"""Processes that stand still: found by the words that they no longer raise, killed, replaced; and nobody else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.proc.conftest import ADDRESSES, assert_answered, assert_recovered, everybody
from tests.support import lives
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, wait_until
from tests.support.pinger import Pinger

SHORT_S = 0.5  # half of the least that counts as a hang
LONG_S = 2.0  # half as long again as the most that is allowed in native code or asleep
REASON = re.compile(
    r"made no progress for (\d+\.\d) s (asleep|in native code|in Python), and was killed by SIGKILL"
)


def reason(entry: dict[str, str]) -> tuple[float, str]:
    """Return for how long a process was seen to stand still, and where."""
    found = REASON.match(entry["reason"])
    assert found, entry["reason"]
    return float(found[1]), found[2]


def stop(process: int) -> None:
    os.kill(process, signal.SIGSTOP)


def go_on(process: int) -> None:
    os.kill(process, signal.SIGCONT)


def stand_still(seconds: float, *processes: int) -> None:
    """Stop processes for a time, which is the point of the test."""
    for process in processes:
        stop(process)
    time.sleep(seconds)
    for process in processes:
        go_on(process)


def test_stopped_worker_is_replaced(pair: Instance) -> None:
    ledger = Ledger(pair, 0, 1)
    victim = lives.pid(pair, "worker", 0)
    with Pinger(pair.namespace, ADDRESSES[0]) as pinger, Pinger(pair.namespace, ADDRESSES[1]) as other:
        for each in (pinger, other):
            each.wait_for_more()
        stop(victim)
        lives.wait_for_successor(pair, "worker", victim, 0)
        for each in (pinger, other):
            each.wait_for_more()
    assert other.lost == set()
    stalled_s, _ = reason(lives.said(pair, "worker.died")[0])
    assert 1.0 <= stalled_s < 1.6, "the limit is 1 s in native code and 1.25 s asleep, looked at each 0.1 s"
    assert_recovered(ledger, pair.namespace, *ADDRESSES)
    assert pair.stop() == 0


def test_stopped_driver_is_replaced(pair: Instance) -> None:
    ledger = Ledger(pair, 0, 1)
    victim, *workers = everybody(pair)
    with Pinger(pair.namespace, ADDRESSES[0]) as pinger:
        pinger.wait_for_more()
        stop(victim)
        lives.wait_for_successor(pair, "driver", victim)
        pinger.wait_for_more()
    [died] = lives.said(pair, "driver.died")
    assert re.match(r"made no progress for 1\.\d s .* on lcore 0, and was killed by SIGKILL", died["reason"])
    assert everybody(pair)[1:] == workers
    assert_recovered(ledger, pair.namespace, *ADDRESSES)
    assert pair.stop() == 0


@pytest.fixture(scope="module")
def steady() -> Iterator[Instance]:
    """An instance in which nobody dies, however it is treated."""
    with Namespace() as namespace, Instance(namespace, "--ports", "0,1") as instance:
        yield instance


@contextmanager
def nobody_is_blamed(instance: Instance) -> Iterator[Pinger]:
    """Ping port 0 meanwhile, and fail when anybody was killed, or a frame is not accounted for."""
    before, ledger = everybody(instance), Ledger(instance, 0, 1)
    with Pinger(instance.namespace) as pinger:
        pinger.wait_for_more()
        yield pinger
        pinger.wait_for_more(20)
    assert everybody(instance) == before
    assert all(map(lives.is_running, before))
    assert not lives.said(instance, "worker.died")
    assert not lives.said(instance, "driver.died")
    ledger.assert_balanced()


def test_worker_that_goes_on_in_time_is_left_alone(steady: Instance) -> None:
    with nobody_is_blamed(steady) as pinger:
        stand_still(SHORT_S, lives.pid(steady, "worker", 0))
        pinger.wait_for_more(int(SHORT_S * 100))
    assert pinger.lost == set(), "the ring has room for all that waits"


def test_driver_that_goes_on_in_time_is_left_alone(steady: Instance) -> None:
    with nobody_is_blamed(steady) as pinger:
        stand_still(SHORT_S, lives.pid(steady, "driver"))
    assert pinger.lost == set(), "the kernel has room for all that waits"


def test_stopped_supervisor_costs_nothing_and_blames_nobody(steady: Instance) -> None:
    assert steady.process is not None
    with nobody_is_blamed(steady) as pinger:
        stand_still(LONG_S, steady.process.pid)
    assert pinger.lost == set()


def test_everything_stopped_together_blames_nobody(steady: Instance) -> None:
    """As when a laptop is closed, or a virtual machine is moved."""
    assert steady.process is not None
    with nobody_is_blamed(steady):
        stand_still(LONG_S, steady.process.pid, *everybody(steady))


def test_worker_stopped_in_python_has_more_time(namespace: Namespace) -> None:
    limit_s = 2
    with Instance(namespace, "--hang-timeout", str(limit_s)) as instance:
        victim = lives.pid(instance, "worker", 0)
        # A recorded route is for the Python stack: the kernel asks as fast as it is answered.
        with Pinger(namespace, interval_s=0, options=("-R",)) as pinger:
            pinger.wait_for_more()
            stop_in_python(instance, victim)
            lives.wait_for_successor(instance, "worker", victim, 0)
        stalled_s, where = reason(lives.said(instance, "worker.died")[0])
        assert where == "in Python"
        assert limit_s <= stalled_s < limit_s + 0.6
        assert_answered(namespace, "10.77.0.1")
        assert instance.stop() == 0


def stop_in_python(instance: Instance, victim: int) -> None:
    """Stop a worker at a moment at which its own word says that it is in Python."""

    def caught() -> bool:
        stop(victim)
        wait_until(lambda: lives.state(victim) == "T", what="a stopped worker")
        if instance.slot()["place"] == "python":
            return True
        go_on(victim)
        return False

    wait_until(caught, what="a worker in Python")


@contextmanager
def busy(core: int, count: int) -> Iterator[None]:
    """Processes that want all of a core."""
    command = ["taskset", "-c", str(core), sys.executable, "-c", "while True: pass"]
    burners = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


@pytest.mark.parametrize("idle", ["adaptive", "poll"])
def test_starved_processes_are_not_taken_for_hung(namespace: Namespace, idle: str) -> None:
    """Everything on one core, together with four processes that never let go of it by themselves."""
    core = min(os.sched_getaffinity(0))
    with Instance(namespace, "--ports", "0,1", "--idle", idle, via=("taskset", "-c", str(core))) as instance:
        before = everybody(instance)
        with busy(core, 4), Pinger(namespace, interval_s=0.1) as pinger:
            time.sleep(LONG_S)
            pinger.wait_for_more(5, timeout_s=30)
        assert everybody(instance) == before
        assert not lives.said(instance, "worker.died")
        assert not lives.said(instance, "driver.died")
        assert instance.stop() == 0
