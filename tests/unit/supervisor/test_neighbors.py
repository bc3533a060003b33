# SPDX-License-Identifier: Apache-2.0
"""Merging what workers have learned."""

from hypothesis import given
from hypothesis import strategies as st

from halo_mp.control.messages import NEIGHBORS_PER_MESSAGE, chunks
from halo_mp.supervisor.neighbors import NeighborTable

A, B = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
neighbors = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(1, 9), st.sampled_from([A, B]))


def test_merge_returns_what_is_new_or_changed() -> None:
    table = NeighborTable()
    assert table.merge([(0, 0, 1, A), (0, 0, 2, A)]) == [(0, 0, 1, A), (0, 0, 2, A)]
    assert table.merge([(0, 0, 1, A)]) == []
    assert table.merge([(0, 0, 1, B), (0, 5, 1, A), (1, 0, 1, A)]) == [
        (0, 0, 1, B),
        (0, 5, 1, A),
        (1, 0, 1, A),
    ]
    assert sorted(table.all()) == [(0, 0, 1, B), (0, 0, 2, A), (0, 5, 1, A), (1, 0, 1, A)]


def test_merge_flood_costs_the_oldest_entries_only() -> None:
    table = NeighborTable(capacity=10)
    table.merge([(0, 0, address, A) for address in range(1, 1000)])
    assert table.all() == [(0, 0, address, A) for address in range(990, 1000)]
    table.merge([(0, 0, 990, B), (0, 0, 5000, A)])
    assert (0, 0, 990, B) in table.all()
    assert len(table) == 10


@given(st.lists(st.lists(neighbors, max_size=5), max_size=20))
def test_merge_news_applied_elsewhere_give_the_same_table(
    told: list[list[tuple[int, int, int, bytes]]],
) -> None:
    table, other = NeighborTable(), NeighborTable()
    for learned in told:
        other.merge(table.merge(learned))
    assert sorted(other.all()) == sorted(table.all())


def test_chunks_hold_everything_in_order() -> None:
    every = [(0, 0, address, A) for address in range(1, 3 * NEIGHBORS_PER_MESSAGE)]
    found = list(chunks(every))
    assert [entry for chunk in found for entry in chunk] == every
    assert {len(chunk) for chunk in found[:-1]} == {NEIGHBORS_PER_MESSAGE}
    assert list(chunks([])) == []
