# SPDX-License-Identifier: Apache-2.0
"""Everything that driver and workers share, created before either starts and kept until both have ended.

The supervisor holds every descriptor, so that a new driver or worker gets the same memory and the same
doorbells as the one that died.
"""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from halo_mp.control.inbox import close_all
from halo_mp.errors import EnvironmentProblem
from halo_mp.shm.fib import create_fib, create_routes
from halo_mp.shm.layout import RegionKind
from halo_mp.shm.owners import create_owners
from halo_mp.shm.pool import create_pool
from halo_mp.shm.ports import create_ports
from halo_mp.shm.region import Region, region_name
from halo_mp.shm.slot import create_slot, write_geometry
from halo_mp.shm.tables import create_tables
from halo_mp.supervisor.config import Config, SlotConfig, pool_geometry
from halo_mp.supervisor.config_pool import slot_geometry


@dataclass(frozen=True, slots=True)
class SlotMemory:
    """What belongs to one slot, whichever worker has it."""

    region: Region
    doorbell: int  # eventfd: wakes the worker
    home_doorbell: int  # eventfd: wakes its home lcore


class Regions:
    """The memory of one run. `close` removes it all."""

    owners: Region
    ports: Region
    tables: Region
    fib: Region
    routes: Region  # the supervisor's alone

    def __init__(self, stack: ExitStack, generation: int, pool_fd: int, lcore_doorbells: list[int]) -> None:
        """For `create` and `adopt`."""
        self._stack = stack
        self.generation = generation
        self.pool_fd = pool_fd
        self.lcore_doorbells = lcore_doorbells
        self.slots: dict[int, SlotMemory] = {}

    @classmethod
    def create(cls, config: Config, generation: int) -> Self:
        """Create it. Raises EnvironmentProblem, and leaves nothing behind then."""
        with ExitStack() as stack:
            geometry = pool_geometry(config)
            pool_fd = create_pool(geometry, config.hugepages)
            stack.callback(os.close, pool_fd)

            def doorbell() -> int:
                fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                stack.callback(os.close, fd)
                return fd

            regions = cls(stack, generation, pool_fd, [doorbell() for _ in config.driver_cores])
            name = config.instance
            regions.owners = regions._keep(create_owners(name, geometry, generation=generation))
            regions.ports = regions._keep(create_ports(name, generation=generation))
            regions.tables = regions._keep(create_tables(name, generation=generation))
            seed = secrets.randbits(32) if config.ecmp_seed is None else config.ecmp_seed
            regions.fib = regions._keep(create_fib(name, generation=generation, hash_seed=seed))
            regions.routes = regions._keep(create_routes(name, generation=generation))
            regions._open_tables()
            for slot in config.slots:
                region = create_slot(name, slot_geometry(config, slot.number), generation=generation)
                regions._keep_slot(slot, region, doorbell())
            regions._stack = stack.pop_all()
        return regions

    @classmethod
    def adopt(cls, config: Config, generation: int, fds: list[int]) -> Self:
        """Attach to what a dead supervisor created; `fds` are what a driver has of it without a name, and ours now.

        Raises EnvironmentProblem when something is not there, or not what it was; the names stay then.
        """
        with ExitStack() as stack:
            stack.callback(close_all, fds)
            if len(fds) != 1 + len(config.slots) + len(config.driver_cores):
                raise EnvironmentProblem(f"{len(fds)} descriptors came back from the driver")
            slot_doorbells, lcore_doorbells = fds[1 : 1 + len(config.slots)], fds[1 + len(config.slots) :]
            regions = cls(stack, generation, fds[0], lcore_doorbells)
            shared = [
                _attach(stack, config, kind.name.lower(), kind, generation)
                for kind in RegionKind
                if kind is not RegionKind.SLOT
            ]
            slots = [
                _attach(stack, config, f"slot.{slot.number}", RegionKind.SLOT, generation)
                for slot in config.slots
            ]
            # All is there: from here on it is ours, and goes with us.
            for region in shared:
                setattr(regions, region.kind.name.lower(), regions._keep(region))
            regions._open_tables()
            for slot, region, doorbell in zip(config.slots, slots, slot_doorbells, strict=True):
                regions._keep_slot(slot, region, doorbell)
            regions._take_over(config)
            regions._stack = stack.pop_all()
        return regions

    def _take_over(self, config: Config) -> None:
        """Write anew what only the supervisor may: nobody has watched over it while there was none."""
        for region in self._all():
            region.take_over()
        pool_geometry(config).write_to(self.owners.pointer.pool)
        for number, memory in self.slots.items():
            write_geometry(memory.region, slot_geometry(config, number))

    def _keep(self, region: Region) -> Region:
        self._stack.callback(_remove, region)
        return region

    def _open_tables(self) -> None:
        self.tables_readonly_fd = self.tables.readonly_fd()
        self._stack.callback(os.close, self.tables_readonly_fd)
        self.fib_readonly_fd = self.fib.readonly_fd()
        self._stack.callback(os.close, self.fib_readonly_fd)

    def _keep_slot(self, slot: SlotConfig, region: Region, doorbell: int) -> None:
        self.slots[slot.number] = SlotMemory(self._keep(region), doorbell, self.lcore_doorbells[slot.lcore])

    @property
    def names(self) -> tuple[str, ...]:
        """The POSIX names of the regions."""
        return tuple(region.name for region in self._all())

    def _all(self) -> list[Region]:
        slots = (slot.region for slot in self.slots.values())
        return [self.owners, self.ports, self.tables, self.fib, self.routes, *slots]

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
            self.fib_readonly_fd,
            memory.doorbell,
            memory.home_doorbell,
        ]

    def close(self) -> None:
        """Unmap and remove everything. May be called twice."""
        self._stack.close()


def _attach(stack: ExitStack, config: Config, name: str, kind: RegionKind, generation: int) -> Region:
    region = Region.attach(region_name(config.instance, name), kind, writable=True)
    stack.callback(region.close)
    if region.header.generation != generation:
        raise EnvironmentProblem(f"region {region.name} is of another run.")
    return region


def _remove(region: Region) -> None:
    region.unlink()
    region.close()
