# SPDX-License-Identifier: Apache-2.0
"""Totals and rates of an instance, from the counters in shared memory.

A total never goes backwards: what a dead driver's ports had counted stays in it. Rates are over the time
between two samples. Frames are counted per port by the driver; drops are counted per slot, and stand with
the first port that feeds the slot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from halo_mp.shm.counters import (
    PortsSnapshot,
    port_counters,
    read_driver_counters,
    read_ports,
    read_worker_counters,
)
from halo_mp.stats.totals import Totals
from halo_mp.supervisor.config import Config
from halo_mp.supervisor.regions import Regions


@dataclass(frozen=True, slots=True)
class PortLine:
    """One line of --stats-log. Octets and drops are totals since the instance was started."""

    port: int
    rx_pps: int
    tx_pps: int
    rx_octets: int
    tx_octets: int
    drops: dict[str, int]

    def fields(self) -> dict[str, Any]:
        """Return it as fields of a log event."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class _Sample:
    at: float
    totals: dict[int, dict[str, int]] = field(default_factory=dict)


class Statistics:
    """Samples the counters of one instance."""

    def __init__(self, config: Config, regions: Regions) -> None:
        self._regions = regions
        self._ports = {port.number: Totals() for port in config.ports}
        self._drops = {slot.number: Totals() for slot in config.slots}
        self._first_port = {slot.number: slot.feeds[0][0] for slot in config.slots if slot.feeds}
        self._previous: _Sample | None = None

    def driver_died(self) -> None:
        """Keep what the ports of a dead driver had counted; its successor's count from zero."""
        self._update_ports(read_ports(self._regions.ports))
        for totals in self._ports.values():
            totals.restarted()

    def kept(self) -> dict[str, dict[str, int]]:
        """Return what the ports of drivers before this one have counted, for who goes on after us."""
        return {str(number): totals.kept for number, totals in self._ports.items()}

    def keep(self, kept: Mapping[str, Mapping[str, int]]) -> None:
        """Go on from there."""
        for number, totals in self._ports.items():
            totals.keep(kept.get(str(number), {}))

    def sample(self, now: float) -> list[PortLine]:
        """Return a line per port; rates are 0 in the first."""
        current = _Sample(now, self._update_ports(read_ports(self._regions.ports)))
        previous = self._previous or current
        self._previous = current
        passed_s = max(now - previous.at, 1e-9)
        drops = self._drops_by_port()
        return [
            PortLine(
                port=port,
                rx_pps=_rate(previous, current, port, "rx_frames", passed_s),
                tx_pps=_rate(previous, current, port, "tx_frames", passed_s),
                rx_octets=totals.get("rx_octets", 0),
                tx_octets=totals.get("tx_octets", 0),
                drops=dict(drops[port]),
            )
            for port, totals in sorted(current.totals.items())
        ]

    def _update_ports(self, snapshot: PortsSnapshot) -> dict[int, dict[str, int]]:
        found = snapshot["ports"]
        # A half-written update is left out; its totals stay what they were.
        return {
            number: totals.update(
                port_counters(found[number]) if number in found and found[number]["whole"] else {}
            )
            for number, totals in self._ports.items()
        }

    def _drops_by_port(self) -> dict[int, Counter[str]]:
        """Return the drops that happened, by reason."""
        by_port: dict[int, Counter[str]] = {number: Counter() for number in self._ports}
        for number, totals in self._drops.items():
            region = self._regions.slots[number].region
            found = Counter(read_worker_counters(region)["drops"])
            found.update(read_driver_counters(region)["drops"])
            happened = {name: count for name, count in totals.update(found).items() if count}
            if number in self._first_port:
                by_port[self._first_port[number]].update(happened)
        return by_port


def _rate(previous: _Sample, current: _Sample, port: int, name: str, passed_s: float) -> int:
    before = previous.totals.get(port, {}).get(name, 0)
    return round((current.totals[port].get(name, 0) - before) / passed_s)
