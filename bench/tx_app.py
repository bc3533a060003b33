# SPDX-License-Identifier: Apache-2.0
"""The application of `bench tx`: a blaster, as its environment says: pace, octets, numbers that vary."""

import os

from bench.frames import udp_frame
from halo_mp.app import App, Vary, Worker

VARIED = (
    Vary.field("udp.sport", 1024, count=1024),
    Vary.field("ipv4.dst", 0x0A000001, count=65000),
)

app = App("bench.tx")


@app.task
async def blast(worker: Worker) -> None:
    """Send until the worker ends."""
    fields, octets = int(os.environ["BENCH_TX_FIELDS"]), int(os.environ["BENCH_TX_OCTETS"])
    with worker.port(0).blaster(udp_frame(0, octets), vary=VARIED[:fields]) as blaster:
        await blaster.run(pps=float(os.environ["BENCH_TX_PPS"]))
