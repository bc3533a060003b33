# SPDX-License-Identifier: Apache-2.0
"""Putting right what only the supervisor may write in shared memory: headers, geometry, tables.

Attached processes have read those words once and go on by their own copies; who attaches next would refuse a
scribbled region, or believe it. So each 100 ms the words are compared with what was written, and rewritten where they
differ. What else was changed in a scribbled slot region nobody knows: its worker is ended and its rings are made anew.

Regions are read and written here through their descriptors: where a mapping of a file that was cut off is a SIGBUS, a
read is short.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from halo_mp import logs
from halo_mp.shm.layout import RegionKind, ffi, size_of
from halo_mp.shm.region import HEADER_OCTETS, Region
from halo_mp.supervisor.regions import Regions

_NAMED = 8  # words that one line of the log names
_WORD = 4
_GUARDED = {
    RegionKind.SLOT: HEADER_OCTETS + size_of("halo_slot_geometry"),
    RegionKind.OWNERS: HEADER_OCTETS + size_of("halo_pool_geometry"),
    RegionKind.PORTS: HEADER_OCTETS,
    RegionKind.TABLES: size_of("halo_tables"),  # the supervisor is the only writer of all of it
    RegionKind.FIB: HEADER_OCTETS,
    RegionKind.ROUTES: HEADER_OCTETS,
}

log = logs.get("supervisor")


@dataclass(slots=True)
class _Guard:
    """What the start of a region must be, and whose it is."""

    region: Region
    slots: frozenset[int]  # whose workers can not go on when the region was scribbled over
    cut_slots: frozenset[int]  # and when what it held is gone
    wanted: bytes
    failed: bool = False


class Mending:
    """Watches the regions of a run. `mended` counts the repairs of each by its name."""

    def __init__(self, regions: Regions) -> None:
        """Take what the regions say now for right."""
        self.mended: Counter[str] = Counter()
        everybody = frozenset(regions.slots)
        nobody: frozenset[int] = frozenset()
        self._guards = {
            # Without owners a driver would take every buffer for free, those in workers' hands too.
            regions.owners.name: _guard(regions.owners, nobody, everybody),
            regions.ports.name: _guard(regions.ports, nobody, nobody),
            regions.tables.name: _guard(regions.tables, nobody, nobody),
            regions.fib.name: _guard(regions.fib, nobody, nobody),
            regions.routes.name: _guard(regions.routes, nobody, nobody),
        }
        for number, memory in regions.slots.items():
            own = frozenset((number,))
            self._guards[memory.region.name] = _guard(memory.region, own, own)

    def renew(self, region: Region) -> None:
        """Take what a region says now for right: the supervisor has just written to it."""
        guard = self._guards[region.name]
        guard.wanted = _read(guard.region)

    def check(self) -> set[int]:
        """Put right what differs; return the slots whose workers must be ended for it."""
        slots: set[int] = set()
        for guard in self._guards.values():
            try:
                slots |= self._check(guard)
                guard.failed = False
            except OSError as error:  # no room left for what was cut off
                if not guard.failed:
                    log.error("region.not_mended", region=guard.region.name, reason=error.strerror)
                guard.failed = True
        return slots

    def _check(self, guard: _Guard) -> frozenset[int]:
        size_octets = os.fstat(guard.region.fd).st_size
        found = _read(guard.region)
        if found == guard.wanted and size_octets == guard.region.size_octets:
            return frozenset()
        if cut := size_octets < guard.region.size_octets:
            os.posix_fallocate(guard.region.fd, 0, guard.region.reserved_octets)
            os.ftruncate(guard.region.fd, guard.region.size_octets)
        elif size_octets > guard.region.size_octets:
            os.ftruncate(guard.region.fd, guard.region.size_octets)
        os.pwrite(guard.region.fd, guard.wanted, 0)
        self.mended[guard.region.name] += 1
        names = list(_differences(guard, found))
        log.warning(
            "region.mended",
            region=guard.region.name,
            words=len(names),
            which=names[:_NAMED],
            found_octets=size_octets,
        )
        return guard.cut_slots if cut else guard.slots


def _guard(region: Region, slots: frozenset[int], cut_slots: frozenset[int]) -> _Guard:
    return _Guard(region, slots, cut_slots, _read(region))


def _read(region: Region) -> bytes:
    return os.pread(region.fd, _GUARDED[region.kind], 0)


def _differences(guard: _Guard, found: bytes) -> Iterator[str]:
    """Yield the field of each word that is not what it should be."""
    struct = ffi.typeof(f"struct {guard.region.kind.struct}")
    found = found.ljust(len(guard.wanted), b"\0")
    for at in range(0, len(guard.wanted), _WORD):
        if found[at : at + _WORD] != guard.wanted[at : at + _WORD]:
            yield _field_at(struct, at)


def _field_at(ctype: Any, offset: int) -> str:
    """Return the path of the field of a C type that has the octet at an offset, such as geometry.ring_size."""
    path = ""
    while ctype.kind in ("struct", "array"):
        if ctype.kind == "array":
            ctype = ctype.item
            index, offset = divmod(offset, ffi.sizeof(ctype))
            path += f"[{index}]"
        else:
            name, field = [entry for entry in ctype.fields if entry[1].offset <= offset][-1]
            path += f".{name}" if path else name
            offset -= field.offset
            ctype = field.type
    return path
