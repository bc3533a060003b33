# SPDX-License-Identifier: Apache-2.0
"""What counts as hung, under a clock that is a number, and what the kernel says of real threads."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from halo_mp.shm.layout import Place
from halo_mp.supervisor.hang import INTERVAL_S, Activity, HangWatch, read_activity

BLOCKED: Activity = frozenset()
STARVED: Activity = frozenset({(7, 100)})


class Watched:
    """A watch, and what it watches, checked each interval."""

    def __init__(
        self, activity: Callable[[], Activity] = lambda: BLOCKED, python_limit_s: float = 10.0
    ) -> None:
        self.watch = HangWatch(python_limit_s, activity)
        self.now = 1000.0
        self.progress = 0

    def pass_time(self, seconds: float, place: int = Place.NATIVE, *, moving: bool = False) -> float | None:
        """Return after how long it was found hung; None when it was not."""
        for step in range(1, round(seconds / INTERVAL_S) + 1):
            self.now += INTERVAL_S
            self.progress += moving
            if self.watch.check(self.now, self.progress, place):
                return step * INTERVAL_S
        return None


@pytest.mark.parametrize(
    ("place", "earliest", "latest"),
    [(Place.NATIVE, 1.0, 1.3), (Place.PYTHON, 10.0, 10.3), (Place.ASLEEP, 1.25, 1.5)],
)
def test_no_progress_is_found_after_the_limit_of_the_place(
    place: Place, earliest: float, latest: float
) -> None:
    watched = Watched()
    assert watched.pass_time(5, place, moving=True) is None
    found = watched.pass_time(30, place)
    assert found is not None
    assert earliest <= found <= latest


def test_progress_for_a_day_is_never_found() -> None:
    watched = Watched()
    for place in Place:
        assert watched.pass_time(3600, place, moving=True) is None


def test_no_progress_for_almost_the_limit_is_forgiven_again_and_again() -> None:
    watched = Watched()
    watched.pass_time(1, moving=True)
    for _ in range(50):
        assert watched.pass_time(0.9) is None
        watched.pass_time(0.1, moving=True)


def test_sleeper_stopped_right_before_it_would_wake_has_its_second() -> None:
    watched = Watched()
    watched.pass_time(1, Place.ASLEEP, moving=True)
    assert watched.pass_time(0.25 + 0.9, Place.ASLEEP) is None


def test_first_sign_of_life_may_take_ten_seconds() -> None:
    found = Watched().pass_time(30)
    assert found is not None
    assert 10.0 <= found <= 10.3


def test_limit_of_python_begins_when_python_does() -> None:
    watched = Watched(python_limit_s=2.0)
    watched.pass_time(1, moving=True)
    assert watched.pass_time(0.9) is None
    found = watched.pass_time(30, Place.PYTHON)
    assert found is not None
    assert found >= 2.0


def test_watcher_that_stood_still_itself_blames_nobody() -> None:
    watched = Watched()
    watched.pass_time(1, moving=True)
    for _ in range(4):
        watched.now += 3600
        assert watched.watch.check(watched.now, watched.progress, Place.NATIVE) is None


def test_starved_is_not_hung_for_ten_times_the_limit() -> None:
    watched = Watched(lambda: STARVED)
    watched.pass_time(1, moving=True)
    found = watched.pass_time(30)
    assert found is not None
    assert 10.0 <= found <= 10.3


def test_spinning_is_hung() -> None:
    ticks = iter(range(10_000))
    watched = Watched(lambda: frozenset({(7, next(ticks))}))
    watched.pass_time(1, moving=True)
    found = watched.pass_time(30)
    assert found is not None
    assert found <= 1.4


def test_place_that_makes_no_sense_counts_as_native() -> None:
    watched = Watched()
    watched.pass_time(1, 99, moving=True)
    found = watched.pass_time(30, 2**32 - 1)
    assert found is not None
    assert found <= 1.4


def test_activity_of_a_spinning_a_sleeping_and_no_process() -> None:
    def started(script: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-c", f"print(flush=True); {script}"], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        return child

    with started("\nwhile True: pass") as spinning, started("import time; time.sleep(1000)") as sleeping:
        seen = set()
        while len(seen) < 5:
            seen |= read_activity(spinning.pid)
        while read_activity(sleeping.pid):
            pass
        spinning.kill()
        sleeping.kill()
    assert {thread for thread, _ in seen} == {spinning.pid}
    assert read_activity(2**22 + 1) == BLOCKED
