# SPDX-License-Identifier: Apache-2.0
"""What workers have learned about neighbors, merged.

A worker uses what it learned at once and needs nobody for that; this makes it known to the others, and to
workers that start later. Nothing expires here: workers check their neighbors themselves. The table is
bounded, so that a flood of made-up senders on one port costs no more than the oldest entries.
"""

from __future__ import annotations

from collections.abc import Iterable

from halo_mp.control.messages import Neighbor, Place

CAPACITY = 131072


class NeighborTable:
    """(port, VLAN, address) → MAC, the most recently changed last."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._macs: dict[tuple[int, int, int], bytes] = {}

    def __len__(self) -> int:
        return len(self._macs)

    def merge(self, learned: Iterable[Neighbor]) -> list[Neighbor]:
        """Take what a worker learned and return what of it is new: what the others need to hear."""
        news = []
        for neighbor in learned:
            *key, mac = neighbor
            where = (key[0], key[1], key[2])
            if self._macs.get(where) != mac:
                self._macs.pop(where, None)
                self._macs[where] = mac
                news.append(neighbor)
        while len(self._macs) > self._capacity:
            del self._macs[next(iter(self._macs))]
        return news

    def __contains__(self, place: object) -> bool:
        return place in self._macs

    def remove(self, places: Iterable[Place]) -> None:
        """Forget neighbors, as far as they are known."""
        for place in places:
            self._macs.pop(place, None)

    def is_current(self, neighbor: Neighbor) -> bool:
        """Whether a neighbor is still known, with that MAC."""
        return self._macs.get(neighbor[:3]) == neighbor[3]

    def all(self) -> list[Neighbor]:
        """Return every neighbor, for a worker that starts."""
        return [(*where, mac) for where, mac in self._macs.items()]
