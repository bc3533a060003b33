# SPDX-License-Identifier: Apache-2.0
"""Counters by name, and port status that is whole or says that it is not."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from halo_mp.shm.counters import read_ports, read_slot
from halo_mp.shm.layout import DROP_NAMES, DROP_TEXTS, Place, PortState, ffi, lib
from halo_mp.shm.pool import PoolGeometry
from halo_mp.shm.ports import create_ports, forget_driver
from halo_mp.shm.region import Region
from halo_mp.shm.slot import SlotGeometry, create_slot


@pytest.fixture
def slot(instance: str) -> Iterator[Region]:
    made = create_slot(instance, SlotGeometry(1, PoolGeometry(100), 64), generation=1)
    yield made
    made.unlink()
    made.close()


@pytest.fixture
def ports(instance: str) -> Iterator[Region]:
    made = create_ports(instance, generation=1)
    yield made
    made.unlink()
    made.close()


def test_drop_names_each_has_its_sentence_and_fits() -> None:
    assert len(set(DROP_NAMES)) == len(DROP_NAMES) == len(DROP_TEXTS) <= lib.HALO_DROP_LIMIT
    assert all(DROP_TEXTS)


def test_read_slot_each_counter_is_under_its_own_name(slot: Region) -> None:
    for side in ("worker", "driver"):
        struct = getattr(slot.pointer, side)
        names = [
            name
            for name, _ in ffi.typeof(f"struct halo_{side}_counters").fields
            if name not in ("drops", "reserved", "pad")
        ]
        for number, name in enumerate(names):
            setattr(struct, name, 1000 + number)
        found = read_slot(slot)[side]  # type: ignore[literal-required]
        assert found["counters"] == {name: 1000 + number for number, name in enumerate(names)}


@pytest.mark.parametrize("name", DROP_NAMES)
def test_read_slot_each_drop_is_under_its_own_name(slot: Region, name: str) -> None:
    index = getattr(lib, f"HALO_DROP_{name}")
    slot.pointer.worker.drops[index] = slot.pointer.driver.drops[index] = 2**64 - 1
    found = read_slot(slot)
    for drops in (found["worker"]["drops"], found["driver"]["drops"]):
        assert {reason: count for reason, count in drops.items() if count} == {name: 2**64 - 1}


def test_read_slot_indices_that_wrapped_give_the_fill(slot: Region) -> None:
    slot.pointer.rx.producer, slot.pointer.rx.consumer = 5, 2**32 - 3
    assert read_slot(slot)["rx_fill"] == 8


def test_read_slot_words_that_make_no_sense_are_shown(slot: Region) -> None:
    slot.pointer.life.state = 77
    slot.pointer.status.place = 2**32 - 1
    found = read_slot(slot)
    assert (found["state"], found["place"]) == ("77", str(2**32 - 1))


def fill_port(status: object, value: int) -> None:
    status.state, status.xstat_count = PortState.STARTED, 2  # type: ignore[attr-defined]
    status.rx_frames = status.tx_frames = value  # type: ignore[attr-defined]
    status.xstat[0].name, status.xstat[0].value = b"rx_good", value  # type: ignore[attr-defined]
    status.xstat[1].name, status.xstat[1].value = b"x" * 64, value  # type: ignore[attr-defined]


def test_read_ports_nothing_is_there(ports: Region) -> None:
    found = read_ports(ports)
    assert (found["ports"], found["lcores"], found["driver_pid"]) == ({}, [], 0)


def test_read_ports_what_the_driver_says(ports: Region) -> None:
    ports.pointer.lcore[2].running, ports.pointer.lcore[2].place = 1, Place.ASLEEP
    ports.pointer.port[9].device, ports.pointer.port[9].mac = b"net_null0", b"\2\0\0\0\0\1"
    fill_port(ports.pointer.port[9], 42)
    found = read_ports(ports)
    assert [(lcore["lcore"], lcore["place"]) for lcore in found["lcores"]] == [(2, "asleep")]
    port = found["ports"][9]
    assert (port["device"], port["mac"], port["state"]) == ("net_null0", b"\2\0\0\0\0\1", "started")
    assert (port["stats"]["rx_frames"], port["xstats"]) == (42, {"rx_good": 42, "x" * 64: 42})
    assert port["whole"]


def test_read_ports_count_beyond_the_array_is_cut(ports: Region) -> None:
    ports.pointer.port[0].state, ports.pointer.port[0].xstat_count = PortState.STARTED, 2**32 - 1
    assert read_ports(ports)["ports"][0]["whole"]


def test_read_ports_writer_died_in_the_middle_says_so(ports: Region) -> None:
    fill_port(ports.pointer.port[0], 1)
    ports.pointer.port[0].updates = 7
    assert not read_ports(ports)["ports"][0]["whole"]


WRITER = """
import sys
from halo_mp.shm.region import Region, RegionKind
status = Region.attach(sys.argv[1], RegionKind.PORTS, writable=True).pointer.port[0]
for value in range(1, 1 << 40):
    status.updates += 1
    status.rx_frames = status.xstat[0].value = status.xstat[1].value = status.tx_frames = value
    status.updates += 1
"""


def test_read_ports_while_written_is_never_mixed(ports: Region) -> None:
    fill_port(ports.pointer.port[0], 0)
    with subprocess.Popen([sys.executable, "-c", WRITER, ports.name]) as writer:
        values: set[int] = set()
        while len(values) < 50:
            port = read_ports(ports)["ports"][0]
            if port["whole"]:
                found = {port["stats"]["rx_frames"], port["stats"]["tx_frames"], *port["xstats"].values()}
                assert len(found) == 1
                values |= found
        writer.kill()


@pytest.mark.parametrize("updates", [0, 7, 8, 2**64 - 1])
def test_forget_driver_leaves_no_port_and_an_even_count(ports: Region, updates: int) -> None:
    fill_port(ports.pointer.port[0], 5)
    ports.pointer.port[0].updates = updates
    ports.pointer.driver_pid = 9
    ports.pointer.lcore[0].running = 1
    forget_driver(ports)
    found = read_ports(ports)
    assert (found["driver_pid"], found["ports"], found["lcores"]) == (0, {}, [])
    assert ports.pointer.port[0].updates % 2 == 0
    assert ports.pointer.port[0].updates != updates
    assert ports.pointer.port[0].rx_frames == ports.pointer.port[0].xstat[1].value == 0
