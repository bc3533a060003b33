# SPDX-License-Identifier: Apache-2.0
"""Echo by asyncio: a protocol as for any event loop, on the stack of the worker. Any library made of these runs so.

    python examples/udp_echo_asyncio.py --ports 0       then, from another shell:  nc -u 10.77.0.1 7

Every worker opens the port; each answers what comes in by its own queues.
"""

from __future__ import annotations

import asyncio

from halo_mp.app import App, Worker

app = App("echo")
PORT = 7


class Echo(asyncio.DatagramProtocol):
    """Sends everything back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


@app.on_start
async def listen(worker: Worker) -> None:
    """Open the endpoint. 0.0.0.0 is every address of our interfaces; 127.0.0.1 would be the kernel's."""
    transport, _ = await worker.loop.create_datagram_endpoint(
        Echo, local_addr=("0.0.0.0", PORT), reuse_port=True
    )
    worker.log.info("echo at %s port %d", *transport.get_extra_info("sockname"))


if __name__ == "__main__":
    app.run()
