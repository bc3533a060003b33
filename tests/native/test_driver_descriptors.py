# SPDX-License-Identifier: Apache-2.0
"""Descriptors that no sound worker writes: each is refused under its name, its neighbors go on, no buffer is lost.

Port 0 is a loop: what is sent there comes back to slot 0, so that the test sees what was sent, octet by octet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from halo_mp.shm.layout import CHUNK_OCTETS, HEADROOM_OCTETS, METADATA_OCTETS
from tests.native.rig import FRAME_OVERHEAD, MTU, Plan, PortPlan, Rig
from tests.native.slot import DROPS, HAND, METADATA, RELEASE, TRANSMIT, Descriptor, Slot, SlotPlan, wait_until

LOOP, SINK = 0, 1
ROOM_MTU = 2048 - FRAME_OVERHEAD  # of the loop: whatever fits in a buffer may be sent
BURSTS = (1, 31, 32, 33, 64)
UNFINISHED_CHUNK = 8192  # buffers; 936 per chunk, so that the last chunk is not full


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    plan = Plan(
        ports=(PortPlan(LOOP, "net_ring0", mtu=ROOM_MTU), PortPlan(SINK, "net_null0,no-rx=1")),
        slots=(SlotPlan(0, feeds=((LOOP, 0),)), SlotPlan(5), SlotPlan(6)),
        buffers=UNFINISHED_CHUNK,
    )
    with Rig(plan, tmp_path_factory.mktemp("driver")) as rig:
        rig.reset(rig.slots[6])  # known, but disabled
        yield rig


Make = Callable[[Rig, Slot], Descriptor]


def of_frame(within: int = 0, length: int = 60, port: int = LOOP, flags: int = TRANSMIT) -> Make:
    """A descriptor of an owned buffer, `within` octets from where a port puts frames."""
    return lambda rig, slot: Descriptor(slot.spares(1)[0] + within, length, port, flags)


def at(offset: int | Callable[[Rig], int], length: int = 60, flags: int = TRANSMIT) -> Make:
    """A descriptor of a place in the pool, or not in it."""
    return lambda rig, _: Descriptor(offset if isinstance(offset, int) else offset(rig), length, LOOP, flags)


def tail_gap(rig: Rig) -> int:
    return rig.pool.buffers_per_chunk * rig.pool.stride_octets


def behind_last_buffer(rig: Rig) -> int:
    return rig.pool.offset(rig.pool.buffer_count - 1) + rig.pool.stride_octets


def foreign(flags: int = TRANSMIT, port: int = LOOP) -> Make:
    return lambda rig, _: Descriptor(rig.slots[5].spares(1)[0], 60, port, flags)


def nobodys(rig: Rig, _: Slot) -> Descriptor:
    rig.settle()
    free = bytes(rig.owners).rindex(0)
    return Descriptor(rig.pool.frame_offset(free), 60, LOOP)


def already_released(rig: Rig, slot: Slot) -> Descriptor:
    offset = slot.spares(1)[0]
    rig.settle()
    slot.release([Descriptor(offset)])
    slot.drain()
    return Descriptor(offset, 60, LOOP)


FRAME = METADATA_OCTETS + HEADROOM_OCTETS  # from a buffer's start
ROOM = 2048

BAD: dict[str, tuple[Make, str]] = {
    "all ones": (at(0xFFFFFFFF), "tx_bad_offset"),
    "all ones, 16 octets": (at(0xFFFFFFFF, 16), "tx_bad_offset"),
    "sum overflows": (at(2**32 - 16, 16), "tx_bad_offset"),
    "sum overflows, longest": (at(2**32 - 1, 65535), "tx_bad_offset"),
    "minus two": (at(2**32 - 2), "tx_bad_offset"),
    "top bit": (at(2**31), "tx_bad_offset"),
    "pool's end": (at(lambda rig: rig.pool.size_octets), "tx_bad_offset"),
    "pool's last octet": (at(lambda rig: rig.pool.size_octets - 1), "tx_bad_offset"),
    "behind the pool": (at(lambda rig: rig.pool.size_octets + FRAME), "tx_bad_offset"),
    "behind the last buffer": (at(behind_last_buffer), "tx_bad_offset"),
    "chunk's tail gap": (at(tail_gap), "tx_bad_offset"),
    "chunk's tail gap, a frame's place": (at(lambda rig: tail_gap(rig) + FRAME), "tx_bad_offset"),
    "chunk's last octet": (at(CHUNK_OCTETS - 1), "tx_bad_offset"),
    "release outside": (at(0xFFFFFFFF, 0, RELEASE), "tx_bad_offset"),
    "hand outside": (at(0xFFFFFFFF, 60, HAND), "tx_bad_offset"),
    "length 0 outside": (at(0xFFFFFFFF, 0), "tx_bad_offset"),
    "buffer's first octet": (of_frame(-FRAME), "tx_bad_offset"),
    "metadata's last octet": (of_frame(-HEADROOM_OCTETS - 1), "tx_bad_offset"),
    "in the metadata, length 0": (of_frame(-FRAME, 0), "tx_bad_offset"),
    "in the metadata, longest": (of_frame(-FRAME, 65535), "tx_bad_offset"),
    "in the metadata, release": (of_frame(-FRAME, 0, flags=RELEASE), "tx_bad_offset"),
    "length 0": (of_frame(length=0), "tx_bad_length"),
    "length 1": (of_frame(length=1), "tx_bad_length"),
    "length 13": (of_frame(length=13), "tx_bad_length"),
    "room + 1": (of_frame(length=ROOM + 1), "tx_bad_length"),
    "room + 1, in the headroom": (of_frame(-HEADROOM_OCTETS, ROOM + HEADROOM_OCTETS + 1), "tx_bad_length"),
    "length 65535": (of_frame(length=65535), "tx_bad_length"),
    "length 32768": (of_frame(length=32768), "tx_bad_length"),
    "buffer's last octet": (of_frame(ROOM - 1, 14), "tx_bad_length"),
    "straddles the end": (of_frame(ROOM - 13, 14), "tx_bad_length"),
    "hand of length 0": (of_frame(length=0, port=5, flags=HAND), "tx_bad_length"),
    "hand of room + 1": (of_frame(length=ROOM + 1, port=5, flags=HAND), "tx_bad_length"),
    "another slot's": (foreign(), "tx_bad_owner"),
    "another slot's, release": (foreign(RELEASE), "tx_bad_owner"),
    "another slot's, hand": (foreign(HAND, 0), "tx_bad_owner"),
    "nobody's": (nobodys, "tx_bad_owner"),
    "released before": (already_released, "tx_bad_owner"),
    "action 3": (of_frame(flags=3), "tx_bad_action"),
    "action 3 with metadata": (of_frame(flags=3 | METADATA), "tx_bad_action"),
    "flag of rx": (of_frame(flags=TRANSMIT | 8), "tx_bad_action"),
    "flag 16": (of_frame(flags=TRANSMIT | 16), "tx_bad_action"),
    "flag 128": (of_frame(flags=TRANSMIT | 128), "tx_bad_action"),
    "hand with flag 32": (of_frame(port=5, flags=HAND | 32), "tx_bad_action"),
    "release with flag 64": (of_frame(flags=RELEASE | 64), "tx_bad_action"),
    "all flags": (of_frame(flags=255), "tx_bad_action"),
    "port 2": (of_frame(port=2), "tx_bad_port"),
    "port 63": (of_frame(port=63), "tx_bad_port"),
    "port 64": (of_frame(port=64), "tx_bad_port"),
    "port 255": (of_frame(port=255), "tx_bad_port"),
    "slot 1": (of_frame(port=1, flags=HAND), "tx_bad_slot"),
    "slot 63": (of_frame(port=63, flags=HAND), "tx_bad_slot"),
    "slot 64": (of_frame(port=64, flags=HAND), "tx_bad_slot"),
    "slot 255": (of_frame(port=255, flags=HAND), "tx_bad_slot"),
    "slot that is disabled": (of_frame(port=6, flags=HAND), "tx_bad_slot"),
    "longer than the MTU": (of_frame(length=MTU + FRAME_OVERHEAD + 1, port=SINK), "tx_too_long"),
}
GOOD: dict[str, Make] = {
    "shortest": of_frame(length=14),
    "longest": of_frame(length=ROOM),
    "all of the headroom": of_frame(-HEADROOM_OCTETS, ROOM + HEADROOM_OCTETS - 128),
    "from the headroom's first octet": of_frame(-HEADROOM_OCTETS, 14),
    "ends exactly at the end": of_frame(ROOM - 14, 14),
    "with metadata": of_frame(flags=TRANSMIT | METADATA),
}


OWNED = ("tx_bad_length", "tx_bad_action", "tx_bad_port", "tx_bad_slot", "tx_too_long")
ENDS = ("tx_sent", "tx_passed", "hand_sent", "released")


def serve(slot: Slot, descriptors: list[Descriptor]) -> dict[str, int]:
    """Put descriptors on tx at once; return what the driver counted until all are served."""
    before = slot.counters()
    slot.submit(descriptors)
    wait_until(
        lambda: slot.counters()["tx_descriptors"] - before["tx_descriptors"] >= len(descriptors),
        f"{len(descriptors)} descriptors are served",
    )
    after = slot.counters()
    return {name: after[name] - before[name] for name in after}


def taken_back(counted: dict[str, int]) -> int:
    """How many buffers went from the slot to the driver."""
    return counted["spare_given"] + counted["rx_frames"] - counted["outstanding"]


def drops(counted: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counted.items() if count and name in DROPS}


def content(number: int, length: int = 60) -> bytes:
    """A frame that says which one it is."""
    return number.to_bytes(8, "big") * 2 + bytes(number * 7 % 256 for _ in range(length - 16))


@pytest.mark.parametrize("name", BAD)
def test_bad_descriptor_is_refused(rig: Rig, name: str) -> None:
    make, reason = BAD[name]
    slot = rig.slots[0]
    counted = serve(slot, [make(rig, slot)])
    assert drops(counted) == {reason: 1}
    assert [counted[end] for end in ENDS] == [0, 0, 0, 0]
    assert counted["tx_octets"] == 0
    # A buffer that was the slot's is taken back, whatever else is wrong.
    assert taken_back(counted) == (reason in OWNED or "metadata" in name or name == "buffer's first octet")
    rig.check_books()


@pytest.mark.parametrize("name", GOOD)
def test_descriptor_at_the_limit_is_sent(rig: Rig, name: str) -> None:
    slot = rig.slots[0]
    descriptor = GOOD[name](rig, slot)
    octets = bytes(i * 5 % 251 for i in range(descriptor.length))
    slot.fill(descriptor.offset, octets)
    counted = serve(slot, [descriptor])
    assert drops(counted) == {}
    assert counted["tx_sent"] == 1
    assert counted["tx_octets"] == descriptor.length
    (back,) = slot.receive(1)
    assert back == (descriptor.offset, descriptor.length, LOOP, 0)
    assert slot.look(back) == octets
    slot.release([back])
    rig.check_books()


def test_release_needs_neither_length_nor_port(rig: Rig) -> None:
    slot = rig.slots[0]
    offsets = slot.spares(4)
    lengths = (0, 1, 65535, 60)
    ports = (0, 255, 63, 1)
    released = [
        Descriptor(offset + within, length, port, RELEASE)
        for offset, within, length, port in zip(offsets, (0, -128, 2047, 1), lengths, ports, strict=True)
    ]
    counted = serve(slot, released)
    assert drops(counted) == {}
    assert counted["released"] == taken_back(counted) == 4
    rig.check_books()


@pytest.mark.parametrize("copies", [2, 3, 64, 65, 200])
def test_descriptor_repeated_in_a_burst(rig: Rig, copies: int) -> None:
    slot = rig.slots[0]
    (frame,) = slot.frames([content(copies)], port=LOOP)
    counted = serve(slot, [frame] * copies)
    # Behind the first burst the loop may have given the buffer back already, so that a later copy is right again.
    assert counted["tx_bad_owner"] + counted["tx_sent"] == copies
    assert counted["tx_sent"] == 1 or copies > 64
    for back in slot.receive(counted["tx_sent"]):
        assert slot.look(back) == content(copies)
    slot.release([frame])
    rig.check_books()


@pytest.mark.parametrize(
    "second",
    [
        Descriptor(0, 60, LOOP, RELEASE),
        Descriptor(1, 60, LOOP, TRANSMIT),
        Descriptor(-64, 14, SINK, TRANSMIT),
        Descriptor(0, 60, 5, HAND),
        Descriptor(-192, 0, 0, RELEASE),
    ],
)
@pytest.mark.parametrize("first", [RELEASE, TRANSMIT, HAND])
def test_buffer_given_away_twice(rig: Rig, first: int, second: Descriptor) -> None:
    slot, other = rig.slots[0], rig.slots[5]
    offset = slot.spares(1)[0]
    again = second._replace(offset=offset + second.offset)
    counted = serve(slot, [Descriptor(offset, 60, {TRANSMIT: SINK, HAND: 5}.get(first, 0), first), again])
    assert drops(counted) == {"tx_bad_owner": 1}
    assert sum(counted[end] for end in ENDS) == taken_back(counted) == 1
    if first == HAND:
        other.release(other.receive(1))
    rig.check_books()


@pytest.mark.parametrize("size", BURSTS)
def test_one_bad_descriptor_in_a_burst(rig: Rig, size: int) -> None:
    """At each place of the burst, with another fault at each place: it alone is dropped, the others leave in order."""
    slot = rig.slots[0]
    for place in range(size):
        make, reason = list(BAD.values())[(place + size) % len(BAD)]
        contents = [content(size * 100 + i) for i in range(size - 1)]
        burst = slot.frames(contents, port=LOOP)
        burst.insert(place, make(rig, slot))
        counted = serve(slot, burst)
        assert drops(counted) == {reason: 1}
        assert counted["tx_sent"] == size - 1
        back = slot.receive(size - 1)
        assert [slot.look(frame) for frame in back] == contents
        slot.release(back)
    rig.check_books()


@pytest.mark.parametrize("size", BURSTS)
def test_burst_of_bad_descriptors_only(rig: Rig, size: int) -> None:
    slot = rig.slots[0]
    kinds = [list(BAD.values())[i % len(BAD)] for i in range(size)]
    burst = [make(rig, slot) for make, _ in kinds]
    counted = serve(slot, burst)
    reasons = [reason for _, reason in kinds]
    assert drops(counted) == {reason: reasons.count(reason) for reason in set(reasons)}
    assert [counted[end] for end in ENDS] == [0, 0, 0, 0]
    rig.check_books()


@pytest.mark.parametrize("size", [255, 256, 257, 1023, 8191, 8192])
def test_burst_longer_than_any_counter(rig: Rig, size: int) -> None:
    """Counts of 8 bits would wrap; the last two fill the tx ring."""
    slot = rig.slots[0]
    good = [Descriptor(offset, flags=RELEASE) for offset in slot.spares(200)]
    rest = [Descriptor(0xFFFFFFFF)] * (size - len(good))
    counted = serve(slot, good + rest)
    assert drops(counted) == {"tx_bad_offset": len(rest)}
    assert counted["released"] == 200
    rig.check_books()
