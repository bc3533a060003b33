# SPDX-License-Identifier: Apache-2.0
"""The ends of `bench kcp` over the halo stack: streams from the worker of port 1 to that of port 0.

HALO_BENCH_KCP names the file for the outcome: octets, and ns of processor time of each worker's.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from bench.kcp_ends import CONV, Meter, pour, settings, swallow
from halo_mp import kcp
from halo_mp.app import App, Worker

app = App("bench_kcp")
SERVER, PORT = "10.77.0.1", 4000
OUTCOME = Path(os.environ["HALO_BENCH_KCP"])
OCTETS = int(os.environ["HALO_BENCH_KCP_OCTETS"])


def tell(name: str, spent: tuple[int, int], **more: int) -> None:
    """Write an outcome, whole."""
    path = OUTCOME / f"{name}.new"
    path.write_text(json.dumps({"cpu_ns": spent[0], "ns": spent[1], **more}))
    path.rename(OUTCOME / name)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take it all."""
    meter = Meter()
    await swallow(reader, OCTETS, meter)
    tell("receive", meter.read())


async def send(worker: Worker) -> None:
    """Send it all, a moment after the start."""
    await asyncio.sleep(1)
    _, writer = await kcp.open_connection(SERVER, PORT, conv=CONV, settings=settings())
    meter = Meter()
    (OUTCOME / "begin").touch()
    meter.start()
    await pour(writer, OCTETS)
    session = writer.get_extra_info("kcp")
    tell("send", meter.read(), retransmitted=session.counters.retransmitted)


@app.on_start
async def start(worker: Worker) -> None:
    """Each worker its part, by the number of its port."""
    if 0 in worker.ports:
        worker.context.server = await kcp.start_server(serve, SERVER, PORT, settings=settings())
    else:
        worker.context.client = asyncio.create_task(send(worker))
