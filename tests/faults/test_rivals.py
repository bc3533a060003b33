# SPDX-License-Identifier: Apache-2.0
"""A second instance of a name, a thousand times: it is refused, and nothing of the first is touched."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from halo_mp.errors import InstanceRunning
from halo_mp.shm.region import is_stale
from halo_mp.supervisor import leftovers
from halo_mp.supervisor.instance import Instance as Lock
from tests.proc.conftest import everybody
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import Namespace
from tests.support.pinger import Pinger

TRIES = 1000
REAL = 6  # of them at a time, twice


def inodes(instance: Instance) -> dict[str, int]:
    """Return every file of an instance by its inode: one that was made anew has another."""
    regions = instance.namespace.shared_memory.glob(f"halo-mp.{instance.name}.*")
    # Its own supervisor replaces the files that tell of it.
    kept = [path for path in instance.runtime.iterdir() if path.name in ("lock", "private.sock", "dpdk")]
    return {str(path): path.stat().st_ino for path in (*regions, *kept)}


def test_name_that_runs_a_thousand_rivals_touch_nothing(pair: Instance) -> None:
    assert pair.process is not None
    before, children, descriptors = inodes(pair), everybody(pair), len(os.listdir("/proc/self/fd"))
    assert len(before) >= 7
    regions = [f"/{Path(name).name}" for name in before if "/shm/" in name]
    with Pinger(pair.namespace) as pinger:
        pinger.wait_for_more()
        for _ in range(TRIES):
            with pytest.raises(InstanceRunning, match=f"as process {pair.process.pid}"):
                Lock.acquire(pair.name)
            assert not any(map(is_stale, regions))
        pinger.wait_for_more()
    assert pinger.lost == set()
    assert inodes(pair) == before
    assert everybody(pair) == children
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert pair.stop() == 0


def test_name_that_runs_elsewhere_its_memory_is_nobody_elses(pair: Instance, tmp_path: Path) -> None:
    """Another runtime directory, so the lock is free; but /dev/shm is one for all."""
    before = inodes(pair)
    for _ in range(100):
        lock = Lock.acquire(pair.name, base=tmp_path)
        with pytest.raises(InstanceRunning, match="is in use by another instance"):
            asyncio.run(leftovers.clean(lock))
        lock.release()
    assert inodes(pair) == before
    assert pair.stop() == 0


def test_name_that_runs_rivals_started_together_all_end(pair: Instance, peer: Namespace) -> None:
    """Real ones, while workers of the first come and go."""
    before = inodes(pair)
    with Pinger(pair.namespace) as pinger:
        pinger.wait_for_more()
        for _ in range(2):
            victim = lives.pid(pair, "worker", 1)
            lives.kill(victim)
            rivals = [Instance(peer, "--ports", "0", name=pair.name, wait=False) for _ in range(REAL)]
            with ThreadPoolExecutor(REAL) as executor:
                list(executor.map(Instance.__enter__, rivals))
            assert {rival.wait() for rival in rivals} == {4}
            for rival in rivals:
                rival.stop()
            lives.wait_for_successor(pair, "worker", victim, 1)
        pinger.wait_for_more()
    assert pinger.lost == set()
    assert inodes(pair) == before
    assert pair.stop() == 0
