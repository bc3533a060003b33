# SPDX-License-Identifier: Apache-2.0
"""A port whose device has one queue, spread by the driver over several slots: which slot gets which frame.

Frames come out of a capture file, so that what goes in is known; a frame's queue is what flow.h says, and what that
has to say is the matter of native/tests/flow_test.c.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from halo_mp._native import lib
from tests.native.rig import Plan, PortPlan, Rig
from tests.native.slot import DROPS, Slot, SlotPlan, wait_until
from tests.native.test_driver_copy import INSIDE
from tests.support import frames

PORT = 3
OURS = "10.9.0.1"
MACS = {"dst": b"\x02\0\0\0\0\x01", "src": b"\x02\0\0\0\0\x02"}
UDP = 17


def udp(src: str, dst: str, src_port: int, dst_port: int, data: bytes = b"") -> bytes:
    payload = struct.pack("!HHHH", src_port, dst_port, 8 + len(data), 0) + data
    return frames.frame(**MACS, payload=frames.packet(src=src, dst=dst, payload=payload, protocol=UDP))


def fragment(src: str, dst: str, number: int) -> bytes:
    """One of three fragments; only the first has ports."""
    payload = frames.packet(
        src=src,
        dst=dst,
        payload=struct.pack("!HHHH", number, number, 8, 0) * 2,
        protocol=UDP,
        flags=1 if number < 2 else 0,
        offset_octets=16 * number,
    )
    return frames.frame(**MACS, payload=payload)


def arp(number: int) -> bytes:
    packet = frames.arp_packet(1, sender_mac=MACS["src"], sender=f"10.9.0.{number}", target=OURS)
    return frames.frame(dst=frames.BROADCAST, src=MACS["src"], payload=packet, ethertype=frames.ARP)


def client(number: int) -> str:
    return str(IPv4Address("10.9.0.10") + number)


def traffic(flows: int) -> list[bytes]:
    """Flows in both directions, plain and tagged, a datagram in fragments, and ARP."""
    found = []
    for number in range(flows):
        there = udp(client(number), OURS, 5000 + number, 53, number.to_bytes(4, "big"))
        found += [there, there[:12] + frames.tag(5) + there[12:]]
        found.append(udp(OURS, client(number), 53, 5000 + number))
        found += [fragment(client(number), OURS, place) for place in (2, 0, 1)]
        found.append(arp(number % 250))
    return found


def queue_of(frame: bytes, queues: int) -> int:
    return int(lib.halo_flow_share(lib.halo_spread_hash(frame, len(frame)), queues))


def write_pcap(path: Path, octets: Iterable[bytes]) -> Path:
    header = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    records = (struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame for frame in octets)
    path.write_bytes(header + b"".join(records))
    return path


def spread_plan(
    device: str, *, slots: int, lcores: int, queues: int = 4, ring_size: int = 4096, spread: str = "auto"
) -> Plan:
    """Queue q feeds slot q modulo `slots`, and the slots' homes are the lcores in turn."""
    return Plan(
        ports=(PortPlan(PORT, device, queues=queues, spread=spread),),
        slots=tuple(
            SlotPlan(
                number,
                lcore=number % lcores,
                feeds=tuple((PORT, queue) for queue in range(number, queues, slots)),
                ring_size=ring_size,
            )
            for number in range(slots)
        ),
        lcores=lcores,
        buffers=32768,
        adopted=True,
    )


def expected(octets: Sequence[bytes], queues: int, slots: int) -> list[list[bytes]]:
    found: list[list[bytes]] = [[] for _ in range(slots)]
    for frame in octets:
        found[queue_of(frame, queues) % slots].append(frame)
    return found


def taken(slot: Slot, count: int) -> list[bytes]:
    descriptors = slot.receive(count)
    assert {descriptor.port for descriptor in descriptors} <= {PORT}
    octets = [slot.look(descriptor) for descriptor in descriptors]
    slot.release(descriptors)
    return octets


def drops(slot: Slot) -> dict[str, int]:
    return {name: count for name, count in slot.counters().items() if name in DROPS and count}


def passed_between_lcores(rig: Rig) -> tuple[int, int]:
    lcores = [rig.ports.lcore[number] for number in range(rig.plan.lcores)]
    return sum(each.spread_out for each in lcores), sum(each.spread_in for each in lcores)


@pytest.mark.parametrize(("slots", "lcores"), [(1, 1), (2, 1), (4, 1), (2, 2), (4, 2), (4, 3)])
def test_each_slot_gets_the_flows_of_its_queues(tmp_path: Path, slots: int, lcores: int) -> None:
    octets = traffic(300)
    capture = write_pcap(tmp_path / "in.pcap", octets)
    wanted = expected(octets, 4, slots)
    with Rig(spread_plan(f"net_pcap0,rx_pcap={capture}", slots=slots, lcores=lcores), tmp_path) as rig:
        for number, slot in rig.slots.items():
            found = taken(slot, len(wanted[number]))
            if number % lcores == 0 and slots == 4:
                assert found == wanted[number]  # one queue, straight from the port: in the order of arrival
            assert Counter(found) == Counter(wanted[number])
            assert not drops(slot)
        elsewhere = sum(len(wanted[number]) for number in range(slots) if number % lcores)
        assert passed_between_lcores(rig) == (elsewhere, elsewhere)
        assert (elsewhere > 0) == (lcores > 1)
        status = rig.read_ports()["ports"][PORT]
        assert (status["rx_queues"], status["spread_queues"]) == (1, 4)


def test_flow_keeps_its_order_on_the_way_through_another_lcore(tmp_path: Path) -> None:
    octets = [udp(client(i % 7), OURS, 5000, 53, i.to_bytes(4, "big")) for i in range(3000)]
    capture = write_pcap(tmp_path / "in.pcap", octets)
    wanted = expected(octets, 4, 2)
    with Rig(spread_plan(f"net_pcap0,rx_pcap={capture}", slots=2, lcores=2), tmp_path) as rig:
        for number, slot in rig.slots.items():
            found = taken(slot, len(wanted[number]))
            for flow in range(7):
                source = IPv4Address(client(flow)).packed
                mine, theirs = (
                    [each for each in group if each[26:30] == source] for group in (found, wanted[number])
                )
                assert mine == theirs


def test_both_directions_and_all_fragments_meet_and_arp_has_one_home(tmp_path: Path) -> None:
    octets = traffic(100)
    capture = write_pcap(tmp_path / "in.pcap", octets)
    wanted = expected(octets, 8, 8)
    plan = spread_plan(f"net_pcap0,rx_pcap={capture}", slots=8, lcores=1, queues=8)
    homes: dict[tuple[object, ...], set[int]] = {}
    with Rig(plan, tmp_path) as rig:
        for number, slot in rig.slots.items():
            for frame in taken(slot, len(wanted[number])):
                homes.setdefault(flow_of(frame), set()).add(number)
    assert homes.pop(("arp",)) == {0}
    assert all(len(found) == 1 for found in homes.values())
    assert len(homes) == 2 * 100
    assert {home for found in homes.values() for home in found} == set(range(8))


def flow_of(frame: bytes) -> tuple[object, ...]:
    """What has to stay together, read from the octets without flow.h."""
    at = 18 if frame[12:14] == b"\x81\0" else 14
    if frame[at - 2 : at] == b"\x08\x06":
        return ("arp",)
    ends = (frame[at + 12 : at + 16], frame[at + 16 : at + 20])
    if int.from_bytes(frame[at + 6 : at + 8], "big") & 0x3FFF:
        return ("fragment", frozenset(ends))
    return frozenset(ends), frozenset((frame[at + 20 : at + 22], frame[at + 22 : at + 24]))


@pytest.mark.parametrize("lcores", [1, 2])
def test_slow_slot_loses_its_own_frames_and_no_others(tmp_path: Path, lcores: int) -> None:
    octets = traffic(300)
    capture = write_pcap(tmp_path / "in.pcap", octets)
    wanted = expected(octets, 2, 2)
    plan = spread_plan(f"net_pcap0,rx_pcap={capture}", slots=2, lcores=lcores, queues=2)
    slow = SlotPlan(1, lcore=lcores - 1, feeds=plan.slots[1].feeds, ring_size=64)
    plan = Plan(ports=plan.ports, slots=(plan.slots[0], slow), lcores=lcores, buffers=32768, adopted=True)
    with Rig(plan, tmp_path) as rig:
        assert taken(rig.slots[0], len(wanted[0])) == wanted[0]
        lost = len(wanted[1]) - 64
        wait_until(lambda: sum(drops(rig.slots[1]).values()) == lost, "what has no room is dropped")
        assert drops(rig.slots[1]) == {"rx_ring_full": lost}
        assert not drops(rig.slots[0])
        assert taken(rig.slots[1], 64) == wanted[1][:64]


@pytest.mark.parametrize("lcores", [1, 2])
def test_slot_without_a_worker_and_queue_without_a_slot(tmp_path: Path, lcores: int) -> None:
    """Frames of the one are its drops, frames of the other nobody's; the third slot does not notice."""
    octets = traffic(300)
    capture = write_pcap(tmp_path / "in.pcap", octets)
    sizes = Counter(queue_of(frame, 4) for frame in octets)
    plan = Plan(
        ports=(PortPlan(PORT, f"net_pcap0,rx_pcap={capture}", queues=4),),
        slots=(
            SlotPlan(0, feeds=((PORT, 0), (PORT, 2)), ring_size=4096),
            SlotPlan(1, lcore=lcores - 1, feeds=((PORT, 1),)),
        ),
        lcores=lcores,
        buffers=32768,
        adopted=True,
    )
    with Rig(plan, tmp_path) as rig:
        wait_until(lambda: rig.slots[1].counters()["rx_frames"] == sizes[1], "the first file is read")
        taken(rig.slots[0], sizes[0] + sizes[2])
        rig.reset(rig.slots[1])
        rig.driver.do("lose", port=PORT)
        rig.driver.do("reopen", port=PORT)  # which reads the file once more
        taken(rig.slots[0], sizes[0] + sizes[2])
        wait_until(lambda: sum(drops(rig.slots[1]).values()) == sizes[1], "frames of the slot are dropped")
        assert drops(rig.slots[1]) == {"rx_slot_disabled": sizes[1]}
        assert not drops(rig.slots[0])
        unclaimed = sum(rig.ports.lcore[number].unclaimed_frames for number in range(lcores))
        assert unclaimed == 2 * sizes[3]


def test_queue_moves_to_another_slot_and_lcore(tmp_path: Path) -> None:
    octets = traffic(300)
    capture = write_pcap(tmp_path / "in.pcap", octets)
    sizes = Counter(queue_of(frame, 4) for frame in octets)
    with Rig(spread_plan(f"net_pcap0,rx_pcap={capture}", slots=2, lcores=2), tmp_path) as rig:
        taken(rig.slots[0], sizes[0] + sizes[2])
        taken(rig.slots[1], sizes[1] + sizes[3])
        rig.driver.do("lose", port=PORT)
        rig.feed(rig.slots[1], (PORT, 0), (PORT, 2))  # ARP's too: now the other lcore reads the device
        rig.feed(rig.slots[0], (PORT, 3))
        rig.driver.do("reopen", port=PORT)
        taken(rig.slots[0], sizes[3])
        taken(rig.slots[1], sizes[0] + sizes[1] + sizes[2])
        out, into = passed_between_lcores(rig)
        assert out == into == sizes[1] + sizes[3] + sizes[3]
        assert rig.ports.lcore[1].spread_out == sizes[3]


def test_inbox_of_another_lcore_overflows_by_name(tmp_path: Path) -> None:
    """Three lcores on two cores: while the one that reads has its core, the one that shares it takes nothing."""
    octets = [frame for frame in traffic(300) if queue_of(frame, 3) == 2]
    octets *= 200_000 // len(octets)
    capture = write_pcap(tmp_path / "in.pcap", octets)
    plan = spread_plan(f"net_pcap0,rx_pcap={capture}", slots=3, lcores=3, queues=3, ring_size=64)
    with Rig(plan, tmp_path) as rig:
        slot = rig.slots[2]
        wait_until(lambda: sum(drops(slot).values()) == len(octets) - 64, "all but a ring full are dropped")
        assert set(drops(slot)) == {"rx_lcore_full", "rx_ring_full"}
        passed = len(octets) - slot.counters()["rx_lcore_full"]
        assert passed_between_lcores(rig) == (passed, passed)
        assert not drops(rig.slots[0])


@pytest.mark.parametrize(
    ("device", "queues", "spread", "software"),
    [
        ("net_null0,no-rx=1", 4, "auto", False),  # has RSS, or says so
        ("net_null0,no-rx=1", 4, "software", True),
        ("net_ring0", 4, "auto", False),  # whoever fills its queues has named them
        ("net_ring0", 4, "software", True),
        ("net_ring0", 17, "auto", True),  # has 16
        ("net_null0,no-rx=1", 64, "software", True),
        ("net_null0,no-rx=1", 1, "software", False),  # nothing to spread
    ],
)
def test_who_spreads(tmp_path: Path, device: str, queues: int, spread: str, software: bool) -> None:
    plan = spread_plan(device, slots=1, lcores=1, queues=queues, spread=spread)
    with Rig(plan, tmp_path) as rig:
        status = rig.read_ports()["ports"][PORT]
        assert (status["rx_queues"], status["spread_queues"]) == ((1, queues) if software else (queues, 0))


def test_hardware_is_asked_for_and_missing(tmp_path: Path) -> None:
    plan = spread_plan("net_ring0", slots=1, lcores=1, queues=16, spread="hardware")
    with Rig(plan, tmp_path) as rig:
        assert rig.read_ports()["ports"][PORT]["rx_queues"] == 16
        rig.stop_driver()
        rig.plan = replace(plan, ports=(replace(plan.ports[0], queues=17),))
        sentence = rig.start_driver(expect_error=True)
        assert sentence.startswith(
            f"port {PORT} (net_ring0) can not spread frames over 17 queues: it has 16; write --spread software, or "
            "--queues 16"
        )


@pytest.mark.skipif(
    Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"],
    reason="AF_XDP needs root outside of any user namespace",
)
def test_frames_of_a_copying_port_reach_slots_of_other_lcores(tmp_path: Path) -> None:
    device = "net_af_xdp0,iface=halo0,start_queue=0,queue_count=1,force_copy=1"
    plan = spread_plan(device, slots=2, lcores=2, spread="software")
    plan = Plan(
        ports=plan.ports,
        slots=plan.slots,
        lcores=2,
        buffers=4096,
        prefix=("unshare", "--net", "sh", "-c", INSIDE, "sh"),
    )
    octets = [udp(client(i), OURS, 5000, 53, b"copied") for i in range(64)]
    wanted = expected(octets, 4, 2)
    with Rig(plan, tmp_path) as rig:
        assert rig.read_ports()["ports"][PORT]["mode"] == "copy"
        for frame in octets:
            rig.driver.do("inject", interface="peer0", frame=frame.hex(), count=1)
        for number, slot in rig.slots.items():
            mine: list[bytes] = []

            def enough(slot: Slot = slot, mine: list[bytes] = mine, count: int = len(wanted[number])) -> bool:
                found = slot.rx.take(slot.rx.size)
                mine.extend(octets for each in found if (octets := slot.look(each)).endswith(b"copied"))
                slot.release(found)  # the kernel says a word of its own
                return len(mine) == count

            wait_until(enough, f"slot {number} has its frames")
            assert Counter(mine) == Counter(wanted[number])
