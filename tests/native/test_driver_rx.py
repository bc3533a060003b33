# SPDX-License-Identifier: Apache-2.0
"""What does not fit: full rings, bounds, disabled slots, full ports, long frames. Each a named drop, nothing lost.

Port 0 is a loop that feeds slot 0, the slow one; slot 1 is who sends there. Port 1 is a loop that nobody reads.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from halo_mp.shm.layout import SlotState
from tests.native.rig import FRAME_OVERHEAD, MTU, Plan, PortPlan, Rig
from tests.native.slot import BURST, DROPS, HAND, Descriptor, Slot, SlotPlan, wait_until

LOOP, UNREAD, SINK = 0, 1, 2
RING = 64
LOOP_ROOM = 1023  # of a net_ring
BOUND = RING + 4096


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    plan = Plan(
        ports=(
            PortPlan(LOOP, "net_ring0"),
            PortPlan(UNREAD, "net_ring1"),
            PortPlan(SINK, "net_null0,no-rx=1"),
        ),
        slots=(SlotPlan(0, feeds=((LOOP, 0),), ring_size=RING), SlotPlan(1)),
        buffers=12000,
    )
    with Rig(plan, tmp_path_factory.mktemp("driver")) as rig:
        yield rig


@pytest.fixture
def slow(rig: Rig) -> Iterator[Slot]:
    """A slot that takes nothing by itself; new for each test."""
    slot = rig.slots[0]
    yield slot
    rig.reset(slot)
    rig.enable(slot)
    rig.check_books()


@pytest.fixture
def sender(rig: Rig) -> Slot:
    return rig.slots[1]


def drops(slot: Slot) -> dict[str, int]:
    return {name: count for name, count in slot.counters().items() if name in DROPS}


def new_drops(slot: Slot, before: dict[str, int]) -> dict[str, int]:
    return {name: count - before[name] for name, count in drops(slot).items() if count != before[name]}


def content(number: int, length: int = 60) -> bytes:
    return number.to_bytes(4, "big") * (length // 4)


def send(sender: Slot, count: int, port: int, first: int = 0) -> None:
    """Send numbered frames, at most a loop's fill at a time."""
    for start in range(0, count, 512):
        numbers = range(first + start, first + min(start + 512, count))
        sender.submit(sender.frames([content(number) for number in numbers], port=port))
        sender.drain()


def test_slow_worker_fills_its_ring(rig: Rig, slow: Slot, sender: Slot) -> None:
    before = drops(slow)
    send(sender, 1000, LOOP)
    wait_until(
        lambda: sum(new_drops(slow, before).values()) == 1000 - RING, "all but a ring full are dropped"
    )
    assert new_drops(slow, before) == {"rx_ring_full": 1000 - RING}
    kept = slow.receive(RING)
    assert [slow.look(frame) for frame in kept] == [content(i) for i in range(RING)]
    # It goes on from there, with room for as many as were taken.
    send(sender, 10, LOOP, first=5000)
    assert [slow.look(frame) for frame in slow.receive(10)] == [content(5000 + i) for i in range(10)]


def test_slot_takes_no_more_than_its_bound(rig: Rig, slow: Slot, sender: Slot) -> None:
    hoard = slow.spares(BOUND // BURST * BURST)
    assert rig.owned(slow) == slow.counters()["outstanding"] == slow.bound == BOUND == len(hoard)
    before = drops(slow)
    send(sender, 100, LOOP)
    wait_until(lambda: new_drops(slow, before) == {"rx_slot_bound": 100}, "the frames are dropped")
    assert rig.owned(slow) == BOUND
    slow.release(Descriptor(offset) for offset in hoard[:30])
    slow.drain()
    before = drops(slow)
    send(sender, 50, LOOP)
    assert len(slow.receive(30)) == 30
    wait_until(lambda: new_drops(slow, before) == {"rx_slot_bound": 20}, "20 are dropped")
    assert rig.owned(slow) == BOUND


def test_hand_to_a_slot_at_its_bound(rig: Rig, slow: Slot, sender: Slot) -> None:
    slow.spares(BOUND)
    before = drops(sender)
    sender.submit(sender.frames([content(1)] * 10, port=slow.number, flags=HAND))
    wait_until(lambda: new_drops(sender, before) == {"tx_hand_full": 10}, "the frames are dropped")
    assert rig.owned(slow) == BOUND


def test_hand_to_a_slot_whose_ring_is_full(rig: Rig, slow: Slot, sender: Slot) -> None:
    before, handed = drops(sender), slow.counters()["rx_handed"]
    sender.submit(sender.frames([content(i) for i in range(100)], port=slow.number, flags=HAND))
    wait_until(
        lambda: new_drops(sender, before) == {"tx_hand_full": 100 - RING}, "what has no room is dropped"
    )
    assert slow.counters()["rx_handed"] == handed + RING
    assert [slow.look(frame) for frame in slow.receive(RING)] == [content(i) for i in range(RING)]


def test_hand_to_a_slot_whose_ring_is_broken(rig: Rig, slow: Slot, sender: Slot) -> None:
    sender.submit(sender.frames([content(i) for i in range(RING)], port=slow.number, flags=HAND))
    wait_until(lambda: slow.rx.fill == RING, "the ring is full")
    slow.rx.index.consumer = slow.rx.index.producer + 5
    before = drops(sender)
    sender.submit(sender.frames([content(1)] * 3, port=slow.number, flags=HAND))
    wait_until(lambda: slow.state == SlotState.BROKEN, "the slot is broken")
    wait_until(lambda: sum(new_drops(sender, before).values()) == 3, "three frames are dropped")
    assert new_drops(sender, before) == {"tx_hand_full": 1, "tx_bad_slot": 2}


def test_slot_is_disabled(rig: Rig, slow: Slot, sender: Slot) -> None:
    rig.reset(slow)
    before = drops(slow)
    send(sender, 70, LOOP)
    wait_until(lambda: new_drops(slow, before) == {"rx_slot_disabled": 70}, "the frames are dropped")
    slow.submit([Descriptor(0xFFFFFFFF)])
    slow.ring_home()
    send(sender, 10, LOOP)
    wait_until(lambda: new_drops(slow, before) == {"rx_slot_disabled": 80}, "the frames are dropped")
    assert slow.tx.index.consumer == 0
    assert slow.spare.index.producer == 0
    assert rig.owned(slow) == 0


def test_port_is_full(tmp_path: Path) -> None:
    """Exactly as many as the port takes are sent; the sender goes on, and a port beside it too."""
    plan = Plan(
        ports=(PortPlan(LOOP, "net_ring0"), PortPlan(SINK, "net_null0,no-rx=1")),
        slots=(SlotPlan(1),),
        tx_only=True,
    )
    with Rig(plan, tmp_path) as rig:
        slot = rig.slots[1]
        send(slot, 1500, LOOP)
        counters = rig.sync(slot)
        assert counters["tx_sent"] == LOOP_ROOM
        assert counters["tx_octets"] == LOOP_ROOM * 60
        assert new_drops(slot, dict.fromkeys(DROPS, 0)) == {"tx_port_full": 1500 - LOOP_ROOM}
        rig.check_books(in_ports=LOOP_ROOM)
        send(slot, 1500, SINK)
        assert rig.sync(slot)["tx_sent"] == LOOP_ROOM + 1500
        rig.stop_driver()


def test_bursts_into_a_full_port(tmp_path: Path) -> None:
    """Many more than the port takes at once: what it took arrives once, whole and in order, and nothing else does."""
    plan = Plan(
        ports=(PortPlan(LOOP, "net_ring0"),),
        slots=(SlotPlan(0, feeds=((LOOP, 0),), ring_size=8192),),
        buffers=32768,
    )
    with Rig(plan, tmp_path) as rig:
        slot = rig.slots[0]
        for first in range(0, 40000, 8000):
            before = rig.sync(slot)
            slot.submit(slot.frames([content(first + i) for i in range(8000)], port=LOOP))
            after = rig.sync(slot)
            sent = after["tx_sent"] - before["tx_sent"]
            assert after["tx_port_full"] - before["tx_port_full"] == 8000 - sent
            assert LOOP_ROOM <= sent < 8000
            back = slot.receive(sent)
            numbers = [int.from_bytes(slot.look(frame)[:4], "big") for frame in back]
            assert [slot.look(frame) for frame in back] == [content(number) for number in numbers]
            assert numbers == sorted(set(numbers))
            assert numbers[:64] == list(range(first, first + 64))
            assert numbers[-1] < first + 8000
            slot.release(back)


def test_queue_that_feeds_no_slot(rig: Rig, slow: Slot, sender: Slot) -> None:
    lcore = rig.ports.lcore[0]
    before = lcore.unclaimed_frames
    send(sender, 700, UNREAD)
    wait_until(lambda: lcore.unclaimed_frames == before + 700, "all frames are counted")


def test_feed_moves_to_another_slot(rig: Rig, slow: Slot, sender: Slot) -> None:
    rig.feed(sender, (LOOP, 0))
    send(sender, 20, LOOP)
    back = sender.receive(20)
    assert {frame.port for frame in back} == {LOOP}
    assert slow.rx.fill == 0
    sender.release(back)
    rig.feed(slow, (LOOP, 0))
    send(sender, 20, LOOP)
    assert len(slow.receive(20)) == 20


@pytest.mark.parametrize(
    ("length", "sent"), [(MTU + FRAME_OVERHEAD, 1), (MTU + FRAME_OVERHEAD + 1, 0), (2048, 0)]
)
def test_frame_against_the_mtu(rig: Rig, slow: Slot, sender: Slot, length: int, sent: int) -> None:
    before = sender.counters()
    offset = sender.spares(1)[0]
    sender.submit([Descriptor(offset, length, SINK)])
    after = rig.sync(sender)
    assert after["tx_too_long"] - before["tx_too_long"] == 1 - sent
    assert after["tx_sent"] - before["tx_sent"] == sent
    assert after["tx_octets"] - before["tx_octets"] == sent * length


def test_out_of_buffers_and_back(tmp_path: Path) -> None:
    """Two slots take the pool to its last burst; a port that needs buffers finds none; relief brings all of it back."""
    plan = Plan(
        ports=(PortPlan(LOOP, "net_null0,size=64"), PortPlan(SINK, "net_null1,no-rx=1")),
        slots=(SlotPlan(0, ring_size=512), SlotPlan(1, feeds=((LOOP, 0),), ring_size=512)),
        buffers=4000,
    )
    with Rig(plan, tmp_path) as rig:
        hoarder, fed = rig.slots[0], rig.slots[1]
        wait_until(lambda: fed.counters()["rx_ring_full"] > 1000, "the port delivers")
        hoarder.spares((4000 - 512 - 512 - 256) // BURST * BURST)
        wait_until(lambda: hoarder.counters()["outstanding"] > 2000, "the pool is as good as empty")
        assert rig.driver.alive
        rig.read_ports()  # control answers
        fed_before = fed.counters()["rx_frames"]
        rig.reset(hoarder)
        fed.release(fed.rx.take(fed.rx.size))
        wait_until(lambda: fed.counters()["rx_frames"] > fed_before + 256, "frames arrive again")
        rig.driver.do("feeds", slots=[{"slot": 64, "feeds": [(LOOP, 0)]}])
        rig.enable(hoarder)


@pytest.mark.parametrize("buffers", [64, 128, 383, 1000])
def test_small_pool(tmp_path: Path, buffers: int) -> None:
    """Any number of buffers makes a pool; the spare ring has no more than there are."""
    plan = Plan(
        ports=(PortPlan(SINK, "net_null0,no-rx=1"),),
        slots=(SlotPlan(0, ring_size=64),),
        buffers=buffers,
    )
    with Rig(plan, tmp_path) as rig:
        slot = rig.slots[0]
        for _ in range(50):
            taken = slot.spares(min(buffers, 512) // BURST * BURST)
            assert len(set(taken)) == len(taken)
            slot.release(Descriptor(offset) for offset in taken)
            slot.drain()


def octets_of(length: int) -> bytes:
    return content(length, length + 3)[:length]


def write_pcap(path: Path, lengths: list[int]) -> None:
    header = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    records = (struct.pack("<IIII", 0, 0, length, length) + octets_of(length) for length in lengths)
    path.write_bytes(header + b"".join(records))


def test_frame_of_several_segments(tmp_path: Path) -> None:
    """A port that delivers more than a buffer holds: that frame is dropped, the others arrive."""
    capture = tmp_path / "in.pcap"
    lengths = [60, 3000, 61, 2048, 9000, 62, 2049, 63]
    write_pcap(capture, lengths)
    plan = Plan(
        ports=(PortPlan(LOOP, f"net_pcap0,rx_pcap={capture}"),),
        slots=(SlotPlan(0, feeds=((LOOP, 0),)),),
        adopted=True,
    )
    with Rig(plan, tmp_path) as rig:
        slot = rig.slots[0]
        fitting = [length for length in lengths if length <= 2048]
        frames = slot.receive(len(fitting))
        assert [frame.length for frame in frames] == fitting
        assert [slot.look(frame) for frame in frames] == [octets_of(length) for length in fitting]
        assert new_drops(slot, dict.fromkeys(DROPS, 0)) == {"rx_multi_segment": 3}


def test_metadata_when_checksums_are_offloaded(tmp_path: Path) -> None:
    plan = Plan(
        ports=(PortPlan(LOOP, "net_ring0"),),
        slots=(SlotPlan(0, feeds=((LOOP, 0),)),),
        rx_checksum=True,
    )
    with Rig(plan, tmp_path) as rig:
        slot = rig.slots[0]
        slot.submit(slot.frames([content(1)], port=LOOP))
        (back,) = slot.receive(1)
        assert back.flags == 4
        start = rig.pool.offset(rig.pool.index(back.offset)[0])
        assert slot.look(Descriptor(start, 8)) == bytes(8)


def test_worker_that_sleeps_is_rung(rig: Rig, slow: Slot, sender: Slot) -> None:
    before = slow.counters()["doorbells"]
    send(sender, 3, LOOP)
    slow.receive(3)
    assert slow.counters()["doorbells"] == before
    slow.region.pointer.doorbell.worker_sleeping = 1
    send(sender, 3, LOOP)
    slow.receive(3)
    assert os.eventfd_read(slow.doorbell) >= 1
    assert slow.counters()["doorbells"] > before
    slow.region.pointer.doorbell.worker_sleeping = 0
    rung = slow.counters()["doorbells"]
    send(sender, 3, LOOP)
    slow.receive(3)
    assert slow.counters()["doorbells"] == rung


def test_driver_that_sleeps_is_woken(tmp_path: Path) -> None:
    plan = Plan(
        ports=(PortPlan(SINK, "net_null0,no-rx=1"),), slots=(SlotPlan(0),), idle="sleep", tx_only=True
    )
    with Rig(plan, tmp_path) as rig:
        slot = rig.slots[0]
        life = slot.region.pointer.life
        for _ in range(50):
            frames = slot.frames([content(1)], port=SINK)
            wait_until(lambda: life.driver_sleeping, "the lcore sleeps")
            slot.submit(frames)
            slot.drain()
        wait_until(lambda: slot.counters()["tx_sent"] == 50, "all were sent")
        assert rig.ports.lcore[0].sleeps > 0
