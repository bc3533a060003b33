# SPDX-License-Identifier: Apache-2.0
"""Restart decisions under a clock that is a number."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo_mp.supervisor.restart import LONGEST_DELAY_S, RestartPolicy


def crash_loop(
    policy: RestartPolicy, deaths: int, *, lives_s: float = 0.1, useful_s: float = 0.0
) -> list[float]:
    """Return when each restart happened, of something that lives that long each time."""
    now, starts = 0.0, []
    for _ in range(deaths):
        now += lives_s
        now += policy.died(now, useful_s=useful_s).delay_s
        starts.append(now)
    return starts


def test_first_deaths_restart_at_once() -> None:
    policy = RestartPolicy(5, 10.0)
    decisions = [policy.died(float(second), useful_s=0.5) for second in range(5)]
    assert [(decision.delay_s, decision.failed) for decision in decisions] == [(0.0, False)] * 5


def test_crash_loop_six_spawns_in_the_first_ten_seconds() -> None:
    starts = crash_loop(RestartPolicy(5, 10.0), 12)
    assert sum(start < 10.0 for start in (0.0, *starts)) == 6


def test_crash_loop_backs_off_by_doubling_up_to_the_longest() -> None:
    starts = crash_loop(RestartPolicy(1, 0.5), 12)
    delays = [round(later - earlier - 0.1, 3) for earlier, later in pairwise(starts)]
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30]


def test_useful_life_wipes_the_slate() -> None:
    policy = RestartPolicy(1, 10.0)
    crash_loop(policy, 5)
    now = 1000.0
    assert policy.died(now, useful_s=9.9).failed
    assert not policy.died(now + 100, useful_s=10.0).failed
    later = policy.died(now + 100.1, useful_s=0.1)
    assert (later.failed, later.delay_s) == (True, pytest.approx(9.9))


def test_no_restart_allowed_at_once_backs_off_from_the_start() -> None:
    policy = RestartPolicy(0, 10.0)
    assert [policy.died(float(i), useful_s=0.0).delay_s for i in range(3)] == [1.0, 2.0, 4.0]


@given(
    count=st.integers(1, 6),
    window_s=st.floats(0.5, 60),
    lives=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), min_size=1, max_size=40),
)
def test_any_deaths_never_more_restarts_than_allowed_in_any_window(
    count: int, window_s: float, lives: list[tuple[float, float]]
) -> None:
    policy, now, starts = RestartPolicy(count, window_s), 0.0, []
    for life_s, useful_part in lives:
        now += life_s
        restart = policy.died(now, useful_s=life_s * useful_part)
        assert 0 <= restart.delay_s <= max(LONGEST_DELAY_S, window_s) + 1e-6
        assert restart.failed or restart.delay_s == 0
        now += restart.delay_s
        starts.append(now)
    for first, beyond in zip(starts, starts[count:], strict=False):
        assert beyond - first >= window_s - 1e-6
