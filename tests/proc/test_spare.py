# SPDX-License-Identifier: Apache-2.0
"""A warm spare takes the place of a worker that dies: its process, its core, its user; and then there is another."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from tests.proc.conftest import (
    ADDRESSES,
    assert_answered,
    assert_recovered,
    everybody,
    kill_supervisor,
    wait_for_end,
)
from tests.support import lives
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, wait_until
from tests.support.pinger import Pinger


@pytest.fixture
def spared(namespace: Namespace) -> Iterator[Instance]:
    """An instance with two ports and a spare worker that is ready."""
    with Instance(namespace, "--ports", "0,1", "--spare", "auto") as instance:
        instance.wait_for("spare.ready")
        yield instance


def spares(instance: Instance) -> list[int]:
    """Return the pids of all that were ready in order, the latest last."""
    return [int(entry["pid"]) for entry in lives.said(instance, "spare.ready")]


def wait_for_spare(instance: Instance, count: int) -> int:
    """Wait until so many have been ready in all; return the pid of the latest."""
    wait_until(
        lambda: len(spares(instance)) >= count, timeout_s=20, what=f"spare {count} in\n{instance.text()}"
    )
    return spares(instance)[-1]


def test_spare_takes_the_place_of_a_worker_that_died(spared: Instance) -> None:
    ledger = Ledger(spared, 0, 1)
    driver, worker, other = everybody(spared)
    before = lives.threads(worker)[0]
    [spare] = spares(spared)
    with Pinger(spared.namespace, ADDRESSES[1]) as pinger:
        pinger.wait_for_more()
        lives.kill(worker)
        assert lives.wait_for_successor(spared, "worker", worker, 0) == spare
        pinger.wait_for_more()
        assert pinger.lost == set()
    assert everybody(spared) == [driver, spare, other]
    for thread in lives.threads(spare):
        for what in ("Uid", "Gid", "CapEff", "NoNewPrivs", "Cpus_allowed_list"):
            assert thread[what] == before[what]
    assert wait_for_spare(spared, 2) != spare
    assert_recovered(ledger, spared.namespace, *ADDRESSES)
    assert spared.stop() == 0


def test_spare_by_spare(spared: Instance) -> None:
    """Worker after worker dies, and each has a warm successor once there was time for one."""
    ledger = Ledger(spared, 0, 1)
    for count in range(1, 4):
        spare, slot = wait_for_spare(spared, count), count % 2
        worker = lives.pid(spared, "worker", slot)
        lives.kill(worker)
        assert lives.wait_for_successor(spared, "worker", worker, slot) == spare
    assert_recovered(ledger, spared.namespace, *ADDRESSES)
    assert spared.stop() == 0


def test_one_spare_for_two_deaths_leaves_one_to_start_cold(spared: Instance) -> None:
    [spare] = spares(spared)
    _, *workers = everybody(spared)
    for worker in workers:
        lives.kill(worker)
    found = [lives.wait_for_successor(spared, "worker", worker, slot) for slot, worker in enumerate(workers)]
    assert spare in found
    assert len(set(found)) == 2
    assert_answered(spared.namespace, *ADDRESSES)
    assert spared.stop() == 0


def test_two_spares_for_two_deaths(namespace: Namespace) -> None:
    with Instance(namespace, "--ports", "0,1", "--spare", "2") as instance:
        wait_for_spare(instance, 2)
        ready = set(spares(instance))
        _, *workers = everybody(instance)
        for worker in workers:
            lives.kill(worker)
        found = {
            lives.wait_for_successor(instance, "worker", worker, slot) for slot, worker in enumerate(workers)
        }
        assert found == ready
        assert_answered(namespace, *ADDRESSES)
        assert instance.stop() == 0


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
def test_spare_that_dies_or_stands_still_is_replaced(spared: Instance, fate: signal.Signals) -> None:
    [spare] = spares(spared)
    os.kill(spare, fate)
    [died] = spared.wait_for("spare.died")
    assert died["pid"] == spare
    wait_for_end(spare)
    assert wait_for_spare(spared, 2) != spare
    assert not spared.events("worker.died")
    assert spared.stop() == 0


def test_spare_that_died_unseen_is_not_used(spared: Instance) -> None:
    """Killed in the same moment as the worker whose place it was to take."""
    [spare] = spares(spared)
    worker = lives.pid(spared, "worker", 0)
    lives.kill(spare)
    lives.kill(worker)
    lives.wait_for_successor(spared, "worker", worker, 0)
    assert_answered(spared.namespace, *ADDRESSES)
    assert spared.stop() == 0


def test_spare_ends_with_its_supervisor_and_the_next_has_one(spared: Instance) -> None:
    """Also a worker that was a spare once is adopted as the worker that it is."""
    [spare] = spares(spared)
    worker = lives.pid(spared, "worker", 0)
    lives.kill(worker)
    lives.wait_for_successor(spared, "worker", worker, 0)
    second = wait_for_spare(spared, 2)
    children = everybody(spared)
    assert spare in children
    kill_supervisor(spared)
    wait_for_end(second)
    with Instance(spared.namespace, "--ports", "0,1", "--spare", "1", name=spared.name) as successor:
        assert everybody(successor) == children
        third = wait_for_spare(successor, 1)
        lives.kill(spare)
        assert lives.wait_for_successor(successor, "worker", spare, 0) == third
        assert_answered(spared.namespace, *ADDRESSES)
        assert successor.stop() == 0


def test_no_spare_is_kept_when_none_is_asked_for(namespace: Namespace) -> None:
    with Instance(namespace, "--ports", "0", "--spare", "0", "--stats-log", "0.5") as instance:
        instance.wait_for("stats", count=3)
        assert not instance.events("spare.ready")
        assert instance.stop() == 0


@pytest.mark.parametrize("after", ["spare.taken", "worker.attached", "slot.reset"])
def test_supervisor_killed_as_a_spare_takes_over(spared: Instance, after: str) -> None:
    """Whatever had been written down by then: nobody stays whom no supervisor knows, and no slot has two workers."""
    ledger = Ledger(spared, 0, 1)
    worker, before = lives.pid(spared, "worker", 0), len(spared.events(after))
    lives.kill(worker)
    while len(spared.events(after)) <= before:
        time.sleep(0.0005)
    kill_supervisor(spared)
    with Instance(spared.namespace, "--ports", "0,1", name=spared.name) as successor:
        assert_recovered(ledger, spared.namespace, *ADDRESSES)
        assert children(successor) == set(everybody(successor))
        assert successor.stop() == 0


def children(instance: Instance) -> set[int]:
    """Return the pids of all drivers, workers and spares of an instance that run, whoever knows of them."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(instance.runtime) in process.cmdline():
                found.add(process.pid)
    return found
