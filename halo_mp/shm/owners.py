# SPDX-License-Identifier: Apache-2.0
"""The owners region: one octet per buffer, written by the driver only, outliving it. Created here."""

from __future__ import annotations

from halo_mp.shm.layout import RegionKind, ffi, size_of
from halo_mp.shm.pool import PoolGeometry
from halo_mp.shm.region import Region, region_name

_TABLE_OFFSET = size_of("halo_owners")


def create_owners(instance: str, pool: PoolGeometry, *, generation: int) -> Region:
    """Create the region with every buffer owned by the driver. Raises EnvironmentProblem."""
    size_octets = _TABLE_OFFSET + pool.buffer_count
    name = region_name(instance, "owners")
    region = Region.create(name, RegionKind.OWNERS, size_octets, generation=generation)
    pool.write_to(region.pointer.pool)
    return region


def count_owned(region: Region, slot: int) -> int:
    """Return how many buffers the slot has now."""
    return bytes(ffi.buffer(region.pointer, region.size_octets))[_TABLE_OFFSET:].count(slot + 1)
