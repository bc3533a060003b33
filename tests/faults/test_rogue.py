# SPDX-License-Identifier: Apache-2.0
"""A rogue writes descriptors into another worker's tx ring while both ports carry traffic: no frame of one slot ever
leaves by a port that another one sends to.

Port 0 is only sent to by slot 0, so whatever its station hears was given to the driver as a frame of slot 0's. What
the rogue can do is what it could by writing to the pool: a buffer that it gives away behind the back of slot 0's worker
is soon another's, and that worker writes a frame of its own there. Then a frame of the other port has octets that make
no sense, and is dropped by its name.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from halo_mp.shm.layout import RegionKind, ffi, size_of
from halo_mp.shm.region import Region, region_name
from tests.faults.conftest import Scene
from tests.support import lives
from tests.support.namespace import wait_until

SEED = 20261122
STOPS, STOPPED_S, RUNNING_S = 1, 0.4, 0.2  # nobody is killed for a stop so short
CHUNK = 256  # descriptors
_TRANSMIT_0 = b"\0\0"  # port 0, transmit


class Rogue:
    """Has mapped slot 0's region, knows who has which buffer, and puts descriptors where the worker does."""

    def __init__(self, scene: Scene, dice: random.Random) -> None:
        self._instance = scene.instance
        self.dice = dice
        self._slot = self._map("slot.0", RegionKind.SLOT, writable=True)
        self._owners = self._map("owners", RegionKind.OWNERS, writable=False)
        geometry = self._slot.pointer.geometry
        self.size = int(geometry.tx_size)
        self._ring = ffi.buffer(ffi.cast("uint8_t *", self._slot.pointer) + geometry.tx_offset, self.size * 8)
        pool = self._owners.pointer.pool
        self.pool_octets, self._stride, self._per_chunk = (
            int(pool.size_octets),
            int(pool.stride_octets),
            int(pool.buffers_per_chunk),
        )

    @property
    def index(self) -> Any:
        """The indices of slot 0's tx ring."""
        return self._slot.pointer.tx

    def frames_of(self, tag: int) -> list[int]:
        """Return where the frames of all buffers of an owner start: 0 the driver, n + 1 slot n."""
        table = bytes(ffi.buffer(self._owners.pointer, self._owners.size_octets))[size_of("halo_owners") :]
        return [self._frame(buffer) for buffer, owner in enumerate(table) if owner == tag]

    def fill(self, descriptors: list[bytes]) -> None:
        """Write over the whole ring, over and over the same descriptors."""
        octets = b"".join(descriptors) or bytes(8)  # nobody has a buffer of that kind now
        self._ring[:] = (octets * (len(self._ring) // len(octets) + 1))[: len(self._ring)]

    def publish(self, count: int) -> None:
        """Say that so many are new. The worker, which keeps an index of its own, does not know of them."""
        self.index.producer = (self.index.consumer + count) % 2**32

    def close(self) -> None:
        self._slot.close()
        self._owners.close()

    def _map(self, name: str, kind: RegionKind, *, writable: bool) -> Region:
        return Region.attach(region_name(self._instance.name, name), kind, writable=writable)

    def _frame(self, buffer: int) -> int:
        chunk, place = divmod(buffer, self._per_chunk)
        return chunk * 2097152 + place * self._stride + 192


def descriptor(offset: int, length: int = 98) -> bytes:
    return offset.to_bytes(4, "little") + length.to_bytes(2, "little") + _TRANSMIT_0


def of_others(rogue: Rogue) -> list[bytes]:
    """Frames that slot 1 has, just received or about to be sent, with slot 1's secret in them."""
    return [descriptor(offset) for offset in rogue.frames_of(2)]


def of_the_driver(rogue: Rogue) -> list[bytes]:
    """Free buffers, and those in which the other port receives right now."""
    return [descriptor(offset) for offset in rogue.dice.choices(rogue.frames_of(0), k=CHUNK)]


def duplicates(rogue: Rogue) -> list[bytes]:
    """Buffers that slot 0 does have, each many times, in and beside its own frames."""
    mine = rogue.dice.choices(rogue.frames_of(1) or [0], k=8)  # none for a moment, when its worker has ended
    return [
        descriptor(max(0, rogue.dice.choice(mine) + rogue.dice.randrange(-128, 64))) for _ in range(CHUNK)
    ]


def at_random(rogue: Rogue) -> list[bytes]:
    return [
        descriptor(rogue.dice.randrange(rogue.pool_octets), rogue.dice.getrandbits(16)) for _ in range(CHUNK)
    ]


KINDS: dict[str, Callable[[Rogue], list[bytes]]] = {
    "frames of the other slot": of_others,
    "buffers of the driver": of_the_driver,
    "duplicates": duplicates,
    "random offsets": at_random,
}


def refused(scene: Scene) -> int:
    drops = scene.instance.slot(0)["driver"]["drops"]
    return sum(drops[name] for name in ("tx_bad_owner", "tx_bad_offset", "tx_bad_length"))


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """Processes of the shared instance come and go; see nothing_left_by_the_file."""


@pytest.mark.parametrize("kind", KINDS)
def test_rogue_descriptors_reveal_nothing(shared: Scene, kind: str) -> None:
    """While the other slot's worker is stopped for a moment, so that frames with its secret wait in its buffers."""
    print(f"seed {SEED}")
    rogue = Rogue(shared, random.Random(f"{SEED} {kind}"))
    driver, before, other = shared.pid("driver"), refused(shared), shared.canary.ports[1]
    bystander = lives.pid(shared.instance, "worker", 1)
    rounds, waited = 0, 0
    try:
        for _ in range(STOPS):
            first = other.sent
            os.kill(bystander, signal.SIGSTOP)
            try:
                rounds += write_for(rogue, KINDS[kind], STOPPED_S)
                waited += other.sent - first
            finally:
                os.kill(bystander, signal.SIGCONT)
            rounds += write_for(rogue, KINDS[kind], RUNNING_S)
        # Longer where the machine gave the driver no time to look.
        wait_until(
            lambda: write_for(rogue, KINDS[kind], 0.05) and refused(shared) > before,
            what="refused descriptors",
        )
    finally:
        rogue.close()
    print(f"{rounds} rounds, {refused(shared) - before} refused, {shared.deaths('worker')} workers ended")
    assert waited > 5
    wait_until(lambda: lives.is_useful(shared.instance, "worker", 0), what="a worker of slot 0")
    victim = shared.pid("worker")  # its ring is not what it believes, whether that was found or not
    with suppress(ProcessLookupError):  # of what was written last; then its successor never saw the rogue
        lives.kill(victim)
    shared.wait_for_successor("worker", victim)
    shared.canary.wait_for_more(20)
    shared.canary.pause()
    assert not shared.canary.live_leaks()
    bystander_drops = shared.instance.slot(1)["worker"]["drops"]
    assert shared.instance.slot(1)["driver"]["drops"]["tx_bad_owner"] == 0, "a buffer was taken from it"
    assert len(other.lost) <= sum(bystander_drops.values()), "a frame has gone without a name"
    assert lives.pid(shared.instance, "worker", 1) == bystander
    print(f"{len(shared.canary.leaks())} frames with old octets of the other's")
    for port in shared.canary.ports.values():
        port.leaks.clear()
    shared.canary.ports[0].answered.clear()  # its own frames the rogue may send as often as it likes
    shared.canary.ports[0].torn.clear()
    shared.canary.resume()
    shared.assert_recovered(laws=True)
    assert shared.pid("driver") == driver


def write_for(rogue: Rogue, kind: Callable[[Rogue], list[bytes]], for_s: float) -> int:
    """Write and publish descriptors for a while; return how many times."""
    deadline = time.monotonic() + for_s
    rounds = 0
    while time.monotonic() < deadline or not rounds:
        rogue.fill(kind(rogue))
        rogue.publish(rogue.dice.randrange(1, CHUNK))
        rounds += 1
        time.sleep(0.001)
    return rounds
