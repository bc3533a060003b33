# SPDX-License-Identifier: Apache-2.0
"""What an operator may set about a neighbor table, with our defaults. Values only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighborSettings:
    """Times in seconds; capacities in entries and packets.

    ``reachable_s`` is drawn anew each time from ``reachable_s`` * (1 - spread) to (1 + spread), so that
    neighbors that were learned together are not asked together (RFC 4861 section 6.3.2). ``stale_s`` is how
    long an unused neighbor is remembered, ``failed_s`` how long a silent one is not asked again, ``watch_s`` how
    often a silent one that is watched is asked. Of another worker's neighbors, uses are reported each ``used_s`` at
    most, and those that were not confirmed for ``foreign_s`` are forgotten.
    """

    reachable_s: float = 30.0
    reachable_spread: float = 0.5
    stale_s: float = 300.0
    delay_s: float = 5.0
    failed_s: float = 3.0
    watch_s: float = 5.0
    used_s: float = 15.0
    foreign_s: float = 600.0
    capacity: int = 131072
    pending_capacity: int = 1024
    held_per_neighbor: int = 64  # the longest packet is 45 fragments of 1500 octets
    held_in_all: int = 4096

    def __post_init__(self) -> None:
        for name in ("reachable_s", "stale_s", "delay_s", "failed_s", "watch_s", "used_s", "foreign_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, not above 0")
        if not 0 <= self.reachable_spread < 1:
            raise ValueError(f"reachable_spread is {self.reachable_spread}, not within 0 to 1")
        if not 0 < self.pending_capacity < self.capacity:
            raise ValueError(f"pending_capacity is {self.pending_capacity}, not within 1 to capacity - 1")
        if not 0 < self.held_per_neighbor <= self.held_in_all:
            raise ValueError(f"held_per_neighbor is {self.held_per_neighbor}, not within 1 to held_in_all")
