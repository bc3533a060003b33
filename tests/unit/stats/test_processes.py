# SPDX-License-Identifier: Apache-2.0
"""What processes take of the machine; those that are gone take nothing."""

from __future__ import annotations

import mmap
import os

from halo_mp.stats.processes import read_processes
from tests.support.regions import Regions


def test_processes_are_measured(regions: Regions) -> None:
    before, *others = read_processes(regions.status)
    assert [each.name for each in (before, *others)] == ["supervisor", "driver", "worker 0", "worker 1"]
    assert before.pid == os.getpid()
    assert before.affinity == tuple(sorted(os.sched_getaffinity(0)))
    assert before.core in range(os.cpu_count() or 1)
    pages = 512
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(pages):
            memory[page * mmap.PAGESIZE] = 1
        after = read_processes(regions.status)[0]
    assert after.minor_faults - before.minor_faults >= pages
    assert after.resident_octets > pages * mmap.PAGESIZE
    assert after.cpu_s >= before.cpu_s > 0
    assert after.threads >= 1
    assert after.open_files >= 3


def test_process_that_is_gone(regions: Regions) -> None:
    regions.say_of_worker(1, start_ticks=1, failed_because="it ended too often", restarts=6)
    found = read_processes(regions.status)[-1]
    assert (found.pid, found.state, found.cpu_s, found.restarts) == (None, "gone", 0, 6)
    assert found.note == "it ended too often"
    regions.say(supervisor_start_ticks=1)
    assert read_processes(regions.status)[0].state == "gone"
