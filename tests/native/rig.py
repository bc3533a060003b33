# SPDX-License-Identifier: Apache-2.0
"""A driver under test: regions, a pool, the driver's process, and slots whose worker is the test itself.

The test creates what a supervisor would, writes into the slots' regions what a worker would, or what it never should,
and reads every counter from shared memory. `Rig.check_books` is what must hold whatever the test did.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from halo_mp.shm.counters import PortsSnapshot, read_driver_counters, read_ports
from halo_mp.shm.layout import (
    DATA_OCTETS,
    DESCRIPTOR_OCTETS,
    DROP_NAMES,
    RegionKind,
    SlotState,
    ffi,
    lib,
    size_of,
)
from halo_mp.shm.owners import count_owned, create_owners
from halo_mp.shm.pool import PoolGeometry, PoolMapping, create_pool
from halo_mp.shm.region import Region, region_name
from halo_mp.shm.slot import SlotGeometry, create_slot

INSTANCE_PREFIX = f"native-{os.getpid()}"
DRIVER_PROCESS = Path(__file__).with_name("driver_process.py")
TIMEOUT_S = 30.0
MTU = 1500
BURST = lib.HALO_BURST
FRAME_OVERHEAD = 22  # Ethernet header and two VLAN tags: what the driver adds to an MTU
TRANSMIT, RELEASE, HAND = lib.HALO_ACTION_TRANSMIT, lib.HALO_ACTION_RELEASE, lib.HALO_ACTION_HAND
METADATA, HANDED = lib.HALO_DESCRIPTOR_METADATA, lib.HALO_DESCRIPTOR_HANDED

DROPS = frozenset(DROP_NAMES)

_PACKED = struct.Struct("<IHBB")
_TX_DROPS = frozenset(name for name in DROP_NAMES if name.startswith("tx_")) - {
    "tx_ring_full"
}  # that is the worker's


class RefusalError(Exception):
    """The driver answered with a sentence."""


class Descriptor(NamedTuple):
    """A struct halo_descriptor."""

    offset: int
    length: int = 0
    port: int = 0
    flags: int = TRANSMIT

    def pack(self) -> bytes:
        return _PACKED.pack(*self)


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Return when the condition holds; fail with `what` when it does not come to that."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.0005)


@dataclass(frozen=True, slots=True)
class PortPlan:
    """A port: the device's name and arguments as EAL takes them."""

    number: int
    device: str
    mtu: int = MTU
    queues: int = 1


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """A slot: its home lcore and the (port, queue) pairs that feed it."""

    number: int
    lcore: int = 0
    feeds: tuple[tuple[int, int], ...] = ()
    ring_size: int = 1024


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


class Ring:
    """One ring as any process that maps the region can see and change it."""

    def __init__(self, region: Region, name: str) -> None:
        geometry = region.pointer.geometry
        self.index = getattr(region.pointer, name)
        self.size = int(geometry.ring_size if name == "rx" else getattr(geometry, f"{name}_size"))
        start = ffi.cast("uint8_t *", region.pointer) + getattr(geometry, f"{name}_offset")
        self.octets = memoryview(ffi.buffer(start, self.size * DESCRIPTOR_OCTETS))

    def write(self, position: int, octets: bytes) -> None:
        """Write packed descriptors from an index on, without publishing them."""
        start = position % self.size * DESCRIPTOR_OCTETS
        first = min(len(octets), len(self.octets) - start)
        self.octets[start : start + first] = octets[:first]
        self.octets[: len(octets) - first] = octets[first:]

    def read(self, position: int, count: int) -> list[Descriptor]:
        octets = bytes(self.octets)
        places = ((position + i) % self.size * DESCRIPTOR_OCTETS for i in range(count))
        return [Descriptor(*_PACKED.unpack_from(octets, place)) for place in places]

    def submit(self, octets: bytes) -> None:
        """Put packed descriptors and publish them at once. Python's stores stay in order on x86-64."""
        self.write(self.index.producer, octets)
        self.index.producer = (self.index.producer + len(octets) // DESCRIPTOR_OCTETS) % 2**32

    @property
    def fill(self) -> int:
        """How many are published and not taken."""
        return int(self.index.producer - self.index.consumer) % 2**32

    def take(self, at_most: int) -> list[Descriptor]:
        """Take what is published."""
        count = min(self.fill, at_most)
        found = self.read(self.index.consumer, count)
        self.index.consumer = (self.index.consumer + count) % 2**32
        return found


@dataclass(slots=True)
class _Memory:
    """What outlives a driver."""

    pool_fd: int
    owners: Region
    ports: Region
    mapping: PoolMapping
    lcore_doorbells: list[int] = field(default_factory=list)


class Slot:
    """A slot, with the test as its worker."""

    def __init__(self, plan: SlotPlan, region: Region, pool: PoolGeometry, memory: _Memory) -> None:
        self.plan = plan
        self.number = plan.number
        self.region = region
        self.pool = pool
        self._mapping = memory.mapping
        self._home_doorbell = memory.lcore_doorbells[plan.lcore]
        self.rx, self.tx, self.spare = (Ring(region, name) for name in ("rx", "tx", "spare"))
        self.doorbell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @property
    def state(self) -> SlotState:
        return SlotState(self.region.pointer.life.state)

    @property
    def bound(self) -> int:
        return int(self.region.pointer.geometry.buffer_bound)

    def counters(self) -> dict[str, int]:
        """Everything the driver counts for the slot; drops by their names."""
        block = read_driver_counters(self.region)
        return block["counters"] | block["drops"]

    def spares(self, count: int) -> list[int]:
        """Take that many empty buffers; return where their frames start."""
        taken: list[Descriptor] = []

        def enough() -> bool:
            taken.extend(self.spare.take(count - len(taken)))
            self.ring_home()
            return len(taken) == count

        wait_until(enough, f"slot {self.number} has {count} spare buffers")
        return [descriptor.offset for descriptor in taken]

    def settle(self) -> None:
        """Wait until the driver has nothing more to give: no room for a burst on spare, or the bound is met."""

        def full() -> bool:
            room = self.spare.size - self.spare.fill
            return room < BURST or self.bound - self.counters()["outstanding"] < BURST

        wait_until(full, f"slot {self.number}'s spare ring is full")

    def fill(self, offset: int, octets: bytes) -> None:
        """Write into the pool."""
        ffi.memmove(self._mapping.pointer + offset, octets, len(octets))

    def look(self, descriptor: Descriptor) -> bytes:
        """Return the octets of a frame."""
        return bytes(ffi.buffer(self._mapping.pointer + descriptor.offset, descriptor.length))

    def frames(self, contents: Sequence[bytes], *, port: int, flags: int = TRANSMIT) -> list[Descriptor]:
        """Return descriptors of new frames, in spare buffers."""
        made = []
        for offset, octets in zip(self.spares(len(contents)), contents, strict=True):
            self.fill(offset, octets)
            made.append(Descriptor(offset, len(octets), port, flags))
        return made

    def submit(self, descriptors: Iterable[Descriptor]) -> None:
        """Put descriptors on tx, published at once."""
        self.tx.submit(b"".join(descriptor.pack() for descriptor in descriptors))
        self.ring_home()

    def ring_home(self) -> None:
        """Wake the slot's lcore. A worker does that only when it sleeps; once too often does no harm."""
        os.eventfd_write(self._home_doorbell, 1)

    def release(self, descriptors: Iterable[Descriptor]) -> None:
        self.submit(Descriptor(descriptor.offset, flags=RELEASE) for descriptor in descriptors)

    def drain(self) -> None:
        """Wait until the driver has taken everything from tx."""
        index = self.tx.index
        wait_until(lambda: index.consumer == index.producer, f"slot {self.number}'s tx ring is empty")

    def receive(self, count: int) -> list[Descriptor]:
        """Wait for exactly that many frames and take them."""
        wait_until(lambda: self.rx.fill >= count, f"slot {self.number} has {count} frames")
        found = self.rx.take(self.rx.size)
        assert len(found) == count
        return found

    def close(self) -> None:
        for ring in (self.rx, self.tx, self.spare):
            ring.octets.release()
        os.close(self.doorbell)


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
                check_law(slot)

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
        slot = Slot(plan, region, self.pool, self._memory)
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
                    "mtu": port.mtu,
                    "promiscuous": True,
                }
                for port in self.plan.ports
            ],
            "slots": [
                {"slot": slot.number, "lcore": slot.lcore, "feeds": slot.feeds} for slot in self.plan.slots
            ],
        }


def check_law(slot: Slot) -> None:
    """What came from the worker is what went on, or has a name."""
    counters = slot.counters()
    ends = counters["tx_sent"] + counters["tx_passed"] + counters["hand_sent"] + counters["released"]
    assert counters["tx_descriptors"] == ends + sum(counters[name] for name in _TX_DROPS), counters
