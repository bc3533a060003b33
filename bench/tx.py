# SPDX-License-Identifier: Apache-2.0
"""`bench tx`: frames that Python originates, into a port that takes everything; and whether a pace is kept.

One driver core and one worker core, net_null, no hugepages. Python arms a blaster and waits. What a frame costs the
worker alone, without driver and second core, is measured in one process.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Sequence

from bench import worker
from bench.frames import udp_frame
from bench.instance import Instance
from bench.machine import pick_cores
from bench.rows import Row, interval, row_at_least, row_at_most
from bench.tx_app import VARIED
from halo_mp.app import Port, Vary
from halo_mp.shm.layout import ffi
from halo_mp.workers.raw import RawFrames

OCTETS = 60
LEAST_MPPS = 20.0
PACES = {1_000: "tx.pace.1k.error", 100_000: "tx.pace.100k.error", 1_000_000: "tx.pace.1m.error"}
ALONE = ("tx.worker.ns", "tx.worker.one_varied.ns", "tx.worker.two_varied.ns")
MOST_PACE_ERROR = 0.01
SETTLE_S = 0.7
MEASURE_S = 1.5
REPEATS = 200


def run(rounds: int) -> list[Row]:
    """Return Mpps from a template as it is and with two numbers that vary, paces, and the worker's own cost."""
    rates: dict[int, list[float]] = {0: [], len(VARIED): []}
    for _ in range(rounds):
        for fields, found in rates.items():
            found.append(measure(fields=fields) / 1e6)
    rows = [
        row_at_least("tx.mpps", statistics.median(rates[0]), "Mpps", LEAST_MPPS, note=interval(rates[0])),
        Row(
            metric="tx.varied.mpps",
            value=statistics.median(rates[len(VARIED)]),
            unit="Mpps",
            note=f"a port and an address differ in each; {interval(rates[len(VARIED)])}",
        ),
    ]
    for pps, metric in PACES.items():
        errors = [abs(measure(pps=pps) / pps - 1) for _ in range(rounds)]
        rows.append(
            row_at_most(metric, statistics.median(errors), "ratio", MOST_PACE_ERROR, note=interval(errors))
        )
    return [*rows, *run_alone()]


def measure(*, fields: int = 0, pps: int = 0) -> float:
    """Start an instance, measure, stop it; return frames per second that left."""
    driver_core, worker_core = pick_cores(2)
    os.environ |= {"BENCH_TX_FIELDS": str(fields), "BENCH_TX_PPS": str(pps), "BENCH_TX_OCTETS": str(OCTETS)}
    arguments = ["--ports", "0", "--vdev", "net_null0,no-rx=1", "--tx-only", "--app", "bench.tx_app"]
    arguments += ["--driver-cores", str(driver_core), "--cores", str(worker_core), "--hugepages", "off"]
    with Instance(arguments) as instance:
        time.sleep(SETTLE_S)
        return instance.tx_rate(MEASURE_S)


def run_alone() -> list[Row]:
    """Return nanoseconds per frame in the worker alone: buffers lie ready, and what is sent is taken away."""
    rig = worker.build_plain()
    entries = ffi.cast(
        "struct halo_descriptor *", ffi.cast("uint8_t *", rig.slot) + rig.geometry.spare_offset
    )
    for place in range(rig.geometry.spare_size):
        entries[place].offset = rig.geometry.pool.frame_offset(place % worker.FEW)
    loop = asyncio.new_event_loop()
    port = RawFrames(rig.fastpath, loop, rig.pool, ffi.addressof(rig.slot.geometry, "pool")).open(1)
    rows = []
    for fields, metric in enumerate(ALONE):
        costs = _costs(rig, port, VARIED[:fields])
        rows.append(
            Row(
                metric=metric,
                value=statistics.median(costs),
                unit="ns",
                note=interval(costs),
            )
        )
    loop.close()
    return rows


def _costs(rig: worker.Rig, port: Port, vary: Sequence[Vary]) -> list[float]:
    count, found = rig.geometry.spare_size, []
    with port.blaster(udp_frame(0, OCTETS), vary=vary) as blaster:
        for _ in range(REPEATS):
            rig.slot.tx.consumer = rig.slot.tx.producer
            rig.slot.spare.producer = rig.slot.spare.consumer + count
            begin = time.perf_counter_ns()
            sent = blaster.send(count)
            found.append((time.perf_counter_ns() - begin) / sent)
    return found
