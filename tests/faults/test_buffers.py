# SPDX-License-Identifier: Apache-2.0
"""Buffers run out: who holds them loses frames by name, the other ports lose none, and every buffer comes back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.proc.conftest import ADDRESSES, assert_answered, assert_recovered
from tests.proc.test_hang import stop_in_python
from tests.support import frames, lives
from tests.support.accounts import imbalances
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, wait_until
from tests.support.pinger import Pinger
from tests.support.station import Station

POOL = 7168
"""The smallest that two TAPs may have: much less than one default ring has room for."""

BOUND = 1024
"""What is left of it for each slot."""


@pytest.fixture
def scarce(namespace: Namespace) -> Iterator[Instance]:
    """Two ports with the smallest pool, and workers that may hold up Python for as long as a test takes."""
    namespace.silence()
    with Instance(namespace, "--ports", "0,1", "--pool-size", str(POOL), "--hang-timeout", "60") as instance:
        assert_answered(namespace, *ADDRESSES, count=1)
        yield instance


def flood(instance: Instance, count: int) -> None:
    """Send so many frames to the stack of port 0, and wait until the driver has had them."""
    namespace = instance.namespace
    mac = namespace.run("ip", "-4", "neigh", "show", ADDRESSES[0]).stdout.split("lladdr ")[1].split()[0]
    with Station(namespace, f"{instance.name}.0") as station:
        packet = frames.packet(src="10.77.0.2", dst=ADDRESSES[0], payload=frames.echo_request())
        request = frames.frame(dst=bytes.fromhex(mac.replace(":", "")), src=station.mac, payload=packet)
        start = arrived(instance)
        for sent in range(0, count, 64):  # the TAP's queue holds 500
            for _ in range(64):
                station.send(request)
            wait_for_frames(instance, start + sent + 64)


def wait_for_frames(instance: Instance, count: int) -> None:
    wait_until(lambda: arrived(instance) >= count, what=f"{count} frames from the port")


def arrived(instance: Instance) -> int:
    """Return how many frames the driver had for slot 0."""
    driver = instance.slot()["driver"]
    return driver["counters"]["rx_frames"] + sum(
        n for name, n in driver["drops"].items() if name[:3] == "rx_"
    )


def test_worker_that_stands_still_can_not_take_the_buffers_of_others(scarce: Instance) -> None:
    ledger = Ledger(scarce, 0, 1)
    victim = lives.pid(scarce, "worker", 0)
    with Pinger(scarce.namespace, ADDRESSES[1], options=("-R",)) as other:  # answered by Python, from spares
        with Pinger(scarce.namespace, ADDRESSES[0], interval_s=0, options=("-R",)) as pinger:
            pinger.wait_for_more()
            stop_in_python(scarce, victim)
        try:
            other.wait_for_more()
            flood(scarce, POOL + 1024)
            dropped = scarce.slot(0)["driver"]["drops"]
            other.wait_for_more(50)
            outstanding = scarce.slot(0)["driver"]["counters"]["outstanding"]
        finally:
            os.kill(victim, signal.SIGCONT)
        other.wait_for_more()
    assert dropped["rx_slot_bound"] > 0
    assert outstanding <= BOUND
    assert other.lost == set(), "the other port noticed"
    slot = scarce.slot(1)
    assert not {name: count for name, count in slot["driver"]["drops"].items() if count}
    assert not scarce.ports()["ports"][1]["stats"]["rx_no_mbuf"]
    wait_until(lambda: not list(imbalances(scarce.slot(0))), what="slot 0 to have done with it")
    assert_recovered(ledger, scarce.namespace, *ADDRESSES)
    assert lives.pid(scarce, "worker", 0) == victim
    assert scarce.stop() == 0
