# SPDX-License-Identifier: Apache-2.0
"""The driver dies under traffic: workers live on, TAPs keep their addresses, and its successor finds every buffer."""

from __future__ import annotations

import signal

from tests.proc.conftest import ADDRESSES, assert_recovered, everybody, interfaces
from tests.support import lives
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, wait_until
from tests.support.pinger import Pinger


def addresses(namespace: Namespace, interface: str) -> list[str]:
    """Return the IPv4 addresses of an interface with their prefix lengths, and its index."""
    words = namespace.run("ip", "-4", "-o", "address", "show", "dev", interface).stdout.split()
    return [words[0], *(words[at + 1] for at, word in enumerate(words) if word == "inet")]


def test_killed_driver_has_a_successor(pair: Instance) -> None:
    namespace = pair.namespace
    ledger = Ledger(pair, 0, 1)
    driver, *workers = everybody(pair)
    kept = [addresses(namespace, f"{pair.name}.{port}") for port in (0, 1)]
    with Pinger(namespace, ADDRESSES[0]) as pinger, Pinger(namespace, ADDRESSES[1]) as other:
        for each in (pinger, other):
            each.wait_for_more()
        lives.kill(driver)
        successor = lives.wait_for_successor(pair, "driver", driver)
        for each in (pinger, other):
            each.wait_for_more(20)
    assert [addresses(namespace, f"{pair.name}.{port}") for port in (0, 1)] == kept
    assert everybody(pair) == [successor, *workers], "workers keep their pids"
    assert all(map(lives.is_running, workers))
    for each in (pinger, other):
        assert set(each.answered.values()) == {1}, "a request was answered twice"
    [died] = lives.said(pair, "driver.died")
    assert (died["pid"], died["reason"], died["restart_in_s"]) == (driver, "was killed by SIGKILL", 0)
    # What workers held is withheld from the pool; each had at least most of its spare buffers.
    first, second = (int(entry["withheld"]) for entry in lives.said(pair, "ports.ready"))
    assert first == 0
    assert 512 <= second <= 2048
    assert pair.ports()["withheld"] == second
    assert pair.ports()["driver_pid"] == successor
    assert_recovered(ledger, namespace, *ADDRESSES)
    for slot in ledger.snapshots():
        assert (slot["driver"]["counters"]["resets"], slot["driver"]["counters"]["reclaimed"]) == (0, 0)
    assert not lives.said(pair, "worker.died")
    assert pair.stop() == 0
    assert interfaces(namespace) == {"lo"}


def test_addresses_are_announced_when_the_driver_is_back(pair: Instance) -> None:
    """The kernel's question may have been lost with the dead driver, and it would not ask again for a second."""
    taps = [f"{pair.name}.{port}" for port in (0, 1)]
    announced = [pair.slot(slot)["worker"]["counters"]["originated"] for slot in (0, 1)]
    for tap in taps:  # so that nothing else has to be said
        pair.namespace.run("ip", "link", "set", tap, "arp", "off")
    driver = lives.pid(pair, "driver")
    lives.kill(driver)
    lives.wait_for_successor(pair, "driver", driver)
    wait_until(
        lambda: all(pair.slot(slot)["worker"]["counters"]["originated"] > announced[slot] for slot in (0, 1)),
        what="announcements",
    )
    assert pair.stop() == 0


def test_driver_killed_without_traffic_has_a_successor(pair: Instance) -> None:
    ledger = Ledger(pair, 0, 1)
    for _ in range(2):
        driver = lives.pid(pair, "driver")
        lives.kill(driver)
        lives.wait_for_successor(pair, "driver", driver)
    assert_recovered(ledger, pair.namespace, *ADDRESSES)
    assert pair.stop() == 0


def test_driver_and_worker_killed_together(pair: Instance) -> None:
    ledger = Ledger(pair, 0, 1)
    driver, victim, neighbor = everybody(pair)
    with Pinger(pair.namespace, ADDRESSES[0]) as pinger, Pinger(pair.namespace, ADDRESSES[1]) as other:
        for each in (pinger, other):
            each.wait_for_more()
        lives.kill(driver)
        lives.kill(victim)
        lives.wait_for_successor(pair, "driver", driver)
        lives.wait_for_successor(pair, "worker", victim, 0)
        for each in (pinger, other):
            each.wait_for_more()
    assert lives.pid(pair, "worker", 1) == neighbor
    assert_recovered(ledger, pair.namespace, *ADDRESSES)
    [slot, _] = ledger.snapshots()
    assert slot["driver"]["counters"]["resets"] == 1
    assert pair.stop() == 0


def test_everybody_killed_at_once(pair: Instance) -> None:
    ledger = Ledger(pair, 0, 1)
    before = everybody(pair)
    for child in before:
        lives.kill(child)
    lives.wait_for_successor(pair, "driver", before[0])
    for slot in (0, 1):
        lives.wait_for_successor(pair, "worker", before[1 + slot], slot)
    assert_recovered(ledger, pair.namespace, *ADDRESSES)
    assert pair.stop() == 0


def test_driver_killed_before_it_is_useful_has_a_successor(pair: Instance) -> None:
    ledger = Ledger(pair, 0, 1)
    lives.kill(lives.pid(pair, "driver"))
    pair.wait_for("driver.spawned", count=2)
    newborn = lives.pid(pair, "driver")
    lives.kill(newborn)
    lives.wait_for_successor(pair, "driver", newborn)
    assert_recovered(ledger, pair.namespace, *ADDRESSES)
    assert pair.stop() == 0


def test_stop_while_the_driver_starts_anew(pair: Instance) -> None:
    lives.kill(lives.pid(pair, "driver"))
    pair.wait_for("driver.spawned", count=2)
    pair.signal(signal.SIGTERM)
    assert pair.wait() == 0
    assert interfaces(pair.namespace) == {"lo"}
