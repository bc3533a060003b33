# SPDX-License-Identifier: Apache-2.0
"""What workers have learned about neighbors, merged.

A worker uses what it learned at once and needs nobody for that; this makes it known to the others, and to
workers that start later. Nothing expires here: workers check their neighbors themselves. The table is
bounded, so that a flood of made-up senders on one port costs no more than the oldest entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from halo_mp.control.messages import Neighbor, Place

CAPACITY = 131072


class NeighborTable:
    """(port, VLAN, address) → MAC, the most recently changed last."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._macs: dict[tuple[int, int, int], bytes] = {}
        self.on_touched: Callable[[Iterable[Place]], None] = lambda _places: None
        """Called with what was changed, has come, or has gone; of static neighbors `Published` says so."""

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
        if news:
            self.on_touched(each[:3] for each in news)
        while len(self._macs) > self._capacity:
            oldest = next(iter(self._macs))
            del self._macs[oldest]
            self.on_touched([oldest])
        return news

    def mac(self, place: Place) -> bytes | None:
        """Return the MAC address of a neighbor."""
        return self._macs.get(place)

    def __contains__(self, place: object) -> bool:
        return place in self._macs

    def remove(self, places: Iterable[Place]) -> None:
        """Forget neighbors, as far as they are known."""
        gone = list(places)
        for place in gone:
            self._macs.pop(place, None)
        self.on_touched(gone)

    def is_current(self, neighbor: Neighbor) -> bool:
        """Whether a neighbor is still known, with that MAC."""
        return self._macs.get(neighbor[:3]) == neighbor[3]

    def all(self) -> list[Neighbor]:
        """Return every neighbor, for a worker that starts."""
        return [(*where, mac) for where, mac in self._macs.items()]
