# SPDX-License-Identifier: Apache-2.0
import random

from halo_mp.stack.deadlines import Deadlines


def test_empty_has_no_deadline() -> None:
    deadlines: Deadlines[str] = Deadlines()
    assert deadlines.next() is None
    assert deadlines.take_due(1e9, 10) == []


def test_set_is_due_at_its_time_and_not_before() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 10.0)
    assert deadlines.next() == 10.0
    assert deadlines.take_due(9.999, 10) == []
    assert deadlines.take_due(10.0, 10) == ["a"]
    assert deadlines.next() is None


def test_set_between_ticks_is_late_by_less_than_a_tick() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 10.001)
    assert deadlines.take_due(10.001, 10) == []
    assert deadlines.next() == 10.015625
    assert deadlines.take_due(10.015625, 10) == ["a"]


def test_set_again_moves_both_ways() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 10.0)
    deadlines.set("a", 20.0)
    assert deadlines.take_due(19.0, 10) == []
    deadlines.set("a", 12.0)
    assert deadlines.next() == 12.0
    assert deadlines.take_due(30.0, 10) == ["a"]
    assert len(deadlines) == 0


def test_cancel_removes_and_may_come_twice() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 10.0)
    deadlines.set("b", 10.0)
    deadlines.cancel("a")
    deadlines.cancel("a")
    assert deadlines.take_due(10.0, 10) == ["b"]


def test_take_due_limit_leaves_the_rest_due() -> None:
    deadlines: Deadlines[int] = Deadlines()
    for key in range(10):
        deadlines.set(key, 5.0 + key // 5)
    first = deadlines.take_due(6.0, 7)
    assert len(first) == 7
    assert set(first[:5]) == set(range(5))
    assert deadlines.next() == 6.0
    assert set(first) | set(deadlines.take_due(6.0, 7)) == set(range(10))


def test_random_sets_and_cancels_come_once_and_in_order() -> None:
    rng = random.Random(64)
    deadlines: Deadlines[int] = Deadlines()
    expected: dict[int, float] = {}
    for _ in range(5000):
        key = rng.randrange(300)
        if rng.random() < 0.2:
            deadlines.cancel(key)
            expected.pop(key, None)
        else:
            expected[key] = rng.randrange(64 * 100) / 64
            deadlines.set(key, expected[key])
    assert len(deadlines) == len(expected) > 100
    assert deadlines.next() == min(expected.values())
    came = deadlines.take_due(100.0, 1000)
    assert [expected[key] for key in came] == sorted(expected.values())
    assert sorted(came) == sorted(expected)


def test_moving_one_key_for_ever_keeps_the_heap_small() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for tick in range(100_000):
        now = tick / 64
        deadlines.set("busy", now + 30.0)
        assert deadlines.take_due(now, 10) == []
        assert deadlines.next() == now + 30.0
    assert len(deadlines._ticks) < 10
    assert len(deadlines._keys_at) == len(deadlines._ticks)
