# SPDX-License-Identifier: Apache-2.0
"""Calling an application's hooks in Python: for each packet, or for the burst.

Hot path. Rules: the objects that hooks get are made once for each place in memory; nothing is allocated for a packet;
an exception costs that packet, or that burst, and what it costs beyond that is bounded (`on_error`). That holds for
CancelledError, SystemExit and KeyboardInterrupt too: past us they would end the worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from halo_mp.app.packet import Packet
from halo_mp.app.registry import HookSpec
from halo_mp.shm.layout import DROP_NAMES, ffi, lib

ERROR = lib.HALO_VERDICT_ERROR
MOST_PLACES = 16  # where bursts can be: the worker's own, and where it gathers
ROOM = lib.HALO_WIDE_BURST
RECORD_OCTETS = ffi.sizeof("struct halo_packet")

_DROP = lib.HALO_VERDICT_DROP
_HOOK_ERROR = DROP_NAMES.index("hook_error")

Failed = Callable[[], None]


class Runner(Protocol):
    """Shows packets to one hook; returns how many exceptions no verdict tells of."""

    def __call__(self, packets: Any, count: int) -> int:
        """`packets` is a `struct halo_packet *`."""


class PacketRunner:
    """Form packet: f(packet), or f(packet, octets)."""

    def __init__(self, spec: HookSpec, pool: Any, failed: Failed) -> None:
        """`failed` is called while an exception is handled."""
        self._function = spec.function
        self._pool = pool
        self._failed = failed
        self._places: dict[int, list[Packet]] = {}
        self._known: dict[int, Packet] = {}  # by address, of as many records as a worker has
        self._call = self._with_octets if spec.octets else self._alone
        self._view = _viewer(pool) if spec.octets else None

    def __call__(self, packets: Any, count: int) -> int:
        lib.halo_view_open(self._pool, packets, count)
        self._call(self._objects(packets, count))
        lib.halo_view_close(packets, count)
        return 0

    def _alone(self, objects: list[Packet]) -> None:
        function = self._function
        for packet in objects:
            try:
                verdict = function(packet)
                if verdict is not None:
                    packet._record.verdict = verdict
            except BaseException:
                packet._record.verdict = ERROR
                self._failed()

    def _with_octets(self, objects: list[Packet]) -> None:
        function, view = self._function, self._view
        assert view is not None
        for packet in objects:
            record = packet._record
            try:
                verdict = function(packet, view(record.offset, record.length))
                if verdict is not None:
                    record.verdict = verdict
            except BaseException:
                record.verdict = ERROR
                self._failed()

    def _objects(self, packets: Any, count: int) -> list[Packet]:
        """Return objects over records: those of an earlier burst at the same place."""
        address = int(ffi.cast("uintptr_t", packets))
        objects = self._places.get(address)
        if objects is None or len(objects) < count:
            if len(self._places) >= MOST_PLACES:
                self._places.clear()
            objects = self._places[address] = [self._object(packets + index) for index in range(count)]
        return objects if len(objects) == count else objects[:count]

    def _object(self, record: Any) -> Packet:
        address = int(ffi.cast("uintptr_t", record))
        packet = self._known.get(address)
        if packet is None:
            packet = self._known[address] = Packet(record, self._pool)
        return packet


class BurstRunner:
    """Form burst."""

    def __init__(self, spec: HookSpec, pool: Any, geometry: Any, failed: Failed) -> None:
        """Raises ImportError with a sentence where there is no NumPy."""
        from halo_mp.app import Burst

        self._make = Burst
        self._function = spec.function
        self._drops = spec.on_error == "drop"
        self._pool = pool
        self._geometry = geometry
        self._failed = failed
        self._places: dict[int, Any] = {}

    def __call__(self, packets: Any, count: int) -> int:
        burst = self._burst(packets, count)
        lib.halo_view_open(self._pool, packets, count)
        errors = 0
        try:
            self._function(burst)
        except BaseException:
            errors = 1
            burst.verdict = _DROP if self._drops else 0
            if self._drops:
                burst.reason = _HOOK_ERROR
            self._failed()
        lib.halo_view_close(packets, count)
        return errors

    def _burst(self, packets: Any, count: int) -> Any:
        """Return what stands for these records: over memory that an earlier burst was in too, if possible."""
        address = int(ffi.cast("uintptr_t", packets))
        for start, burst in self._places.items():
            first, rest = divmod(address - start, RECORD_OCTETS)
            if rest == 0 and 0 <= first <= ROOM - count:
                burst._show(packets, first, count)
                return burst
        if len(self._places) >= MOST_PLACES:
            self._places.clear()
        burst = self._places[address] = self._make(packets, ROOM, self._pool, self._geometry)
        burst._show(packets, 0, count)
        return burst


def _viewer(pool: Any) -> Callable[[int, int], Any]:
    """Return what makes a view of a frame: a NumPy array, as compiled hooks get it, or without NumPy a memoryview."""
    try:
        import numpy as np
    except ModuleNotFoundError:
        return lambda offset, length: memoryview(ffi.buffer(pool + offset, length))
    return lambda offset, length: np.frombuffer(ffi.buffer(pool + offset, length), dtype=np.uint8)
