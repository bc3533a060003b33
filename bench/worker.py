# SPDX-License-Identifier: Apache-2.0
"""`bench worker`: what a frame costs in the worker alone, with everything in this core's caches.

No driver and no second core: frames lie on the rx ring, the fast path takes them off, swaps MAC addresses, lowers the
TTL, and puts them on the tx ring. The difference to `bench io` is the hand-off between cores, and the driver.
"""

from __future__ import annotations

import mmap
import select
import statistics
import time
from dataclasses import dataclass
from os import EFD_CLOEXEC, EFD_NONBLOCK, eventfd
from typing import Any

from bench.frames import udp_frame
from bench.rows import Row, interval
from halo_mp.shm.layout import (
    CHUNK_OCTETS,
    LAYOUT_VERSION,
    MAGIC,
    IdlePolicy,
    RegionKind,
    SlotState,
    ffi,
    size_of,
)
from halo_mp.shm.pool import PoolGeometry
from halo_mp.shm.slot import SlotGeometry
from halo_mp.workers.fastpath import FastPath

FRAME_OCTETS = 60
BUFFERS = 256  # as many as are on their way in a driver that keeps up
POLL_NS = 100_000
REPEATS = 40

_FRAMES = [udp_frame(index, FRAME_OCTETS, ttl=255) for index in range(BUFFERS)]


@dataclass(slots=True)
class Rig:
    """A slot and a pool in private memory, and a fast path attached to them."""

    slot: Any
    pool: Any
    geometry: SlotGeometry
    fastpath: FastPath


def run(rounds: int) -> list[Row]:
    """Return nanoseconds per frame of 60 octets."""
    rig = _build()
    costs = [cost for _ in range(rounds) for cost in _measure(rig)]
    median = statistics.median(costs)
    return [Row(metric="worker.alone.ns_per_frame", value=median, unit="ns", note=interval(costs))]


def _measure(rig: Rig) -> list[float]:
    costs = []
    for _ in range(REPEATS):
        _fill(rig)
        before, begin = rig.slot.worker.rx_frames, time.perf_counter_ns()
        rig.fastpath.poll(POLL_NS)
        elapsed_ns = time.perf_counter_ns() - begin
        frames = rig.slot.worker.rx_frames - before
        if rig.slot.rx.producer != rig.slot.rx.consumer:  # else it ran dry, and waited
            costs.append(elapsed_ns / frames)
    return costs


def _fill(rig: Rig) -> None:
    """Have rx full and tx empty, as a driver would."""
    slot, geometry = rig.slot, rig.geometry
    slot.tx.consumer = slot.tx.producer
    for index, frame in enumerate(_FRAMES):  # with a TTL to lower
        ffi.memmove(rig.pool + geometry.pool.frame_offset(index), frame, len(frame))
    entries = ffi.cast("struct halo_descriptor *", ffi.cast("uint8_t *", slot) + geometry.rx_offset)
    frame_offsets = [geometry.pool.frame_offset(index) for index in range(BUFFERS)]
    start = slot.rx.producer
    count = geometry.ring_size - (start - slot.rx.consumer) % 2**32
    for position in range(count):
        entry = entries[(start + position) % geometry.ring_size]
        entry.offset, entry.length, entry.port = frame_offsets[position % BUFFERS], FRAME_OCTETS, 0
    slot.rx.producer = (start + count) % 2**32


def _memory(octets: int) -> Any:
    return ffi.from_buffer(
        mmap.mmap(-1, octets, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    )


def _build() -> Rig:
    geometry = SlotGeometry(slot=0, pool=PoolGeometry(buffer_count=BUFFERS))
    memory = [
        _memory(size)
        for size in (geometry.size_octets, CHUNK_OCTETS, size_of("halo_tables"), size_of("halo_fib"))
    ]
    slot = ffi.cast("struct halo_slot *", memory[0])
    pool = ffi.cast("uint8_t *", memory[1])
    tables = ffi.cast("struct halo_tables *", memory[2])
    slot.header.magic, slot.header.layout_version = MAGIC, LAYOUT_VERSION
    slot.header.kind, slot.header.size_octets = RegionKind.SLOT, geometry.size_octets
    for field, _ in ffi.typeof("struct halo_slot_geometry").fields[:-1]:
        setattr(slot.geometry, field, getattr(geometry, field))
    geometry.pool.write_to(slot.geometry.pool)
    slot.life.state = SlotState.ENABLED
    tables.epoch = 1
    doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    epoll = select.epoll()
    epoll.register(doorbell, select.EPOLLIN)
    fastpath = FastPath(
        pool=pool,
        slot=slot,
        tables=tables,
        fib=ffi.cast("struct halo_fib *", memory[3]),
        doorbell_fd=doorbell,
        driver_doorbell_fd=doorbell,
        epoll_fd=epoll.fileno(),
        idle=IdlePolicy.POLL,
        spin_ns=0,
        debug=False,
    )
    _KEPT.extend([*memory, epoll])
    fastpath.set_macswap(0, 1)
    fastpath.poll(0)
    return Rig(slot, pool, geometry, fastpath)


_KEPT: list[object] = []  # cffi and C hold pointers into these
