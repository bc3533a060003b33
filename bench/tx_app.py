# SPDX-License-Identifier: Apache-2.0
"""The application of `bench tx`: bursts of UDP from a template, paced by BENCH_TX_PPS, varied in BENCH_TX_FIELDS numbers."""

import os

from bench.frames import udp_frame
from halo_mp.app import App, Vary, Worker

PPS = float(os.environ.get("BENCH_TX_PPS", "0"))
FIELDS = int(os.environ.get("BENCH_TX_FIELDS", "0"))
OCTETS = int(os.environ.get("BENCH_TX_OCTETS", "60"))

app = App()


@app.task
async def blast(worker: Worker) -> None:
    """Send until the worker ends."""
    vary = [Vary.field("udp.sport", 1024, count=1024), Vary.field("ipv4.dst", 0x0A000001, count=65000)]
    with worker.port(0).blaster(udp_frame(0, OCTETS), vary=vary[:FIELDS]) as blaster:
        await blaster.run(pps=PPS)
