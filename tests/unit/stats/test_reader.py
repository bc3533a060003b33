# SPDX-License-Identifier: Apache-2.0
"""Everything that an instance counts, from its regions: whole, never backwards, whatever is written meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from halo_mp.errors import EnvironmentProblem
from halo_mp.shm.counters import PORT_COUNTERS
from halo_mp.shm.layout import DROP_NAMES, lib
from halo_mp.shm.load import TimedStage
from halo_mp.shm.ports import forget_driver
from halo_mp.stats.model import QueueStats
from halo_mp.stats.reader import Reader
from halo_mp.stats.status_model import FILE
from halo_mp.supervisor import feed_statistics
from tests.support.regions import Regions


def test_read_what_is_counted_is_under_its_name(regions: Regions, reader: Reader) -> None:
    regions.forward(6400, port=1)
    found = reader.read()
    port, slot = found.ports[1], found.slots[1]
    assert (port.counters["rx_frames"], port.counters["tx_octets"]) == (6400, 64 * 3200)
    assert set(port.counters) == set(PORT_COUNTERS)
    assert (port.state, port.link_up, port.speed_mbps) == ("started", True, 10000)
    assert (slot.worker["rx_frames"], slot.ring_size, slot.ports) == (6400, 1024, (1,))
    assert slot.drops == {"ipv4_no_route": 640, "rx_ring_full": 64}
    assert set(slot.worker_drops) == set(slot.driver_drops) == set(DROP_NAMES)
    assert slot.load.bursts[5] == 128
    assert (slot.load.lags[4], slot.load.lag_ns) == (7, 63000)
    assert slot.load.cycles == {stage.name.lower(): (10 + stage) * 100 for stage in TimedStage}
    assert found.interfaces["1"].rx_packets == 6400
    assert found.interfaces["1"].addresses == ("10.77.1.1/24",)
    assert (found.driver_pid, found.pool_free, found.generation) == (os.getpid(), 100, 1)
    assert sum(found.slots[0].worker.values()) == 0


def test_read_queues_are_those_that_the_pmd_tells_of(regions: Regions, reader: Reader) -> None:
    for place in range(4):
        regions.ports.pointer.port[0].xstat[place].value = place + 1
    assert reader.read().ports[0].queues == {
        0: QueueStats(rx_frames=1, rx_octets=2),
        1: QueueStats(rx_frames=3, rx_octets=4),
    }


def test_queues_go_on_counting_when_their_device_is_opened_again(regions: Regions, reader: Reader) -> None:
    place = regions.ports.pointer.port[0].xstat[2]
    place.value = 700
    reader.read()
    place.value = 5
    assert reader.read().ports[0].queues[1].rx_frames == 705
    forget_driver(regions.ports)
    assert reader.read().ports[0].queues[1].rx_frames == 705


def test_read_hooks_of_a_new_worker_go_on_counting(regions: Regions, reader: Reader) -> None:
    regions.add_hook(0, "filter", calls=5, packets=100, errors=1)
    [hook] = reader.read().slots[0].hooks
    assert (hook.name, hook.state, hook.calls, hook.packets) == ("filter", "active", 5, 100)
    regions.slots[0].pointer.hook[0].calls = 2
    regions.slots[0].pointer.hook[0].packets = 7
    [hook] = reader.read().slots[0].hooks
    assert (hook.calls, hook.packets, hook.errors) == (7, 107, 1)


def test_plain_is_json(regions: Regions, reader: Reader) -> None:
    regions.forward(100)
    found = json.loads(json.dumps(reader.read().plain()))
    assert found["ports"]["0"]["counters"]["rx_frames"] == 100
    assert found["status"]["state"] == "up"


# ---- never backwards


def test_driver_died_ports_keep_what_they_counted(regions: Regions, reader: Reader) -> None:
    regions.forward(500)
    assert reader.read().ports[0].counters["rx_frames"] == 500
    forget_driver(regions.ports)  # before the supervisor has said anything
    found = reader.read().ports[0]
    assert (found.counters["rx_frames"], found.counters["rx_octets"]) == (500, 32000)
    regions.say_of_port(0, counted_before={"rx_frames": 510, "rx_octets": 32640})  # ten more, at the end
    assert reader.read().ports[0].counters["rx_frames"] == 510
    regions.start_driver()
    regions.forward(7)
    assert reader.read().ports[0].counters["rx_frames"] == 517


def test_driver_died_unseen_nothing_is_counted_twice(regions: Regions, reader: Reader) -> None:
    regions.forward(500)
    reader.read()
    forget_driver(regions.ports)
    regions.say_of_port(0, counted_before={"rx_frames": 500})
    regions.ports.pointer.driver_pid = os.getpid() + 1  # it has no port yet
    assert reader.read().ports[0].counters["rx_frames"] == 500
    regions.start_driver()
    regions.forward(1)
    assert reader.read().ports[0].counters["rx_frames"] == 501


def test_reader_that_came_later_knows_what_was_before(regions: Regions) -> None:
    regions.say_of_port(1, counted_before={"rx_frames": 1000, "losses": 2})
    regions.forward(5, port=1)
    with Reader(regions.instance, base=regions.base) as late:
        counters = late.read().ports[1].counters
    assert (counters["rx_frames"], counters["losses"]) == (1005, 2)


def test_update_that_never_ends_leaves_the_last_whole_one(regions: Regions, reader: Reader) -> None:
    regions.forward(500)
    reader.read()
    regions.ports.pointer.port[0].updates += 1
    regions.ports.pointer.port[0].rx_frames = 3
    regions.ports.pointer.port[0].state = 77
    found = reader.read().ports[0]
    assert (found.counters["rx_frames"], found.state) == (500, "started")


# ---- which run


def test_started_anew_counts_from_zero(regions: Regions, reader: Reader) -> None:
    regions.forward(500)
    assert reader.read().generation == 1
    regions.stop()
    with pytest.raises(EnvironmentProblem, match="is not running"):
        reader.read()
    regions.start()
    found = reader.read()
    assert (found.generation, found.ports[0].counters["rx_frames"]) == (2, 0)
    assert found.slots[0].worker["rx_frames"] == 0


def test_counters_that_a_worker_made_up_are_words_all_the_same(regions: Regions, reader: Reader) -> None:
    most = 2**64 - 1
    slot = regions.slots[0].pointer
    slot.worker.drops[0] = slot.interface[0].rx_packets = most
    slot.driver.drops[0] = regions.slots[1].pointer.interface[0].rx_packets = 3
    found = reader.read()
    assert found.slots[0].drops == {DROP_NAMES[0]: 2}
    assert found.interfaces["0"].rx_packets == 2
    assert feed_statistics.emit(found)


def test_worker_that_comes_later_is_there(regions: Regions, reader: Reader) -> None:
    processes = regions.status.processes
    regions.say(processes=processes[:2])
    assert set(reader.read().slots) == {0}
    regions.say(processes=processes)
    assert set(reader.read().slots) == {0, 1}


def test_none_is_running(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="'nobody' is not running"):
        Reader("nobody", base=tmp_path)


def test_status_that_is_not_understood_leaves_nothing_mapped(regions: Regions) -> None:
    (regions.base / regions.instance / FILE).write_text('{"version": 0}')
    before = mappings(regions.instance)
    with pytest.raises(EnvironmentProblem, match="Is it just starting"):
        Reader(regions.instance, base=regions.base)
    assert mappings(regions.instance) == before > 0


def test_started_anew_and_not_ready_is_tried_again(regions: Regions, reader: Reader) -> None:
    regions.stop()
    regions.start()
    regions.tables.unlink()
    for _ in range(2):
        with pytest.raises(EnvironmentProblem, match="is not running"):
            reader.read()
    regions.stop()
    regions.start()
    assert reader.read().generation == 3


def mappings(instance: str) -> int:
    """Return how many mappings of an instance's regions this process has."""
    return Path("/proc/self/maps").read_text().count(f"/dev/shm/halo-mp.{instance}.")


# ---- while others write

_ATTACH = """
import random, sys, time
from halo_mp.shm.layout import RegionKind, ffi, lib
from halo_mp.shm.region import Region
def attach(name, kind):
    return Region.attach(name, kind, writable=True)
"""
AGREEING = f"""{_ATTACH}
ports = attach(sys.argv[1], RegionKind.PORTS).pointer
status, value = ports.port[0], 0
while True:
    value += 1
    status.updates += 1
    status.mtu = status.speed_mbps = value % 2**32
    status.rx_frames = status.tx_frames = status.rx_octets = status.tx_octets = status.losses = value
    for i in range(8):
        status.xstat[i].value = value
    status.updates += 1
    for i in range(50):  # as long as an update: about half of all copies are torn
        status.updates
"""
SCRIBBLING = f"""{_ATTACH}
random.seed(1)
kinds = (RegionKind.PORTS, RegionKind.TABLES, RegionKind.SLOT)
regions = [attach(name, kind) for name, kind in zip(sys.argv[1:], kinds)]
while True:
    for region in regions:
        octets = ffi.buffer(region.pointer, region.size_octets)
        for _ in range(64):
            at = random.randrange(64, region.size_octets - 8)
            octets[at:at + 8] = random.choice((random.randbytes(8), b"\\xff" * 8, bytes(8)))
"""


def while_running(script: str, *arguments: str, look: Callable[[], bool]) -> None:
    """Have a process write until `look` has seen enough of it."""
    with subprocess.Popen([sys.executable, "-c", script, *arguments]) as writer:
        try:
            while not look():
                assert writer.poll() is None
        finally:
            writer.kill()


def test_words_that_belong_together_agree_and_never_fall(regions: Regions, reader: Reader) -> None:
    last, torn, seen = 0, 0, set()
    status = regions.ports.pointer.port[0]

    def look() -> bool:
        nonlocal last, torn
        first, queued = status.rx_frames, status.xstat[7].value
        torn += first != queued
        port = reader.read().ports[0]
        counted = {port.counters[name] for name in ("rx_frames", "tx_frames", "rx_octets", "losses")}
        counted |= {n for queue in port.queues.values() for n in (queue.rx_frames, queue.rx_octets)}
        assert len(counted) == 1
        assert port.counters["rx_frames"] >= last
        last = port.counters["rx_frames"]
        seen.add(last)
        return len(seen) > 100 and torn > 10  # who does not take care finds halves

    while_running(AGREEING, regions.ports.name, look=look)


def test_scribbled_over_it_is_read_all_the_same(regions: Regions, reader: Reader) -> None:
    reads = 0

    def look() -> bool:
        nonlocal reads
        reads += 1
        assert set(reader.read().ports) == {0, 1}
        return reads > 300

    names = (regions.ports.name, regions.tables.name, regions.slots[0].name)
    while_running(SCRIBBLING, *names, look=look)
    assert len(reader.read().slots[0].hooks) <= lib.HALO_MAX_HOOKS
