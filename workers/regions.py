# SPDX-License-Identifier: Apache-2.0
"""What a worker maps: the pool, its slot, the tables and the FIB, from descriptors that the supervisor sent.

Each descriptor is closed once it is mapped, but for the two doorbells. After privileges are gone nothing can be opened
by name, and nothing needs to be.
"""

from __future__ import annotations

import os

from halo_mp.shm.layout import RegionKind
from halo_mp.shm.pool import PoolMapping
from halo_mp.shm.region import Region

DESCRIPTORS = 6  # pool, slot, tables, FIB, our doorbell, the driver's doorbell


class WorkerRegions:
    """The mappings of one worker. Raises EnvironmentProblem when something is not what it should be."""

    def __init__(self, fds: list[int]) -> None:
        if len(fds) != DESCRIPTORS:
            for fd in fds:
                os.close(fd)
            raise ValueError(f"{len(fds)} descriptors came with configure, {DESCRIPTORS} were expected")
        pool_fd, slot_fd, tables_fd, fib_fd, self.doorbell_fd, self.driver_doorbell_fd = fds
        self.slot = Region.attach(slot_fd, RegionKind.SLOT, writable=True)
        self.tables = Region.attach(tables_fd, RegionKind.TABLES, writable=False)
        self.fib = Region.attach(fib_fd, RegionKind.FIB, writable=False)
        self.pool = PoolMapping(pool_fd, self.slot.pointer.geometry.pool.size_octets)
        os.close(pool_fd)
        self.slot.keep_from_children()  # an application may fork
        self.slot.close_fd()
        self.tables.close_fd()
        self.fib.close_fd()

    def close(self, *, keep_pool: bool = False) -> None:
        """Unmap everything and close the doorbells.

        `keep_pool`: leave the pool mapped until the process ends, since somebody may have kept views of it.
        """
        os.close(self.doorbell_fd)
        os.close(self.driver_doorbell_fd)
        if not keep_pool:
            self.pool.close()
        self.fib.close()
        self.tables.close()
        self.slot.close()
