# SPDX-License-Identifier: Apache-2.0
"""Everything that driver and workers share, created before either starts and kept until both have ended.

The supervisor holds every descriptor, so that a new driver or worker gets the same memory and the same
doorbells as the one that died.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass

from halo_mp.shm.owners import create_owners
from halo_mp.shm.pool import create_pool
from halo_mp.shm.ports import create_ports
from halo_mp.shm.region import Region
from halo_mp.shm.slot import SlotGeometry, create_slot
from halo_mp.shm.tables import create_tables
from halo_mp.supervisor.config import Config, pool_geometry


@dataclass(frozen=True, slots=True)
class SlotMemory:
    """What belongs to one slot, whichever worker has it."""

    region: Region
    doorbell: int  # eventfd: wakes the worker
    home_doorbell: int  # eventfd: wakes its home lcore


class Regions:
    """The memory of one run. `close` removes it all."""

    def __init__(self, config: Config, generation: int) -> None:
        """Create it. Raises EnvironmentProblem, and leaves nothing behind then."""
        with ExitStack() as stack:
            geometry = pool_geometry(config)
            self.pool_fd = create_pool(geometry, config.hugepages)
            stack.callback(os.close, self.pool_fd)

            def keep(region: Region) -> Region:
                stack.callback(_remove, region)
                return region

            def doorbell() -> int:
                fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                stack.callback(os.close, fd)
                return fd

            name = config.instance
            self.owners = keep(create_owners(name, geometry, generation=generation))
            self.ports = keep(create_ports(name, generation=generation))
            self.tables = keep(create_tables(name, generation=generation))
            self.tables_readonly_fd = self.tables.readonly_fd()
            stack.callback(os.close, self.tables_readonly_fd)
            self.lcore_doorbells = [doorbell() for _ in config.driver_cores]
            self.slots: dict[int, SlotMemory] = {}
            for slot in config.slots:
                region = create_slot(
                    name, SlotGeometry(slot.number, geometry, config.ring_size), generation=generation
                )
                self.slots[slot.number] = SlotMemory(
                    keep(region), doorbell(), self.lcore_doorbells[slot.lcore]
                )
            self._stack = stack.pop_all()

    @property
    def names(self) -> tuple[str, ...]:
        """The POSIX names of the regions."""
        regions = (self.owners, self.ports, self.tables, *(slot.region for slot in self.slots.values()))
        return tuple(region.name for region in regions)

    def driver_fds(self) -> list[int]:
        """The descriptors of a driver's configuration, in order."""
        slots = [fd for slot in self.slots.values() for fd in (slot.region.fd, slot.doorbell)]
        return [self.pool_fd, self.owners.fd, self.ports.fd, *slots, *self.lcore_doorbells]

    def worker_fds(self, slot: int) -> list[int]:
        """The descriptors of a worker's configuration, in order."""
        memory = self.slots[slot]
        return [
            self.pool_fd,
            memory.region.fd,
            self.tables_readonly_fd,
            memory.doorbell,
            memory.home_doorbell,
        ]

    def close(self) -> None:
        """Unmap and remove everything. May be called twice."""
        self._stack.close()


def _remove(region: Region) -> None:
    region.unlink()
    region.close()
