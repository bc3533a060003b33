# SPDX-License-Identifier: Apache-2.0
"""Regions of slots and of owners: geometry that fits, and rings that start empty."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo_mp.shm.counters import read_slot
from halo_mp.shm.layout import DESCRIPTOR_OCTETS, SPARE_SIZE, ffi, lib, size_of
from halo_mp.shm.owners import count_owned, create_owners
from halo_mp.shm.pool import PoolGeometry
from halo_mp.shm.slot import SlotGeometry, create_slot
from halo_mp.shm.tables import create_tables

POOL = PoolGeometry(1000)


@given(st.sampled_from([2, 64, 512, 1024, 16384, 1 << 20]), st.integers(0, 63))
def test_geometry_rings_lie_behind_each_other_and_tx_holds_every_buffer(ring_size: int, slot: int) -> None:
    geometry = SlotGeometry(slot, POOL, ring_size)
    ends = [size_of("halo_slot")]
    for offset, entries in (
        (geometry.rx_offset, ring_size),
        (geometry.tx_offset, geometry.tx_size),
        (geometry.spare_offset, SPARE_SIZE),
    ):
        assert offset % 128 == 0
        assert ends[-1] <= offset < ends[-1] + 128
        ends.append(offset + entries * DESCRIPTOR_OCTETS)
    assert ends[-1] <= geometry.size_octets < ends[-1] + 128
    assert geometry.tx_size >= geometry.buffer_bound == ring_size + 4096
    assert geometry.tx_size & (geometry.tx_size - 1) == 0


@pytest.mark.parametrize("ring_size", [0, 1, 3, 16383, -2])
def test_geometry_ring_no_power_of_two_is_refused(ring_size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        SlotGeometry(0, POOL, ring_size)


def test_create_slot_is_disabled_and_empty(instance: str) -> None:
    region = create_slot(instance, SlotGeometry(5, POOL, 1024), generation=1)
    geometry = region.pointer.geometry
    assert (geometry.slot, geometry.ring_size, geometry.buffer_bound) == (5, 1024, 1024 + 4096)
    assert (geometry.pool.buffer_count, geometry.pool.stride_octets) == (1000, POOL.stride_octets)
    found = read_slot(region)
    assert (found["slot"], found["state"], found["worker_state"]) == (5, "disabled", "absent")
    assert (found["rx_fill"], found["tx_fill"], found["spare_fill"]) == (0, 0, 0)
    assert not any(found["worker"]["counters"].values())
    assert not any(found["driver"]["drops"].values())
    region.unlink()
    region.close()


def test_create_slot_is_what_the_fast_path_attaches_to(instance: str) -> None:
    """The C side checks the mark, the version and every offset that Python has computed."""
    region = create_slot(instance, SlotGeometry(0, POOL), generation=1)
    tables = create_tables(instance, generation=1)
    setup = ffi.new("struct halo_worker_setup *")
    setup.slot, setup.tables, setup.epoll_fd = region.pointer, tables.pointer, -1
    worker = ffi.new("struct halo_worker **")
    assert lib.halo_worker_create(setup, worker) == 0
    lib.halo_worker_detach(worker[0])
    region.pointer.header.magic += 1
    assert lib.halo_worker_create(setup, worker) < 0
    for made in (region, tables):
        made.unlink()
        made.close()


def test_create_owners_all_buffers_are_the_drivers(instance: str) -> None:
    region = create_owners(instance, POOL, generation=1)
    assert region.pointer.pool.buffer_count == 1000
    assert count_owned(region, 0) == 0
    owner = ffi.cast("uint8_t *", region.pointer) + size_of("halo_owners")
    owner[0] = owner[999] = 1
    owner[5] = 64
    assert (count_owned(region, 0), count_owned(region, 63)) == (2, 1)
    region.unlink()
    region.close()
