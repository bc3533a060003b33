# SPDX-License-Identifier: Apache-2.0
"""Clocks jump and wrap: what happens after a while happens by a clock that does neither."""

from __future__ import annotations

import re
import struct
import subprocess
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from tests.proc.conftest import ADDRESSES, assert_answered, everybody
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import Namespace, wait_until
from tests.support.pinger import Pinger

SOURCE = Path(__file__).parents[1] / "support/wall_clock.c"
DAY_S = 24 * 3600
JUMPS_S = (DAY_S, -DAY_S, 3650 * DAY_S, -3650 * DAY_S)
WRAP_MS_S = 2**32 / 1000
"""A clock in milliseconds is 0 again after so many seconds, 49.7 days."""


class WallClock:
    """What the wall clock of processes is ahead of the machine's, which nobody may touch."""

    def __init__(self, directory: Path) -> None:
        self._library, self._offset = directory / "wall_clock.so", directory / "ahead"
        command = ["cc", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC"]
        subprocess.run([*command, "-o", str(self._library), str(SOURCE)], check=True)
        self._offset.write_bytes(bytes(8))

    @property
    def via(self) -> list[str]:
        """The command under which processes have it."""
        return ["env", f"LD_PRELOAD={self._library}", f"HALO_MP_TEST_WALL_CLOCK={self._offset}"]

    def jump(self, ahead_s: int) -> None:
        """Be ahead by so many seconds from now on."""
        with self._offset.open("r+b", buffering=0) as file:  # in place: it is mapped
            file.write(struct.pack("=q", ahead_s))

    def is_seen(self, instance: Instance, ahead_s: int) -> bool:
        """Whether the last line of the statistics has that time."""
        wanted = datetime.now(UTC) + timedelta(seconds=ahead_s)
        return abs(lives.when(instance.events("stats")[-1]) - wanted) < timedelta(hours=1)


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    tmp_path.chmod(0o755)
    return WallClock(tmp_path)


def assert_nobody_died(instance: Instance, before: list[int]) -> None:
    assert everybody(instance) == before
    assert all(map(lives.is_running, before))
    for event in ("worker.died", "driver.died", "stack.error", "address.conflict"):
        assert not lives.said(instance, event)


def test_wall_clock_jumps_and_nothing_else_does(namespace: Namespace, clock: WallClock) -> None:
    with Instance(namespace, "--ports", "0,1", "--stats-log", "0.1", via=clock.via) as instance:
        assert_answered(namespace, *ADDRESSES, count=1)
        before = everybody(instance)
        # A recorded route is answered by Python, which knows the kernel's MAC and asks nobody anew.
        with (
            Pinger(namespace, ADDRESSES[0]) as fast,
            Pinger(namespace, ADDRESSES[1], options=("-R",)) as slow,
        ):
            for ahead_s in JUMPS_S:
                clock.jump(ahead_s)
                seen = partial(clock.is_seen, instance, ahead_s)
                wait_until(seen, what=f"a line that is {ahead_s} s ahead")
                for pinger in (fast, slow):
                    pinger.wait_for_more(20)
        assert fast.lost == slow.lost == set()
        assert_nobody_died(instance, before)
        victim = lives.pid(instance, "worker", 0)
        lives.kill(victim)
        lives.wait_for_successor(instance, "worker", victim, 0)
        assert_answered(namespace, *ADDRESSES)
        assert instance.stop() == 0


def test_wall_clock_jumps_while_a_worker_waits_to_be_tried_again(
    namespace: Namespace, clock: WallClock
) -> None:
    """Ten years back: a second is a second all the same."""
    with Instance(namespace, "--restart-limit", "0/1", via=clock.via) as instance:
        victim = lives.pid(instance, "worker", 0)
        lives.kill(victim)
        [failed] = instance.wait_for("worker.failed")
        clock.jump(-3650 * DAY_S)
        lives.wait_for_successor(instance, "worker", victim, 0)
        assert failed["restart_in_s"] == 1.0
        assert_answered(namespace, ADDRESSES[0])
        assert instance.stop() == 0


def test_monotonic_clock_passes_what_a_smaller_one_wraps_at(namespace: Namespace) -> None:
    """In a time namespace, some seconds before that and some after."""
    ahead_s = 4.0
    offset = int(WRAP_MS_S - time.monotonic() - ahead_s)
    passed = time.monotonic() + (WRAP_MS_S - time.monotonic() - offset)
    via = ("unshare", "--time", "--monotonic", str(offset), "--")
    with Instance(namespace, "--ports", "0,1", "--stats-log", "0.2", via=via) as instance:
        before = everybody(instance)
        with (
            Pinger(namespace, ADDRESSES[0]) as fast,
            Pinger(namespace, ADDRESSES[1], options=("-R",)) as slow,
        ):
            wait_until(lambda: time.monotonic() > passed, timeout_s=60, what="2^32 ms")
            for pinger in (fast, slow):
                pinger.wait_for_more(50)
        assert fast.lost == slow.lost == set()
        assert_nobody_died(instance, before)
        assert instance.slot()["last_burst_ns"] > WRAP_MS_S * 1e9
        rates = [entry["rx_pps"] for entry in instance.events("stats") if entry["port"] == 0]
        assert all(0 <= rate < 10_000 for rate in rates), rates
        assert instance.stop() == 0


def test_no_field_of_shared_memory_holds_a_time_in_fewer_than_64_bits() -> None:
    """2^32 ns are four seconds, 2^32 ms are seven weeks: an instance runs for longer."""
    layout = Path(__file__).parents[2] / "native/include/halo/layout_def.h"
    fields = re.findall(r"(\w+)\s+(\w+_(?:ns|us|ms|ticks));", layout.read_text())
    found = {name: kind for kind, name in fields}
    assert "last_burst_ns" in found
    assert set(found.values()) <= {"uint64_t"}, found
