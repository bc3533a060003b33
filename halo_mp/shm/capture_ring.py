# SPDX-License-Identifier: Apache-2.0
"""The rings of captures: a worker writes what it copied, a reader takes it, and neither waits for the other.

Each is a memfd of its own, sealed against resizing: the supervisor makes it, and gives it to one worker and to one
reader. What lies in it is described in `halo/capture_def.h`. A reader trusts no length in it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from halo_mp.errors import EnvironmentProblem, RuntimeFailure
from halo_mp.shm.layout import DROP_NAMES, DROP_TEXTS, ffi, lib
from halo_mp.shm.mapping import map_shared, unmap

HEADER_OCTETS: int = lib.HALO_CAPTURE_HEADER_OCTETS
MIN_OCTETS: int = lib.HALO_CAPTURE_MIN_OCTETS
MAX_OCTETS: int = lib.HALO_CAPTURE_MAX_OCTETS
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_RECORD = struct.Struct("=IBBBBQIIHHHH")
_EVENT_OCTETS = ffi.sizeof("struct halo_trace_event")
_NOTHING = 0xFFFF
_TEXTS = dict(zip(DROP_NAMES, DROP_TEXTS, strict=True))


@dataclass(frozen=True, slots=True)
class Record:
    """A frame that was copied. Ports and interfaces are None where there is none."""

    point: int
    """`HALO_POINT_*`."""
    verdict: int
    reason: str | None
    """Why it was dropped, if it was."""
    time_ns: int
    """CLOCK_MONOTONIC."""
    length: int
    """Of the frame; `octets` may be fewer."""
    port: int | None
    tx_port: int | None
    interface: int | None
    tx_interface: int | None
    events: bytes
    """Of a trace: `struct halo_trace_event`, one after the other."""
    octets: bytes


def create_ring(size_octets: int) -> int:
    """Return the memfd of an empty ring for so many octets of records, a power of two.

    Raises EnvironmentProblem when there is no memory or descriptor for it.
    """
    total = HEADER_OCTETS + size_octets
    try:
        fd = os.memfd_create("halo-mp.capture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        raise EnvironmentProblem(f"a capture needs memory of its own: {error.strerror}.") from None
    try:
        os.posix_fallocate(fd, 0, total)
        header = struct.pack("=IIQ", lib.HALO_CAPTURE_MAGIC, lib.HALO_CAPTURE_VERSION, size_octets)
        os.pwrite(fd, header, 0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        os.close(fd)
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise
        raise EnvironmentProblem(
            f"there are no {total >> 10} KiB of memory for a capture; ask for less."
        ) from None
    return fd


class Ring:
    """A ring, mapped; the descriptor is closed. Raises EnvironmentProblem when it is none."""

    def __init__(self, fd: int) -> None:
        self._address = 0
        try:
            self.size_octets = _checked_size(fd)
            self._address = map_shared(fd, self.size_octets, writable=True)
        except OSError as error:
            raise EnvironmentProblem(f"a capture's memory is refused: {error.strerror}.") from None
        finally:
            os.close(fd)
        self.pointer: Any = ffi.cast("struct halo_capture_ring *", self._address)

    def close(self) -> None:
        """Unmap. May be called twice."""
        if self._address:
            self.pointer = None
            unmap(self._address, self.size_octets)
            self._address = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RingReader:
    """The reading end of a ring."""

    def __init__(self, fd: int) -> None:
        """Raises EnvironmentProblem when that is no ring."""
        self._ring = Ring(fd)
        self._size = self._ring.size_octets - HEADER_OCTETS
        self._octets = memoryview(ffi.buffer(self._ring.pointer, self._ring.size_octets))[HEADER_OCTETS:]
        self._position = int(self._ring.pointer.consumer)

    @property
    def lost(self) -> int:
        """Frames that had no room."""
        return int(self._ring.pointer.lost)

    @property
    def position(self) -> int:
        """How far we have read."""
        return self._position

    @property
    def produced(self) -> int:
        """How far the worker has written; more than `position` where something is to be read."""
        return int(lib.halo_capture_produced(self._ring.pointer))

    def read(self, most: int = 4096) -> Iterator[Record]:
        """Yield what is there, at most so many. The room is the worker's again when all of it was taken.

        Raises RuntimeFailure when what is there makes no sense.
        """
        end = lib.halo_capture_produced(self._ring.pointer)
        if not 0 <= end - self._position <= self._size:
            raise RuntimeFailure("the capture's ring was scribbled over; start it again.")
        while self._position < end and most:
            at = self._position & (self._size - 1)
            header = _RECORD.unpack_from(self._octets, at) if self._size - at >= _RECORD.size else None
            size = int.from_bytes(self._octets[at : at + 4], sys.byteorder)
            if size % 16 or not 16 <= size <= min(self._size - at, end - self._position):
                raise RuntimeFailure("the capture's ring was scribbled over; start it again.")
            if header is not None and header[1]:
                most -= 1
                yield self._record(header, at)
            self._position += size
        lib.halo_capture_consume(self._ring.pointer, self._position)

    def close(self) -> None:
        """Unmap. May be called twice."""
        self._octets.release()
        self._ring.close()

    def _record(self, header: tuple[int, ...], at: int) -> Record:
        size, point, verdict, reason, events, time_ns, length, captured, *places = header
        port, tx_port, interface, tx_interface = (None if each == _NOTHING else each for each in places)
        first = at + _RECORD.size
        second = first + events * _EVENT_OCTETS
        if second + captured > at + size:
            raise RuntimeFailure("the capture's ring was scribbled over; start it again.")
        return Record(
            point=point,
            verdict=verdict,
            reason=drop_name(reason) if verdict == lib.HALO_VERDICT_DROP else None,
            time_ns=time_ns,
            length=length,
            port=port,
            tx_port=tx_port,
            interface=interface,
            tx_interface=tx_interface,
            events=bytes(self._octets[first:second]),
            octets=bytes(self._octets[second : second + captured]),
        )


def drop_name(number: int) -> str:
    """Return the name of a drop reason, also of one that there is not."""
    return DROP_NAMES[number] if number < len(DROP_NAMES) else f"reason_{number}"


def drop_text(name: str) -> str:
    """Return what a drop reason means, as `drop_name` calls it."""
    return _TEXTS.get(name, "no reason that this version knows")


def check_steps(steps: bytes) -> int | None:
    """Return None for a filter that workers will run, or the number of its first step that they will not."""
    if not steps:
        return None
    count: int = len(steps) // ffi.sizeof("struct halo_filter_step")
    if len(steps) % ffi.sizeof("struct halo_filter_step"):
        return count
    found: int = lib.halo_filter_check(ffi.from_buffer("struct halo_filter_step[]", steps), count)
    return found - 1 if found else None


def _checked_size(fd: int) -> int:
    """Return the size of a ring. Raises EnvironmentProblem, OSError."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        seals = 0
    size = os.fstat(fd).st_size
    magic, version, records = struct.unpack("=IIQ", os.pread(fd, 16, 0).ljust(16, b"\0"))
    if seals & _SEALS != _SEALS or size != HEADER_OCTETS + records:
        raise EnvironmentProblem("a capture's memory is refused: it is no sealed ring.")
    if (magic, version) != (lib.HALO_CAPTURE_MAGIC, lib.HALO_CAPTURE_VERSION):
        raise EnvironmentProblem(f"a capture's memory is refused: it is of version {version}.")
    return size
