# SPDX-License-Identifier: Apache-2.0
"""Ten million bad descriptors, of every kind that can be bad, among a few good ones: each is counted, none is accepted.

And one bad one at each place of bursts of each size. What test_driver_descriptors.py shows of each kind alone, and
test_driver_random.py of random octets against a model, is here a matter of numbers, so whole rings are written at once.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from halo_mp.shm.layout import CHUNK_OCTETS, DROP_NAMES
from tests.native.rig import FRAME_OVERHEAD, MTU, Plan, PortPlan, Rig
from tests.native.slot import HAND, RELEASE, TRANSMIT, Descriptor, Slot, SlotPlan, wait_until

COUNT = int(os.environ.get("HALO_MP_TEST_DESCRIPTORS", "10000000"))
SEED = int(os.environ.get("HALO_MP_TEST_SEED", "20261122"))
SINK = 1
ROOM = 2048
BLOCKS = 8  # different ones of those that name no buffer of the slot's
PAIRS = 192  # of a ring: a descriptor of a buffer that the slot has, good or bad, and its duplicate
SIZES = (*range(1, 65), 255, 256, 257)
SENT, RELEASED = "tx_sent", "released"

# Of a buffer that the slot has: octets from where frames start, length, port, flags, and what becomes of it.
OWNED = (
    (0, 0, SINK, TRANSMIT, "tx_bad_length"),
    (0, 1, SINK, TRANSMIT, "tx_bad_length"),
    (0, 13, SINK, TRANSMIT, "tx_bad_length"),
    (0, ROOM + 1, SINK, TRANSMIT, "tx_bad_length"),
    (0, 65535, SINK, TRANSMIT, "tx_bad_length"),
    (ROOM - 13, 14, SINK, TRANSMIT, "tx_bad_length"),
    (0, 5, 5, HAND, "tx_bad_length"),
    (-129, 60, SINK, TRANSMIT, "tx_bad_offset"),  # no headroom is left, this is metadata
    (-192, 60, 5, HAND, "tx_bad_offset"),
    (0, 60, SINK, 3, "tx_bad_action"),
    (0, 60, SINK, 8, "tx_bad_action"),
    (0, 60, SINK, 16, "tx_bad_action"),
    (0, 60, SINK, 255, "tx_bad_action"),
    (0, 60, 2, TRANSMIT, "tx_bad_port"),
    (0, 60, 63, TRANSMIT, "tx_bad_port"),
    (0, 60, 64, TRANSMIT, "tx_bad_port"),
    (0, 60, 255, TRANSMIT, "tx_bad_port"),
    (0, 60, 1, HAND, "tx_bad_slot"),
    (0, 60, 64, HAND, "tx_bad_slot"),
    (0, 60, 255, HAND, "tx_bad_slot"),
    (0, MTU + FRAME_OVERHEAD + 1, SINK, TRANSMIT, "tx_too_long"),
)
GOOD = ((0, 60, SINK, TRANSMIT, SENT), (-128, 14, SINK, TRANSMIT, SENT), (0, 0, 255, RELEASE, RELEASED))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    plan = Plan(ports=(PortPlan(SINK, "net_null0,no-rx=1"),), slots=(SlotPlan(0), SlotPlan(5)), buffers=16384)
    with Rig(plan, tmp_path_factory.mktemp("driver")) as rig:
        yield rig


class Unowned:
    """Descriptors that name nothing, or what another slot has: they stay bad, so they are made once."""

    def __init__(self, rig: Rig, dice: random.Random) -> None:
        self._dice = dice
        self._pool_octets = rig.pool.size_octets
        self._gap = rig.pool.buffers_per_chunk * rig.pool.stride_octets
        self._chunks = rig.pool.size_octets // CHUNK_OCTETS
        self.foreign = rig.slots[5].spares(64)

    def make(self) -> tuple[bytes, str]:
        """Return a descriptor and the name of its drop."""
        if self._dice.random() < 0.25:
            offset, reason = (
                self._dice.choice(self.foreign) + self._dice.randrange(-192, ROOM),
                "tx_bad_owner",
            )
        else:
            offset, reason = self._nowhere(), "tx_bad_offset"
        length, port, flags = self._dice.choice(
            ((0, 0, 0), (16, 255, 0), (60, SINK, 0), (65535, 5, 2), (60, 0, 1), (14, 255, 255))
        )
        return Descriptor(offset, length, port, flags).pack(), reason

    def _nowhere(self) -> int:
        return self._dice.choice(
            (
                0xFFFFFFFF,
                2**32 - 16,
                2**31,
                self._pool_octets,
                self._dice.randrange(self._pool_octets, 2**32),
                self._dice.randrange(self._chunks) * CHUNK_OCTETS
                + self._dice.randrange(self._gap, CHUNK_OCTETS),
            )
        )


def test_ten_million_bad_descriptors(rig: Rig) -> None:
    print(f"seed {SEED}, {COUNT} descriptors")
    dice = random.Random(SEED)
    slot, unowned = rig.slots[0], Unowned(rig, dice)
    size = slot.tx.size
    made = [[unowned.make() for _ in range(size - 2 * PAIRS)] for _ in range(BLOCKS)]
    blocks = [(b"".join(octets for octets, _ in block), Counter(why for _, why in block)) for block in made]
    rig.settle()
    before, expected = slot.counters(), Counter[str]()
    for number in range(-(-COUNT // (size - PAIRS))):
        octets, ends = blocks[number % BLOCKS]
        expected += ends
        slot.tx.submit(mixed(dice, slot, octets, expected))
        slot.ring_home()
        slot.drain()
    after = rig.sync(slot)
    print(dict(expected))
    assert {name: after[name] - before[name] for name in (SENT, RELEASED, *DROP_NAMES)} == {
        name: expected[name] for name in (SENT, RELEASED, *DROP_NAMES)
    }
    assert expected.total() - expected[SENT] - expected[RELEASED] >= COUNT
    rig.slots[5].release(Descriptor(offset) for offset in unowned.foreign)
    rig.check_books()


def mixed(dice: random.Random, slot: Slot, octets: bytes, expected: Counter[str]) -> bytes:
    """Return a whole ring of descriptors: a block, and pairs of the slot's own buffers among it."""
    parts = []
    step = len(octets) // PAIRS // 16 * 16  # whole pairs, so that none is divided by the end of a burst
    for place, offset in enumerate(slot.spares(PAIRS)):
        *fields, end = dice.choice(GOOD if place % 2 else OWNED)
        parts += [described(offset, *fields)] * 2  # the second is no longer the slot's to give
        expected.update((end, "tx_bad_owner"))
        parts.append(octets[place * step : (place + 1) * step])
    parts.append(octets[PAIRS * step :])
    return b"".join(parts)


def described(offset: int, within: int, length: int, port: int, flags: int) -> bytes:
    return Descriptor(offset + within, length, port, flags).pack()


def test_one_bad_descriptor_at_each_place_of_each_burst(rig: Rig) -> None:
    """Of each size up to a burst of the driver's, and around 256: it is dropped by its name, every other one leaves."""
    slot = rig.slots[0]
    foreign = rig.slots[5].spares(1)[0]
    kinds = itertools.cycle(
        [
            (Descriptor(0xFFFFFFFF, 60, SINK).pack(), "tx_bad_offset"),
            (Descriptor(foreign, 60, SINK).pack(), "tx_bad_owner"),
            *OWNED,
        ]
    )
    for size in SIZES:
        for place in range(size):
            *bad, reason = next(kinds)
            burst = [described(offset, 0, 60, SINK, TRANSMIT) for offset in slot.spares(size - 1)]
            burst.insert(place, bad[0] if len(bad) == 1 else described(slot.spares(1)[0], *bad))
            serve(slot, burst, reason)
    rig.slots[5].release([Descriptor(foreign)])
    rig.check_books()


def serve(slot: Slot, burst: list[bytes], reason: str) -> None:
    counters = slot.region.pointer.driver
    which = DROP_NAMES.index(reason)
    drops = sum(counters.drops)
    before = (int(counters.tx_descriptors), int(counters.tx_sent), int(counters.drops[which]))
    slot.tx.submit(b"".join(burst))
    slot.ring_home()
    wait_until(lambda: counters.tx_descriptors == before[0] + len(burst), "the burst is served")
    assert (counters.tx_sent, counters.drops[which]) == (before[1] + len(burst) - 1, before[2] + 1)
    assert sum(counters.drops) == drops + 1
