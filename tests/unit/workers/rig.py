# SPDX-License-Identifier: Apache-2.0
"""A worker's fast path on a slot and a pool in private memory, with tables and routes that the test writes."""

from __future__ import annotations

import mmap
import os
import select
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from halo_mp.shm.fib import Change, ChangeKind, FibWriter, create_fib, create_routes
from halo_mp.shm.layout import (
    CHUNK_OCTETS,
    LAYOUT_VERSION,
    MAGIC,
    IdlePolicy,
    RegionKind,
    SlotState,
    ffi,
)
from halo_mp.shm.pool import PoolGeometry
from halo_mp.shm.region import Region
from halo_mp.shm.slot import SlotGeometry
from halo_mp.shm.tables import Interface, TablesWriter, create_tables
from halo_mp.workers.fastpath import FastPath

SLOT = 3
OTHER_SLOT = 7
BUFFERS = 64


@dataclass(slots=True)
class Rig:
    """The driver's and the supervisor's side are the test's."""

    slot: Any
    pool: Any
    geometry: SlotGeometry
    tables: TablesWriter
    fib: Region
    routes: FibWriter
    fastpath: FastPath

    def set_interfaces(self, interfaces: Mapping[int, Interface]) -> None:
        """Write the tables, and let the fast path see them."""
        self.tables.write(interfaces)
        self.fastpath.poll(0)

    def route(self, prefix: int, length: int, target: int) -> None:
        """Add a route, or replace it."""
        [outcome] = self.routes.apply([Change(ChangeKind.REPLACE, prefix, length, target)])
        assert outcome.error == 0

    def deliver(self, frame: bytes, port: int = 0, flags: int = 0) -> int:
        """Put a frame on rx, and poll once; return the reasons."""
        position = self.slot.rx.producer
        offset = self.geometry.pool.frame_offset(position % BUFFERS)
        ffi.memmove(self.pool + offset, frame, len(frame))
        entries = ffi.cast(
            "struct halo_descriptor *", ffi.cast("uint8_t *", self.slot) + self.geometry.rx_offset
        )
        entry = entries[position % self.geometry.ring_size]
        entry.offset, entry.length, entry.port, entry.flags = offset, len(frame), port, flags
        self.slot.rx.producer = position + 1
        return self.fastpath.poll(0)

    def give_spares(self, count: int) -> None:
        """Let the worker have buffers for frames of its own, from the far end of the pool."""
        entries = ffi.cast(
            "struct halo_descriptor *", ffi.cast("uint8_t *", self.slot) + self.geometry.spare_offset
        )
        for _ in range(count):
            position = self.slot.spare.producer
            index = BUFFERS + position % BUFFERS
            entries[position % self.geometry.spare_size].offset = self.geometry.pool.frame_offset(index)
            self.slot.spare.producer = position + 1

    def sent(self) -> list[tuple[int, int, bytes]]:
        """Take what lies on tx: action, port or slot, and octets."""
        self.fastpath.flush()
        entries = ffi.cast(
            "struct halo_descriptor *", ffi.cast("uint8_t *", self.slot) + self.geometry.tx_offset
        )
        found = []
        while self.slot.tx.consumer != self.slot.tx.producer:
            entry = entries[self.slot.tx.consumer % self.geometry.tx_size]
            octets = bytes(ffi.buffer(self.pool + entry.offset, entry.length))
            found.append((entry.flags, entry.port, octets))
            self.slot.tx.consumer += 1
        return found


@contextmanager
def rig(instance: str, interfaces: Mapping[int, Interface]) -> Iterator[Rig]:
    """Yield a fast path that is attached, enabled and knows these interfaces."""
    geometry = SlotGeometry(slot=SLOT, ring_size=256, pool=PoolGeometry(buffer_count=2 * BUFFERS))
    memory = [mmap.mmap(-1, octets) for octets in (geometry.size_octets, CHUNK_OCTETS)]
    slot = ffi.cast("struct halo_slot *", ffi.from_buffer(memory[0]))
    pool = ffi.cast("uint8_t *", ffi.from_buffer(memory[1]))
    slot.header.magic, slot.header.layout_version = MAGIC, LAYOUT_VERSION
    slot.header.kind, slot.header.size_octets = RegionKind.SLOT, geometry.size_octets
    for field in ("slot", "ring_size", "tx_size", "spare_size", "rx_offset", "tx_offset", "spare_offset"):
        setattr(slot.geometry, field, getattr(geometry, field))
    slot.geometry.buffer_bound = geometry.buffer_bound
    geometry.pool.write_to(slot.geometry.pool)
    slot.life.state = SlotState.ENABLED
    regions = [
        create_tables(instance, generation=1),
        create_fib(instance, generation=1, hash_seed=1),
        create_routes(instance, generation=1),
    ]
    for region in regions:
        region.unlink()
    tables, fib, routes = regions
    doorbell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    epoll = select.epoll()
    epoll.register(doorbell, select.EPOLLIN)
    fastpath = FastPath(
        pool=pool,
        slot=slot,
        tables=tables.pointer,
        fib=fib.pointer,
        doorbell_fd=doorbell,
        driver_doorbell_fd=doorbell,
        epoll_fd=epoll.fileno(),
        idle=IdlePolicy.POLL,
        spin_ns=0,
        debug=False,
    )
    writer = FibWriter(fib, routes)
    try:
        made = Rig(slot, pool, geometry, TablesWriter(tables), fib, writer, fastpath)
        made.set_interfaces(interfaces)
        yield made
    finally:
        fastpath.detach()
        writer.close()
        for region in regions:
            region.close()
        epoll.close()
        os.close(doorbell)
