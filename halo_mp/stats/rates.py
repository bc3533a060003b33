# SPDX-License-Identifier: Apache-2.0
"""What happened between two snapshots of one run, per second, and quantiles of a distribution. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from halo_mp.shm.load import LAG_BOUNDS_NS
from halo_mp.stats.model import SlotStats, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRates:
    """Per second."""

    rx_pps: float
    tx_pps: float
    rx_bps: float
    """Bits of frames, without preamble and gap."""
    tx_bps: float
    missed_pps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRates:
    """Per second, unless something else is said."""

    rx_pps: float
    tx_pps: float
    drops_pps: float
    drops: dict[str, float]
    """By reason, those above zero, the most frequent first."""
    burst: float
    """Frames of a burst, on average."""
    lag_s: float
    """Of a hundred times that Python kept the worker, ninety-nine were shorter."""
    cycles: dict[str, float]
    """For each frame, by stage; empty where no burst was timed."""


def port_rates(before: Snapshot, after: Snapshot, number: int) -> PortRates:
    """Return the rates of a port; 0 where it was not there before."""
    old = before.ports[number].counters if number in before.ports else {}
    new, seconds = after.ports[number].counters, seconds_between(before, after)

    def rate(name: str) -> float:
        return max(0, new[name] - old.get(name, new[name])) / seconds

    return PortRates(
        rx_pps=rate("rx_frames"),
        tx_pps=rate("tx_frames"),
        rx_bps=8 * rate("rx_octets"),
        tx_bps=8 * rate("tx_octets"),
        missed_pps=rate("rx_missed"),
    )


def slot_rates(before: Snapshot, after: Snapshot, number: int) -> SlotRates:
    """Return the rates of a slot; 0 where it was not there before."""
    new = after.slots[number]
    old, seconds = before.slots.get(number, new), seconds_between(before, after)
    drops = drop_rates(old.drops, new.drops, seconds)
    bursts = max(0, new.worker["rx_bursts"] - old.worker["rx_bursts"])
    frames = max(0, new.worker["rx_frames"] - old.worker["rx_frames"])
    return SlotRates(
        rx_pps=frames / seconds,
        tx_pps=max(0, new.worker["tx_frames"] - old.worker["tx_frames"]) / seconds,
        drops_pps=sum(drops.values()),
        drops=drops,
        burst=frames / bursts if bursts else 0.0,
        lag_s=_lag_s(old, new),
        cycles=_cycles(old, new),
    )


def drop_rates(old: Mapping[str, int], new: Mapping[str, int], seconds: float) -> dict[str, float]:
    """Return drops per second by reason, those above zero, the most frequent first."""
    rates = {name: (count - old.get(name, 0)) / seconds for name, count in new.items()}
    return dict(sorted(((name, r) for name, r in rates.items() if r > 0), key=lambda item: -item[1]))


def seconds_between(before: Snapshot, after: Snapshot) -> float:
    """Return the time between them, never 0."""
    return max(after.now - before.now, 1e-9)


def quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float:
    """Return the upper bound of the bucket in which the value lies that `share` of all are not above.

    The last bucket has no bound of its own: its lower one is returned. 0.0 when nothing was counted.
    """
    wanted = share * sum(counts)
    if wanted <= 0:
        return 0.0
    seen = 0
    for count, bound in zip(counts, bounds, strict=False):
        seen += count
        if seen >= wanted:
            return bound
    return bounds[-1]


def _lag_s(old: SlotStats, new: SlotStats) -> float:
    counts = [max(0, after - before) for before, after in zip(old.load.lags, new.load.lags, strict=True)]
    return quantile(counts, LAG_BOUNDS_NS, 0.99) / 1e9


def _cycles(old: SlotStats, new: SlotStats) -> dict[str, float]:
    frames = new.load.timed_frames - old.load.timed_frames
    if frames <= 0:
        return {}
    return {name: max(0, count - old.load.cycles[name]) / frames for name, count in new.load.cycles.items()}
