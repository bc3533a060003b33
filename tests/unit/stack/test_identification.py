# SPDX-License-Identifier: Apache-2.0
"""Identifications do not come back soon, and do not follow from each other."""

import random

from halo_mp.stack.identification import COUNTERS, Identifications
from tests.unit.stack.harness import ADDRESS, OTHER, PEER


def test_all_of_them_come_before_one_comes_again() -> None:
    made = Identifications(random.Random(1))
    taken = [made.take(ADDRESS, PEER, 1) for _ in range(65537)]
    assert sorted(taken[:65536]) == list(range(65536))
    assert taken[65536] == taken[0]


def test_peers_and_protocols_count_for_themselves() -> None:
    made = Identifications(random.Random(1))
    first = made.take(ADDRESS, PEER, 1)
    for _ in range(100):
        made.take(ADDRESS, OTHER, 1)
        made.take(ADDRESS, PEER, 17)
        made.take(OTHER, PEER, 1)
    assert made.take(ADDRESS, PEER, 1) == first + 1 & 0xFFFF


def test_starts_differ_between_peers_and_between_instances() -> None:
    made = Identifications(random.Random(1))
    peers = {made.take(ADDRESS, number, 1) for number in range(COUNTERS)}
    instances = {Identifications(random.Random(number)).take(ADDRESS, PEER, 1) for number in range(100)}
    assert len(peers) > COUNTERS // 2
    assert len(instances) > 90
