# SPDX-License-Identifier: Apache-2.0
"""Frames that go from slot to slot and from lcore to lcore: what arrives, where from, and who counts it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from halo_mp.shm.layout import HEADROOM_OCTETS, SlotState, ffi
from tests.native.rig import Plan, PortPlan, Rig
from tests.native.slot import HAND, HANDED, METADATA, Descriptor, Slot, SlotPlan, wait_until

LOOP, CAPTURE = 3, 7


def content(number: int) -> bytes:
    return number.to_bytes(4, "big") * 20


def metadata_of(slot: Slot, frame: Descriptor) -> Descriptor:
    start = slot.pool.offset(slot.pool.index(frame.offset)[0])
    return Descriptor(start, ffi.sizeof("struct halo_metadata"))


def source_slot_of(slot: Slot, frame: Descriptor) -> int:
    metadata = ffi.new("struct halo_metadata *")
    ffi.memmove(metadata, slot.look(metadata_of(slot, frame)), ffi.sizeof("struct halo_metadata"))
    return int(metadata.source_slot)


def received(slot: Slot, count: int) -> list[Descriptor]:
    """Frames that came in by a port: what loops back from it."""
    slot.submit(slot.frames([content(i) for i in range(count)], port=LOOP))
    frames = slot.receive(count)
    assert {(frame.port, frame.flags) for frame in frames} == {(LOOP, 0)}
    return frames


@pytest.fixture(scope="module", params=["one lcore", "two lcores"])
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    lcores = 1 if request.param == "one lcore" else 2
    plan = Plan(
        ports=(PortPlan(LOOP, "net_ring0"),),
        slots=(
            SlotPlan(4, feeds=((LOOP, 0),)),
            SlotPlan(9, lcore=lcores - 1),
            SlotPlan(63, lcore=lcores - 1),
        ),
        lcores=lcores,
        buffers=16384,
    )
    with Rig(plan, tmp_path_factory.mktemp("driver")) as rig:
        yield rig


def passed(rig: Rig) -> dict[str, int]:
    """What all lcores count of frames from other lcores."""
    names = ("passed_in", "passed_sent", "passed_dropped")
    lcores = [rig.ports.lcore[i] for i in range(rig.plan.lcores)]
    return {name: sum(getattr(lcore, name) for lcore in lcores) for name in names}


def check_passed(rig: Rig, giver: Slot) -> None:
    """What was passed on, arrived somewhere or has a count."""
    sums = passed(rig)
    assert sums["passed_in"] == sums["passed_sent"] + sums["passed_dropped"]
    assert sums["passed_in"] == sum(slot.counters()["tx_passed"] for slot in rig.slots.values())
    assert giver.counters()["tx_passed"] == 0 or rig.plan.lcores == 2


@pytest.mark.parametrize("count", [1, 63, 64, 65, 500])
def test_handed_frame_says_where_it_came_from(rig: Rig, count: int) -> None:
    giver, taker = rig.slots[4], rig.slots[9]
    before = giver.counters()
    frames = received(giver, count)
    giver.submit(frame._replace(port=taker.number, flags=HAND) for frame in frames)
    handed = taker.receive(count)
    assert handed == [frame._replace(flags=HANDED) for frame in frames]
    assert [taker.look(frame) for frame in handed] == [content(i) for i in range(count)]
    assert {source_slot_of(taker, frame) for frame in handed} == {giver.number}
    after = rig.sync(giver)
    assert after["hand_sent"] + after["tx_passed"] == before["hand_sent"] + before["tx_passed"] + count
    assert taker.counters()["rx_handed"] == taker.counters()["rx_frames"]
    taker.release(handed)
    check_passed(rig, giver)
    rig.check_books()


@pytest.mark.parametrize(("said", "told"), [(LOOP, LOOP), (0, 0), (63, 63), (64, 0), (255, 0)])
def test_handed_frame_that_was_made_says_itself_where_it_came_in(rig: Rig, said: int, told: int) -> None:
    """And may start in the headroom."""
    giver, taker = rig.slots[4], rig.slots[63]
    offset = giver.spares(1)[0] - HEADROOM_OCTETS
    giver.fill(offset, content(5))
    place = metadata_of(giver, Descriptor(offset, 80, 0, 0)).offset
    giver.fill(place + ffi.offsetof("struct halo_metadata", "port"), bytes([said]))
    giver.submit([Descriptor(offset, 80, taker.number, HAND | METADATA)])
    (handed,) = taker.receive(1)
    assert handed == (offset, 80, told, HANDED | METADATA)
    assert taker.look(handed) == content(5)
    assert source_slot_of(taker, handed) == giver.number
    taker.release([handed])
    rig.check_books()


def test_frame_handed_on_and_back(rig: Rig) -> None:
    """4 → 9 → 63 → 4 and out of the port: the metadata names the last giver, the port stays."""
    slots = [rig.slots[number] for number in (4, 9, 63)]
    (frame,) = received(slots[0], 1)
    for giver, taker in zip(slots, [*slots[1:], slots[0]], strict=True):
        giver.submit([frame._replace(port=taker.number, flags=HAND)])
        (frame,) = taker.receive(1)
        assert (frame.port, frame.flags) == (LOOP, HANDED)
        assert source_slot_of(taker, frame) == giver.number
    slots[0].submit([frame._replace(flags=0)])
    (back,) = slots[0].receive(1)
    assert slots[0].look(back) == content(0)
    slots[0].release([back])
    rig.check_books()


def test_frame_handed_to_oneself(rig: Rig) -> None:
    for slot in rig.slots.values():
        offsets = slot.spares(10)
        slot.submit(Descriptor(offset, 60, slot.number, HAND) for offset in offsets)
        back = slot.receive(10)
        assert [frame.offset for frame in back] == offsets
        slot.release(back)
    rig.check_books()


def test_handed_frame_is_the_givers_no_more(rig: Rig) -> None:
    giver, taker = rig.slots[4], rig.slots[9]
    (frame,) = received(giver, 1)
    giver.submit([frame._replace(port=taker.number, flags=HAND)])
    (handed,) = taker.receive(1)
    before = rig.sync(giver)["tx_bad_owner"]
    giver.submit([frame])
    assert rig.sync(giver)["tx_bad_owner"] == before + 1
    taker.release([handed])
    rig.check_books()


def test_slots_of_one_lcore_do_not_share_their_rings(rig: Rig) -> None:
    """Everybody hands to everybody at once."""
    slots = list(rig.slots.values())
    for giver in slots:
        number = giver.number * 1000
        for taker in slots:
            giver.submit(
                giver.frames([content(number + i) for i in range(100)], port=taker.number, flags=HAND)
            )
    for taker in slots:
        frames = taker.receive(300)
        by_giver: dict[int, list[bytes]] = {slot.number: [] for slot in slots}
        for frame in frames:
            by_giver[source_slot_of(taker, frame)].append(taker.look(frame))
        for giver in slots:
            assert by_giver[giver.number] == [content(giver.number * 1000 + i) for i in range(100)]
        taker.release(frames)
    check_passed(rig, slots[0])
    rig.check_books()


def test_hand_to_a_slot_that_was_disabled(rig: Rig) -> None:
    """On the same lcore the giver is told; across lcores the taker's lcore counts it."""
    giver, taker = rig.slots[4], rig.slots[63]
    rig.reset(taker)
    before, drops = passed(rig)["passed_dropped"], giver.counters()["tx_bad_slot"]
    giver.submit(giver.frames([content(1)] * 70, port=taker.number, flags=HAND))
    wait_until(
        lambda: passed(rig)["passed_dropped"] - before + giver.counters()["tx_bad_slot"] - drops == 70,
        "70 frames are counted",
    )
    assert rig.owned(taker) == 0
    check_passed(rig, giver)
    rig.enable(taker)
    rig.check_books()


def test_hand_to_a_slot_whose_ring_is_full(rig: Rig) -> None:
    giver, taker = rig.slots[4], rig.slots[63]
    before, drops = passed(rig)["passed_dropped"], giver.counters()["tx_hand_full"]
    giver.submit(giver.frames([content(i) for i in range(1100)], port=taker.number, flags=HAND))
    wait_until(
        lambda: passed(rig)["passed_dropped"] - before + giver.counters()["tx_hand_full"] - drops == 76,
        "what has no room is counted",
    )
    frames = taker.receive(1024)
    assert [taker.look(frame) for frame in frames] == [content(i) for i in range(1024)]
    taker.release(frames)
    check_passed(rig, giver)
    rig.check_books()


def test_taker_breaks_its_ring(rig: Rig) -> None:
    giver, taker = rig.slots[4], rig.slots[63]
    taker.settle()
    taker.spare.index.consumer = taker.spare.index.producer + 1
    taker.ring_home()
    wait_until(lambda: taker.state == SlotState.BROKEN, "the slot is broken")
    before, drops = passed(rig)["passed_dropped"], giver.counters()["tx_bad_slot"]
    giver.submit(giver.frames([content(1)] * 10, port=taker.number, flags=HAND))
    wait_until(
        lambda: passed(rig)["passed_dropped"] - before + giver.counters()["tx_bad_slot"] - drops == 10,
        "ten frames are counted",
    )
    rig.reset(taker)
    rig.enable(taker)
    giver.submit(giver.frames([content(1)] * 10, port=taker.number, flags=HAND))
    taker.release(taker.receive(10))
    rig.check_books()


# ---- a port with fewer tx queues than there are lcores


def read_pcap(path: Path) -> list[bytes]:
    octets = path.read_bytes()[24:]
    frames = []
    while octets:
        (length,) = struct.unpack_from("<8xI", octets)
        frames.append(octets[16 : 16 + length])
        octets = octets[16 + length :]
    return frames


def test_port_with_one_queue_for_two_lcores(tmp_path: Path) -> None:
    """Slot 1 lives on the lcore without a queue: its frames pass through the other one, in their order, all counted."""
    capture = tmp_path / "out.pcap"
    source = tmp_path / "in.pcap"
    source.write_bytes(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    plan = Plan(
        ports=(PortPlan(CAPTURE, f"net_pcap0,rx_pcap={source},tx_pcap={capture}"),),
        slots=(SlotPlan(0, lcore=0), SlotPlan(1, lcore=1)),
        lcores=2,
    )
    count = 3000
    with Rig(plan, tmp_path) as rig:
        near, far = rig.slots[0], rig.slots[1]
        assert rig.read_ports()["ports"][CAPTURE]["tx_queues"] == 1
        for start in range(0, count, 500):
            for slot, base in ((near, 0), (far, 1_000_000)):
                frames = [content(base + number) for number in range(start, start + 500)]
                slot.submit(slot.frames(frames, port=CAPTURE))
                slot.drain()
            # The inbox holds 4096: nothing is lost at this pace.
            wait_until(lambda: passed(rig)["passed_in"] == start + 500, "the inbox is empty")  # noqa: B023
        assert rig.sync(near)["tx_sent"] == count
        assert rig.sync(far)["tx_passed"] == count
        assert far.counters()["tx_sent"] == 0
        assert passed(rig) == {"passed_in": count, "passed_sent": count, "passed_dropped": 0}
        assert rig.ports.lcore[1].passed_in == 0
    written = [int.from_bytes(frame[:4], "big") for frame in read_pcap(capture)]
    assert [number for number in written if number < 1_000_000] == list(range(count))
    assert [number - 1_000_000 for number in written if number >= 1_000_000] == list(range(count))
    assert {frame[:4] * 20 for frame in read_pcap(capture)} == set(read_pcap(capture))


def test_bad_descriptors_of_the_far_lcore(tmp_path: Path) -> None:
    """What must be refused is refused before it is passed on."""
    capture = tmp_path / "out.pcap"
    source = tmp_path / "in.pcap"
    source.write_bytes(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    plan = Plan(
        ports=(PortPlan(CAPTURE, f"net_pcap0,rx_pcap={source},tx_pcap={capture}"),),
        slots=(SlotPlan(0, lcore=0), SlotPlan(1, lcore=1)),
        lcores=2,
    )
    with Rig(plan, tmp_path) as rig:
        far = rig.slots[1]
        offset, other, third = far.spares(3)
        far.submit(
            [
                Descriptor(offset, 60, CAPTURE),
                Descriptor(offset, 60, CAPTURE),
                Descriptor(other, 5000, CAPTURE),
                Descriptor(third, 1600, CAPTURE),
                Descriptor(rig.slots[0].spares(1)[0], 60, CAPTURE),
            ]
        )
        counters = rig.sync(far)
        assert counters["tx_passed"] == 1
        assert (counters["tx_bad_owner"], counters["tx_bad_length"], counters["tx_too_long"]) == (2, 1, 1)
    assert len(read_pcap(capture)) == 1


def test_inbox_overflows(tmp_path: Path) -> None:
    """More frames at once than the inbox holds, while its lcore is busy with its own: what has no room has a name."""
    capture = tmp_path / "out.pcap"
    source = tmp_path / "in.pcap"
    source.write_bytes(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    plan = Plan(
        ports=(PortPlan(CAPTURE, f"net_pcap0,rx_pcap={source},tx_pcap={capture}"),),
        slots=(SlotPlan(0, lcore=0, ring_size=16384), SlotPlan(1, lcore=1, ring_size=16384)),
        lcores=2,
        buffers=45000,
    )
    with Rig(plan, tmp_path) as rig:
        near, far = rig.slots[0], rig.slots[1]
        counters = far.counters()
        while counters["tx_lcore_full"] == 0:
            bursts = [slot.frames([content(slot.number)] * 16384, port=CAPTURE) for slot in (near, far)]
            for slot, burst in zip((near, far), bursts, strict=True):
                slot.submit(burst)
            counters = rig.sync(far)
            assert counters["tx_descriptors"] < 100 * 16384, "the far lcore is never faster than the near one"
        assert counters["tx_passed"] + counters["tx_lcore_full"] == counters["tx_descriptors"]
        wait_until(lambda: passed(rig)["passed_sent"] == counters["tx_passed"], "what was passed is sent")
    numbers = [int.from_bytes(frame[:4], "big") for frame in read_pcap(capture)]
    assert numbers.count(far.number) == counters["tx_passed"]
