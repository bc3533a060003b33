# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the driver, and its successor on the same memory: workers keep what they hold, nothing is missing."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from halo_mp.shm.layout import SlotState, ffi
from tests.native.rig import Plan, PortPlan, Rig
from tests.native.slot import BURST, HAND, HANDED, Descriptor, Slot, SlotPlan, wait_until

LOOP, SINK = 0, 1
SEED = 20260526


def plan(**changes: object) -> Plan:
    parts: dict[str, object] = {
        "ports": (PortPlan(LOOP, "net_ring0"), PortPlan(SINK, "net_null0,no-rx=1")),
        "slots": (SlotPlan(0, feeds=((LOOP, 0),)), SlotPlan(1)),
    }
    return Plan(**(parts | changes))  # type: ignore[arg-type]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(plan(), tmp_path) as rig:
        yield rig


def content(number: int) -> bytes:
    return number.to_bytes(4, "big") * 20


def number_of(octets: bytes) -> int:
    number = int.from_bytes(octets[:4], "big")
    assert octets == content(number)
    return number


def tag_of(slot: Slot) -> int:
    return slot.number + 1


def loop(slot: Slot, first: int, count: int) -> list[Descriptor]:
    slot.submit(slot.frames([content(first + i) for i in range(count)], port=LOOP))
    frames = slot.receive(count)
    assert [number_of(slot.look(frame)) for frame in frames] == list(range(first, first + count))
    return frames


def test_workers_keep_what_they_hold(rig: Rig) -> None:
    slot, other = rig.slots[0], rig.slots[1]
    kept = loop(slot, 0, 100)
    slot.submit(slot.frames([content(200 + i) for i in range(50)], port=LOOP))
    wait_until(lambda: slot.rx.fill == 50, "50 frames wait on rx")
    empty = other.spares(10)
    rig.settle()
    owners, owned = bytes(rig.owners), rig.owned(slot) + rig.owned(other)
    generation = slot.region.pointer.life.generation
    pid = rig.ports.driver_pid

    rig.kill_driver()
    assert slot.state == SlotState.ENABLED
    # A worker goes on while there is no driver: tx is full of what it did meanwhile.
    slot.submit(frame._replace(port=SINK) for frame in kept[:30])
    rig.start_driver()

    assert rig.ports.withheld == owned
    assert rig.ports.driver_pid != pid
    assert slot.region.pointer.life.generation == generation
    waiting = slot.receive(50)
    assert [number_of(slot.look(frame)) for frame in waiting] == list(range(200, 250))
    slot.drain()
    rig.settle()
    # But for the 30 that were sent and the buffers given since, everything has the owner it had.
    changed = [
        i for i, (old, new) in enumerate(zip(owners, bytes(rig.owners), strict=True)) if old and old != new
    ]
    sent = sorted(rig.pool.index(frame.offset)[0] for frame in kept[:30])
    assert changed == sent
    slot.submit(frame._replace(port=LOOP) for frame in kept[30:])
    back = slot.receive(70)
    assert [number_of(slot.look(frame)) for frame in back] == list(range(30, 100))
    slot.release([*waiting, *back])
    other.release(Descriptor(offset) for offset in empty)
    rig.check_books()


def test_frame_that_a_predecessor_received_is_handed_on(rig: Rig) -> None:
    slot, other = rig.slots[0], rig.slots[1]
    kept = loop(slot, 0, 5)
    rig.kill_driver()
    rig.start_driver()
    slot.submit(frame._replace(port=other.number, flags=HAND) for frame in kept)
    handed = other.receive(5)
    assert [frame.flags for frame in handed] == [HANDED] * 5
    assert [number_of(other.look(frame)) for frame in handed] == list(range(5))
    other.release(handed)
    rig.check_books()


def test_bound_counts_what_a_predecessor_gave(rig: Rig) -> None:
    slot = rig.slots[1]
    hoard = slot.spares(3000)
    rig.kill_driver()
    rig.start_driver()
    slot.spares(slot.bound // BURST * BURST - 3000)
    rig.settle()
    assert rig.owned(slot) == slot.counters()["outstanding"] == slot.bound // BURST * BURST
    slot.release(Descriptor(offset) for offset in hoard)
    rig.check_books()


def test_slot_can_be_reset_by_a_successor(rig: Rig) -> None:
    slot = rig.slots[0]
    loop(slot, 0, 100)
    rig.settle()
    owned = rig.owned(slot)
    rig.kill_driver()
    rig.start_driver()
    rig.settle()
    assert rig.reset(slot) >= owned
    assert rig.owned(slot) == 0
    rig.enable(slot)
    slot.release(loop(slot, 0, 100))
    rig.check_books()


def test_broken_slot_stays_broken(rig: Rig) -> None:
    slot = rig.slots[0]
    slot.tx.index.producer = (slot.tx.index.producer - 1) % 2**32
    slot.ring_home()
    wait_until(lambda: slot.state == SlotState.BROKEN, "the slot is broken")
    rig.kill_driver()
    rig.start_driver()
    assert slot.state == SlotState.BROKEN
    other = rig.slots[1]
    other.submit(other.frames([content(1)], port=SINK))
    rig.sync(other)
    rig.reset(slot)
    rig.enable(slot)
    slot.release(loop(slot, 0, 100))
    rig.check_books()


def test_rings_broken_while_no_driver_lived(rig: Rig) -> None:
    """A successor attaches to indices that it has not seen grow; impossible ones it must still notice."""
    slot = rig.slots[0]
    slot.release(loop(slot, 0, 10))
    slot.drain()
    rig.kill_driver()
    slot.rx.index.consumer = (slot.rx.index.producer + 3) % 2**32
    rig.start_driver()
    other = rig.slots[1]
    before = slot.counters()["rx_frames"]
    other.submit(other.frames([content(1)] * 5, port=LOOP))
    wait_until(lambda: slot.state == SlotState.BROKEN, "the slot is broken")
    assert slot.counters()["rx_frames"] == before
    rig.reset(slot)
    rig.enable(slot)
    slot.release(loop(slot, 0, 100))
    rig.check_books()


def test_killed_at_any_time(rig: Rig) -> None:
    """Under traffic, again and again: no frame twice, no buffer lost, only what was on its way may be missing."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    slot, other = rig.slots[0], rig.slots[1]
    seen: set[int] = set()
    sent = 0

    def take() -> None:
        frames = slot.rx.take(slot.rx.size)
        numbers = [number_of(slot.look(frame)) for frame in frames]
        assert seen.isdisjoint(numbers)
        assert len(set(numbers)) == len(numbers)
        seen.update(numbers)
        slot.release(frames)

    for _ in range(6):
        for _ in range(rng.randrange(1, 30)):
            count = rng.randrange(1, 100)
            other.submit(other.frames([content(sent + i) for i in range(count)], port=LOOP))
            sent += count
            if rng.random() < 0.5:
                take()
        # Work for a while, so that death comes in the middle of a burst more often than not.
        burst = other.frames([content(sent + i) for i in range(500)], port=LOOP)
        sent += 500
        for offset in other.spares(3000):
            burst.insert(rng.randrange(len(burst)), Descriptor(offset, 60, SINK))
        loops = [frame for frame in burst if frame.port == LOOP]
        assert loops == sorted(loops, key=lambda frame: number_of(other.look(frame)))
        other.submit(burst)
        until = time.perf_counter() + rng.random() * 1e-3
        while time.perf_counter() < until:
            pass
        rig.kill_driver()
        take()
        rig.start_driver()
    other.submit(other.frames([content(sent)], port=LOOP))

    def last_arrived() -> bool:
        take()
        return sent in seen

    # The port keeps the order, so whatever is to come has come before the last frame.
    wait_until(last_arrived, "the last frame arrives")
    assert max(seen) == sent
    print(f"{sent + 1} frames, {sent + 1 - len(seen)} missing after 6 deaths")
    rig.check_books(laws=False)


def forge_claim(rig: Rig, slot: Slot, name: str, buffers: list[int]) -> None:
    """As a driver leaves it that dies between setting owners and publishing."""
    ring = getattr(slot, name)
    ring.write(ring.index.producer, b"".join(Descriptor(rig.pool.frame_offset(i)).pack() for i in buffers))
    ring.index.claim = (ring.index.producer + len(buffers)) % 2**32
    for buffer in buffers:
        rig.owners[buffer] = tag_of(slot)


def free_buffers(rig: Rig, count: int) -> list[int]:
    owners = bytes(rig.owners)
    return [i for i in range(len(owners)) if owners[i] == 0][-count:]


@pytest.mark.parametrize("count", [1, BURST])
@pytest.mark.parametrize("name", ["rx", "spare"])
def test_claim_is_taken_back_once(rig: Rig, name: str, count: int) -> None:
    slot = rig.slots[0]
    rig.settle()
    rig.kill_driver()
    owned = rig.owned(slot)
    claimed = free_buffers(rig, count)
    forge_claim(rig, slot, name, claimed)
    rig.start_driver()
    assert rig.ports.withheld == owned + rig.owned(rig.slots[1])
    assert [rig.owners[buffer] for buffer in claimed] == [0] * count
    rig.check_books()
    # The next one finds the same buffers in the slot's hands, and now that is right.
    rig.kill_driver()
    for buffer in claimed:
        rig.owners[buffer] = tag_of(slot)
    rig.start_driver()
    assert [rig.owners[buffer] for buffer in claimed] == [tag_of(slot)] * count
    slot.submit(Descriptor(rig.pool.frame_offset(buffer), 60, SINK) for buffer in claimed)
    assert rig.sync(slot)["tx_bad_owner"] == 0
    rig.check_books()


def test_claim_that_cannot_be(rig: Rig) -> None:
    """A worker can write it: buffers of others stay theirs, and a silly distance is no reason to look at entries."""
    slot, other = rig.slots[0], rig.slots[1]
    kept = other.spares(3)
    rig.settle()
    rig.kill_driver()
    owners = bytes(rig.owners)
    theirs = [rig.pool.index(offset)[0] for offset in kept]
    forge_claim(rig, slot, "rx", theirs)
    for buffer in theirs:
        rig.owners[buffer] = tag_of(other)
    slot.spare.index.claim = (slot.spare.index.producer + 0x40000000) % 2**32
    rig.start_driver()
    assert [rig.owners[buffer] for buffer in theirs] == [tag_of(other)] * 3
    assert sum(new != old for new, old in zip(bytes(rig.owners), owners, strict=True)) == 0
    other.release(Descriptor(offset) for offset in kept)
    rig.check_books()


def test_update_cut_short(rig: Rig) -> None:
    """A driver died while it wrote a port's status: its successor's updates are whole again for readers."""
    rig.kill_driver()
    for port in (LOOP, SINK):
        rig.ports.port[port].updates |= 1
    rig.start_driver()
    snapshot = rig.read_ports()
    assert all(port["whole"] for port in snapshot["ports"].values())
    assert {number: port["state"] for number, port in snapshot["ports"].items()} == {
        LOOP: "started",
        SINK: "started",
    }


SCRIBBLED = {
    "rx offset": ("rx_offset", 0xFFFFFFF8),
    "huge tx ring": ("tx_size", 0x80000000),
    "another slot": ("slot", 1),
    "endless bound": ("buffer_bound", 0xFFFFFFFF),
    "bound below what it has": ("buffer_bound", 600),
}


@pytest.mark.parametrize("name", SCRIBBLED)
def test_geometry_scribbled_before_a_restart(rig: Rig, name: str) -> None:
    """A successor reads geometry from where the worker can write: it refuses with a sentence, and does not crash."""
    slot = rig.slots[0]
    field, value = SCRIBBLED[name]
    geometry = slot.region.pointer.geometry
    right = getattr(geometry, field)
    kept = slot.spares(1000)
    rig.kill_driver()
    setattr(geometry, field, value)
    assert rig.start_driver(expect_error=True) != ""
    setattr(geometry, field, right)
    rig.start_driver()
    slot.release(loop(slot, 0, 100))
    slot.release(Descriptor(offset) for offset in kept)
    rig.check_books(laws=False)


def test_header_scribbled_before_a_restart(rig: Rig) -> None:
    slot = rig.slots[0]
    header = ffi.buffer(slot.region.pointer, 64)
    right = bytes(header)
    for start, octets in ((0, b"x"), (12, b"\1"), (16, b"\0\1")):
        rig.kill_driver()
        header[start : start + len(octets)] = octets
        assert "refused" in rig.start_driver(expect_error=True)
        header[:] = right
        rig.start_driver()
    slot.release(loop(slot, 0, 100))
    rig.check_books(laws=False)
