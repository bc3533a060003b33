# SPDX-License-Identifier: Apache-2.0
"""KCP in two workers on two ports: that of port 0 serves, that of port 1 is its client and says how it goes.

    python examples/kcp_echo.py --ports 0,1     then, from another shell:  python examples/kcp_client.py 10.77.0.1

The calls are those of a kernel socket (examples/kcp_client.py): the worker's event loop knows the halo stack. When a
worker dies, the other one's session ends with its reason, and the client comes back.
"""

from __future__ import annotations

import asyncio
import contextlib

from halo_mp import kcp
from halo_mp.app import App, Worker

app = App("kcp_echo")
SERVER, PORT = "10.77.0.1", 4000
SETTINGS = kcp.Settings(keep_alive_s=1, idle_timeout_s=5, connect_timeout_s=2)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back, until the client closes."""
    with contextlib.suppress(kcp.SessionEndedError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()


async def speak(worker: Worker) -> None:
    """Be a client for one session."""
    reader, writer = await kcp.open_connection(SERVER, PORT, settings=SETTINGS)
    worker.log.info("connected from %s", writer.get_extra_info("sockname"))
    for number in range(1 << 32):
        sent = worker.loop.time()
        writer.write(b"hello %d\n" % number)
        answer = (await reader.readline()).decode().strip()
        if not answer:
            return  # the server has closed
        worker.log.info("%s came back in %.1f ms", answer, (worker.loop.time() - sent) * 1000)
        await asyncio.sleep(1)


async def speak_on(worker: Worker) -> None:
    """Be a client for ever."""
    while True:
        try:
            await speak(worker)
        except (OSError, TimeoutError) as error:
            worker.log.warning("the session has ended: %s", error)
            await asyncio.sleep(0.2)


@app.on_start
async def start(worker: Worker) -> None:
    """Each worker its part, by the number of its port."""
    if 0 in worker.ports:
        worker.context.server = await kcp.start_server(echo, SERVER, PORT, settings=SETTINGS)
    else:
        worker.context.client = asyncio.create_task(speak_on(worker))


if __name__ == "__main__":
    app.run()
