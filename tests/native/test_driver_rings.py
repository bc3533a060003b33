# SPDX-License-Identifier: Apache-2.0
"""A worker that scribbles on what it shares: its slot is declared broken, the other one goes on, and a reset mends it.

Port 0 loops into slot 2, the scribbled one, port 1 into slot 7, the bystander.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from halo_mp.shm.layout import SlotState, ffi
from tests.native.rig import Plan, PortPlan, RefusalError, Rig
from tests.native.slot import BURST, Descriptor, Slot, SlotPlan, wait_until

RING = 128
SEED = 20260525


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    plan = Plan(
        ports=(PortPlan(0, "net_ring0"), PortPlan(1, "net_ring1")),
        slots=(SlotPlan(2, feeds=((0, 0),), ring_size=RING), SlotPlan(7, feeds=((1, 0),), ring_size=RING)),
        buffers=16384,
    )
    with Rig(plan, tmp_path_factory.mktemp("driver")) as rig:
        yield rig


@pytest.fixture
def slot(rig: Rig) -> Iterator[Slot]:
    """The slot to scribble on, its rings new and its indices somewhere; mended afterwards."""
    slot = rig.slots[2]
    loop(slot, 0, BURST + 3)
    yield slot
    rig.reset(slot)
    rig.enable(slot)
    loop(slot, 0, 2 * RING)
    rig.check_books()


def content(number: int) -> bytes:
    return number.to_bytes(8, "big") * 8


def number_of(octets: bytes) -> int:
    number = int.from_bytes(octets[:8], "big")
    assert octets == content(number)
    return number


def loop(slot: Slot, port: int, count: int) -> None:
    """Send frames that come back, few enough at a time for the rx ring; each must, as it was, once."""
    for start in range(0, count, RING // 2):
        contents = [content(start + i) for i in range(min(RING // 2, count - start))]
        slot.submit(slot.frames(contents, port=port))
        back = slot.receive(len(contents))
        assert [slot.look(frame) for frame in back] == contents
        slot.release(back)
    slot.drain()


def bystander_goes_on(rig: Rig) -> None:
    bystander = rig.slots[7]
    before = bystander.counters()
    loop(bystander, 1, 3 * RING)
    after = bystander.counters()
    assert after["tx_sent"] - before["tx_sent"] == after["rx_frames"] - before["rx_frames"] == 3 * RING
    assert after["rings_broken"] == 0


def seeded(name: str) -> random.Random:
    return random.Random(f"{SEED} {name}")


# Indices that a peer cannot have, from where the own side stands: a consumer ahead of its producer or more than a lap
# behind; a producer behind its consumer or more than a lap ahead.
CONSUMERS: dict[str, Callable[[int], int]] = {
    "+1": lambda _: 1,
    "more than a lap behind": lambda size: -size - 1,
    "two laps behind": lambda size: -2 * size,
    "half way round": lambda _: 2**31,
    "random": lambda size: seeded("consumer").randrange(1, 2**32 - size),
    "another random": lambda size: seeded("another consumer").randrange(1, 2**32 - size),
}
PRODUCERS: dict[str, Callable[[int], int]] = {
    "-1": lambda _: -1,
    "more than a lap ahead": lambda size: size + 1,
    "a lap behind": lambda size: -size,
    "two laps ahead": lambda size: 2 * size,
    "half way round": lambda _: 2**31,
    "random": lambda size: seeded("producer").randrange(size + 1, 2**32),
    "another random": lambda size: seeded("another producer").randrange(size + 1, 2**32),
}


def wait_until_broken(rig: Rig, slot: Slot, broken_before: int) -> None:
    wait_until(lambda: slot.state == SlotState.BROKEN, "the slot is broken")
    assert slot.counters()["rings_broken"] == broken_before + 1
    with pytest.raises(RefusalError):
        rig.enable(slot)
    assert slot.state == SlotState.BROKEN


def walk(rig: Rig, slot: Slot) -> None:
    """Reset takes back exactly what the slot has, and leaves rings at 0."""
    owned, free = rig.owned(slot), rig.free()
    generation, resets = slot.region.pointer.life.generation, slot.counters()["resets"]
    assert rig.reset(slot) == owned
    assert rig.owned(slot) == 0
    assert rig.free() == free + owned
    assert slot.state == SlotState.DISABLED
    assert slot.region.pointer.life.generation == generation + 1
    assert slot.counters()["resets"] == resets + 1
    assert slot.counters()["outstanding"] == 0
    for ring in (slot.rx, slot.tx, slot.spare):
        assert (ring.index.producer, ring.index.claim, ring.index.consumer) == (0, 0, 0)
    rig.enable(slot)


@pytest.mark.parametrize("variant", PRODUCERS)
def test_tx_producer_scribbled(rig: Rig, slot: Slot, variant: str) -> None:
    ring = slot.tx
    broken = slot.counters()["rings_broken"]
    descriptors = slot.counters()["tx_descriptors"]
    ring.index.producer = (ring.index.consumer + PRODUCERS[variant](ring.size)) % 2**32
    slot.ring_home()
    wait_until_broken(rig, slot, broken)
    assert slot.counters()["tx_descriptors"] == descriptors
    bystander_goes_on(rig)
    walk(rig, slot)


@pytest.mark.parametrize("variant", CONSUMERS)
def test_spare_consumer_scribbled(rig: Rig, slot: Slot, variant: str) -> None:
    slot.settle()
    ring = slot.spare
    broken = slot.counters()["rings_broken"]
    given = slot.counters()["spare_given"]
    ring.index.consumer = (ring.index.producer + CONSUMERS[variant](ring.size)) % 2**32
    slot.ring_home()
    wait_until_broken(rig, slot, broken)
    assert slot.counters()["spare_given"] == given
    bystander_goes_on(rig)
    walk(rig, slot)


@pytest.mark.parametrize("variant", CONSUMERS)
def test_rx_consumer_scribbled(rig: Rig, slot: Slot, variant: str) -> None:
    """Seen when the driver looks again, which is when the ring looks full; nothing is overwritten up to there."""
    broken = slot.counters()["rings_broken"]
    frames = slot.frames([content(i) for i in range(RING)], port=0)
    right = slot.rx.index.producer
    # First to where no index that the driver has seen is left: the ring is full, and none was taken.
    slot.submit(frames)
    wait_until(lambda: slot.rx.fill == RING, "the rx ring is full")
    contents = [slot.look(frame) for frame in slot.rx.read(right, RING)]
    assert contents == [content(i) for i in range(RING)]
    slot.rx.index.consumer = (slot.rx.index.producer + CONSUMERS[variant](RING)) % 2**32
    dropped = slot.counters()["rx_slot_disabled"]
    slot.submit(slot.frames([content(99)], port=0))
    wait_until_broken(rig, slot, broken)
    wait_until(lambda: slot.counters()["rx_slot_disabled"] == dropped + 1, "the frame has its name")
    assert [slot.look(frame) for frame in slot.rx.read(right, RING)] == contents
    bystander_goes_on(rig)
    walk(rig, slot)


@pytest.mark.parametrize("ring", ["rx", "tx", "spare"])
def test_index_of_the_driver_scribbled(rig: Rig, slot: Slot, ring: str) -> None:
    """The driver keeps its own; the shared one is put right with its next step, or never looked at."""
    index = getattr(slot, ring).index
    for value in (0, 1, 0xDEADBEEF, 2**32 - 1):
        if ring == "tx":
            index.consumer = value
            slot.submit([Descriptor(offset, flags=1) for offset in slot.spares(3)])
        elif ring == "rx":
            index.producer = value
            slot.submit(slot.frames([content(value)], port=0))
            wait_until(lambda: index.producer not in (value, value + 1), "rx is published")  # noqa: B023
            (back,) = slot.receive(1)
            assert slot.look(back) == content(value)
            slot.release([back])
        else:
            consumer = index.consumer
            index.producer = value
            index.consumer = (consumer + BURST) % 2**32
            slot.ring_home()
            wait_until(lambda: index.producer not in (value, value + 1), "spare is published")  # noqa: B023
        assert slot.state == SlotState.ENABLED
    bystander_goes_on(rig)


def test_claim_scribbled(rig: Rig, slot: Slot) -> None:
    for ring in (slot.rx, slot.tx, slot.spare):
        ring.index.claim = 0x80000001
    loop(slot, 0, 3 * RING)
    assert slot.state == SlotState.ENABLED


LIFE = {
    "disabled": ("state", SlotState.DISABLED),
    "broken": ("state", SlotState.BROKEN),
    "no state": ("state", 7),
    "generation before": ("generation", -1),
    "generation behind": ("generation", 1),
    "another generation": ("generation", 0x80000000),
}


@pytest.mark.parametrize("name", LIFE)
def test_life_scribbled(rig: Rig, slot: Slot, name: str) -> None:
    """The driver acts by its own copy, breaks the slot of who writes there, and puts the words right."""
    life, broken = slot.region.pointer.life, slot.counters()["rings_broken"]
    generation = life.generation
    field, value = LIFE[name]
    setattr(life, field, value if field == "state" else (generation + value) % 2**32)
    slot.ring_home()
    wait_until(lambda: slot.counters()["rings_broken"] == broken + 1, "the driver has seen it")
    wait_until_broken(rig, slot, broken)
    assert life.generation == generation
    bystander_goes_on(rig)
    walk(rig, slot)


def test_life_scribbled_while_disabled(rig: Rig, slot: Slot) -> None:
    """There is no worker to end: the words are put right, and the slot can be enabled."""
    rig.reset(slot)
    life, broken = slot.region.pointer.life, slot.counters()["rings_broken"]
    generation = life.generation
    for state in (SlotState.ENABLED, SlotState.BROKEN, 7):
        life.state, life.generation = state, 0xDEADBEEF
        slot.ring_home()
        wait_until(
            lambda: (life.state, life.generation) == (SlotState.DISABLED, generation), "life is mended"
        )
    rig.enable(slot)
    loop(slot, 0, RING)
    assert slot.counters()["rings_broken"] == broken


def test_words_of_life_that_decide_nothing_scribbled(rig: Rig, slot: Slot) -> None:
    slot.region.pointer.life.home_lcore = 0xFFFFFFFF
    slot.region.pointer.life.driver_sleeping = 0xFFFFFFFF
    loop(slot, 0, RING)
    bystander_goes_on(rig)
    assert slot.state == SlotState.ENABLED


def test_counters_scribbled(rig: Rig, slot: Slot) -> None:
    """Worker-writable they are, but nothing is decided by them. Put right again for the law."""
    driver = slot.region.pointer.driver
    octets = ffi.buffer(ffi.addressof(driver))
    before = bytes(octets)
    octets[:] = b"\xff" * len(octets)
    contents = [content(i) for i in range(RING)]
    slot.submit(slot.frames(contents, port=0))
    back = slot.receive(RING)
    assert [slot.look(frame) for frame in back] == contents
    rig.reset(slot)
    octets[:] = before
    driver.outstanding = 0


GEOMETRY = {
    "rx offset": ("rx_offset", 0xFFFFFFF8),
    "tx offset": ("tx_offset", 0x7FFFFFF8),
    "spare offset": ("spare_offset", 0xFFFFF000),
    "rx offset in the header": ("rx_offset", 0),
    "no rx ring": ("ring_size", 0),
    "huge rx ring": ("ring_size", 0x80000000),
    "huge tx ring": ("tx_size", 0x80000000),
    "tx ring of 3": ("tx_size", 3),
    "huge spare ring": ("spare_size", 0x80000000),
    "bound of 0": ("buffer_bound", 0),
    "endless bound": ("buffer_bound", 0xFFFFFFFF),
    "another slot": ("slot", 7),
}


@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_scribbled_before_a_reset(rig: Rig, slot: Slot, name: str) -> None:
    """Geometry is the supervisor's word, read once; what a worker makes of it later must not be looked at."""
    field, value = GEOMETRY[name]
    geometry = slot.region.pointer.geometry
    right = getattr(geometry, field)
    setattr(geometry, field, value)
    rig.reset(slot)
    rig.enable(slot)
    loop(slot, 0, 3 * RING)
    setattr(geometry, field, right)
    bystander_goes_on(rig)


def test_pool_geometry_scribbled_before_a_reset(rig: Rig, slot: Slot) -> None:
    pool = slot.region.pointer.geometry.pool
    before = bytes(ffi.buffer(ffi.addressof(pool)))
    ffi.buffer(ffi.addressof(pool))[:] = b"\xff" * len(before)
    rig.reset(slot)
    rig.enable(slot)
    loop(slot, 0, 3 * RING)
    ffi.buffer(ffi.addressof(pool))[:] = before


def test_reset_takes_back_what_is_anywhere(rig: Rig, slot: Slot) -> None:
    """On rx unread, on rx read and kept, on spare, taken from spare and kept, on tx and not yet served."""
    slot.submit(slot.frames([content(i) for i in range(40)], port=0))
    kept = slot.receive(40)
    slot.submit(slot.frames([content(i) for i in range(30)], port=0))
    wait_until(lambda: slot.rx.fill == 30, "30 frames wait")
    spares = slot.spares(20)
    rig.settle()
    assert rig.owned(slot) == len(kept) + 30 + len(spares) + slot.spare.fill
    walk(rig, slot)
    # What was kept is worth nothing now.
    before = slot.counters()
    slot.release([*kept, *(Descriptor(offset) for offset in spares)])
    slot.drain()
    wait_until(lambda: slot.counters()["tx_descriptors"] == before["tx_descriptors"] + 60, "60 are served")
    assert slot.counters()["tx_bad_owner"] + slot.counters()["released"] == (
        before["tx_bad_owner"] + before["released"] + 60
    )


def test_reset_when_nothing_is_wrong(rig: Rig, slot: Slot) -> None:
    for _ in range(20):
        walk(rig, slot)
        loop(slot, 0, 10)


def test_descriptors_scribbled_while_they_are_read(rig: Rig, slot: Slot) -> None:
    """Each entry turns to and fro between a frame of the slot's and one of the bystander's, which must never leave."""
    bystander = rig.slots[7]
    secret = b"secret of another worker" * 2
    mine = slot.frames([content(i) for i in range(BURST)], port=0)
    theirs = bystander.frames([secret] * BURST, port=0)
    right, wrong = (b"".join(frame.pack() for frame in frames) for frames in (mine, theirs))
    before = slot.counters()
    sent = 0
    for _ in range(300):
        position = slot.tx.index.producer
        slot.submit(mine)
        while slot.tx.fill:
            slot.tx.write(position, wrong)
            slot.tx.write(position, right)
        counters = rig.sync(slot)
        sent = counters["tx_sent"] - before["tx_sent"] - sent
        back = slot.receive(sent)
        assert {number_of(slot.look(frame)) for frame in back} <= set(range(BURST))
        sent = counters["tx_sent"] - before["tx_sent"]
    after = slot.counters()
    refused = after["tx_bad_owner"] - before["tx_bad_owner"]
    print(f"{sent} sent, {refused} refused")
    assert sent + refused == 300 * BURST
    assert [bystander.look(frame) for frame in theirs] == [secret] * BURST
    bystander.release(theirs)
    slot.release(mine)
    bystander_goes_on(rig)


def test_slot_that_is_not_there(rig: Rig) -> None:
    for order in ("enable", "reset"):
        for number in (0, 3, 63, 64, 2**32 - 1):
            with pytest.raises(RefusalError):
                rig.driver.do(order, slot=number)


def test_scribbles_at_random(rig: Rig, slot: Slot) -> None:
    """Any word of the region behind its header, again and again: the driver lives, the bystander does not notice."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    region = slot.region
    words = ffi.cast("uint32_t *", region.pointer)
    first, last = 64 // 4, ffi.sizeof("struct halo_slot") // 4
    whole = bytes(ffi.buffer(region.pointer, last * 4))
    for _ in range(60):
        for _ in range(rng.randrange(1, 20)):
            words[rng.randrange(first, last)] = rng.getrandbits(32)
        slot.tx.write(rng.randrange(2**32), rng.randbytes(8 * 64))
        slot.ring_home()
        if rng.random() < 0.3:
            bystander_goes_on(rig)
        if rng.random() < 0.5:
            rig.reset(slot)
            if rng.random() < 0.8:
                slot.region.pointer.life.state = SlotState.DISABLED
                rig.enable(slot)
    bystander_goes_on(rig)
    rig.reset(slot)
    ffi.memmove(ffi.cast("uint8_t *", region.pointer) + 64, whole[64:], len(whole) - 64)
    slot.region.pointer.driver.outstanding = 0
    rig.reset(slot)
    rig.enable(slot)
