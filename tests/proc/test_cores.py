# SPDX-License-Identifier: Apache-2.0
"""Few cores and idle ones: everything on one, more slots than cores, and what is done when there is nothing to do."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import pytest

from tests.proc.conftest import ADDRESSES, assert_answered, everybody
from tests.support import lives
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, wait_until

CORE = min(os.sched_getaffinity(0))
SLICE_S = 0.25  # sleepers wake at least so often
SLEEPS = 4


def test_everything_on_one_core(namespace: Namespace) -> None:
    with Instance(namespace, "--ports", "0,1", via=("taskset", "-c", str(CORE))) as instance:
        [warning] = [entry["text"] for entry in instance.events("config.warning")]
        assert warning.startswith(
            f"Core {CORE} is shared by driver lcore 0 and the workers of slots 0, 1: they take turns"
        )
        ledger = Ledger(instance, 0, 1)
        assert_answered(namespace, *ADDRESSES, count=20)
        ledger.assert_balanced()
        for child in everybody(instance):
            for thread in lives.threads(child):
                assert os.sched_getaffinity(int(thread["Pid"])) == {CORE}
        assert instance.stop() == 0


def test_more_slots_than_cores(namespace: Namespace) -> None:
    ports = 5
    with Instance(namespace, "--ports", f"0-{ports - 1}", "--ring-size", "1024") as instance:
        workers = [lives.pid(instance, "worker", slot) for slot in range(ports)]
        allowed = sorted(os.sched_getaffinity(0))
        others = allowed[1:] or allowed
        assert [os.sched_getaffinity(worker) for worker in workers] == [
            {others[slot % len(others)]} for slot in range(ports)
        ]
        warnings = [entry["text"] for entry in instance.events("config.warning")]
        assert any(
            "is shared by" in text and "--cores and --driver-cores name more cores" in text
            for text in warnings
        )
        for port in range(ports):
            assert_answered(namespace, f"10.77.{port}.1")
        assert instance.stop() == 0


@dataclass(frozen=True, slots=True)
class Rest:
    """How often worker and driver have slept, and how often they have turned."""

    worker_sleeps: int
    worker_turns: int
    driver_sleeps: int
    driver_turns: int

    def __sub__(self, earlier: Rest) -> Rest:
        pairs = ((getattr(self, name), getattr(earlier, name)) for name in self.__slots__)
        return Rest(*(now - before for now, before in pairs))


def rest(instance: Instance) -> Rest:
    slot, [lcore] = instance.slot(), instance.ports()["lcores"]
    return Rest(
        worker_sleeps=slot["worker"]["counters"]["wakeups"],
        worker_turns=slot["progress"],
        driver_sleeps=lcore["sleeps"],
        driver_turns=lcore["turns"],
    )


def test_idle_polls_without_a_pause(namespace: Namespace) -> None:
    with Instance(namespace, "--idle", "poll", via=("taskset", "-c", str(CORE))) as instance:
        assert_answered(namespace, ADDRESSES[0])
        before = rest(instance)

        def turned() -> bool:
            passed = rest(instance) - before
            return min(passed.worker_turns, passed.driver_turns) > 10_000

        wait_until(turned, what="many turns")
        assert rest(instance).worker_sleeps == rest(instance).driver_sleeps == 0
        assert instance.stop() == 0


@pytest.mark.parametrize("idle", ["adaptive", "sleep"])
def test_idle_sleeps_and_leaves_the_core_alone(namespace: Namespace, idle: str) -> None:
    namespace.silence()
    with Instance(namespace, "--idle", idle, via=("taskset", "-c", str(CORE))) as instance:
        assert_answered(namespace, ADDRESSES[0])
        before, began = rest(instance), time.monotonic()
        wait_until(
            lambda: (
                min((rest(instance) - before).worker_sleeps, (rest(instance) - before).driver_sleeps)
                >= SLEEPS
            ),
            what="sleeps",
        )
        passed, took_s = rest(instance) - before, time.monotonic() - began
        # Nobody is woken for nothing: who sleeps does so for its slice, or until the stack's next timer.
        assert passed.worker_sleeps <= took_s / SLICE_S + 5
        # Before each sleep adaptive polls for 0.1 ms, sleep does not poll at all.
        assert passed.worker_turns <= passed.worker_sleeps * (2000 if idle == "adaptive" else 3)
        assert_answered(namespace, ADDRESSES[0])
        assert instance.stop() == 0
