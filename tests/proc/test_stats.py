# SPDX-License-Identifier: Apache-2.0
"""Statistics of an instance that works: what pings count, and sums that survive its worker and its driver."""

from __future__ import annotations

from halo_mp.stats.model import GAUGES, Snapshot
from halo_mp.stats.processes import read_processes
from halo_mp.stats.reader import Reader
from tests.proc.conftest import ADDRESSES, assert_answered
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import wait_until


def sums(snapshot: Snapshot) -> dict[str, int]:
    """Everything in a snapshot that must not fall, by its path."""
    found = {}
    for number, port in snapshot.ports.items():
        found |= {f"port {number} {name}": count for name, count in port.counters.items()}
    for number, slot in snapshot.slots.items():
        for side in (slot.worker, slot.driver, slot.worker_drops, slot.driver_drops):
            found |= {f"slot {number} {name}": n for name, n in side.items() if name not in GAUGES}
        found |= {f"slot {number} lag {i}": count for i, count in enumerate(slot.load.lags)}
        found |= {f"slot {number} burst {i}": count for i, count in enumerate(slot.load.bursts)}
    for name, interface in snapshot.interfaces.items():
        found[f"interface {name}"] = interface.rx_packets
    return found


def test_pings_are_counted_and_no_sum_falls_when_processes_die(pair: Instance) -> None:
    last: dict[str, int] = {}

    def look(reader: Reader) -> Snapshot:
        nonlocal last
        snapshot = reader.read()
        now = sums(snapshot)
        assert not {name: (count, now[name]) for name, count in last.items() if now[name] < count}
        last = now
        return snapshot

    with Reader(pair.name) as reader:
        before = look(reader)
        assert_answered(pair.namespace, ADDRESSES[1], count=10)
        wait_until(
            lambda: look(reader).ports[1].counters["rx_frames"] >= before.ports[1].counters["rx_frames"] + 10,
            what="the driver's copy of the port's counters",
        )
        after = look(reader)
        slot, old = after.slots[1], before.slots[1]
        assert slot.worker["echo_replies"] - old.worker["echo_replies"] >= 10
        assert sum(slot.load.bursts) - sum(old.load.bursts) >= 10
        assert sum(slot.load.lags) > 0
        assert slot.load.rx_depth_max >= 1
        assert slot.load.timed_frames >= 1
        assert after.interfaces["1"].addresses == ("10.77.1.1/24",)
        worker = lives.pid(pair, "worker", 1)
        lives.kill(worker)
        wait_until(
            lambda: bool(look(reader)) and lives.is_useful(pair, "worker", 1),
            what="a new worker",
            timeout_s=30,
        )
        assert_answered(pair.namespace, ADDRESSES[1])
        driver = lives.pid(pair, "driver")
        lives.kill(driver)
        wait_until(
            lambda: (
                bool(look(reader)) and lives.pid(pair, "driver") != driver and lives.is_useful(pair, "driver")
            ),
            what="a new driver",
            timeout_s=30,
        )
        assert_answered(pair.namespace, *ADDRESSES)
        with Reader(pair.name) as late:  # has not seen what was before, and knows it all the same
            wait_until(
                lambda: late.read().ports[1].counters["rx_frames"] >= last["port 1 rx_frames"],
                what="what the dead driver had counted",
            )
        names = [process.name for process in read_processes(look(reader).status) if process.pid]
        assert names == ["supervisor", "driver", "worker 0", "worker 1"]
