# SPDX-License-Identifier: Apache-2.0
"""`bench ping`: round trip times from the kernel over TAP, against testpmd's icmpecho on the same TAP."""

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
    """Return the ratio of the median round trip times."""
    if not testpmd.is_there():
        return [row_skipped("ping.rtt_ratio_testpmd", f"{testpmd.PROGRAM} is not installed")]
    enter_network_namespace()
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        ours.append(_halo())
        theirs.append(_testpmd())
    peer_value = statistics.median(theirs)
    return [
        row_at_most(
            "ping.rtt_ratio_testpmd",
            statistics.median(ours) / peer_value,
            "ratio",
            MOST_RATIO,
            peer="testpmd icmpecho, ms",
            peer_value=peer_value,
            note=f"ours in ms: {interval(ours)}",
        )
    ]


def round_trip_ms(address: str) -> float:
    """Return the median round trip time of a run of echo requests, its first tenth left out."""
    command = ["ping", "-n", "-c", str(REQUESTS), "-i", str(GAP_S), address]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    times = [float(time_ms) for time_ms in _TIME.findall(output)]
    return statistics.median(times[REQUESTS // 10 :])


def _halo() -> float:
    with Instance(["--ports", "0"]):
        time.sleep(0.3)
        return round_trip_ms(THERE)


def _testpmd() -> float:
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
        return round_trip_ms(THERE)
    finally:
        testpmd.stop(process)
