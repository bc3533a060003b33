# SPDX-License-Identifier: Apache-2.0
"""Spreading flows over several paths: buckets by weight, and as few of them moved as possible.

A flow's hash names a bucket, a bucket a path. When a path goes, only its buckets get another one; when one
comes, it gets its share from those that have more than theirs, and first what it had before it went. So a flow
keeps its path for as long as that is there (resilient hashing). Pure functions.
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
    fresh = _fill([0] * len(before), wanted)
    left = Counter(wanted)
    buckets = [0] * len(before)
    # What these paths would have had from the start comes first: so a path that comes back takes what it had before,
    # and not from flows that have never moved.
    order = sorted(range(len(before)), key=lambda bucket: before[bucket] != fresh[bucket])
    for bucket in order:
        if left[before[bucket]] > 0:
            left[before[bucket]] -= 1
            buckets[bucket] = before[bucket]
    return _fill(buckets, left)


def _fill(buckets: Sequence[int], missing: Mapping[int, int]) -> list[int]:
    """Return the buckets with the empty ones given to paths that miss so many each, as many as there are."""
    paths = [path for path, count in missing.items() for _ in range(count)]
    # Taken in turn, so that what one path left goes to all others and not to the first of them.
    return [path or paths.pop(i % len(paths)) for i, path in enumerate(buckets)]
