# SPDX-License-Identifier: Apache-2.0
"""The region of a slot: header, counters, and the descriptors of its three rings. Created here, once."""

from __future__ import annotations

from dataclasses import dataclass

from halo_mp.shm.layout import DESCRIPTOR_OCTETS, SPARE_SIZE, RegionKind, size_of
from halo_mp.shm.pool import PoolGeometry
from halo_mp.shm.region import Region, region_name

RING_SIZE = 16384  # absorbs 16 ms of Python at 1 Mpps
BOUND_MARGIN = 4096  # buffers of a slot that are not on its rx ring: spares, punted, on the way out
_ALIGNMENT = 128


@dataclass(frozen=True, slots=True)
class SlotGeometry:
    """Where the rings of a slot lie and how many entries they have."""

    slot: int
    pool: PoolGeometry
    ring_size: int = RING_SIZE
    spare_size: int = SPARE_SIZE
    share: int | None = None
    """Of the pool: at most so many buffers are the slot's at a time, that it can not take those of others."""

    def __post_init__(self) -> None:
        for size in (self.ring_size, self.spare_size):
            if size < 2 or size & (size - 1):
                raise ValueError(f"a ring of {size} entries; it must be a power of two")

    @property
    def buffer_bound(self) -> int:
        """Buffers that the slot may have outstanding."""
        most = self.ring_size + BOUND_MARGIN
        return most if self.share is None else min(most, self.share)

    @property
    def tx_size(self) -> int:
        """Entries of the tx ring: with room for every buffer of the slot, it can not overflow."""
        return 1 << (self.ring_size + BOUND_MARGIN - 1).bit_length()

    @property
    def rx_offset(self) -> int:
        """Of the rx descriptors, from the start of the region."""
        return _align(size_of("halo_slot"))

    @property
    def tx_offset(self) -> int:
        """Of the tx descriptors."""
        return _align(self.rx_offset + self.ring_size * DESCRIPTOR_OCTETS)

    @property
    def spare_offset(self) -> int:
        """Of the spare descriptors."""
        return _align(self.tx_offset + self.tx_size * DESCRIPTOR_OCTETS)

    @property
    def size_octets(self) -> int:
        """Of the whole region."""
        return _align(self.spare_offset + self.spare_size * DESCRIPTOR_OCTETS)


def create_slot(instance: str, geometry: SlotGeometry, *, generation: int) -> Region:
    """Create the region of a slot, its rings empty and disabled. Raises EnvironmentProblem."""
    name = region_name(instance, f"slot.{geometry.slot}")
    region = Region.create(name, RegionKind.SLOT, geometry.size_octets, generation=generation)
    write_geometry(region, geometry)
    return region


def write_geometry(region: Region, geometry: SlotGeometry) -> None:
    """Write where the rings lie, which only the supervisor may."""
    struct = region.pointer.geometry
    for field in ("slot", "ring_size", "tx_size", "spare_size", "rx_offset", "tx_offset", "spare_offset"):
        setattr(struct, field, getattr(geometry, field))
    struct.buffer_bound = geometry.buffer_bound
    geometry.pool.write_to(struct.pool)


def _align(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
