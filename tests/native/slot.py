# SPDX-License-Identifier: Apache-2.0
"""A slot whose worker is the test: it writes into the region what a worker would, or what it never should."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from halo_mp.shm.counters import read_driver_counters
from halo_mp.shm.layout import DESCRIPTOR_OCTETS, DROP_NAMES, SlotState, ffi, lib
from halo_mp.shm.pool import PoolGeometry, PoolMapping
from halo_mp.shm.region import Region

TIMEOUT_S = 30.0
BURST = lib.HALO_BURST
TRANSMIT, RELEASE, HAND = lib.HALO_ACTION_TRANSMIT, lib.HALO_ACTION_RELEASE, lib.HALO_ACTION_HAND
METADATA, HANDED = lib.HALO_DESCRIPTOR_METADATA, lib.HALO_DESCRIPTOR_HANDED
DROPS = frozenset(DROP_NAMES)

_PACKED = struct.Struct("<IHBB")
# What tx descriptors may end in. tx_ring_full is a worker's.
_TX_DROPS = frozenset(name for name in DROP_NAMES if name.startswith("tx_")) - {"tx_ring_full"}


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
class SlotPlan:
    """A slot: its home lcore and the (port, queue) pairs that feed it."""

    number: int
    lcore: int = 0
    feeds: tuple[tuple[int, int], ...] = ()
    ring_size: int = 1024


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


class Slot:
    """A slot, with the test as its worker."""

    def __init__(
        self, plan: SlotPlan, region: Region, pool: PoolGeometry, mapping: PoolMapping, home_doorbell: int
    ) -> None:
        self.plan = plan
        self.number = plan.number
        self.region = region
        self.pool = pool
        self._mapping = mapping
        self._home_doorbell = home_doorbell
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

    def check_law(self) -> None:
        """What came from the worker is what went on, or has a name."""
        counters = self.counters()
        ends = counters["tx_sent"] + counters["tx_passed"] + counters["hand_sent"] + counters["released"]
        assert counters["tx_descriptors"] == ends + sum(counters[name] for name in _TX_DROPS), counters

    def close(self) -> None:
        for ring in (self.rx, self.tx, self.spare):
            ring.octets.release()
        os.close(self.doorbell)
