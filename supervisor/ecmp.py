# SPDX-License-Identifier: Apache-2.0
"""Spreading flows over several paths: buckets by weight, and as few of them moved as possible.

A flow's hash names a bucket, a bucket a path. When a path goes, only its buckets get another one; when one
comes, it gets its share from those that have more than theirs. So a flow keeps its path for as long as that
is there (resilient hashing). Pure functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from halo_mp.shm.fib import MAX_GROUP_BUCKETS, MIN_GROUP_BUCKETS

BUCKETS_PER_WEIGHT = 8  # at least, so that a path's share is within an eighth of its weight


def bucket_count(weights: Sequence[int]) -> int:
    """Return how many buckets a group of paths with these weights gets: a power of two."""
    wanted = max(MIN_GROUP_BUCKETS, BUCKETS_PER_WEIGHT * sum(weights))
    return min(MAX_GROUP_BUCKETS, 1 << (wanted - 1).bit_length())


def shares(weights: Mapping[int, int], buckets: int) -> dict[int, int]:
    """Return how many of the buckets each path gets; they differ from the exact shares by less than one."""
    total = sum(weights.values())
    found = {path: buckets * weight // total for path, weight in weights.items()}
    remainders = sorted(weights, key=lambda path: (-(buckets * weights[path] % total), path))
    for path in remainders[: buckets - sum(found.values())]:
        found[path] += 1
    return found


def spread(before: Sequence[int], weights: Mapping[int, int]) -> list[int]:
    """Return the buckets, as they were or empty (0), spread over these paths; `weights` must not be empty."""
    wanted = shares(weights, len(before))
    kept: Counter[int] = Counter()
    buckets: list[int] = []
    for path in before:
        keep = kept[path] < wanted.get(path, 0)
        kept[path] += keep
        buckets.append(path if keep else 0)
    missing = [path for path in wanted for _ in range(wanted[path] - kept[path])]
    # Taken in turn, so that what one path left goes to all others and not to the first of them.
    return [path or missing.pop(i % len(missing)) for i, path in enumerate(buckets)]
