# SPDX-License-Identifier: Apache-2.0
"""`copy` mode: a port that cannot receive into the pool (net_af_xdp) has buffers of its own; its frames are copied.

The port is one end of a veth in a network namespace of the test's own; frames are sent from the other end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from halo_mp.shm.layout import DATA_OCTETS
from tests.native.rig import Plan, PortPlan, Rig
from tests.native.slot import BURST, DROPS, Descriptor, SlotPlan, wait_until

INSIDE = (
    'ip link add halo0 type veth peer name peer0 && ip link set halo0 up && ip link set peer0 up && exec "$@"'
)
PORT, SINK = 0, 1
BUFFERS = 2048


# AF_XDP loads a BPF program, which a user namespace's root may not.
pytestmark = pytest.mark.skipif(
    Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"],
    reason="AF_XDP needs root outside of any user namespace",
)


def plan(data_octets: int) -> Plan:
    return Plan(
        ports=(
            PortPlan(PORT, "net_af_xdp0,iface=halo0,start_queue=0,queue_count=1,force_copy=1"),
            PortPlan(SINK, "net_null0,no-rx=1"),
        ),
        slots=(SlotPlan(0, feeds=((PORT, 0),), ring_size=1024), SlotPlan(1, ring_size=1024)),
        buffers=BUFFERS,
        data_octets=data_octets,
        prefix=("unshare", "--net", "sh", "-c", INSIDE, "sh"),
    )


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(plan(DATA_OCTETS), tmp_path) as rig:
        yield rig


def frame_of(length: int) -> bytes:
    return b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + bytes(i % 251 for i in range(length - 14))


def inject(rig: Rig, length: int, count: int) -> None:
    rig.driver.do("inject", interface="peer0", frame=frame_of(length).hex(), count=count)


def test_frames_are_copied(rig: Rig) -> None:
    slot = rig.slots[0]
    assert rig.read_ports()["ports"][PORT]["mode"] == "copy"
    for length in (60, 1000, 1514):
        inject(rig, length, 5)
        mine = []

        def enough() -> bool:
            for frame in slot.rx.take(slot.rx.size):
                if slot.look(frame) == frame_of(length):  # noqa: B023
                    mine.append(frame)  # noqa: B023
                else:
                    slot.release([frame])  # the kernel says a word of its own
            return len(mine) == 5  # noqa: B023

        wait_until(enough, f"5 frames of {length} octets arrive")
        assert {(frame.port, frame.flags) for frame in mine} == {(PORT, 0)}
        slot.release(mine)
    rig.check_books()


def test_no_buffer_to_copy_into(rig: Rig) -> None:
    slot, hoarder = rig.slots[0], rig.slots[1]
    hoard = hoarder.spares((BUFFERS - 512 - 512 - 256) // BURST * BURST)
    rig.settle()
    while rig.free() >= BURST:
        hoard += hoarder.spares(BURST)
        rig.settle()
    before = slot.counters()
    inject(rig, 60, 3 * BURST)
    wait_until(lambda: slot.counters()["rx_no_buffer"] > before["rx_no_buffer"], "there is no buffer")
    others = {name for name in DROPS if slot.counters()[name] != before[name]} - {"rx_no_buffer"}
    assert others == set()
    rig.driver.do("status")  # control answers
    hoarder.release(Descriptor(offset) for offset in hoard)
    hoarder.drain()
    frames = slot.counters()["rx_frames"]
    inject(rig, 60, 3)
    wait_until(lambda: slot.counters()["rx_frames"] >= frames + 3, "frames arrive again")
    rig.check_books()


def test_frame_longer_than_a_buffer(tmp_path: Path) -> None:
    with Rig(plan(1024), tmp_path) as rig:
        slot = rig.slots[0]
        for length in (1024, 1025, 1514, 1000):
            inject(rig, length, 1)
        arrived: list[int] = []

        def both() -> bool:
            arrived.extend(frame.length for frame in slot.rx.take(slot.rx.size) if frame.length >= 1000)
            return len(arrived) == 2

        wait_until(both, "those that fit arrive")
        assert arrived == [1024, 1000]
        assert slot.counters()["rx_too_long"] == 2
