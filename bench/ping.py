# SPDX-License-Identifier: Apache-2.0
"""`bench ping`: round trip times from the kernel over TAP, against testpmd's icmpecho on a TAP.

Twice: with traffic flowing (the next request leaves when the reply is there), where both poll, and with a request
each 2 ms, where our driver and worker sleep in between and have to be woken, and testpmd still polls. Only the first
has a target.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import time

from pyroute2 import IPRoute

from bench import testpmd
from bench.instance import Instance
from bench.machine import enter_network_namespace, wait_until
from bench.rows import Row, interval, row_at_most, row_skipped

MOST_RATIO = 1.5
REQUESTS = 1000
GAP_S = 0.002
INTERFACE = "halobench0"
HERE, THERE = "10.77.0.2", "10.77.0.1"
_TIME = re.compile(r"time=([\d.]+) ms")


def run(rounds: int) -> list[Row]:
    """Return the ratios of the median round trip times."""
    if not testpmd.is_there():
        return [row_skipped("ping.rtt_ratio_testpmd", f"{testpmd.PROGRAM} is not installed")]
    enter_network_namespace()
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    for _ in range(rounds):
        ours.append(_halo())
        theirs.append(_testpmd())
    flowing, peer_flowing = ([pair[0] for pair in pairs] for pairs in (ours, theirs))
    sparse, peer_sparse = ([pair[1] for pair in pairs] for pairs in (ours, theirs))
    peer_value = statistics.median(peer_flowing)
    peer_sparse_value = statistics.median(peer_sparse)
    return [
        row_at_most(
            "ping.rtt_ratio_testpmd",
            statistics.median(flowing) / peer_value,
            "ratio",
            MOST_RATIO,
            peer="testpmd icmpecho, ms",
            peer_value=peer_value,
            note=f"ours in ms: {interval(flowing)}",
        ),
        Row(
            metric="ping.sparse.rtt_ratio_testpmd",
            value=statistics.median(sparse) / peer_sparse_value,
            unit="ratio",
            peer="testpmd icmpecho, ms",
            peer_value=peer_sparse_value,
            note=f"a request each {GAP_S * 1000:g} ms, ours in ms: {interval(sparse)}",
        ),
    ]


def round_trips_ms(address: str) -> tuple[float, float]:
    """Return the median round trip time with traffic flowing, and with gaps."""
    return _median_ms(address, "-A"), _median_ms(address, "-i", str(GAP_S))


def _median_ms(address: str, *pace: str) -> float:
    """Return the median of a run of echo requests, its first tenth left out."""
    command = ["ping", "-n", "-c", str(REQUESTS), *pace, address]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    times = [float(time_ms) for time_ms in _TIME.findall(output)]
    return statistics.median(times[REQUESTS // 10 :])


def _halo() -> tuple[float, float]:
    with Instance(["--ports", "0"]):
        time.sleep(0.3)
        return round_trips_ms(THERE)


def _testpmd() -> tuple[float, float]:
    command = testpmd.command(
        [f"net_tap0,iface={INTERFACE}"], mode="icmpecho", burst=64, huge=False, period_s=60
    )
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with IPRoute() as ip:
            wait_until(lambda: ip.link_lookup(ifname=INTERFACE), 10, "testpmd's TAP")
            index = ip.link_lookup(ifname=INTERFACE)[0]
            ip.addr("add", index=index, address=HERE, prefixlen=24)
            ip.link("set", index=index, state="up")
        time.sleep(1)
        return round_trips_ms(THERE)
    finally:
        testpmd.stop(process)
