# SPDX-License-Identifier: Apache-2.0
"""Random deaths of workers and driver under traffic, one seed a round; the seed is in each failure."""

from __future__ import annotations

import random

import pytest

from tests.proc.conftest import ADDRESSES, assert_answered, assert_recovered, interfaces
from tests.support import lives
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace
from tests.support.pinger import Pinger

ROUNDS = 75
KILLS = 100  # with rounds of two; each seed has its own number
LONGEST_WAIT = 15  # answers, a hundred a second

Victim = tuple[lives.Role, int | None]
VICTIMS: tuple[Victim, ...] = (("driver", None), ("worker", 0), ("worker", 1))


@pytest.mark.parametrize("seed", [20261122])
def test_random_kills_lose_no_buffer_and_no_port(namespace: Namespace, seed: int) -> None:
    chance = random.Random(seed)
    with Instance(namespace, "--ports", "0,1", "--restart-limit", "100/10", "--spare", "auto") as instance:
        ledger = Ledger(instance, 0, 1)
        with Pinger(namespace, ADDRESSES[0]) as pinger, Pinger(namespace, ADDRESSES[1]) as other:
            for _ in range(ROUNDS):
                chance.choice((pinger, other)).wait_for_more(chance.randint(1, LONGEST_WAIT))
                # One at a time, or a second one while the first is not back yet.
                victims = chance.sample(VICTIMS, chance.choice((1, 1, 2)))
                killed = [(role, slot, kill_latest(instance, role, slot)) for role, slot in victims]
                for role, slot, victim in killed:
                    lives.wait_for_successor(instance, role, victim, slot)
            for each in (pinger, other):
                each.wait_for_more()
        assert sum(map(len, (lives.pids(instance, *victim) for victim in VICTIMS))) >= KILLS + len(VICTIMS)
        for each in (pinger, other):
            assert set(each.answered.values()) == {1}, "a request was answered twice"
        assert_recovered(ledger, namespace, *ADDRESSES)
        driver_deaths = len(lives.pids(instance, "driver")) - 1
        for slot, snapshot in enumerate(ledger.snapshots()):
            deaths = len(lives.pids(instance, "worker", slot)) - 1
            for event in ("worker.died", "slot.reset"):
                assert len(lives.said(instance, event, slot=slot)) == deaths
            # A driver that dies of it may have reset a slot and not said so; its successor does it again.
            assert deaths <= snapshot["driver"]["counters"]["resets"] <= deaths + driver_deaths
            assert snapshot["generation"] == snapshot["driver"]["counters"]["resets"]
            assert snapshot["driver"]["counters"]["rings_broken"] == 0
        assert not [entry for entry in instance.events() if entry["level"] == "error"]
        assert instance.stop() == 0
    assert interfaces(namespace) == {"lo"}


def kill_latest(instance: Instance, role: lives.Role, slot: int | None) -> int:
    victim = lives.pid(instance, role, slot)
    lives.kill(victim)
    return victim


@pytest.mark.parametrize("seed", range(3))
def test_kill_at_a_random_moment_of_the_start_leaves_a_whole_instance(
    namespace: Namespace, seed: int
) -> None:
    """Before anything was useful once, a death is tried again twice."""
    chance = random.Random(seed)
    with Instance(namespace, "--ports", "0,1", wait=False) as instance:
        instance.wait_for(chance.choice(("worker.spawned", "worker.attached")), count=2)
        role, slot = chance.choice(VICTIMS)
        kill_latest(instance, role, slot)
        instance.wait_for("instance.up", timeout_s=30)
        Ledger(instance, 0, 1).assert_balanced()
        assert_answered(namespace, *ADDRESSES)
        assert instance.stop() == 0
