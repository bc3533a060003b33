# SPDX-License-Identifier: Apache-2.0
"""Two workers behind one TAP whose device has one queue: the driver spreads, and each worker answers for its flows."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from halo_mp._native import lib
from tests.support import frames
from tests.support.accounts import balanced, tally, tally_after
from tests.support.instance import Instance
from tests.support.lives import kill, pid, wait_for_successor
from tests.support.namespace import Namespace
from tests.support.pinger import Pinger

OURS = "10.77.0.1"
MACS = {"dst": bytes(6), "src": bytes(6)}
EACH = 3  # sources for each worker


def home_of(source: str) -> int:
    """Which of two workers has the pings of this source."""
    frame = frames.frame(**MACS, payload=frames.packet(src=source, dst=OURS, payload=frames.echo_request()))
    return int(lib.halo_flow_share(lib.halo_spread_hash(frame, len(frame)), 2))


SOURCES = [f"10.77.0.{last}" for last in range(100, 200)]
OF_SLOT = [[source for source in SOURCES if home_of(source) == slot][:EACH] for slot in (0, 1)]


@contextmanager
def spreading(namespace: Namespace, cores: int) -> Iterator[Instance]:
    """An instance whose two workers share a TAP, and whose kernel's side has all the sources."""
    listed = ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))
    namespace.silence()
    with Instance(namespace, "--queues", "2", "--spread", "software", "--driver-cores", listed) as instance:
        for source in (*OF_SLOT[0], *OF_SLOT[1]):
            namespace.run("ip", "address", "add", f"{source}/24", "dev", f"{instance.name}.0")
        yield instance
        assert instance.stop() == 0


@pytest.fixture(scope="module", params=[1, 2])
def spread(request: pytest.FixtureRequest) -> Iterator[Instance]:
    with Namespace() as namespace, spreading(namespace, request.param) as instance:
        yield instance


def received(instance: Instance) -> list[int]:
    return [slot["driver"]["counters"]["rx_frames"] for slot in balanced(instance, 0, 1)]


def test_it_says_who_spreads(spread: Instance) -> None:
    (said,) = spread.events("port.spread")
    assert (said["port"], said["spread"], said["queues"]) == (0, "software", 2)
    port = spread.ports()["ports"][0]
    assert (port["rx_queues"], port["spread_queues"]) == (1, 2)
    command = (sys.executable, "-m", "halo_mp.supervisor.status", "--name", spread.name)
    assert "2 queues, spread in software by the driver" in spread.namespace.run(*command).stdout
    (told,) = json.loads(spread.namespace.run(*command, "--json").stdout)["status"]["ports"]
    assert (told["spread"], told["queues"]) == ("software", 2)


@pytest.mark.parametrize("size", [56, 1472, 1473, 8000, 65507])
def test_each_worker_answers_the_pings_of_its_sources(spread: Instance, size: int) -> None:
    pieces = -(-(size + 8) // 1480)
    for slot in (0, 1):
        for source in OF_SLOT[slot]:
            spread.namespace.pinged(OURS, count=1, options=("-I", source))  # everybody knows everybody
            before, at = tally(spread, 0, 1), received(spread)
            sent = spread.namespace.pinged(OURS, size=size, options=("-I", source))
            happened = tally_after(spread, before, sent * pieces, 0, 1)
            assert not happened.drops
            got = [now - then for now, then in zip(received(spread), at, strict=True)]
            assert got[slot] >= sent * pieces
            assert slot == 0 or got[0] <= 4, "only ARP, and the answers to it, goes to the first"


@pytest.mark.parametrize("cores", [1, 2])
def test_flows_of_a_killed_worker_come_back_and_the_others_lose_nothing(
    namespace: Namespace, cores: int
) -> None:
    with spreading(namespace, cores) as instance:
        for slot in (1, 0):
            mine, others = (OF_SLOT[number][0] for number in (slot, 1 - slot))
            with (
                Pinger(namespace, OURS, options=("-I", mine)) as killed,
                Pinger(namespace, OURS, options=("-I", others)) as untouched,
            ):
                killed.wait_for_more()
                untouched.wait_for_more()
                old = pid(instance, "worker", slot)
                kill(old)
                wait_for_successor(instance, "worker", old, slot)
                killed.wait_for_more()
                untouched.wait_for_more()
                assert not untouched.lost
                assert set(untouched.answered.values()) == {1}
