# SPDX-License-Identifier: Apache-2.0
"""Totals that never go backwards, rates, and drops by port."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo_mp.shm.layout import PortState, lib
from halo_mp.shm.ports import forget_driver
from halo_mp.stats.totals import Totals
from halo_mp.supervisor.regions import Regions
from halo_mp.supervisor.statistics import Statistics
from tests.unit.supervisor.tree import build_config

CONFIG = build_config(name=f"u{os.getpid() % 100000}")


@pytest.fixture
def regions() -> Iterator[Regions]:
    made = Regions.create(CONFIG, generation=1)
    yield made
    made.close()
    made.close()


def count(regions: Regions, port: int, frames: int, octets: int) -> None:
    status = regions.ports.pointer.port[port]
    status.state = PortState.STARTED
    status.rx_frames, status.tx_frames = frames, 2 * frames
    status.rx_octets, status.tx_octets = octets, 2 * octets


@given(st.lists(st.lists(st.integers(0, 100), min_size=1, max_size=5), min_size=1, max_size=5))
def test_totals_over_restarts_are_the_sum(lives: list[list[int]]) -> None:
    totals, expected, last = Totals(), 0, 0
    for steps in lives:
        value = 0
        for step in steps:
            value += step
            expected += step
            found = totals.update({"n": value})["n"]
            assert found == expected >= last
            last = found
        totals.restarted()


def test_totals_source_that_starts_again_unseen_goes_on() -> None:
    totals = Totals()
    totals.update({"n": 100})
    assert totals.update({"n": 5}) == {"n": 105}


def test_sample_gives_rates_over_the_time_that_passed(regions: Regions) -> None:
    statistics = Statistics(CONFIG, regions)
    count(regions, 0, 100, 6000)
    first = statistics.sample(10.0)
    assert [(line.port, line.rx_pps, line.rx_octets) for line in first] == [(0, 0, 6000), (1, 0, 0)]
    count(regions, 0, 1100, 66000)
    second = statistics.sample(12.0)[0]
    assert (second.rx_pps, second.tx_pps, second.rx_octets, second.tx_octets) == (500, 1000, 66000, 132000)


def test_sample_new_driver_counts_on(regions: Regions) -> None:
    statistics = Statistics(CONFIG, regions)
    count(regions, 0, 100, 6000)
    statistics.sample(0.0)
    count(regions, 0, 150, 9000)  # counted between the last sample and its death
    statistics.driver_died()
    forget_driver(regions.ports)
    assert statistics.sample(1.0)[0].rx_octets == 9000
    count(regions, 0, 170, 10000)  # more than before, and yet a new count
    line = statistics.sample(2.0)[0]
    assert (line.rx_octets, line.rx_pps) == (19000, 170)


def test_sample_half_written_update_is_left_out(regions: Regions) -> None:
    statistics = Statistics(CONFIG, regions)
    count(regions, 0, 100, 6000)
    statistics.sample(0.0)
    count(regions, 0, 1, 1)
    regions.ports.pointer.port[0].updates = 1
    assert statistics.sample(1.0)[0].rx_octets == 6000


def test_sample_drops_of_both_sides_stand_with_the_port(regions: Regions) -> None:
    slot = regions.slots[1].region.pointer
    slot.worker.drops[lib.HALO_DROP_runt] = 3
    slot.driver.drops[lib.HALO_DROP_runt] = 1
    slot.driver.drops[lib.HALO_DROP_rx_ring_full] = 7
    first, second = Statistics(CONFIG, regions).sample(0.0)
    assert (first.drops, second.drops) == ({}, {"rx_ring_full": 7, "runt": 4})
    assert list(second.fields()) == ["port", "rx_pps", "tx_pps", "rx_octets", "tx_octets", "drops"]
