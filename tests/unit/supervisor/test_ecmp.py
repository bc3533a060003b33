# SPDX-License-Identifier: Apache-2.0
"""Buckets of several paths: shares by weight, and few moves."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from halo_mp.supervisor import ecmp


def test_shares_follow_the_weights() -> None:
    assert ecmp.shares({1: 1, 2: 1}, 64) == {1: 32, 2: 32}
    assert ecmp.shares({1: 3, 2: 1}, 64) == {1: 48, 2: 16}
    assert ecmp.shares({1: 1, 2: 1, 3: 1}, 64) == {1: 22, 2: 21, 3: 21}


@pytest.mark.parametrize(
    ("weights", "count"), [([1], 64), ([1] * 8, 64), ([1] * 9, 128), ([1] * 64, 512), ([256] * 512, 16384)]
)
def test_bucket_count_is_a_power_of_two_with_some_for_each_weight(weights: list[int], count: int) -> None:
    assert ecmp.bucket_count(weights) == count


@pytest.mark.parametrize("seed", range(20))
def test_path_goes_and_only_its_flows_move(seed: int) -> None:
    dice = random.Random(seed)
    weights = {path: dice.randrange(1, 9) for path in range(1, dice.randrange(3, 40))}
    before = ecmp.spread([0] * ecmp.bucket_count(list(weights.values())), weights)
    gone = dice.choice(list(weights))
    rest = {path: weight for path, weight in weights.items() if path != gone}
    after = ecmp.spread(before, rest)
    assert all(new == old for old, new in zip(before, after, strict=True) if old != gone)
    assert Counter(after) == Counter(ecmp.shares(rest, len(after)))


@pytest.mark.parametrize("seed", range(20))
def test_path_comes_back_and_moves_no_more_than_its_share(seed: int) -> None:
    dice = random.Random(seed)
    weights = {path: dice.randrange(1, 9) for path in range(1, dice.randrange(3, 40))}
    new = len(weights)
    old = {path: weight for path, weight in weights.items() if path != new}
    before = ecmp.spread([0] * 512, old)
    after = ecmp.spread(before, weights)
    moved = [path for was, path in zip(before, after, strict=True) if was != path]
    assert set(moved) <= {new} or len(moved) <= ecmp.shares(weights, 512)[new] + len(weights)
    assert Counter(after) == Counter(ecmp.shares(weights, 512))


@pytest.mark.parametrize("seed", range(20))
def test_path_goes_and_comes_back_to_its_own_flows(seed: int) -> None:
    dice = random.Random(seed)
    weights = {path: dice.randrange(1, 9) for path in range(1, dice.randrange(3, 40))}
    first = ecmp.spread([0] * ecmp.bucket_count(list(weights.values())), weights)
    for gone in weights:
        rest = {path: weight for path, weight in weights.items() if path != gone}
        assert ecmp.spread(ecmp.spread(first, rest), weights) == first


def test_more_paths_than_buckets_leaves_none_empty() -> None:
    assert 0 not in ecmp.spread([0] * 64, dict.fromkeys(range(1, 100), 1))


def test_what_one_path_left_goes_to_all_others() -> None:
    before = ecmp.spread([0] * 64, {1: 1, 2: 1, 3: 1, 4: 1})
    after = ecmp.spread(before, {1: 1, 2: 1, 3: 1})
    heirs = Counter(new for old, new in zip(before, after, strict=True) if old == 4)
    assert set(heirs) == {1, 2, 3}
