# SPDX-License-Identifier: Apache-2.0
"""A driver under test: regions, a pool, the driver's process, and slots whose worker is the test itself.

The test creates what a supervisor would and reads every counter from shared memory. `Rig.check_books` is what must hold
whatever the test did.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from halo_mp.shm.counters import PortsSnapshot, read_ports
from halo_mp.shm.layout import DATA_OCTETS, RegionKind, SlotState, ffi, size_of
from halo_mp.shm.owners import count_owned, create_owners
from halo_mp.shm.pool import PoolGeometry, PoolMapping, create_pool
from halo_mp.shm.region import Region, region_name
from halo_mp.shm.slot import SlotGeometry, create_slot
from tests.native.slot import TIMEOUT_S, Slot, SlotPlan, wait_until

INSTANCE_PREFIX = f"native-{os.getpid()}"
DRIVER_PROCESS = Path(__file__).with_name("driver_process.py")
MTU = 1500
FRAME_OVERHEAD = 22  # Ethernet header and two VLAN tags: what the driver adds to an MTU


class RefusalError(Exception):
    """The driver answered with a sentence."""


@dataclass(frozen=True, slots=True)
class PortPlan:
    """A port: the device's name and arguments as EAL takes them."""

    number: int
    device: str
    mtu: int = MTU
    queues: int = 1
    spread: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a rig consists of."""

    ports: tuple[PortPlan, ...]
    slots: tuple[SlotPlan, ...]
    lcores: int = 1
    buffers: int = 8192
    data_octets: int = DATA_OCTETS
    idle: str = "adaptive"
    enabled: bool = True
    adopted: bool = (
        False  # the driver finds the slots enabled, as a successor does, and serves them from its first turn
    )
    rx_checksum: bool = False
    tx_only: bool = False  # no queue is read
    prefix: tuple[str, ...] = ()  # of the driver's command, such as nsenter

    def __post_init__(self) -> None:
        assert len({port.number for port in self.ports}) == len(self.ports)


@dataclass(slots=True)
class _Memory:
    """What outlives a driver."""

    pool_fd: int
    owners: Region
    ports: Region
    mapping: PoolMapping
    lcore_doorbells: list[int] = field(default_factory=list)


class Driver:
    """The driver's process."""

    def __init__(
        self, command: Sequence[str], fds: Sequence[int], message: dict[str, Any], folder: Path
    ) -> None:
        self._process = subprocess.Popen(
            [*command, sys.executable, str(DRIVER_PROCESS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=fds,
            env=os.environ | {"RUNTIME_DIRECTORY": str(folder)},
            text=True,
            bufsize=1,
        )
        self.start_error: str | None = None
        try:
            self.do("configure", message=message, fds=list(fds))
        except RefusalError as error:
            self.start_error = str(error)
        except BaseException:
            self.kill()
            raise

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def do(self, what: str, **arguments: Any) -> Any:
        """Have the driver do something; return its answer. Raises RefusalError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        line = self._process.stdout.readline()
        assert line, f"the driver died, exit status {self._process.wait()}"
        answer = json.loads(line)
        if "error" in answer:
            raise RefusalError(answer["error"])
        return answer["result"]

    def stop(self) -> None:
        """End it in order."""
        if self.alive:
            self.do("stop")
        self._end()
        assert self._process.returncode == 0

    def kill(self) -> None:
        """Kill it, as an out-of-memory killer would."""
        self._process.send_signal(signal.SIGKILL)
        self._end()

    def _end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.wait(TIMEOUT_S)
        self._process.stdin.close()
        self._process.stdout.close()


class Rig:
    """Everything of one instance. Use as a context manager; leaving it checks the books when the driver still lives."""

    _made = 0

    def __init__(self, plan: Plan, folder: Path) -> None:
        Rig._made += 1
        self.plan = plan
        self.instance = f"{INSTANCE_PREFIX}-{Rig._made}"
        self.pool = PoolGeometry(plan.buffers, plan.data_octets)
        self._folder = folder
        self._stack = ExitStack()
        self._driver: Driver | None = None
        with ExitStack() as undo:
            undo.callback(self._stack.close)
            self._memory = self._create_memory()
            self.slots = {slot.number: self._create_slot(slot) for slot in plan.slots}
            if plan.adopted:
                for slot in self.slots.values():
                    slot.region.pointer.life.state = SlotState.ENABLED
            self.start_driver()
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        try:
            if kind is None and self._driver is not None:
                self.check_books()
                self.stop_driver()
        finally:
            self.kill_driver()
            self._stack.close()

    # ---- the driver

    @property
    def driver(self) -> Driver:
        assert self._driver is not None
        assert self._driver.alive, "the driver died"
        return self._driver

    def start_driver(self, *, expect_error: bool = False) -> str:
        """Start a driver on this memory, the first or a successor; return its sentence when it is to refuse."""
        assert self._driver is None
        memory = self._memory
        slots = [fd for slot in self.slots.values() for fd in (slot.region.fd, slot.doorbell)]
        fds = [memory.pool_fd, memory.owners.fd, memory.ports.fd, *slots, *memory.lcore_doorbells]
        self._driver = Driver(self.plan.prefix, fds, self._message(), self._folder)
        error = self._driver.start_error
        if expect_error:
            assert error is not None
            self.kill_driver()
            return error
        assert error is None, error
        if self.plan.enabled:
            for slot in self.slots.values():
                if slot.state == SlotState.DISABLED:
                    self.enable(slot)
        return ""

    def stop_driver(self) -> None:
        self.driver.stop()
        self._driver = None

    def kill_driver(self) -> None:
        if self._driver is not None:
            self._driver.kill()
            self._driver = None

    def enable(self, slot: Slot) -> None:
        self.driver.do("enable", slot=slot.number)

    def reset(self, slot: Slot) -> int:
        """Walk the slot's life cycle up to disabled; return how many buffers came back."""
        return int(self.driver.do("reset", slot=slot.number))

    def sync(self, slot: Slot) -> dict[str, int]:
        """Wait until all of tx is served and counted; return the counters. An order runs between two bursts."""
        slot.drain()
        self.enable(slot)
        return slot.counters()

    def feed(self, slot: Slot, *feeds: tuple[int, int]) -> None:
        self.driver.do("feeds", slots=[{"slot": slot.number, "feeds": feeds}])

    # ---- what can be seen

    @property
    def ports(self) -> Any:
        return self._memory.ports.pointer

    @property
    def owners(self) -> memoryview:
        """The owner table, one octet per buffer."""
        region = self._memory.owners
        octets = memoryview(ffi.buffer(ffi.cast("uint8_t *", region.pointer), region.size_octets))
        return octets[size_of("halo_owners") :]

    def doorbell_of_lcore(self, lcore: int) -> int:
        return self._memory.lcore_doorbells[lcore]

    def read_ports(self) -> PortsSnapshot:
        self.driver.do("status")
        return read_ports(self._memory.ports)

    def owned(self, slot: Slot) -> int:
        """How many buffers the slot has, as the owner table says."""
        return count_owned(self._memory.owners, slot.number)

    def free(self) -> int:
        """How many buffers the driver's pool has now."""
        return self.read_ports()["pool_free"]

    def settle(self) -> None:
        """Wait until no buffer changes hands by itself."""
        for slot in self.slots.values():
            if slot.state == SlotState.ENABLED:
                slot.drain()
                slot.settle()

    def check_books(self, *, in_ports: int = 0, laws: bool = True) -> None:
        """Each buffer is free, or some slot's, or in a port; each descriptor came to one end.

        `in_ports`: frames that a port keeps for who reads it. `laws`: not where a driver was killed between counters.
        """
        slots = self.slots.values()
        for slot in slots:
            if slot.state == SlotState.ENABLED:
                slot.drain()
        everything = self.plan.buffers - in_ports
        wait_until(
            lambda: self.free() + sum(map(self.owned, slots)) == everything,
            f"{everything} buffers are free or owned: {self.free()} + {[self.owned(slot) for slot in slots]}",
        )
        for slot in slots:
            assert slot.counters()["outstanding"] == self.owned(slot) <= slot.bound
            if laws:
                slot.check_law()

    # ---- making it

    def _create_memory(self) -> _Memory:
        pool_fd = create_pool(self.pool)
        self._stack.callback(os.close, pool_fd)
        mapping = PoolMapping(pool_fd, self.pool.size_octets)
        self._stack.callback(mapping.close)
        owners = self._keep(create_owners(self.instance, self.pool, generation=1))
        name = region_name(self.instance, "ports")
        ports = self._keep(Region.create(name, RegionKind.PORTS, size_of("halo_ports"), generation=1))
        memory = _Memory(pool_fd, owners, ports, mapping)
        for _ in range(self.plan.lcores):
            memory.lcore_doorbells.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            self._stack.callback(os.close, memory.lcore_doorbells[-1])
        return memory

    def _create_slot(self, plan: SlotPlan) -> Slot:
        geometry = SlotGeometry(plan.number, self.pool, ring_size=plan.ring_size)
        region = self._keep(create_slot(self.instance, geometry, generation=1))
        home = self._memory.lcore_doorbells[plan.lcore]
        slot = Slot(plan, region, self.pool, self._memory.mapping, home)
        self._stack.callback(slot.close)
        return slot

    def _keep(self, region: Region) -> Region:
        self._stack.callback(region.close)
        region.unlink()  # everybody who needs it gets the descriptor
        return region

    def _message(self) -> dict[str, Any]:
        cores = sorted(os.sched_getaffinity(0))
        return {
            "type": "configure",
            "instance": self.instance,
            "lcores": [cores[i % len(cores)] for i in range(self.plan.lcores)],
            "main_cores": cores,
            "mem_channels": None,
            "hugepages": None,
            "memory_mb": 64,
            "vdevs": [port.device for port in self.plan.ports],
            "pcis": [],
            "eal": [],
            "rx_checksum": self.plan.rx_checksum,
            "tx_checksum": False,
            "tx_only": self.plan.tx_only,
            "idle": self.plan.idle,
            "spin_ns": 20_000,
            "ports": [
                {
                    "port": port.number,
                    "device": port.device.split(",")[0],
                    "queues": port.queues,
                    "spread": port.spread,
                    "mtu": port.mtu,
                    "promiscuous": True,
                }
                for port in self.plan.ports
            ],
            "slots": [
                {"slot": slot.number, "lcore": slot.lcore, "feeds": slot.feeds} for slot in self.plan.slots
            ],
        }
