# SPDX-License-Identifier: Apache-2.0
"""Memory of the routes is used again when every worker's epoch has passed, and not before: with a worker that stands
still in the middle of a burst, or asleep.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from halo_mp.control.client import Client
from halo_mp.shm.layout import RegionKind
from tests.proc.conftest import ADDRESSES, assert_answered
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import Namespace, wait_until
from tests.support.pinger import Pinger

COUNT = 64
OLD = [f"20.{number}.0.0/24" for number in range(COUNT)]  # each in a node of its own
NEW = [f"21.{number}.0.0/24" for number in range(COUNT)]
OLD_GATEWAY, NEW_GATEWAY = "10.77.0.77", "10.77.0.78"


@dataclass(frozen=True, slots=True)
class Sample:
    """How full the tables are, and how many targets there are for each of the two gateways."""

    nodes: int
    waiting: int
    old_targets: int
    new_targets: int


def published_epoch(instance: Instance, slot: int) -> int:
    with instance.region(f"slot.{slot}", RegionKind.SLOT) as region:
        return int(region.pointer.status.epoch)


def sample(instance: Instance, client: Client) -> Sample:
    shown = client.show()
    with instance.region("fib", RegionKind.FIB) as fib:
        places = (fib.pointer.target[number] for number in range(1, 64))  # the lowest are taken first
        found = [place.address for place in places if place.what]
    old, new = (int.from_bytes(map(int, each.split(".")), "big") for each in (OLD_GATEWAY, NEW_GATEWAY))
    return Sample(shown.nodes, shown.nodes_waiting, found.count(old), found.count(new))


def stop_when(instance: Instance, *, reading: bool) -> int:
    """Stop the worker of slot 0 while it reads the tables, or does not; return its pid."""
    worker = lives.pid(instance, "worker", 0)
    while True:
        os.kill(worker, signal.SIGSTOP)
        wait_until(lambda: lives.state(worker) == "T", what="the worker to stop")
        if (published_epoch(instance, 0) != 0) == reading:
            return worker
        os.kill(worker, signal.SIGCONT)


def all_reused(instance: Instance, client: Client) -> bool:
    now = sample(instance, client)
    return (now.waiting, now.old_targets) == (0, 0)


@contextmanager
def routed(namespace: Namespace, idle: str) -> Iterator[tuple[Instance, Client]]:
    """An instance with the old routes, and nothing that waits."""
    with (
        Instance(namespace, "--ports", "0,1", "--idle", idle) as instance,
        Client(path=instance.runtime / "control.sock", timeout_s=30.0) as client,
    ):
        assert_answered(namespace, *ADDRESSES, count=1)
        assert set(client.routes.add_all((prefix, OLD_GATEWAY) for prefix in OLD)) == {None}
        wait_until(lambda: client.show().nodes_waiting == 0, what="what waits")
        yield instance, client
        assert_answered(namespace, *ADDRESSES)
        assert instance.stop() == 0


def replace_routes(client: Client) -> None:
    """Unlink nodes and a target, and ask for as many again."""
    assert set(client.routes.delete_all(OLD)) == {None}
    assert set(client.routes.add_all((prefix, NEW_GATEWAY) for prefix in NEW)) == {None}


@pytest.mark.parametrize("ending", ["killed", "continued"])
def test_nothing_is_reused_while_a_worker_may_look_at_it(namespace: Namespace, ending: str) -> None:
    with routed(namespace, "poll") as (instance, client), Pinger(namespace, ADDRESSES[0]) as pinger:
        pinger.wait_for_more()
        before = sample(instance, client)
        assert (before.waiting, before.old_targets, before.new_targets) == (0, 1, 0)
        worker = stop_when(instance, reading=True)
        replace_routes(client)
        seen = []
        while len(seen) < 4 or ending == "killed":
            now = sample(instance, client)
            if lives.state(worker) != "T":
                break
            seen.append(now)
        assert seen, "the worker was gone before anybody had looked"
        for now in seen:
            assert now.waiting >= COUNT, "what was unlinked waits, and what came after it is elsewhere"
            assert now.nodes == before.nodes
            assert (now.old_targets, now.new_targets) == (1, 1)
        if ending == "continued":
            os.kill(worker, signal.SIGCONT)
        else:
            lives.wait_for_successor(instance, "worker", worker, 0)
        wait_until(lambda: all_reused(instance, client), what="all of it to be free")
        after = sample(instance, client)
        assert (after.nodes, after.new_targets) == (before.nodes, 1)
        assert (lives.pid(instance, "worker", 0) == worker) == (ending == "continued")


def test_what_a_worker_that_sleeps_was_done_with_is_reused(namespace: Namespace) -> None:
    with routed(namespace, "sleep") as (instance, client):
        for _ in range(10):  # it is killed 1.25 s later, and a busy machine may be slower
            worker = stop_when(instance, reading=False)
            replace_routes(client)
            while lives.state(worker) == "T":
                reused = all_reused(instance, client)
                if reused and lives.state(worker) == "T":
                    break
            else:
                lives.wait_for_successor(instance, "worker", worker, 0)
                client.routes.delete_all(NEW)
                client.routes.add_all((prefix, OLD_GATEWAY) for prefix in OLD)
                continue
            assert published_epoch(instance, 0) == 0
            os.kill(worker, signal.SIGCONT)
            return
        pytest.fail("nothing was reused while the worker slept")
