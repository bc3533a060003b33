# SPDX-License-Identifier: Apache-2.0
"""`bench io`: frames from a net_pcap port through one worker to another port, against testpmd's macswap.

Both swap MAC addresses; ours decrements the TTL and mends the checksum as well. One driver core and one worker core
for us, one forwarding core for testpmd, on the same virtual devices and the same kind of pages. Alternating rounds;
testpmd at its better burst of 32 and 64. The ratio is of the medians.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from bench import testpmd
from bench.frames import write_pcap
from bench.instance import Instance
from bench.machine import hugepages, pick_cores
from bench.rows import Row, interval, row_at_least, row_skipped

HUGEPAGES = 448  # 2 MiB each: the pool, and EAL's own memory for us or for testpmd
SETTLE_S = 0.7
MEASURE_S = 1.5
FRAMES = 64  # different frames in the pcap


def run(rounds: int) -> list[Row]:
    """Return the ratios for 60-octet frames on both kinds of pages, and for 1,500 octets."""
    if not testpmd.is_there():
        return [row_skipped("io", f"{testpmd.PROGRAM} is not installed")]
    rows = [
        *compare("io.60.ratio_testpmd", 60, huge=False, least=1.0, rounds=rounds),
        *compare("io.1500.ratio_testpmd", 1500, huge=False, least=1.0, rounds=rounds),
    ]
    with hugepages(HUGEPAGES) as there:
        if there:
            rows += compare("io.60.huge.ratio_testpmd", 60, huge=True, least=0.55, rounds=rounds)
        else:
            rows.append(
                row_skipped("io.60.huge.ratio_testpmd", f"{HUGEPAGES} hugepages of 2 MiB cannot be had")
            )
    return rows


def compare(metric: str, octets: int, *, huge: bool, least: float, rounds: int) -> list[Row]:
    """Measure both in turn."""
    ours: list[float] = []
    theirs: dict[int, list[float]] = {32: [], 64: []}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"{octets}.pcap"
        write_pcap(path, octets=octets, count=FRAMES)
        vdevs = [f"net_pcap0,rx_pcap={path},infinite_rx=1", "net_null1,no-rx=1"]
        for _ in range(rounds):
            ours.append(measure(vdevs, huge=huge))
            for burst, rates in theirs.items():
                rates.append(testpmd.tx_rate(vdevs, mode="macswap", burst=burst, huge=huge))
    best = max(theirs, key=lambda burst: statistics.median(theirs[burst]))
    peer_value = statistics.median(theirs[best])
    mpps = metric.replace("ratio_testpmd", "mpps")
    return [
        row_at_least(
            metric,
            statistics.median(ours) / peer_value,
            "ratio",
            least,
            peer=f"testpmd macswap, burst {best}, frames/s",
            peer_value=peer_value,
            note=f"testpmd: {interval(theirs[best])}",
        ),
        Row(metric=mpps, value=statistics.median(ours) / 1e6, unit="Mpps", note=interval(ours)),
    ]


def measure(vdevs: list[str], *, huge: bool) -> float:
    """Start an instance, measure, stop it; return frames per second that left."""
    driver_core, worker_core = pick_cores(2)
    arguments = ["--ports", "0,1", "--macswap", "0=1", "--slot", "0=0", "--slot", "1=1"]
    arguments += ["--driver-cores", str(driver_core), "--cores", f"{worker_core},{worker_core}"]
    arguments += [
        "--hugepages",
        "2M" if huge else "off",
        *(word for device in vdevs for word in ("--vdev", device)),
    ]
    with Instance(arguments, slots=2) as instance:
        time.sleep(SETTLE_S)
        return instance.tx_rate(MEASURE_S)
