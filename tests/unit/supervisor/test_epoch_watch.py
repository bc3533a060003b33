# SPDX-License-Identifier: Apache-2.0
"""Who keeps an old epoch for longer than anybody sound."""

from __future__ import annotations

from halo_mp.supervisor.epoch_watch import PATIENCE_S, EpochWatch


def test_worker_that_follows_is_left_alone() -> None:
    watch = EpochWatch()
    for tick in range(200):
        assert watch.laggards(tick * 0.1, tick + 2, {0: tick + 1, 1: 0}) == []


def test_worker_that_stays_behind_is_named_after_a_while() -> None:
    watch = EpochWatch()
    assert watch.laggards(0.0, 1, {0: 1, 1: 1}) == []
    assert watch.laggards(1.0, 2, {0: 1, 1: 2}) == []
    assert watch.laggards(0.9 + PATIENCE_S, 2, {0: 1, 1: 2}) == []
    assert watch.laggards(1.0 + PATIENCE_S, 2, {0: 1, 1: 2}) == [0]


def test_epoch_that_never_moves_blames_nobody() -> None:
    watch = EpochWatch()
    assert [watch.laggards(tick * 1.0, 7, {0: 7, 1: 0}) for tick in range(100)] == [[]] * 100


def test_epochs_that_move_all_the_time_blame_who_is_older_than_the_patience() -> None:
    watch = EpochWatch()
    found = [watch.laggards(tick * 0.1, tick + 1, {0: 30}) for tick in range(200)]
    first = next(tick for tick, slots in enumerate(found) if slots)
    # Epoch 31 began at tick 30.
    assert first == 30 + round(PATIENCE_S / 0.1)


def test_worker_in_an_epoch_that_never_was_is_no_laggard() -> None:
    watch = EpochWatch()
    watch.laggards(0.0, 5, {})
    assert watch.laggards(100.0, 5, {0: 2**63}) == []
