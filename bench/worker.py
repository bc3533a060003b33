# SPDX-License-Identifier: Apache-2.0
"""`bench worker`: what a frame costs in the worker alone; `bench stages`: in which stage.

No driver and no second core: frames lie on the rx ring, the fast path takes them off, and puts them on the tx ring,
with MAC addresses swapped (measuring mode), or forwarded by a route. Scenarios take turns. The difference to
`bench io` is the hand-off between cores, and the driver.

The gateways that packets are forwarded to have the MAC address of the interface that they came in by: so a frame
that was sent on is one that can be received again, until its TTL has run out.
"""

from __future__ import annotations

import mmap
import os
import random
import select
import statistics
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import EFD_CLOEXEC, EFD_NONBLOCK, eventfd
from typing import Any

from bench.frames import udp_frame
from bench.rows import Row, interval
from halo_mp.shm.fib import Change, ChangeKind, FibWriter, Target, TargetKind, create_fib, create_routes
from halo_mp.shm.layout import (
    CHUNK_OCTETS,
    LAYOUT_VERSION,
    MAGIC,
    IdlePolicy,
    RegionKind,
    SlotState,
    ffi,
    lib,
)
from halo_mp.shm.pool import PoolGeometry
from halo_mp.shm.slot import SlotGeometry
from halo_mp.shm.tables import Interface, TablesWriter, create_tables
from halo_mp.workers.fastpath import FastPath, NeighborState

FRAME_OCTETS = 60
FEW = 256  # buffers: as many as are on their way in a driver that keeps up
MANY = 16384  # each with a destination of its own
POLL_NS = 100_000
REPEATS = 40
MOST_RATIO = 1.4  # of forwarding to measuring mode
ROUTES, DESTINATIONS = 1_000_000, 65536
STAGES = ("receive", "parse", "input", "route", "forward", "finish")
STAGE_BURSTS = 100

_INSIDE = Interface(port=0, mac=bytes.fromhex("020000000001"), mtu=1500, addresses=((0x0A000001, 24),))
_OUTSIDE = Interface(port=1, mac=bytes.fromhex("0200000000aa"), mtu=1500, addresses=((0x0A090001, 16),))
_GATEWAY = 0x0A090002
_RNG = random.Random(1)


@dataclass(slots=True)
class Rig:
    """A slot and a pool in private memory, and a fast path attached to them."""

    slot: Any
    pool: Any
    geometry: SlotGeometry
    fastpath: FastPath
    frames: list[bytes]
    destinations: Sequence[int]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is measured: a way through the fast path, and how many buffers are on their way."""

    name: str
    metric: str
    buffers: int
    routes: Callable[[FibWriter], Sequence[int]] | None
    """Fills the FIB and returns destinations; None: measuring mode."""


def run(rounds: int) -> list[Row]:
    """Return nanoseconds per frame of 60 octets, and what forwarding costs in terms of measuring mode."""
    rigs = {scenario.name: build(scenario) for scenario in SCENARIOS}
    costs: dict[str, list[float]] = {name: [] for name in rigs}
    for _ in range(rounds):
        for name, rig in rigs.items():
            costs[name].append(statistics.median(measure(rig)))
    medians = {name: statistics.median(values) for name, values in costs.items()}
    rows = [
        Row(metric=each.metric, value=medians[each.name], unit="ns", note=interval(costs[each.name]))
        for each in SCENARIOS
    ]
    for metric, name, peer, most in (
        ("worker.forward.1_route.ratio", "routed.1", "alone", MOST_RATIO),
        ("worker.forward.ecmp64.ratio", "routed.ecmp64", "alone", None),
        ("worker.forward.1m_routes.ratio", "routed.1m", "alone.cold", None),
    ):
        ratio = statistics.median(ours / its for ours, its in zip(costs[name], costs[peer], strict=True))
        row = Row(metric=metric, value=ratio, unit="ratio", peer=peer, peer_value=medians[peer])
        rows.append(row if most is None else replace(row, target=f"<= {most:g}", met=ratio <= most))
    return rows


def run_stages(rounds: int) -> list[Row]:
    """Return cycles of the time stamp counter per frame and stage; the stages run one after the other, as in a poll."""
    rows = []
    for scenario in SCENARIOS:
        rig = build(scenario)
        found = [_measure_stages(rig) for _ in range(rounds * REPEATS)]
        for stage, values in zip(STAGES, zip(*found, strict=True), strict=True):
            rows.append(
                Row(
                    metric=f"stages.{scenario.name}.{stage}",
                    value=statistics.median(values),
                    unit="cycles",
                    note=interval(values),
                )
            )
    return rows


def build_plain() -> Rig:
    """Return a worker alone in measuring mode, with few buffers."""
    return build(SCENARIOS[0])


def measure(rig: Rig, poll: Callable[[Rig], None] | None = None, *, repeats: int = REPEATS) -> list[float]:
    """Return nanoseconds per frame, of each poll; `poll` takes its place where more than one call is needed."""
    costs = []
    for _ in range(repeats):
        _fill(rig)
        before, begin = rig.slot.worker.rx_frames, time.perf_counter_ns()
        poll(rig) if poll else rig.fastpath.poll(POLL_NS)
        elapsed_ns = time.perf_counter_ns() - begin
        frames = rig.slot.worker.rx_frames - before
        if rig.slot.rx.producer != rig.slot.rx.consumer:  # else it ran dry, and waited
            costs.append(elapsed_ns / frames)
    return costs


def _measure_stages(rig: Rig) -> list[float]:
    _fill(rig)
    cycles = ffi.new("uint64_t[]", len(STAGES))
    frames = rig.fastpath.measure_stages(STAGE_BURSTS, cycles)
    return [count / frames for count in cycles]


def _fill(rig: Rig) -> None:
    """Have rx full and tx empty, as a driver would, with whole TTLs and destinations taken anew."""
    slot, geometry = rig.slot, rig.geometry
    slot.tx.consumer = slot.tx.producer
    buffers = len(rig.frames)
    frame_offsets = [geometry.pool.frame_offset(index) for index in range(buffers)]
    first = _RNG.randrange(len(rig.destinations)) if rig.destinations else 0
    for index, frame in enumerate(rig.frames):
        octets = frame
        if rig.destinations:
            octets = _with_destination(frame, rig.destinations[(first + index) % len(rig.destinations)])
        ffi.memmove(rig.pool + frame_offsets[index], octets, len(octets))
    entries = ffi.cast("struct halo_descriptor *", ffi.cast("uint8_t *", slot) + geometry.rx_offset)
    start = slot.rx.producer
    count = geometry.ring_size - (start - slot.rx.consumer) % 2**32
    for position in range(count):
        entry = entries[(start + position) % geometry.ring_size]
        entry.offset, entry.length, entry.port = frame_offsets[position % buffers], FRAME_OCTETS, 0
    slot.rx.producer = (start + count) % 2**32


def _with_destination(frame: bytes, dst: int) -> bytes:
    header = bytearray(frame[14:34])
    header[10:12] = bytes(2)
    header[16:20] = struct.pack("!I", dst)
    header[10:12] = struct.pack("!H", lib.halo_checksum(bytes(header), len(header)))
    return frame[:14] + bytes(header) + frame[34:]


# ---- routes


def _one_route(fib: FibWriter) -> Sequence[int]:
    target = fib.new_target(Target(TargetKind.GATEWAY, 1, _GATEWAY))
    fib.apply([Change(ChangeKind.ADD, 0, 0, target)])
    return ()


def _group(fib: FibWriter) -> Sequence[int]:
    gateways = [fib.new_target(Target(TargetKind.GATEWAY, 1, _GATEWAY + i)) for i in range(64)]
    group = fib.new_group([(gateway, 1) for gateway in gateways], gateways)
    fib.apply([Change(ChangeKind.ADD, 0, 0, group)])
    return ()


def _many_routes(fib: FibWriter) -> Sequence[int]:
    """As many prefixes as the Internet has, at random, two of three of 24 bits, and destinations in some of them."""
    gateways = [fib.new_target(Target(TargetKind.GATEWAY, 1, _GATEWAY + i)) for i in range(64)]
    lengths = [24] * 12 + [23, 22, 22, 21, 20, 19]
    prefixes: dict[tuple[int, int], Change] = {}
    while len(prefixes) < ROUTES:
        length = _RNG.choice(lengths)
        prefix = _RNG.randrange(11 << 24, 126 << 24) >> (32 - length) << (32 - length)
        prefixes[prefix, length] = Change(ChangeKind.ADD, prefix, length, _RNG.choice(gateways))
    changes = list(prefixes.values())
    for start in range(0, ROUTES, 10_000):
        fib.apply(changes[start : start + 10_000])
    return [change.prefix + _RNG.randrange(1 << (32 - change.length)) for change in changes[:DESTINATIONS]]


SCENARIOS = (
    Scenario("alone", "worker.alone.ns_per_frame", FEW, None),
    Scenario("routed.1", "worker.forward.1_route.ns_per_frame", FEW, _one_route),
    Scenario("routed.ecmp64", "worker.forward.ecmp64.ns_per_frame", FEW, _group),
    Scenario("alone.cold", "worker.alone.cold.ns_per_frame", MANY, None),
    Scenario("routed.1m", "worker.forward.1m_routes.ns_per_frame", MANY, _many_routes),
)


# ---- the rig


def _memory(octets: int) -> Any:
    return ffi.from_buffer(
        mmap.mmap(-1, octets, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    )


def _build_tables(scenario: Scenario) -> tuple[Any, Any, Sequence[int]]:
    """Return pointers to the tables and the FIB, and the destinations to send to."""
    instance = f"bench.{os.getpid()}"
    tables = create_tables(instance, generation=1)
    tables.unlink()
    fib = create_fib(instance, generation=1, hash_seed=1)
    fib.unlink()
    routes = create_routes(instance, generation=1)
    routes.unlink()
    _KEPT.extend([tables, fib, routes])
    TablesWriter(tables).write({0: _INSIDE, 1: _OUTSIDE})
    if scenario.routes is None:
        return tables.pointer, fib.pointer, ()
    writer = FibWriter(fib, routes)
    destinations = scenario.routes(writer)
    writer.close()
    routes.close()
    return tables.pointer, fib.pointer, destinations


def build(scenario: Scenario) -> Rig:
    """Return a rig for a scenario. It is never taken down: it ends with the process."""
    geometry = SlotGeometry(slot=0, pool=PoolGeometry(buffer_count=scenario.buffers))
    chunks = -(-geometry.pool.size_octets // CHUNK_OCTETS)
    memory = [_memory(size) for size in (geometry.size_octets, chunks * CHUNK_OCTETS)]
    slot = ffi.cast("struct halo_slot *", memory[0])
    pool = ffi.cast("uint8_t *", memory[1])
    slot.header.magic, slot.header.layout_version = MAGIC, LAYOUT_VERSION
    slot.header.kind, slot.header.size_octets = RegionKind.SLOT, geometry.size_octets
    for field, _ in ffi.typeof("struct halo_slot_geometry").fields[:-1]:
        setattr(slot.geometry, field, getattr(geometry, field))
    geometry.pool.write_to(slot.geometry.pool)
    slot.life.state = SlotState.ENABLED
    tables, fib, destinations = _build_tables(scenario)
    doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    epoll = select.epoll()
    epoll.register(doorbell, select.EPOLLIN)
    fastpath = FastPath(
        pool=pool,
        slot=slot,
        tables=tables,
        fib=fib,
        doorbell_fd=doorbell,
        driver_doorbell_fd=doorbell,
        epoll_fd=epoll.fileno(),
        idle=IdlePolicy.POLL,
        spin_ns=0,
        debug=False,
    )
    _KEPT.extend([*memory, epoll])
    if scenario.routes is None:
        fastpath.set_macswap(0, 1)
    fastpath.poll(0)
    for i in range(64):
        fastpath.set_neighbor(1, _GATEWAY + i, _INSIDE.mac, NeighborState.REACHABLE)
    frames = [udp_frame(index, FRAME_OCTETS, ttl=255) for index in range(scenario.buffers)]
    return Rig(slot, pool, geometry, fastpath, frames, destinations)


_KEPT: list[object] = []  # cffi and C hold pointers into these
