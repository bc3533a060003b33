# SPDX-License-Identifier: Apache-2.0
"""The pool: where the buffers lie, and the memfd that holds them.

Buffers have one size and never cross a chunk of 2 MiB, so that they never cross a page, whatever its size.
The number of cache lines per buffer is odd, so that the first lines of consecutive buffers spread over all
sets of the caches. The memfd is sealed against resizing: nobody who holds it can cause a SIGBUS in somebody
else.
"""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halo_mp.errors import EnvironmentProblem
from halo_mp.shm.layout import CHUNK_OCTETS, DATA_OCTETS, HEADROOM_OCTETS, LINE_OCTETS, METADATA_OCTETS, ffi
from halo_mp.shm.mapping import map_shared, unmap

PAGE_2M = 2 << 20
PAGE_1G = 1 << 30
_HUGE_FLAG = {PAGE_2M: os.MFD_HUGE_2MB, PAGE_1G: os.MFD_HUGE_1GB}
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True)
class PoolGeometry:
    """How many buffers, with room for how many octets of a frame behind metadata and headroom."""

    buffer_count: int
    data_octets: int = DATA_OCTETS

    def __post_init__(self) -> None:
        if not 0 < self.buffer_count < 2**31 or self.data_octets < LINE_OCTETS:
            raise ValueError(f"a pool of {self.buffer_count} buffers of {self.data_octets} octets")
        if self.stride_octets > CHUNK_OCTETS:
            raise ValueError(f"a buffer of {self.data_octets} octets does not fit in {CHUNK_OCTETS}")
        if self.size_octets > 2**32:
            raise ValueError(f"the pool would have {self.size_octets} octets; descriptors reach 4 GiB")

    @property
    def stride_octets(self) -> int:
        """From one buffer to the next: metadata, headroom and data, an odd number of lines."""
        lines = -(-(METADATA_OCTETS + HEADROOM_OCTETS + self.data_octets) // LINE_OCTETS)
        return (lines | 1) * LINE_OCTETS

    @property
    def buffers_per_chunk(self) -> int:
        """Buffers in each chunk of 2 MiB; what remains of the chunk is unused."""
        return CHUNK_OCTETS // self.stride_octets

    @property
    def size_octets(self) -> int:
        """Of the pool, in whole chunks. The file may be larger where pages are."""
        return -(-self.buffer_count // self.buffers_per_chunk) * CHUNK_OCTETS

    def offset(self, index: int) -> int:
        """Return where buffer `index` starts. Raises ValueError when there is none."""
        if not 0 <= index < self.buffer_count:
            raise ValueError(f"no buffer {index} among {self.buffer_count}")
        chunk, position = divmod(index, self.buffers_per_chunk)
        return chunk * CHUNK_OCTETS + position * self.stride_octets

    def frame_offset(self, index: int) -> int:
        """Return where a port puts a frame in buffer `index`."""
        return self.offset(index) + METADATA_OCTETS + HEADROOM_OCTETS

    def index(self, offset: int) -> tuple[int, int]:
        """Return (buffer, octets from its start) of an offset. Raises ValueError when it is in no buffer."""
        chunk, rest = divmod(offset, CHUNK_OCTETS)
        position, within = divmod(rest, self.stride_octets)
        index = chunk * self.buffers_per_chunk + position
        if offset < 0 or position >= self.buffers_per_chunk or index >= self.buffer_count:
            raise ValueError(f"offset {offset} lies in no buffer")
        return index, within

    def write_to(self, struct: Any) -> None:
        """Fill a `struct halo_pool_geometry`."""
        struct.size_octets = self.size_octets
        struct.buffer_count = self.buffer_count
        struct.buffers_per_chunk = self.buffers_per_chunk
        struct.stride_octets = self.stride_octets
        struct.data_octets = self.data_octets


def create_pool(geometry: PoolGeometry, page_octets: int | None = None) -> int:
    """Return the memfd of a new pool, reserved and sealed; on hugepages of that size when asked.

    Raises EnvironmentProblem when there is not that much memory.
    """
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    if page_octets is not None:
        flags |= os.MFD_HUGETLB | _HUGE_FLAG[page_octets]
    size_octets = _round_up(geometry.size_octets, page_octets or CHUNK_OCTETS)
    try:
        fd = os.memfd_create("halo-mp.pool", flags)
    except OSError as error:
        raise EnvironmentProblem(f"the pool can not be created: {error.strerror}.") from None
    try:
        os.posix_fallocate(fd, 0, size_octets)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        os.close(fd)
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise
        raise EnvironmentProblem(_no_memory(size_octets, page_octets)) from None
    return fd


class PoolMapping:
    """The pool, mapped. `pointer` is its first octet as `uint8_t *`; it must not be used after `close`."""

    def __init__(self, fd: int, size_octets: int, *, writable: bool = True) -> None:
        """Map a pool of at least that size. Raises EnvironmentProblem when that is no sealed pool."""
        problem = _check(fd, size_octets)
        if problem:
            raise EnvironmentProblem(f"the pool is refused: {problem}.")
        self.size_octets = size_octets
        self._address = map_shared(fd, size_octets, writable=writable)
        self.pointer: Any = ffi.cast("uint8_t *", self._address)

    def close(self) -> None:
        """Unmap. May be called twice."""
        if self.pointer is not None:
            self.pointer = None
            unmap(self._address, self.size_octets)


def _check(fd: int, size_octets: int) -> str | None:
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return "its descriptor is no memfd"
    if seals & _SEALS != _SEALS:
        return "it is not sealed against resizing"
    found = os.fstat(fd).st_size
    return None if found >= size_octets else f"it has {found} octets, not {size_octets}"


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _no_memory(size_octets: int, page_octets: int | None) -> str:
    if page_octets is None:
        return f"the pool needs {size_octets} octets of memory, and there is less. Ask for a smaller pool."
    path = Path(f"/sys/kernel/mm/hugepages/hugepages-{page_octets >> 10}kB")
    try:
        free = (path / "free_hugepages").read_text().strip()
    except OSError:
        free = "none"
    return (
        f"the pool needs {size_octets // page_octets} hugepages of {page_octets >> 20} MiB, and {free} are "
        f"free. Reserve more (echo N > {path}/nr_hugepages), or do without hugepages."
    )
