# SPDX-License-Identifier: Apache-2.0
"""What happened between two snapshots, per second, and quantiles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from halo_mp.stats.rates import drop_rates, port_rates, quantile, seconds_between, slot_rates
from halo_mp.stats.reader import Reader
from tests.support.regions import Regions


def test_rates_are_of_what_happened_between(regions: Regions, reader: Reader) -> None:
    regions.forward(1000)
    before = reader.read()
    regions.forward(64000)
    after = replace(reader.read(), now=before.now + 2)
    port, slot = port_rates(before, after, 0), slot_rates(before, after, 0)
    assert (port.rx_pps, port.tx_pps, port.rx_bps) == (32000, 16000, 8 * 64 * 32000)
    assert (slot.rx_pps, slot.tx_pps, slot.burst) == (32000, 16000, 50)
    assert slot.drops == {"ipv4_no_route": 3200, "rx_ring_full": 320}
    assert slot.drops_pps == 3520
    assert slot.cycles == {
        "receive": 10,
        "parse": 11,
        "input": 12,
        "route": 13,
        "forward": 14,
        "finish": 15,
    }
    assert slot.lag_s == pytest.approx(16.384e-6)
    other = port_rates(before, after, 1)
    assert (other.rx_pps, other.tx_pps, other.missed_pps) == (0, 0, 0)


def test_what_was_not_there_before_has_no_rate(regions: Regions, reader: Reader) -> None:
    regions.forward(1000)
    after = reader.read()
    before = replace(after, ports={}, slots={}, now=after.now - 1)
    assert port_rates(before, after, 0).rx_pps == 0
    slot = slot_rates(before, after, 0)
    assert (slot.rx_pps, slot.drops, slot.burst, slot.cycles, slot.lag_s) == (0, {}, 0, {}, 0)


def test_same_moment_divides_by_no_zero(reader: Reader) -> None:
    found = reader.read()
    assert seconds_between(found, found) > 0


def test_drop_rates_most_frequent_first() -> None:
    assert list(drop_rates({"a": 1, "b": 1}, {"a": 2, "b": 9, "c": 0}, 1)) == ["b", "a"]


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ((0, 0, 0), 0.5, 0.0),
        ((1, 0, 0), 0.5, 10.0),
        ((9, 1, 0), 0.9, 10.0),
        ((9, 1, 0), 0.99, 20.0),
        ((0, 0, 5), 0.5, 20.0),
    ],
)
def test_quantile(counts: tuple[int, ...], share: float, expected: float) -> None:
    assert quantile(counts, (10.0, 20.0), share) == expected
