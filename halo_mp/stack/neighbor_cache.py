# SPDX-License-Identifier: Apache-2.0
"""Where a neighbor table keeps its entries, and which of them must go when there are too many. No clock, no
packets.

Four segments, each in order of use:

* kept: configured or watched; never evicted, and not counted against the capacity.
* pending: asked for, not answered yet. Never evicted, because packets wait there: at most
  ``pending_capacity`` of them, and the next one is refused.
* hot: resolved, and used to send to. At most
  seven eighths of the capacity; what is too much, least recently used first, becomes cold.
* cold: heard of but never sent to, or failed. Evicted first, least recently learned first.

So a flood of strangers who ask for our address (each of whom RFC 826 has us learn) pushes out only strangers.
Every operation is O(1). The cache owns its entries.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from halo_mp.stack.outputs import Usability


class NeighborState(Enum):
    """RFC 4861 section 7.3.2's words, for ARP; the transitions stand in `halo_mp.stack.neighbor`."""

    INCOMPLETE = auto()
    REACHABLE = auto()
    STALE = auto()
    DELAY = auto()
    PROBE = auto()
    FAILED = auto()
    STATIC = auto()


# DELAY and PROBE are our own affair: the fast path goes on sending.
USABILITY = {
    NeighborState.INCOMPLETE: Usability.INCOMPLETE,
    NeighborState.REACHABLE: Usability.REACHABLE,
    NeighborState.STALE: Usability.STALE,
    NeighborState.DELAY: Usability.REACHABLE,
    NeighborState.PROBE: Usability.REACHABLE,
    NeighborState.FAILED: Usability.FAILED,
    NeighborState.STATIC: Usability.REACHABLE,
}


@dataclass(frozen=True, slots=True)
class Neighbor:
    """What is known of a neighbor; ``mac`` is None in the states INCOMPLETE and FAILED."""

    address: int
    mac: bytes | None
    state: NeighborState


@dataclass(slots=True, eq=False)  # compared and hashed by identity: an entry is a key of its deadline
class NeighborEntry:
    """One neighbor, as its table keeps it.

    ``attempts`` counts requests since the state began; ``used`` says that something was sent to it since it
    was learned; ``told_at`` is when it was last reported as learned, ``used_at`` when the use of another worker's
    neighbor was. ``watched`` ones are kept known without traffic, and ``up`` is what was last reported of them.
    ``copy`` is what the fast path was told last.
    """

    address: int
    state: NeighborState
    mac: bytes | None = None
    attempts: int = 0
    used: bool = False
    told_at: float | None = None
    used_at: float | None = None
    watched: bool = False
    up: bool | None = None
    copy: tuple[bytes | None, Usability] | None = None
    held: list[bytes] = field(default_factory=list)
    segment: Segment | None = None

    def snapshot(self) -> Neighbor:
        return Neighbor(self.address, self.mac, self.state)


Segment = OrderedDict[int, NeighborEntry]  # by address, the least recently placed first


class NeighborCache:
    """Entries by address, at most ``capacity`` of them (and the kept ones)."""

    def __init__(self, *, capacity: int, pending_capacity: int) -> None:
        self._capacity = capacity
        self._pending_capacity = pending_capacity
        self._hot_capacity = capacity - max(1, capacity // 8)
        self._kept: Segment = OrderedDict()
        self._pending: Segment = OrderedDict()
        self._hot: Segment = OrderedDict()
        self._cold: Segment = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept) + self._evictable_count()

    def __iter__(self) -> Iterator[NeighborEntry]:
        """All entries; the cache must not change meanwhile."""
        for segment in (self._kept, self._pending, self._hot, self._cold):
            yield from segment.values()

    def get(self, address: int) -> NeighborEntry | None:
        for segment in (self._hot, self._cold, self._pending, self._kept):
            entry = segment.get(address)
            if entry is not None:
                return entry
        return None

    @property
    def has_room_for_pending(self) -> bool:
        return len(self._pending) < self._pending_capacity

    def is_in_place(self, entry: NeighborEntry) -> bool:
        """Whether the entry stands in the segment that its state asks for."""
        return entry.segment is self._segment_for(entry)

    def place(self, entry: NeighborEntry) -> NeighborEntry | None:
        """Put the entry where it belongs, as the most recently used one; return who was evicted for it."""
        self.remove(entry)
        segment = self._segment_for(entry)
        full = segment is not self._kept and self._evictable_count() >= self._capacity
        evicted = self._evict() if full else None
        segment[entry.address] = entry
        entry.segment = segment
        if len(self._hot) > self._hot_capacity:
            self._demote()
        return evicted

    def remove(self, entry: NeighborEntry) -> None:
        """Take the entry out, if it is in."""
        if entry.segment is not None:
            del entry.segment[entry.address]
            entry.segment = None

    def _segment_for(self, entry: NeighborEntry) -> Segment:
        if entry.watched or entry.state is NeighborState.STATIC:
            return self._kept
        if entry.state is NeighborState.INCOMPLETE:
            return self._pending
        return self._hot if entry.used and entry.mac is not None else self._cold

    def _evictable_count(self) -> int:
        return len(self._pending) + len(self._hot) + len(self._cold)

    def _demote(self) -> None:
        address, entry = self._hot.popitem(last=False)
        entry.used = False
        entry.segment = self._cold
        self._cold[address] = entry

    def _evict(self) -> NeighborEntry:
        _, entry = (self._cold or self._hot).popitem(last=False)
        entry.segment = None
        return entry
