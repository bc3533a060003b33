# SPDX-License-Identifier: Apache-2.0
"""Random descriptors by the million, each predicted by a model written from the layout, not from the driver.

HALO_MP_TEST_DESCRIPTORS=10000000 asks for more of them, HALO_MP_TEST_SEED for others.
"""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from pathlib import Path

from halo_mp.shm.layout import CHUNK_OCTETS, METADATA_OCTETS
from halo_mp.shm.pool import PoolGeometry
from tests.native.rig import FRAME_OVERHEAD, MTU, Plan, PortPlan, Rig
from tests.native.slot import DROPS, HAND, RELEASE, Descriptor, SlotPlan, wait_until

COUNT = int(os.environ.get("HALO_MP_TEST_DESCRIPTORS", "2000000"))
SEED = int(os.environ.get("HALO_MP_TEST_SEED", "20260524"))
BATCH = 4096
HELD = 256  # buffers that the test keeps, for descriptors to name
PORTS, SLOTS = {0, 3}, {0, 9}
GIVER = 0
_TO_OWNED = bytes(tag == GIVER + 1 for tag in range(256))
MIN_FRAME = 14
ENDS = ("tx_sent", "released", "hand_sent")


class Model:
    """What must become of a descriptor, given which buffers slot 0 has."""

    def __init__(self, pool: PoolGeometry) -> None:
        self.stride = pool.stride_octets
        self.per_chunk = pool.buffers_per_chunk
        self.owned = bytearray(pool.buffer_count)
        self.buffers = pool.buffer_count

    def end_of(self, offset: int, length: int, port: int, flags: int) -> str:
        chunk, rest = divmod(offset, CHUNK_OCTETS)
        place, within = divmod(rest, self.stride)
        buffer = chunk * self.per_chunk + place
        if place >= self.per_chunk or buffer >= self.buffers:
            return "tx_bad_offset"
        if not self.owned[buffer]:
            return "tx_bad_owner"
        self.owned[buffer] = 0
        action = flags & 3
        if within < METADATA_OCTETS:
            return "tx_bad_offset"
        if action == 3 or flags > 7:
            return "tx_bad_action"
        if action == RELEASE:
            return "released"
        if length < MIN_FRAME or within + length > self.stride:
            return "tx_bad_length"
        if action == HAND:
            self.owned[buffer] = port == GIVER  # it may give to itself
            return "hand_sent" if port in SLOTS else "tx_bad_slot"
        if port not in PORTS:
            return "tx_bad_port"
        return "tx_too_long" if length > MTU + FRAME_OVERHEAD else "tx_sent"


def scribbles(dice: random.Random, held: list[int], pool_octets: int) -> list[tuple[int, int, int, int]]:
    """A batch: octets at random; at random but in the pool; near a buffer that is held; and nearly right ones."""
    octets = dice.randbytes(8 * BATCH)
    batch = []
    for kind, (offset, length, port, flags) in zip(
        dice.randbytes(BATCH), struct.iter_unpack("<IHBB", octets), strict=True
    ):
        if kind < 128:
            batch.append((offset, length, port, flags))
        elif kind < 224:
            batch.append((offset % pool_octets, length, port, flags))
        elif kind < 240:
            near = (held[offset % len(held)] + length % 5000 - 2500) % 2**32
            batch.append((near, length & 0x7FF, port & 15, flags & 15))
        elif kind < 248:
            batch.append((held[offset % len(held)], length, port & 3, flags))
        else:
            batch.append((held[offset % len(held)], length & 0x7FF, (port & 1) * 3, flags & 7))
    return batch


class Run:
    """Batch after batch, each compared with what the model says of it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.slot, self.other = rig.slots[GIVER], rig.slots[9]
        self.model = Model(rig.pool)
        self.totals: Counter[str] = Counter()
        self._dice = random.Random(SEED)
        self._held: list[int] = []

    def _owned(self) -> bytes:
        return bytes(self.rig.owners).translate(_TO_OWNED)

    def _prepare(self) -> None:
        """Hold enough buffers, and let the model know of all that the slot has, those on its spare ring too."""
        self._held += self.slot.spares(HELD)
        self.rig.settle()
        self.model.owned = bytearray(self._owned())
        # Some went with a batch, or were hit on the spare ring.
        self._held = [offset for offset in self._held if self.model.owned[self.rig.pool.index(offset)[0]]]

    def batch(self) -> None:
        self._prepare()
        batch = scribbles(self._dice, self._held, self.rig.pool.size_octets)
        ends = Counter(self.model.end_of(*descriptor) for descriptor in batch)
        before = self.slot.counters()
        self.slot.submit(Descriptor(*descriptor) for descriptor in batch)
        self.slot.drain()
        served = before["tx_descriptors"] + BATCH
        wait_until(lambda: self.slot.counters()["tx_descriptors"] == served, "the batch is counted")
        after = self.slot.counters()
        assert {name: after[name] - before[name] for name in (*ENDS, *DROPS)} == {
            name: ends[name] for name in (*ENDS, *DROPS)
        }
        assert self._owned() == self.model.owned
        self.totals += ends
        self._take_back()

    def _take_back(self) -> None:
        """Keep what the slot handed to itself, return what it handed to the other, and no more than is of use."""
        self._held += [frame.offset for frame in self.slot.rx.take(BATCH)]
        self.other.release(self.other.rx.take(BATCH))
        self.slot.release(Descriptor(offset) for offset in self._held[2 * HELD :])
        del self._held[2 * HELD :]


def test_random_descriptors(tmp_path: Path) -> None:
    print(f"seed {SEED}, {COUNT} descriptors")
    plan = Plan(
        ports=(PortPlan(0, "net_null0,no-rx=1"), PortPlan(3, "net_null1,no-rx=1")),
        slots=(SlotPlan(GIVER, ring_size=4096), SlotPlan(9, ring_size=4096)),
        buffers=16384,
    )
    with Rig(plan, tmp_path) as rig:
        run = Run(rig)
        for _ in range(-(-COUNT // BATCH)):
            run.batch()
        print(dict(run.totals))
        refusals = {name for name in DROPS if name.startswith("tx_bad_")} | {"tx_too_long"}
        assert set(run.totals) == refusals | set(ENDS)
