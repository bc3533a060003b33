# SPDX-License-Identifier: Apache-2.0
"""Packets that wait until their neighbor is resolved: RFC 1122 section 2.3.2.2.

RFC 1122 asks that at least the latest packet is kept, so the oldest of the same neighbor goes first. The
packets are owned by the entry that they wait at; the queue counts them in all.
"""

from halo_mp.stack.neighbor_cache import NeighborEntry


class HoldQueue:
    """Bounds what waits at each neighbor, and at all of them together."""

    def __init__(self, *, per_neighbor: int, in_all: int) -> None:
        self._per_neighbor = per_neighbor
        self._in_all = in_all
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def hold(self, entry: NeighborEntry, packet: bytes) -> bytes | None:
        """Keep ``packet``; return the one that is dropped for it: itself, where no other can go."""
        full = self._count >= self._in_all
        if full and not entry.held:
            return packet
        entry.held.append(packet)
        if full or len(entry.held) > self._per_neighbor:
            return entry.held.pop(0)
        self._count += 1
        return None

    def release(self, entry: NeighborEntry) -> list[bytes]:
        """All that waits for this neighbor, oldest first; nothing waits any more."""
        packets, entry.held = entry.held, []
        self._count -= len(packets)
        return packets
