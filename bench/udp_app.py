# SPDX-License-Identifier: Apache-2.0
"""The echo servers of `bench udp`: the same work in three forms, and the first of them on a kernel socket."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from typing import Any

from halo_mp.app import App, Datagram, DatagramBurst, Worker

PORT = 2000
SETTLE_S = 0.3

endpoint = App("asyncio")
datagram = App("datagram")
burst = App("burst")


class Echo(asyncio.DatagramProtocol):
    """Sends everything back, as one writes it for asyncio."""

    count = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)
        self.count += 1


@endpoint.on_start
async def start(worker: Worker) -> None:
    """Open the endpoint of form asyncio."""
    await worker.loop.create_datagram_endpoint(Echo, local_addr=("10.0.0.1", PORT))


@datagram.udp(PORT)
def echo_one(one: Datagram) -> None:
    """Send it back in its buffer."""
    one.reply()


@burst.udp(PORT, form="burst")
def echo_all(many: DatagramBurst) -> None:
    """Send them back in their buffers."""
    many.reply()


async def serve_on_kernel(port: int, seconds: float) -> float:
    """Return how many datagrams a second asyncio sent back on a kernel socket."""
    loop = asyncio.get_running_loop()
    transport, echo = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", port))
    await asyncio.sleep(SETTLE_S)
    before, begin = echo.count, time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (echo.count - before) / (time.perf_counter() - begin)
    transport.close()
    return rate


def flood(port: int, octets: int) -> None:
    """Send datagrams as fast as that goes, and read no answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        data, there = bytes(octets), ("127.0.0.1", port)
        while True:
            peer.sendto(data, there)


if __name__ == "__main__":
    role, number, value = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if role == "flood":
        flood(number, int(value))
    print(asyncio.run(serve_on_kernel(number, value)))
