# SPDX-License-Identifier: Apache-2.0
"""SIGUSR1: fresh processes take over the slots as they are, one after the other, and no frame is lost."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

import pytest

from tests.proc.conftest import ADDRESSES, everybody, wait_for_end
from tests.support import lives
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace
from tests.support.pinger import Pinger

INTERVAL_S = 0.002


@pytest.mark.parametrize("spares", ["1", "0"])
def test_workers_are_replaced_and_no_packet_is_lost(namespace: Namespace, spares: str) -> None:
    """Without a spare the ring has to last for as long as Python starts."""
    with Instance(namespace, "--ports", "0,1", "--spare", spares) as instance:
        ledger = Ledger(instance, 0, 1)
        driver, *workers = everybody(instance)
        # Record route is what C leaves to Python: frames that are on their way there must not be lost either.
        paths: tuple[tuple[str, ...], ...] = ((), ("-R",))
        pingers = [
            Pinger(namespace, address, interval_s=INTERVAL_S, options=options)
            for address in ADDRESSES
            for options in paths
        ]
        with ExitStack() as stack:
            for each in pingers:
                stack.enter_context(each)
            for times in (1, 2):
                for each in pingers:
                    each.wait_for_more()
                instance.signal(signal.SIGUSR1)
                replaced = instance.wait_for("worker.replaced", count=2 * times, timeout_s=30)
                assert [entry["slot"] for entry in replaced] == [0, 1] * times
            for each in pingers:
                each.wait_for_more()
                assert each.lost == set()
                assert set(each.answered.values()) == {1}, "a request was answered twice"
        assert {entry["warm"] for entry in replaced} == {spares == "1"}
        assert lives.pid(instance, "driver") == driver
        assert set(everybody(instance)).isdisjoint(workers)
        wait_for_end(*workers)
        assert not instance.events("slot.reset")
        assert not instance.events("worker.died")
        assert len(lives.said(instance, "worker.stopped")) == 4
        ledger.assert_balanced()
        assert instance.stop() == 0


def test_replaced_worker_dies_like_any_other(pair: Instance) -> None:
    ledger = Ledger(pair, 0, 1)
    pair.signal(signal.SIGUSR1)
    pair.wait_for("worker.replaced", count=2, timeout_s=30)
    worker = lives.pid(pair, "worker", 0)
    lives.kill(worker)
    lives.wait_for_successor(pair, "worker", worker, 0)
    [died] = lives.said(pair, "worker.died")
    assert died["pid"] == worker
    ledger.assert_whole()
    assert pair.stop() == 0


def test_worker_that_stands_still_is_killed_and_the_next_one_replaced(pair: Instance) -> None:
    worker = lives.pid(pair, "worker", 0)
    os.kill(worker, signal.SIGSTOP)
    pair.signal(signal.SIGUSR1)
    lives.wait_for_successor(pair, "worker", worker, 0)
    assert [entry["slot"] for entry in pair.wait_for("worker.not_replaced")] == [0]
    assert [entry["slot"] for entry in pair.wait_for("worker.replaced")] == [1]
    assert pair.stop() == 0


def test_stop_in_the_middle_leaves_nothing(pair: Instance) -> None:
    pair.signal(signal.SIGUSR1)
    pair.wait_for("worker.replaced")
    assert pair.stop() == 0
