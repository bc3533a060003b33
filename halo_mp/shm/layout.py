# SPDX-License-Identifier: Apache-2.0
"""The layout of shared memory as Python sees it: what native/include/halo/layout_def.h says, nothing else.

Everything here is read from the compiled module, so that both languages use one truth.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from halo_mp._native import ffi, lib

__all__ = [
    "BOOT_ID_OCTETS",
    "CHUNK_OCTETS",
    "DATA_OCTETS",
    "DESCRIPTOR_OCTETS",
    "DROP_NAMES",
    "DROP_TEXTS",
    "HEADROOM_OCTETS",
    "LAYOUT_VERSION",
    "LINE_OCTETS",
    "MAGIC",
    "MAX_ADDRESSES",
    "MAX_INTERFACES",
    "MAX_LCORES",
    "MAX_PORTS",
    "MAX_SLOTS",
    "METADATA_OCTETS",
    "NO_SLOT",
    "SPARE_SIZE",
    "IdlePolicy",
    "Place",
    "PortMode",
    "PortState",
    "RegionKind",
    "SlotState",
    "WorkerState",
    "ffi",
    "lib",
    "size_of",
]

# A macro in layout.h, which cffi can not read; attaching to a region that C made would fail if they differed.
MAGIC = int.from_bytes(b"halo-mp1", "little")

LAYOUT_VERSION: int = lib.HALO_LAYOUT_VERSION
BOOT_ID_OCTETS: int = lib.HALO_BOOT_ID_OCTETS
CHUNK_OCTETS: int = lib.HALO_CHUNK_OCTETS
METADATA_OCTETS: int = lib.HALO_METADATA_OCTETS
HEADROOM_OCTETS: int = lib.HALO_HEADROOM_OCTETS
DATA_OCTETS: int = lib.HALO_DATA_OCTETS
SPARE_SIZE: int = lib.HALO_SPARE_SIZE
MAX_SLOTS: int = lib.HALO_MAX_SLOTS
NO_SLOT: int = lib.HALO_NO_SLOT
MAX_PORTS: int = lib.HALO_MAX_PORTS
MAX_LCORES: int = lib.HALO_MAX_LCORES
MAX_INTERFACES: int = lib.HALO_MAX_INTERFACES
MAX_ADDRESSES: int = lib.HALO_MAX_ADDRESSES
LINE_OCTETS = 64


def size_of(struct: str) -> int:
    """Return the size in octets of `struct <struct>`."""
    return int(ffi.sizeof(f"struct {struct}"))


DESCRIPTOR_OCTETS = size_of("halo_descriptor")


def _text(pointer: Any) -> str:
    return bytes(ffi.string(pointer)).decode()


# The position is the index into every drop counter array.
DROP_NAMES: tuple[str, ...] = tuple(_text(lib.halo_drop_name(i)) for i in range(lib.HALO_DROP_COUNT))
DROP_TEXTS: tuple[str, ...] = tuple(_text(lib.halo_drop_text(i)) for i in range(lib.HALO_DROP_COUNT))


class RegionKind(IntEnum):
    """What a region holds."""

    OWNERS = lib.HALO_REGION_OWNERS
    SLOT = lib.HALO_REGION_SLOT
    TABLES = lib.HALO_REGION_TABLES
    PORTS = lib.HALO_REGION_PORTS
    FIB = lib.HALO_REGION_FIB
    ROUTES = lib.HALO_REGION_ROUTES

    @property
    def struct(self) -> str:
        """The C struct at the start of a region of this kind."""
        return f"halo_{self.name.lower()}"


class SlotState(IntEnum):
    """Where a slot's rings are in their life cycle; written by the driver."""

    DISABLED = lib.HALO_SLOT_DISABLED
    ENABLED = lib.HALO_SLOT_ENABLED
    BROKEN = lib.HALO_SLOT_BROKEN


class WorkerState(IntEnum):
    """What a worker says of itself in its slot."""

    ABSENT = lib.HALO_WORKER_ABSENT
    ATTACHED = lib.HALO_WORKER_ATTACHED
    STOPPING = lib.HALO_WORKER_STOPPING


class Place(IntEnum):
    """Where the thread of a worker or an lcore is; each place has its own hang limit."""

    NATIVE = lib.HALO_PLACE_NATIVE
    PYTHON = lib.HALO_PLACE_PYTHON
    ASLEEP = lib.HALO_PLACE_ASLEEP


class IdlePolicy(IntEnum):
    """What a poller does that finds nothing."""

    POLL = lib.HALO_IDLE_POLL
    ADAPTIVE = lib.HALO_IDLE_ADAPTIVE
    SLEEP = lib.HALO_IDLE_SLEEP


class PortState(IntEnum):
    """What the driver says of a port."""

    ABSENT = lib.HALO_PORT_ABSENT
    STARTED = lib.HALO_PORT_STARTED
    FAILED = lib.HALO_PORT_FAILED


class PortMode(IntEnum):
    """How a port receives: into the pool, or into memory of its own and then copied."""

    DIRECT = lib.HALO_PORT_DIRECT
    COPY = lib.HALO_PORT_COPY
