# SPDX-License-Identifier: Apache-2.0
"""Packets without a worker, so that hooks can be tried in unit tests: the same C parses and settles them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from halo_mp.app.verdict import Verdict
from halo_mp.shm.layout import DROP_NAMES, ffi, lib
from halo_mp.shm.pool import PoolGeometry

TIMESTAMP_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Settled:
    """What has become of a packet after a hook."""

    verdict: Verdict
    reason: str | None
    """Of a drop: the name of its counter."""
    frame: bytes
    """With what the hook wrote, its checksums mended."""
    tx_port: int


class Trial:
    """A burst in a pool of its own."""

    def __init__(self, frames: Sequence[bytes], *, port: int = 0, tx_port: int = 0) -> None:
        """Raises ValueError when a worker would have dropped a frame before any hook."""
        geometry = PoolGeometry(buffer_count=max(1, len(frames)))
        longest = max(map(len, frames), default=0)
        if longest > geometry.data_octets:
            raise ValueError(f"a frame has {longest} octets, and a buffer holds {geometry.data_octets}")
        self.geometry = ffi.new("struct halo_pool_geometry *")
        geometry.write_to(self.geometry)
        self.pool_octets = geometry.size_octets
        self._octets = ffi.new("uint8_t[]", self.pool_octets)
        self.pool = self._octets + 0
        self.count = len(frames)
        self._memory = ffi.new("struct halo_packet[]", max(1, len(frames)))
        self.packets = self._memory + 0  # a pointer, as a worker's are
        for index, frame in enumerate(frames):
            packet = self.packets[index]
            packet.offset, packet.length, packet.port = geometry.frame_offset(index), len(frame), port
            ffi.memmove(self.pool + packet.offset, bytes(frame), len(frame))
        lib.halo_packets_parse(self.pool, self.geometry, self.packets, self.count, TIMESTAMP_NS)
        for index in range(self.count):
            packet = self.packets[index]
            packet.tx_port = tx_port
            if packet.verdict == Verdict.DROP:
                reason = DROP_NAMES[packet.reason]
                raise ValueError(f"frame {index} would reach no hook: a worker drops it as {reason}")
        self._shadows = ffi.new("struct halo_shadow[]", max(1, self.count))
        self.open()

    def open(self) -> None:
        """Be as packets are when a hook gets them."""
        lib.halo_packets_remember(self.pool, self.packets, self.count, self._shadows)
        lib.halo_view_open(self.pool, self.packets, self.count)

    def settle(self) -> list[Settled]:
        """Do what a worker does after a hook."""
        lib.halo_view_close(self.packets, self.count)
        counted = ffi.new("struct halo_settled *")
        lib.halo_packets_settle(
            self.pool, self.geometry, self.packets, self.count, self._shadows, lib.HALO_HOOK_PASS, counted
        )
        found = [self._settled(self.packets[index]) for index in range(self.count)]
        self.open()
        return found

    def _settled(self, packet: Any) -> Settled:
        return Settled(
            verdict=Verdict(packet.verdict),
            reason=DROP_NAMES[packet.reason] if packet.verdict == Verdict.DROP else None,
            frame=bytes(ffi.buffer(self.pool + packet.offset, packet.length)),
            tx_port=packet.tx_port,
        )
