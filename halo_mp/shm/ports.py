# SPDX-License-Identifier: Apache-2.0
"""The ports region: what the driver tells of itself, its lcores and its ports. Created here.

The driver is its only writer; when it has ended, the supervisor takes back what is not true any more, so that a reader
does not take the last words of a dead driver for news, and its successor finds `updates` even.
"""

from __future__ import annotations

from typing import Any

from halo_mp.shm.layout import MAX_LCORES, MAX_PORTS, RegionKind, ffi, size_of
from halo_mp.shm.region import Region, region_name


def create_ports(instance: str, *, generation: int) -> Region:
    """Create the region with no port. Raises EnvironmentProblem."""
    name = region_name(instance, "ports")
    return Region.create(name, RegionKind.PORTS, size_of("halo_ports"), generation=generation)


def forget_driver(region: Region) -> None:
    """Say that there are no ports and no lcores. Only when no driver lives."""
    ports = region.pointer
    ports.driver_pid = 0
    lcores = size_of("halo_lcore_status") * MAX_LCORES
    ffi.memmove(ffi.addressof(ports, "lcore"), bytes(lcores), lcores)
    for number in range(MAX_PORTS):
        _clear_port(ports.port[number])


def _clear_port(status: Any) -> None:
    """Clear it under the protocol of `updates`, which may be odd: its writer died in the middle."""
    before = status.updates | 1
    status.updates = before
    octets = bytes(size_of("halo_port_status"))
    offset = ffi.offsetof("struct halo_port_status", "updates")
    base = ffi.cast("uint8_t *", ffi.addressof(status))
    ffi.memmove(base, octets, offset)
    ffi.memmove(base + offset + 8, octets, len(octets) - offset - 8)
    status.updates = (before + 1) % 2**64  # a scribbler may have been there
