# SPDX-License-Identifier: Apache-2.0
"""The native fast path as an object: poll, punts, originated frames.

Hot path. Rules: one call into C per poll; no object per packet but for punts; nothing here logs or blocks. Views of
frames are views of the pool: they end with the punt.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, NoReturn

from halo_mp.shm.layout import DROP_NAMES, IdlePolicy, ffi, lib
from halo_mp.shm.tables import Interface, read_interface

DROP_NUMBERS = {name: number for number, name in enumerate(DROP_NAMES)}
CONSUMED = -1
_PUT_IN_AT_FORWARD = 1 + lib.HALO_STAGE_FORWARD
PYTHON_PERCENT = 50  # of the worker's time that punts may take: the other half is forwarding's


class PollReason(IntFlag):
    """Why a poll came back; see enum halo_poll_reason."""

    PUNTS = lib.HALO_POLL_PUNTS
    DEADLINE = lib.HALO_POLL_DEADLINE
    FDS = lib.HALO_POLL_FDS
    ENABLED = lib.HALO_POLL_ENABLED
    EPOCH = lib.HALO_POLL_EPOCH
    DISABLED = lib.HALO_POLL_DISABLED
    BROKEN = lib.HALO_POLL_BROKEN
    TOUCHED = lib.HALO_POLL_TOUCHED
    RAW = lib.HALO_POLL_RAW
    BLAST = lib.HALO_POLL_BLAST
    DATAGRAMS = lib.HALO_POLL_DATAGRAMS
    HOOK = lib.HALO_POLL_HOOK


class NeighborState(IntEnum):
    """What the fast path does with packets to a neighbor; see enum halo_neighbor_state."""

    INCOMPLETE = lib.HALO_NEIGHBOR_INCOMPLETE
    REACHABLE = lib.HALO_NEIGHBOR_REACHABLE
    STALE = lib.HALO_NEIGHBOR_STALE
    FAILED = lib.HALO_NEIGHBOR_FAILED
    REPORT = lib.HALO_NEIGHBOR_REPORT


@dataclass(frozen=True, slots=True)
class DebugFrame:
    """The first octets of a frame and what became of it, for the debug log."""

    port: int
    length: int
    verdict: int
    reason: str | None
    octets: bytes


@dataclass(frozen=True, slots=True)
class Punt:
    """A frame that C left to Python. `frame` is a view of the pool, valid until the punt is ended."""

    index: int
    port: int
    frame: memoryview
    handed: bool = False  # by another worker
    way: tuple[int, int] | None = (
        None  # of a packet of ours, put in at forward: interface (or none) and next hop
    )


class FastPath:
    """One per process, used by the event loop's thread only."""

    def __init__(
        self,
        *,
        pool: Any,
        slot: Any,
        tables: Any,
        fib: Any,
        doorbell_fd: int,
        driver_doorbell_fd: int,
        epoll_fd: int,
        idle: IdlePolicy,
        spin_ns: int,
        debug: bool,
    ) -> None:
        """Attach to a slot's rings. Raises OSError when the region is not of this make."""
        setup = ffi.new("struct halo_worker_setup *")
        setup.pool, setup.slot, setup.tables, setup.fib = pool, slot, tables, fib
        setup.doorbell_fd, setup.driver_doorbell_fd, setup.epoll_fd = (
            doorbell_fd,
            driver_doorbell_fd,
            epoll_fd,
        )
        setup.idle_policy, setup.spin_ns, setup.debug = idle, spin_ns, debug
        setup.python_percent = PYTHON_PERCENT
        out = ffi.new("struct halo_worker **")
        _check(lib.halo_worker_create(setup, out))
        self._worker = out[0]
        self._thread = threading.get_ident()
        self.forked = False
        """Whether this process is a child of the worker, that the application has forked."""
        self._pool = self.pool = pool
        self.slot = slot
        self.pool_octets = int(slot.geometry.pool.size_octets)
        self._result = ffi.new("struct halo_poll_result *")
        self._traces: dict[int, bool] = {}
        self.tracing = False
        """Whether somebody wants to hear what becomes of punts."""
        self._flow = ffi.new("struct halo_flow *")
        self._found = ffi.new("struct halo_route_found *")

    @property
    def pointer(self) -> Any:
        """The `struct halo_worker *`, for the bindings of its parts.

        Raises RuntimeError where it must not be used: in another thread, which C would not notice, in a child of the
        application's, and when the slot is left.
        """
        if threading.get_ident() != self._thread or self._worker == ffi.NULL:
            raise RuntimeError(self._refusal())
        return self._worker

    def _refusal(self) -> str:
        if self.forked:
            return "this process was forked by a worker's application: packets, hooks and ports stay the worker's"
        if self._worker == ffi.NULL:
            return "this worker has left its slot: there are no packets, hooks and ports any more"
        return (
            "packets, hooks and ports belong to the thread of the worker's event loop; from another one, write "
            "worker.loop.call_soon_threadsafe(function, ...)"
        )

    def forget_in_child(self) -> None:
        """Be of no use from now on, in a child that has a copy of everything, but whose rings are the worker's.

        A child that comes back to the event loop ends there.
        """
        self.forked = True
        self._thread = -1
        vars(self)["poll"] = _end_child

    @property
    def result(self) -> Any:
        """The `struct halo_poll_result *` that each poll fills, always the same."""
        return self._result

    @property
    def burst_ns(self) -> int:
        """When the last poll took its punts off the ring, by the clock of the event loop."""
        return int(self._result.burst_ns)

    @property
    def burst_s(self) -> float:
        """The same in seconds."""
        return self.burst_ns / 1e9

    def poll(self, timeout_ns: int) -> int:
        """Run bursts until Python is needed; < 0 waits for ever, 0 turns once. Returns PollReason bits as an int."""
        _check(lib.halo_worker_poll(self._worker, timeout_ns, self._result))
        return int(self._result.reasons)

    def punts(self) -> Iterator[Punt]:
        """Return what the last poll punted. Each must be ended, by finish, transmit or hand, before the next poll."""
        result = self._result
        for index in range(result.punt_count):
            packet = result.punts[index]
            frame = memoryview(ffi.buffer(self._pool + packet.offset, packet.length))
            handed = bool(packet.flags & lib.HALO_DESCRIPTOR_HANDED)
            way = (packet.tx_interface, packet.next_hop) if packet.injected == _PUT_IN_AT_FORWARD else None
            yield Punt(index, packet.port, frame, handed, way)

    @property
    def held(self) -> int:
        """Punts and parked datagrams that are not ended yet."""
        return int(lib.halo_worker_held(self._worker))

    @property
    def parked(self) -> int:
        """Packets that a hook of Python's has been shown, or is to be, and that have not gone on yet."""
        return int(lib.halo_worker_parked(self._worker))

    def finish(self, index: int, reason: int = CONSUMED) -> None:
        """End a punt: consumed, or dropped for a reason (see DROP_NUMBERS)."""
        _check(lib.halo_worker_finish_punt(self._worker, index, reason))

    def hand(self, index: int, slot: int) -> None:
        """Give a punted frame to another slot's worker."""
        _check(lib.halo_worker_hand_punt(self._worker, index, slot))

    def hand_frame(self, slot: int, port: int, frame: bytes) -> bool:
        """Give a frame of ours to another slot's worker, which gets it as if it had come in by the port.

        False when it was dropped, which is counted.
        """
        return bool(lib.halo_worker_hand_frame(self._worker, slot, port, frame, len(frame)) == 0)

    def originate(self, port: int, frame: bytes) -> bool:
        """Send a frame of ours; False when it was dropped, which is counted."""
        return bool(lib.halo_worker_originate(self._worker, port, frame, len(frame)) == 0)

    def count_drop(self, reason: str) -> None:
        """Count a packet of ours that ended before it had a buffer."""
        lib.halo_worker_count_drop(self._worker, DROP_NUMBERS[reason])

    def count_suppressed(self, count: int) -> None:
        """Count ICMP errors that the stack did not send because too many were."""
        lib.halo_worker_count_suppressed(self._worker, count)

    def flush(self) -> None:
        """Publish what was put on the tx ring, and wake the driver if it sleeps."""
        lib.halo_worker_flush(self._worker)

    def set_twin(self, port: int, twin: int, only: int) -> None:
        """Share a port with the kernel behind its twin; `only`: of our addresses just this one is ours, 0: all are."""
        _check(lib.halo_worker_set_twin(self._worker, port, twin, only))

    def set_macswap(self, port: int, to: int) -> None:
        """Let frames of one port leave by another with MAC addresses swapped (measuring mode)."""
        _check(lib.halo_worker_set_macswap(self._worker, port, to))

    def set_neighbor(self, interface: int, address: int, mac: bytes | None, state: NeighborState) -> bool:
        """Tell the fast path what is known of a neighbor, by the number of its interface and its address.

        A neighbor that is REACHABLE, STALE or foreign (REPORT) has a MAC address. STALE: the next use is told of,
        once; REPORT: uses are told of every HALO_REPORT_S seconds at most; both by `touched`. False when there is
        no such interface (any more), or no room: then its packets are punted, or handed to where it is known.
        Raises ValueError without a MAC address where there must be one.
        """
        octets = ffi.NULL if mac is None else ffi.from_buffer("uint8_t[6]", mac)
        result = lib.halo_worker_set_neighbor(self._worker, interface, address, octets, state)
        if result == -errno.EINVAL:
            raise ValueError(f"a neighbor that is {state.name.lower()} has a MAC address")
        return bool(result == 0)

    def remove_neighbor(self, interface: int, address: int) -> bool:
        """Forget a neighbor; False when it was not there."""
        return bool(lib.halo_worker_remove_neighbor(self._worker, interface, address) == 0)

    @property
    def neighbor_count(self) -> int:
        """Neighbors that the fast path knows of. Those of an interface go when it goes."""
        return int(lib.halo_worker_neighbor_count(self._worker))

    def touched(self) -> list[tuple[int, int]]:
        """Return (interface, address) of the neighbors whose use the last poll is to tell of."""
        result = self._result
        return [(result.touched[i].interface, result.touched[i].address) for i in range(result.touched_count)]

    def route(
        self, src: int, dst: int, protocol: int, src_port: int = 0, dst_port: int = 0
    ) -> tuple[int, int, int]:
        """Return kind (`TargetKind`), interface and next hop of where the fast path would send a packet."""
        flow, found = self._flow, self._found
        flow.src, flow.dst, flow.protocol = src, dst, protocol
        flow.src_port, flow.dst_port = src_port, dst_port
        lib.halo_worker_route(self._worker, flow, found)
        return found.kind, found.interface, found.address

    def add_capture(
        self, ring: Any, size_octets: int, *, steps: bytes, points: int, ports: int, snap_octets: int
    ) -> int:
        """Copy frames into a ring that stays mapped until the capture is removed; return its place. Raises OSError."""
        program = ffi.from_buffer("struct halo_filter_step[]", steps)
        count = len(steps) // ffi.sizeof("struct halo_filter_step")
        place = lib.halo_worker_add_capture(
            self._worker, ring, size_octets, program, count, points, ports, snap_octets
        )
        _check(place)
        self._traces[place] = points == lib.HALO_POINT_TRACE
        self.tracing = any(self._traces.values())
        return int(place)

    def remove_capture(self, place: int) -> None:
        """Copy no more into that ring."""
        lib.halo_worker_remove_capture(self._worker, place)
        self._traces.pop(place, None)
        self.tracing = any(self._traces.values())

    def trace(self, index: int, note: str) -> None:
        """Say of a punt, before it is ended, what happened to it."""
        lib.halo_worker_trace_note(self._worker, index, note.encode("ascii", "replace"))

    def measure_stages(self, bursts: int, cycles: Any) -> int:
        """Run bursts and add the cycles of each stage to `cycles`, a uint64_t[6]; return how many frames there were."""
        return int(lib.halo_bench_stages(self._worker, bursts, cycles))

    def interfaces(self) -> dict[int, Interface]:
        """Return the interface table as the fast path has it now, by number."""
        block = lib.halo_worker_interfaces(self._worker)
        entries = ((number, block.entry[number]) for number in range(block.count))
        return {number: read_interface(block, entry) for number, entry in entries if entry.mtu}

    def debug_frames(self) -> tuple[list[DebugFrame], int]:
        """Return the frames kept by the last poll, and how many more there were."""
        result = self._result
        return [_debug_frame(result.debug[i]) for i in range(result.debug_count)], int(result.debug_missed)

    def detach(self) -> None:
        """Give back every punt and leave the slot."""
        worker, self._worker = self._worker, ffi.NULL
        lib.halo_worker_detach(worker)


def _debug_frame(entry: Any) -> DebugFrame:
    dropped = entry.verdict == lib.HALO_VERDICT_DROP
    return DebugFrame(
        port=entry.port,
        length=entry.length,
        verdict=entry.verdict,
        reason=DROP_NAMES[entry.reason] if dropped else None,
        octets=bytes(ffi.buffer(entry.octets, entry.captured)),
    )


def _end_child(_: int) -> NoReturn:
    os._exit(0)


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, f"fast path: {os.strerror(-result)}")
