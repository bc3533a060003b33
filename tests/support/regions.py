# SPDX-License-Identifier: Apache-2.0
"""The shared memory and the status file of an instance without its processes: the test writes what they would."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from halo_mp.shm.identity import own_start_ticks
from halo_mp.shm.layout import DROP_NAMES, PortState, SlotState, WorkerState, lib
from halo_mp.shm.pool import PoolGeometry
from halo_mp.shm.ports import create_ports
from halo_mp.shm.region import Region
from halo_mp.shm.slot import SlotGeometry, create_slot
from halo_mp.shm.tables import Interface, TablesWriter, create_tables
from halo_mp.stats.status_model import FILE, PortStatus, ProcessStatus, ReportLine, Status, to_json

XSTATS = 60  # about as many as a NIC has


class Regions:
    """Use as a context manager. Port n feeds slot n; interface n is port n."""

    def __init__(
        self, instance: str, base: Path, *, slots: int = 2, queues: int = 1, ring_size: int = 1024
    ) -> None:
        self.instance = instance
        self.base = base
        self._count = slots
        self._ring_size = ring_size
        self._queues = queues
        self._stack = ExitStack()
        self.slots: list[Region] = []
        self.generation = 0

    def __enter__(self) -> Self:
        (self.base / self.instance).mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Make the regions of a new run."""
        self.generation += 1
        self.ports = self._keep(create_ports(self.instance, generation=self.generation))
        self.tables = self._keep(create_tables(self.instance, generation=self.generation))
        geometry = [SlotGeometry(n, PoolGeometry(100), ring_size=self._ring_size) for n in range(self._count)]
        self.slots = [
            self._keep(create_slot(self.instance, each, generation=self.generation)) for each in geometry
        ]
        TablesWriter(self.tables).write({number: _interface(number) for number in range(self._count)})
        for number in range(self._count):
            self._start_slot(number)
        self.start_driver()
        self.ports.pointer.pool_free = 100
        self.status = self._status()
        self.say()

    def start_driver(self) -> None:
        """Have the driver open its ports."""
        self.ports.pointer.driver_pid = os.getpid()
        for number in range(self._count):
            self._start_port(number)

    def stop(self) -> None:
        """Remove them."""
        self._stack.close()

    def say(self, **changes: Any) -> None:
        """Write the status file, as the supervisor does."""
        self.status = replace(self.status, **changes)
        path = self.base / self.instance / FILE
        path.with_suffix(".new").write_text(to_json(self.status))
        path.with_suffix(".new").rename(path)

    def say_of_port(self, number: int, **changes: Any) -> None:
        """Write the status file with something else of a port."""
        ports = list(self.status.ports)
        ports[number] = replace(ports[number], **changes)
        self.say(ports=tuple(ports))

    def say_of_worker(self, slot: int, **changes: Any) -> None:
        """Write the status file with something else of a worker."""
        processes = [
            replace(each, **changes) if each.slot == slot else each for each in self.status.processes
        ]
        self.say(processes=tuple(processes))

    def forward(self, frames: int, *, port: int = 0) -> None:
        """Count so many frames in by a port, half of them out by it again, and a tenth of them dropped."""
        status = self.ports.pointer.port[port]
        status.updates += 1
        status.rx_frames += frames
        status.rx_octets += 64 * frames
        status.tx_frames += frames // 2
        status.tx_octets += 64 * (frames // 2)
        status.updates += 1
        slot = self.slots[port].pointer
        slot.worker.rx_frames += frames
        slot.worker.rx_octets += 64 * frames
        slot.worker.rx_bursts += frames // 50
        slot.worker.tx_frames += frames // 2
        slot.worker.forwarded += frames // 2
        slot.worker.drops[DROP_NAMES.index("ipv4_no_route")] += frames // 10
        slot.driver.drops[DROP_NAMES.index("rx_ring_full")] += frames // 100
        slot.load.burst[6] += frames // 50
        slot.load.lag[4] += frames // 1000 + 1
        slot.load.lag_ns += 9000 * (frames // 1000 + 1)
        slot.load.timed_frames += frames // 64
        for stage in range(6):
            slot.load.cycles[stage] += (10 + stage) * (frames // 64)
        slot.interface[port].rx_packets += frames

    def add_hook(self, slot: int, name: str, **words: int) -> None:
        """Have the worker of a slot have a hook."""
        hooks = self.slots[slot].pointer.hook
        place = next(i for i in range(lib.HALO_MAX_HOOKS) if not hooks[i].state)
        hooks[place].name = name.encode()
        hooks[place].state = lib.HALO_HOOK_ACTIVE
        for word, value in words.items():
            setattr(hooks[place], word, value)

    def _keep(self, region: Region) -> Region:
        self._stack.callback(region.close)
        self._stack.callback(region.unlink)
        return region

    def _start_slot(self, number: int) -> None:
        slot = self.slots[number].pointer
        slot.life.state = SlotState.ENABLED
        slot.status.state = WorkerState.ATTACHED
        slot.status.pid = os.getpid()

    def _start_port(self, number: int) -> None:
        status = self.ports.pointer.port[number]
        status.state = PortState.STARTED
        status.link_up = 1
        status.speed_mbps = 10000
        status.mtu = 1500
        status.device = f"net_tap{number}".encode()
        status.driver = b"net_tap"
        status.xstat_count = XSTATS
        for i in range(XSTATS):
            name = (
                f"rx_q{i // 2}_{('packets', 'bytes')[i % 2]}" if i < 2 * self._queues else f"some_counter_{i}"
            )
            status.xstat[i].name = name.encode()

    def _status(self) -> Status:
        now, ticks = time.time(), own_start_ticks()

        def process(role: str, slot: int | None) -> ProcessStatus:
            return ProcessStatus(
                role=role,
                slot=slot,
                ports=() if slot is None else (slot,),
                pid=os.getpid(),
                start_ticks=ticks,
                state="ready",
                since=now,
                restarts=0,
                failed_because=None,
                retry_at=None,
            )

        return Status(
            instance=self.instance,
            state="up",
            supervisor_pid=os.getpid(),
            supervisor_start_ticks=ticks,
            since=now,
            processes=(process("driver", None), *(process("worker", n) for n in range(self._count))),
            ports=tuple(_port(number) for number in range(self._count)),
            reports=(
                ReportLine(
                    name="the worker of slot 0", pid=4711, ended_at=now, reason="was killed by SIGKILL"
                ),
            ),
        )


def _interface(number: int) -> Interface:
    return Interface(
        port=number,
        mac=bytes((2, 0, 0, 0, 0, number)),
        mtu=1500,
        addresses=((0x0A4D0001 + (number << 8), 24),),
        home_slot=number,
    )


def _port(number: int) -> PortStatus:
    return PortStatus(
        number=number,
        device=f"net_tap{number}",
        driver="net_tap",
        mac=f"02:00:00:00:00:{number:02x}",
        mtu=1500,
        state="started",
        link_up=True,
    )
