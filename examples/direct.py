# SPDX-License-Identifier: Apache-2.0
"""Frames between two ports, as they are: what comes in by one leaves by the other. A wire, in Python.

    sudo python examples/direct.py --no-forward

Other pairs are a line of the file. Whatever else stands on the command line goes to the supervisor.
"""

from __future__ import annotations

import asyncio

from halo_mp.app import App, Worker

PAIRS = {0: 1, 1: 0}

app = App("direct")


@app.task
async def direct(worker: Worker) -> None:
    """Serve the ports of this worker; by default each worker has one."""
    await asyncio.gather(*(pump(worker, number) for number in worker.ports if number in PAIRS))


async def pump(worker: Worker, number: int) -> None:
    """Let every frame of one port leave by the other. Not one octet is copied."""
    async for burst in worker.port(number).frames():
        burst.transmit(PAIRS[number])


if __name__ == "__main__":
    app.run(ports=sorted(PAIRS))
