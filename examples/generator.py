# SPDX-License-Identifier: Apache-2.0
"""A load generator that only ever aims at itself: frames leave by port 0 and must come back by port 1.

It sends one frame with a secret in it first. Unless port 1 hears that, the other end is somebody else's, and nothing
more is sent. Both ports are one worker's; join them, by a cable or a veth, or the check says that they are not:

    sudo GENERATOR_PPS=500000 GENERATOR_S=5 python examples/generator.py --vdev net_af_packet0,iface=veth0 ...
"""

from __future__ import annotations

import asyncio
import os
import secrets

from halo_mp.app import App, Port, Vary, Worker
from halo_mp.wire import ethernet, ipv4, udp

PPS = float(os.environ.get("GENERATOR_PPS", "100000"))
SECONDS = float(os.environ.get("GENERATOR_S", "3"))
OUT, BACK = 0, 1
MACS = bytes.fromhex("02fe00000000"), bytes.fromhex("02fe00000001")
ADDRESSES = (
    ipv4.parse_address("198.18.0.1"),
    ipv4.parse_address("198.19.0.1"),
)  # RFC 2544: for benchmarks alone
SECRET_OCTETS = 16
CHECK_S = 2.0
DRAIN_S = 0.5

app = App("generator")


@app.task
async def generate(worker: Worker) -> None:
    """Look whom we would aim at, then send, and count what comes back."""
    out, back = worker.port(OUT), worker.port(BACK)
    if not await is_ourselves(out, back):
        worker.log.error("port %d does not hear port %d: nothing is sent", BACK, OUT)
        return
    worker.context.returned = 0
    counting = asyncio.create_task(count(worker, back))
    vary = [Vary.field("udp.sport", 1024, count=256), Vary.field("ipv4.src", ADDRESSES[0], count=64)]
    with out.blaster(datagram(bytes(18)), vary=vary) as blaster:
        sent = await blaster.run(pps=PPS, seconds=SECONDS)
    await asyncio.sleep(DRAIN_S)  # what is on its way
    counting.cancel()
    returned = worker.context.returned
    worker.log.info(
        "sent %d, %.0f a second; returned %d, lost %d", sent, sent / SECONDS, returned, sent - returned
    )


async def is_ourselves(out: Port, back: Port) -> bool:
    """Send a secret out of one port, and say whether the other hears it."""
    secret = secrets.token_bytes(SECRET_OCTETS)
    out.transmit(datagram(secret))
    try:
        async with asyncio.timeout(CHECK_S):
            async for burst in back.frames():
                if any(secret in bytes(frame.octets) for frame in burst):
                    return True
    except TimeoutError:
        pass
    return False


async def count(worker: Worker, back: Port) -> None:
    """Count what comes back, and let it end."""
    async for burst in back.frames():
        worker.context.returned += sum(frame.ethertype == ethernet.ETHERTYPE_IPV4 for frame in burst)
        burst.consume()


def datagram(payload: bytes) -> bytes:
    """Return a frame from one port to the other."""
    src, dst = ADDRESSES
    octets = udp.UdpDatagram(1024, 9, payload).emit(src=src, dst=dst)
    packet = ipv4.Ipv4Packet(src=src, dst=dst, protocol=ipv4.PROTOCOL_UDP, payload=octets).emit()
    return ethernet.EthernetFrame(MACS[BACK], MACS[OUT], ethernet.ETHERTYPE_IPV4, packet).emit()


if __name__ == "__main__":
    app.run(ports=[OUT, BACK], slot="0=0,1")
