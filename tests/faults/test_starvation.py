# SPDX-License-Identifier: Apache-2.0
"""Too little time: processes that get none are left alone, and who dies again and again takes none from the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.proc.conftest import ADDRESSES, assert_recovered, everybody
from tests.support import lives
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, wait_until
from tests.support.pinger import Pinger

STARVED_S = 3.0
STOPPED_S = 0.9
MOST_STOPPED_S = 0.97  # a second is what counts as a hang
RESTARTS, WINDOW_S = 5, 3


@contextmanager
def burners(nices: tuple[int, ...]) -> Iterator[None]:
    """For each core and each niceness a process that wants all of it; they end by themselves if need be."""
    burn = "import time; end = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
    commands = [
        ["nice", "-n", str(nice), "taskset", "-c", str(core), sys.executable, "-c", burn]
        for core in os.sched_getaffinity(0)
        for nice in nices
    ]
    running = [subprocess.Popen(command) for command in commands]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_every_core_taken_and_nobody_reads_the_log_nobody_is_blamed(namespace: Namespace) -> None:
    """Others want each core twice over, and each line of the log finds a full pipe."""
    reading, writing = os.pipe()
    fill(writing)
    flags = ("--ports", "0,1", "--idle", "poll", "--debug-log", "--stats-log", "0.1")
    try:
        with Instance(namespace, *flags, wait=False, stderr=writing) as instance:
            wait_until(lambda: "is up" in instance.text(), timeout_s=30, what="a start")
            before = [instance.slot(number)["worker_pid"] for number in (0, 1)]
            driver = instance.ports()["driver_pid"]
            with Pinger(namespace, interval_s=0.05) as pinger, burners((0, 5)):
                time.sleep(STARVED_S)  # that this is survived is the point
                pinger.wait_for_more(5, timeout_s=30)
            assert [instance.slot(number)["worker_pid"] for number in (0, 1)] == before
            assert instance.ports()["driver_pid"] == driver
            assert all(map(lives.is_running, (driver, *before)))
            assert instance.stop() == 0
    finally:
        os.close(reading)
        os.close(writing)


def fill(pipe: int) -> None:
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while os.write(pipe, bytes(4096)):
            pass
    os.set_blocking(pipe, True)


@pytest.mark.parametrize("slot", [0, 1])
def test_worker_stopped_for_nine_tenths_of_a_second_is_left_alone(pair: Instance, slot: int) -> None:
    before, ledger = everybody(pair), Ledger(pair, 0, 1)
    with Pinger(pair.namespace, ADDRESSES[slot]) as pinger:
        pinger.wait_for_more()
        # On a busy machine it may become more than was meant, and then it counts for nothing.
        wait_until(lambda: stopped_s(before[1 + slot]) < MOST_STOPPED_S, timeout_s=30, what="a punctual stop")
        pinger.wait_for_more(20)
    assert everybody(pair) == before
    assert not lives.said(pair, "worker.died")
    assert pinger.lost == set(), "the ring has room for all that waits"
    ledger.assert_balanced()
    assert pair.stop() == 0


def stopped_s(process: int) -> float:
    """Stop a process for a while; return for how long."""
    os.kill(process, signal.SIGSTOP)
    start = time.monotonic()
    time.sleep(STOPPED_S)
    os.kill(process, signal.SIGCONT)
    return time.monotonic() - start


def test_crash_loop_is_as_long_as_the_limit_and_the_other_port_never_notices(namespace: Namespace) -> None:
    """A worker that is killed as soon as it is there; then let live."""
    flags = ("--ports", "0,1", "--restart-limit", f"{RESTARTS}/{WINDOW_S}")
    with Instance(namespace, *flags) as instance:
        loop_and_recover(instance)
        assert instance.stop() == 0


def loop_and_recover(instance: Instance) -> None:
    ledger = Ledger(instance, 0, 1)
    driver, other_worker = lives.pid(instance, "driver"), lives.pid(instance, "worker", 1)
    with Pinger(instance.namespace, ADDRESSES[1]) as other:
        other.wait_for_more()
        killed: set[int] = set()

        def kill_the_next() -> bool:
            latest = lives.pid(instance, "worker", 0)
            if latest not in killed:
                killed.add(latest)
                lives.kill(latest)
            return bool(lives.said(instance, "worker.failed", slot=0))

        wait_until(kill_the_next, timeout_s=30, what="the limit")
        other.wait_for_more()
        [failed] = lives.said(instance, "worker.failed", slot=0)
        spawned = lives.said(instance, "worker.spawned", slot=0)
        assert len(spawned) == 1 + RESTARTS
        assert failed["restart_in_s"] > 0
        lives.wait_for_successor(instance, "worker", lives.pid(instance, "worker", 0), 0, timeout_s=30)
        other.wait_for_more()
    assert other.lost == set(), "the other port noticed"
    next_try = lives.said(instance, "worker.spawned", slot=0)[len(spawned)]
    assert (lives.when(next_try) - lives.when(spawned[1])).total_seconds() > WINDOW_S - 0.1, (
        "as many in that window"
    )
    assert (lives.pid(instance, "driver"), lives.pid(instance, "worker", 1)) == (driver, other_worker)
    assert_recovered(ledger, instance.namespace, *ADDRESSES)
