# SPDX-License-Identifier: Apache-2.0
"""A region: a POSIX shared memory object with a header that says what it is and who made it.

The supervisor creates and unlinks; the others attach, mostly through a descriptor that they were sent.
Attaching to anything that is not exactly what was asked for is refused with a sentence that says what was
found. Sizes are reserved before anything is mapped: a full /dev/shm is an error at start, not a SIGBUS
later.

States: created or attached → (fd closed) → closed. `unlink` removes the name only; mappings live on.
"""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import posix_ipc

from halo_mp.errors import EnvironmentProblem
from halo_mp.shm.identity import boot_id, is_alive, own_start_ticks
from halo_mp.shm.layout import LAYOUT_VERSION, MAGIC, RegionKind, ffi, size_of
from halo_mp.shm.mapping import keep_from_children, map_shared, unmap

DIRECTORY = Path("/dev/shm")
HEADER_OCTETS = size_of("halo_region_header")


def region_name(instance: str, region: str) -> str:
    """Return the POSIX name of a region, such as /halo-mp.default.slot.0."""
    return f"/halo-mp.{instance}.{region}"


@dataclass(frozen=True, slots=True)
class Header:
    """The first 64 octets of a region, copied out of shared memory."""

    magic: int
    layout_version: int
    kind: int
    size_octets: int
    boot_id: bytes
    generation: int
    creator_pid: int
    creator_start_ticks: int

    @classmethod
    def parse(cls, octets: bytes) -> Header:
        """Return the header that `octets` start with. Raises ValueError when there are fewer than 64."""
        if len(octets) < HEADER_OCTETS:
            raise ValueError(f"{len(octets)} octets are no region header")
        raw = ffi.new("struct halo_region_header *")
        ffi.memmove(raw, octets, HEADER_OCTETS)
        return cls(
            magic=raw.magic,
            layout_version=raw.layout_version,
            kind=raw.kind,
            size_octets=raw.size_octets,
            boot_id=bytes(raw.boot_id),
            generation=raw.generation,
            creator_pid=raw.creator_pid,
            creator_start_ticks=raw.creator_start_ticks,
        )

    @property
    def creator_is_alive(self) -> bool:
        """Whether the process that made the region still runs, under the same boot."""
        return self.boot_id == boot_id() and is_alive(self.creator_pid, self.creator_start_ticks)

    def check(self, kind: RegionKind, file_octets: int) -> str | None:
        """Return what is wrong with a region that should be of that kind, None when nothing is."""
        if self.magic != MAGIC:
            return f"it starts with {self.magic:#018x}, not with the mark of a halo-mp region"
        if self.layout_version != LAYOUT_VERSION:
            return f"its layout is version {self.layout_version}, this program knows version {LAYOUT_VERSION}"
        if self.kind != kind:
            return f"it is of kind {_kind_name(self.kind)}, not {kind.name.lower()}"
        if self.size_octets != file_octets or file_octets < size_of(kind.struct):
            return f"its header says {self.size_octets} octets, the file has {file_octets}"
        if self.boot_id != boot_id():
            return "it was made before this machine booted"
        return None


class Region:
    """A mapped region. `pointer` is the C struct of its kind; it must not be used after `close`."""

    def __init__(self, name: str, kind: RegionKind, fd: int, size_octets: int, *, writable: bool) -> None:
        self.name = name
        self.kind = kind
        self.size_octets = size_octets
        self.reserved_octets = size_octets  # that there is memory for from the start
        self.writable = writable
        self._fd = fd
        self._address = map_shared(fd, size_octets, writable=writable)
        self.pointer: Any = ffi.cast(f"struct {kind.struct} *", self._address)

    @classmethod
    def create(
        cls,
        name: str,
        kind: RegionKind,
        size_octets: int,
        *,
        generation: int,
        mode: int = 0o600,
        reserve_octets: int | None = None,
    ) -> Self:
        """Create a region of zeros with its header.

        There is memory for its first `reserve_octets`, if that is given: who writes behind them reserves it before.
        Raises EnvironmentProblem when the name or the memory is taken.
        """
        try:
            fd = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=mode).fd
        except posix_ipc.ExistentialError:
            raise EnvironmentProblem(_taken(name)) from None
        except (OSError, posix_ipc.Error) as error:
            raise EnvironmentProblem(f"shared memory {name} can not be created: {error}.") from None
        try:
            # Says "under construction" to whoever finds a region that has no header yet; see `is_stale`.
            fcntl.flock(fd, fcntl.LOCK_EX)
            _reserve(fd, name, size_octets if reserve_octets is None else reserve_octets)
            os.ftruncate(fd, size_octets)
            region = cls(name, kind, fd, size_octets, writable=True)
            region.reserved_octets = reserve_octets or size_octets
            region._write_header(generation)
        except BaseException:
            os.close(fd)
            unlink(name)
            raise
        return region

    @classmethod
    def attach(cls, source: int | str, kind: RegionKind, *, writable: bool) -> Self:
        """Map a region, by name or by a descriptor, which it then owns, and closes when it refuses.

        Raises EnvironmentProblem when what it finds is not exactly that kind of region.
        """
        name = source if isinstance(source, str) else f"of descriptor {source}"
        fd = _open(source, writable=writable) if isinstance(source, str) else source
        try:
            _check(fd, name, kind)
            return cls(name, kind, fd, os.fstat(fd).st_size, writable=writable)
        except BaseException:
            os.close(fd)
            raise

    @property
    def fd(self) -> int:
        """The descriptor, for handing on. Raises ValueError once it is closed."""
        if self._fd < 0:
            raise ValueError(f"region {self.name} has no descriptor any more")
        return self._fd

    @property
    def header(self) -> Header:
        """The header as it is now."""
        return Header.parse(bytes(ffi.buffer(self.pointer, HEADER_OCTETS)))

    @property
    def resident_octets(self) -> int:
        """What the region takes of the machine's memory now."""
        return os.fstat(self.fd).st_blocks * 512

    def readonly_fd(self) -> int:
        """Return a new descriptor, the caller's, through which the region can only be read."""
        return os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)

    def keep_from_children(self) -> None:
        """Let no child of this process that is forked have it: there would be two that write what is one's."""
        keep_from_children(self._address, self.size_octets)

    def close_fd(self) -> None:
        """Close the descriptor; the mapping stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        """Unmap, and close the descriptor. May be called twice."""
        self.close_fd()
        if self.pointer is not None:
            self.pointer = None
            unmap(self._address, self.size_octets)

    def take_over(self) -> None:
        """Become the creator in the header: the one that made the region is dead, and this process goes on with it."""
        header = self.pointer.header
        header.creator_start_ticks = own_start_ticks()
        header.creator_pid = os.getpid()

    def unlink(self) -> None:
        """Remove the name. May be called twice."""
        unlink(self.name)

    def _write_header(self, generation: int) -> None:
        header = self.pointer.header
        header.layout_version = LAYOUT_VERSION
        header.kind = self.kind
        header.size_octets = self.size_octets
        ffi.memmove(header.boot_id, boot_id(), len(boot_id()))
        header.generation = generation
        header.creator_pid = os.getpid()
        header.creator_start_ticks = own_start_ticks()
        header.magic = MAGIC  # last: a header with the mark is whole


def unlink(name: str) -> None:
    """Remove a region's name if it is there."""
    try:
        posix_ipc.unlink_shared_memory(name)
    except posix_ipc.ExistentialError:
        pass


def is_stale(name: str) -> bool:
    """Tell whether nobody alive made this region: its creator is dead, or died before it wrote the header."""
    try:
        fd = _open(name, writable=False)
    except EnvironmentProblem:
        return False
    try:
        octets = os.pread(fd, HEADER_OCTETS, 0)
        if len(octets) == HEADER_OCTETS and (header := Header.parse(octets)).magic == MAGIC:
            return not header.creator_is_alive
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _open(name: str, *, writable: bool) -> int:
    try:
        return int(posix_ipc.SharedMemory(name, read_only=not writable).fd)
    except posix_ipc.ExistentialError:
        raise EnvironmentProblem(
            f"there is no shared memory {name}: is the instance running, and is that its name?"
        ) from None
    except (OSError, posix_ipc.Error) as error:
        raise EnvironmentProblem(f"shared memory {name} can not be opened: {error}.") from None


def _check(fd: int, name: str, kind: RegionKind) -> None:
    octets = os.pread(fd, HEADER_OCTETS, 0)
    if len(octets) < HEADER_OCTETS:
        problem: str | None = f"it has {os.fstat(fd).st_size} octets, too few for a header"
    else:
        problem = Header.parse(octets).check(kind, os.fstat(fd).st_size)
    if problem:
        raise EnvironmentProblem(f"region {name} is refused: {problem}.")


def _reserve(fd: int, name: str, size_octets: int) -> None:
    try:
        os.posix_fallocate(fd, 0, size_octets)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise
        space = os.fstatvfs(fd)
        free_octets = space.f_bavail * space.f_frsize
        raise EnvironmentProblem(
            f"shared memory {name} needs {size_octets} octets, and {DIRECTORY} has {free_octets} left "
            f"({os.strerror(error.errno)}). Make room there, or ask for smaller rings or a smaller pool."
        ) from None


def _taken(name: str) -> str:
    try:
        header = Header.parse((DIRECTORY / name.lstrip("/")).read_bytes()[:HEADER_OCTETS])
    except (OSError, ValueError):
        return f"shared memory {name} exists already, and nothing says whose it is. Remove {DIRECTORY}{name}."
    life = "which is alive" if header.creator_is_alive else "which is dead"
    return f"shared memory {name} exists already, made by process {header.creator_pid}, {life}."


def _kind_name(kind: int) -> str:
    return RegionKind(kind).name.lower() if kind in list(RegionKind) else str(kind)
