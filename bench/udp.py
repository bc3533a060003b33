# SPDX-License-Identifier: Apache-2.0
"""`bench udp`: one worker that sends datagrams back, in three forms; against asyncio on a kernel socket.

Frames of 60 octets, from 256 senders, come from a net_pcap port as fast as its core can make them, and are answered by
that port, which forgets them. The peer is the same asyncio protocol in a process of its own, on the worker's core,
flooded over loopback from another core.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import udp_app
from bench.frames import write_pcap_to
from bench.instance import Instance
from bench.io import MEASURE_S, SETTLE_S
from bench.machine import pick_cores
from bench.rows import Row, interval, row_at_least
from halo_mp.wire import ipv4

OCTETS = 60
PAYLOAD_OCTETS = OCTETS - 42
SENDERS = 256
KERNEL_PORT = 42000
APP = Path(udp_app.__file__)
FORMS = {"asyncio": "endpoint", "datagram": "datagram", "burst": "burst"}
OWN, MAC, PEER, PEER_MAC = "10.0.0.1", "02:00:00:00:00:01", "10.0.0.2", "02:00:00:00:00:02"


def run(rounds: int) -> list[Row]:
    """Return the rates of the three forms, and the first's as a multiple of the kernel's."""
    rates: dict[str, list[float]] = {form: [] for form in FORMS}
    kernel: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        pcap = Path(directory) / "frames.pcap"
        write_pcap_to(pcap, [ipv4.parse_address(OWN)] * SENDERS, octets=OCTETS, dst_mac=MAC)
        for _ in range(rounds):
            for form, found in rates.items():
                found.append(measure(FORMS[form], pcap))
            kernel.append(measure_kernel())
    return list(_rows(rates, kernel))


def measure(variable: str, pcap: Path) -> float:
    """Start an instance, measure, stop it; return datagrams per second that left."""
    driver_core, worker_core = pick_cores(2)
    arguments = ["--ports", "0", "--vdev", f"net_pcap0,rx_pcap={pcap},infinite_rx=1", "--spare", "0"]
    arguments += ["--driver-cores", str(driver_core), "--cores", str(worker_core)]
    arguments += ["--address", f"0={OWN}/24", "--mac", f"0={MAC}", "--neighbor", f"0={PEER},{PEER_MAC}"]
    with Instance([*arguments, "--app", f"{APP}:{variable}"]) as instance:
        time.sleep(SETTLE_S)
        worker = instance.slot().worker
        before, begin = worker.datagrams_out, time.monotonic_ns()
        time.sleep(MEASURE_S)
        rate = (worker.datagrams_out - before) / (time.monotonic_ns() - begin) * 1e9
        if rate == 0:
            raise RuntimeError(f"the application {variable} sent nothing back:\n{instance.log()}")
        return float(rate)


def measure_kernel() -> float:
    """Return how many datagrams a second asyncio sends back on a kernel socket."""
    flood_core, server_core = pick_cores(2)
    arguments = [sys.executable, "-m", "bench.udp_app"]
    flood = ["flood", str(KERNEL_PORT), str(PAYLOAD_OCTETS)]
    with subprocess.Popen(["taskset", "-c", str(flood_core), *arguments, *flood]) as sender:
        try:
            serve = ["serve", str(KERNEL_PORT), str(MEASURE_S)]
            done = subprocess.run(
                ["taskset", "-c", str(server_core), *arguments, *serve],
                check=True,
                capture_output=True,
                text=True,
            )
        finally:
            sender.kill()
    return float(done.stdout)


def _rows(rates: dict[str, list[float]], kernel: list[float]) -> Iterator[Row]:
    ratios = [ours / its for ours, its in zip(rates["asyncio"], kernel, strict=True)]
    yield row_at_least(
        "udp.asyncio.ratio_kernel", statistics.median(ratios), "ratio", 4.0,
        peer="asyncio on a kernel socket, datagrams/s", peer_value=statistics.median(kernel), note=interval(ratios),
    )  # fmt: skip
    for form in ("asyncio", "datagram"):
        yield Row(
            metric=f"udp.{form}.mpps",
            value=statistics.median(rates[form]) / 1e6,
            unit="Mpps",
            note=interval(rates[form]),
        )
    yield row_at_least(
        "udp.burst.mpps", statistics.median(rates["burst"]) / 1e6, "Mpps", 3.0, note=interval(rates["burst"])
    )
