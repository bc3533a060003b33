# SPDX-License-Identifier: Apache-2.0
"""Sums of somebody else, which may be behind for a moment. Totals: tests/unit/supervisor/test_statistics.py."""

from __future__ import annotations

from halo_mp.stats.totals import Floor


def test_floor_never_falls_and_forgets_nothing() -> None:
    floor = Floor()
    assert floor.update({"a": 5}) == {"a": 5}
    assert floor.update({"a": 3, "b": 1}) == {"a": 5, "b": 1}
    assert floor.update({"b": 2}) == {"a": 5, "b": 2}
    assert floor.update({"a": 6}) == {"a": 6, "b": 2}
