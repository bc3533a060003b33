# SPDX-License-Identifier: Apache-2.0
"""Reads everything that an instance counts, by mapping its regions read-only.

A region is attached once and stays mapped. When the instance was started anew under its name, its regions are others:
that is seen by the file of `ports`, and everything begins anew. What the driver says of a port is whole, or the last
that was whole; a driver's death does not take away what its ports had counted.
"""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Self

from halo_mp.errors import EnvironmentProblem
from halo_mp.runtime import runtime_base
from halo_mp.shm.counters import (
    COPY_ATTEMPTS,
    INTERFACE_COUNTERS,
    PORT_COUNTERS,
    PortSnapshot,
    PortsSnapshot,
    port_counters,
    read_interfaces_counted,
    read_ports,
    read_slot,
)
from halo_mp.shm.layout import RegionKind
from halo_mp.shm.load import HOOK_COUNTERS, HookStats, read_hooks, read_load
from halo_mp.shm.region import DIRECTORY, Region, region_name
from halo_mp.shm.tables import Interface, InterfaceFlag, interface_name, read_interfaces
from halo_mp.stats.model import WORD, InterfaceStats, PortStats, QueueStats, SlotStats, Snapshot
from halo_mp.stats.status_model import FILE, PortStatus, ProcessStatus, Status, from_json
from halo_mp.stats.totals import Floor, Totals

_QUEUE = re.compile(r"(rx|tx)_q(\d+)_?(packets|bytes)")
_QUEUE_FIELD = {"packets": "frames", "bytes": "octets"}


class NoMemory(EnvironmentProblem):
    """There are no regions of that name: the instance is not running."""


class Reader:
    """Of one instance. A context manager; one thread at a time may use it."""

    _mark: tuple[int, int]
    _ports: Region
    _tables: Region
    _generation: int
    _driver_pid: int

    def __init__(
        self, instance: str = "default", *, base: Path | None = None, shared_memory: Path = DIRECTORY
    ) -> None:
        """Attach to an instance that runs, or whose processes do. Raises HaloError.

        `base` is where instances have their directories, `shared_memory` where their regions are seen.
        """
        self.instance = instance
        self._status_path = (runtime_base() if base is None else base) / instance / FILE
        self._shared_memory = shared_memory
        self._status: Status | None = None
        self._status_mark: tuple[int, int] | None = None
        self._regions = ExitStack()
        self._attach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmap everything. May be called twice."""
        self._regions.close()
        self._slots: dict[int, Region] = {}

    def read(self) -> Snapshot:
        """Return what there is now. Raises HaloError when the instance has ended."""
        if self._mark_of_ports() != self._mark:
            self._attach()
        status = self._read_status()
        for process in status.processes:
            if process.slot is not None and process.slot not in self._slots:
                self._slots[process.slot] = self._open(f"slot.{process.slot}", RegionKind.SLOT)
        told = read_ports(self._ports)
        if told["driver_pid"] != self._driver_pid:  # what its predecessor had counted is in the status by now
            self._driver_pid = told["driver_pid"]
            self._last_whole.clear()
        return Snapshot(
            instance=self.instance,
            generation=self._generation,
            at=time.time(),
            now=time.monotonic(),
            driver_pid=told["driver_pid"],
            pool_free=told["pool_free"],
            withheld=told["withheld"],
            lcores=tuple(told["lcores"]),
            ports={port.number: self._port(port, told) for port in status.ports},
            slots={
                process.slot: self._slot(process.slot, process)
                for process in status.processes
                if process.slot is not None
            },
            interfaces=self._interfaces(),
            status=status,
        )

    # ---- attaching

    def _attach(self) -> None:
        """Map the regions of the run that there is now, and count from what they say: of all of them, or of none."""
        self.close()
        try:
            self._attach_all()
        except BaseException:
            self.close()
            raise

    def _attach_all(self) -> None:
        mark = self._mark_of_ports()
        self._port_floors: defaultdict[int, Floor] = defaultdict(Floor)
        self._queues: defaultdict[int, Totals] = defaultdict(Totals)
        self._last_whole: dict[int, PortSnapshot] = {}
        self._driver_pid = 0
        self._hooks: defaultdict[tuple[int, str], Totals] = defaultdict(Totals)
        self._ports = self._open("ports", RegionKind.PORTS)
        self._tables = self._open("tables", RegionKind.TABLES)
        self._generation = self._ports.header.generation
        self._interfaces_of: int | None = None  # their generation
        self._there: dict[int, InterfaceStats] = {}
        self._status_mark = None
        self._read_status()
        self._mark = mark  # last: who could not attach to all of them tries it again

    def _open(self, name: str, kind: RegionKind) -> Region:
        path = self._path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self._not_running() from None
        except PermissionError:
            raise EnvironmentProblem(f"{path} is not yours to read. Ask as its owner, or as root.") from None
        region = Region.attach(descriptor, kind, writable=False)
        self._regions.callback(region.close)
        region.close_fd()
        return region

    def _path(self, name: str) -> Path:
        return self._shared_memory / region_name(self.instance, name).lstrip("/")

    def _mark_of_ports(self) -> tuple[int, int]:
        """Return what tells the regions of this run from those of another."""
        try:
            found = os.stat(self._path("ports"))
        except FileNotFoundError:
            raise self._not_running() from None
        return found.st_dev, found.st_ino

    def _not_running(self) -> NoMemory:
        return NoMemory(
            f"Instance {self.instance!r} is not running: it has no shared memory. "
            f"`halo-mp status --name {self.instance}` says what there is."
        )

    def _read_status(self) -> Status:
        try:
            found = os.stat(self._status_path)
            mark = (found.st_ino, found.st_mtime_ns)
            if mark != self._status_mark:
                self._status = from_json(self._status_path.read_text())
                self._status_mark = mark
        except FileNotFoundError:
            self._status = None
        except PermissionError as error:
            raise EnvironmentProblem(
                f"{error.filename} is not yours to read. Ask as its owner, or as root."
            ) from None
        if self._status is None:
            raise EnvironmentProblem(
                f"Instance {self.instance!r} has said nothing of itself that this version of halo-mp understands "
                f"({self._status_path}). Is it just starting? Try again."
            )
        return self._status

    # ---- ports

    def _port(self, port: PortStatus, told: PortsSnapshot) -> PortStats:
        found = told["ports"].get(port.number)
        if found is not None and found["whole"]:
            self._last_whole[port.number] = found
        last = self._last_whole.get(port.number)
        counted = {} if last is None else port_counters(last)
        before = port.counted_before
        floor = self._port_floors[port.number]
        xstats = {} if last is None else last["xstats"]
        # Those of queues go on counting over a loss of the device; they are kept by their xstat's name.
        of_queues = {name: xstats[name] for name, _, _ in _queue_xstats(tuple(xstats))}
        queues = self._queues[port.number].update(of_queues)
        return PortStats(
            number=port.number,
            device=port.device,
            driver=port.driver,
            state=port.state if last is None else last["state"],
            mac=port.mac,
            mtu=port.mtu,
            link_up=last is not None and last["link_up"],
            speed_mbps=0 if last is None else last["speed_mbps"],
            counters=floor.update(
                {name: counted.get(name, 0) + before.get(name, 0) for name in PORT_COUNTERS}
            ),
            queues=_by_queue(queues, tuple(queues)),
            xstats=xstats,
        )

    # ---- slots

    def _slot(self, number: int, process: ProcessStatus) -> SlotStats:
        region = self._slots[number]
        found = read_slot(region)
        return SlotStats(
            number=number,
            ports=process.ports,
            state=found["state"],
            worker_state=found["worker_state"],
            worker_pid=found["worker_pid"],
            place=found["place"],
            home_lcore=found["home_lcore"],
            ring_size=region.pointer.geometry.ring_size,
            rx_fill=found["rx_fill"],
            tx_fill=found["tx_fill"],
            spare_fill=found["spare_fill"],
            progress=found["progress"],
            worker=found["worker"]["counters"],
            driver=found["driver"]["counters"],
            worker_drops=found["worker"]["drops"],
            driver_drops=found["driver"]["drops"],
            load=read_load(region),
            hooks=tuple(self._hook(number, hook) for hook in read_hooks(region)),
        )

    def _hook(self, slot: int, hook: HookStats) -> HookStats:
        """Return a hook with what its workers before this one have counted."""
        counted = {name: getattr(hook, name) for name in HOOK_COUNTERS}
        sums: dict[str, Any] = {**self._hooks[slot, hook.name].update(counted)}
        return replace(hook, **sums)

    # ---- interfaces

    def _interfaces(self) -> dict[str, InterfaceStats]:
        tables = self._tables.pointer
        for _ in range(COPY_ATTEMPTS):
            generation = tables.interface_generation
            if generation == self._interfaces_of:
                break
            self._there = {
                number: _uncounted(number, each) for number, each in read_interfaces(self._tables).items()
            }
            self._interfaces_of = generation
        there = self._there
        count = max(there, default=-1) + 1
        counted = [read_interfaces_counted(region, count) for region in self._slots.values()]
        sums = [sum(words) & WORD for words in zip(*counted, strict=True)]
        width = len(INTERFACE_COUNTERS)
        found = {}
        for number, interface in there.items():
            counts = dict(zip(INTERFACE_COUNTERS, sums[number * width :], strict=False))
            found[interface.name] = replace(interface, **counts)
        return found


def _uncounted(number: int, interface: Interface) -> InterfaceStats:
    return InterfaceStats(
        name=interface_name(interface.port, interface.vlan),
        number=number,
        mac=interface.mac.hex(":"),
        mtu=interface.mtu,
        up=InterfaceFlag.UP in interface.flags,
        addresses=tuple(f"{IPv4Address(address)}/{length}" for address, length in interface.addresses),
    )


@lru_cache(maxsize=256)
def _queue_xstats(names: tuple[str, ...]) -> tuple[tuple[str, int, str], ...]:
    """Return those xstats of a device that are of a queue, each with the queue and our name for the counter."""
    matches = filter(None, map(_QUEUE.fullmatch, names))
    return tuple((match[0], int(match[2]), f"{match[1]}_{_QUEUE_FIELD[match[3]]}") for match in matches)


def _by_queue(xstats: Mapping[str, int], names: tuple[str, ...]) -> dict[int, QueueStats]:
    found: dict[int, dict[str, int]] = {}
    for name, queue, counter in _queue_xstats(names):
        found.setdefault(queue, {})[counter] = xstats[name]
    return {queue: QueueStats(**found[queue]) for queue in sorted(found)}
