# SPDX-License-Identifier: Apache-2.0
"""A worker dies under traffic: its port comes back by itself, the others never notice, and no buffer is lost."""

from __future__ import annotations

import os
import signal

from tests.proc.conftest import ADDRESSES, assert_answered, assert_recovered
from tests.support import lives
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, wait_until
from tests.support.pinger import Pinger

KILLS = 4


def test_killed_worker_has_a_successor(pair: Instance) -> None:
    namespace = pair.namespace
    ledger = Ledger(pair, 0, 1)
    driver, neighbor = lives.pid(pair, "driver"), lives.pid(pair, "worker", 1)
    victim = lives.pid(pair, "worker", 0)
    cores = os.sched_getaffinity(victim)
    with Pinger(namespace, ADDRESSES[0]) as pinger, Pinger(namespace, ADDRESSES[1]) as other:
        for each in (pinger, other):
            each.wait_for_more()
        lives.kill(victim)
        successor = lives.wait_for_successor(pair, "worker", victim, 0)
        pinger.wait_for_more(20)
        other.wait_for_more(20)
    assert other.lost == set(), "the other port noticed"
    assert set(pinger.answered.values()) == set(other.answered.values()) == {1}, (
        "a request was answered twice"
    )
    assert lives.pid(pair, "driver") == driver
    assert lives.pid(pair, "worker", 1) == neighbor
    assert os.sched_getaffinity(successor) == cores
    assert_recovered(ledger, namespace, *ADDRESSES)
    [died] = lives.said(pair, "worker.died")
    assert (died["slot"], died["pid"], died["reason"]) == (0, victim, "was killed by SIGKILL")
    assert died["restart_in_s"] == 0
    first, second = ledger.snapshots()
    [reset] = lives.said(pair, "slot.reset")
    assert reset["slot"] == 0
    assert reset["reclaimed"] == first["driver"]["counters"]["reclaimed"] >= 256, "spare buffers at the least"
    assert (first["driver"]["counters"]["resets"], first["generation"]) == (1, 1)
    assert (second["driver"]["counters"]["resets"], second["generation"]) == (0, 0)
    assert first["worker_pid"] == successor
    assert pair.stop() == 0


def test_worker_killed_time_and_again_leaves_nothing(namespace: Namespace) -> None:
    with Instance(namespace, "--restart-limit", "100/10") as instance:
        ledger = Ledger(instance)
        with Pinger(namespace) as pinger:
            for _ in range(KILLS):
                pinger.wait_for_more()
                victim = lives.pid(instance, "worker", 0)
                lives.kill(victim)
                lives.wait_for_successor(instance, "worker", victim, 0)
        assert_recovered(ledger, namespace)
        [slot] = ledger.snapshots()
        assert slot["driver"]["counters"]["resets"] == slot["generation"] == KILLS
        assert len(lives.said(instance, "worker.died")) == KILLS
        assert not lives.said(instance, "worker.failed")
        assert instance.stop() == 0


def test_worker_killed_before_it_is_useful_has_a_successor(pair: Instance) -> None:
    victim = lives.pid(pair, "worker", 0)
    lives.kill(victim)
    pair.wait_for("worker.spawned", count=3)
    newborn = lives.pid(pair, "worker", 0)
    assert newborn != victim
    lives.kill(newborn)
    lives.wait_for_successor(pair, "worker", newborn, 0)
    assert_answered(pair.namespace, *ADDRESSES)
    assert pair.stop() == 0


def test_worker_that_dies_too_often_fails_alone_and_is_tried_again(namespace: Namespace) -> None:
    with Instance(namespace, "--ports", "0,1", "--restart-limit", "1/2") as instance:
        ledger = Ledger(instance, 0, 1)
        with Pinger(namespace, ADDRESSES[0]) as pinger, Pinger(namespace, ADDRESSES[1]) as other:
            pinger.wait_for_more()
            other.wait_for_more()
            last = kill_until_failed(instance, 0)
            other.wait_for_more()
            lives.wait_for_successor(instance, "worker", last, 0)
            pinger.wait_for_more()
            other.wait_for_more()
        assert other.lost == set(), "the other port noticed"
        [failed] = lives.said(instance, "worker.failed")
        assert (failed["slot"], failed["pid"], failed["level"]) == (0, last, "warn")
        assert failed["reason"] == "was killed by SIGKILL"
        tried = lives.said(instance, "worker.spawned", slot=0)[-1]
        waited_s = (lives.when(tried) - lives.when(failed)).total_seconds()
        assert waited_s >= failed["restart_in_s"] - 0.01 >= 0.99
        assert_recovered(ledger, namespace, *ADDRESSES)
        assert instance.stop() == 0


def kill_until_failed(instance: Instance, slot: int) -> int:
    """Kill a worker whenever it is useful, until it counts as failed; return the pid of the last one."""
    while True:
        victim = lives.pid(instance, "worker", slot)
        lives.kill(victim)
        wait_for_word_of_its_death(instance, victim)
        if lives.said(instance, "worker.failed", pid=victim):
            return victim
        lives.wait_for_successor(instance, "worker", victim, slot)


def wait_for_word_of_its_death(instance: Instance, victim: int) -> None:
    events = ("worker.died", "worker.failed")
    wait_until(
        lambda: any(lives.said(instance, event, pid=victim) for event in events), what=f"a word of {victim}"
    )


def test_stop_while_a_worker_waits_for_its_next_try(namespace: Namespace) -> None:
    with Instance(namespace, "--restart-limit", "0/60") as instance:
        lives.kill(lives.pid(instance, "worker", 0))
        instance.wait_for("worker.failed")
        assert instance.stop() == 0


def test_worker_that_is_told_to_end_by_somebody_else_has_a_successor(pair: Instance) -> None:
    """SIGTERM from outside is an order to the worker, and no reason for the port to stay away."""
    victim = lives.pid(pair, "worker", 1)
    os.kill(victim, signal.SIGTERM)
    lives.wait_for_successor(pair, "worker", victim, 1)
    assert_answered(pair.namespace, ADDRESSES[1])
    assert lives.said(pair, "worker.died")[0]["reason"] == "ended with exit code 0"
    assert pair.stop() == 0
