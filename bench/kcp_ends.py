# SPDX-License-Identifier: Apache-2.0
"""The ends of `bench kcp` over UDP: ours by asyncio's streams, and the reference in a plain loop, each a process.

    python -m bench.kcp_ends ours|plain|reference receive|send PORT OCTETS
    python -m bench.kcp_ends idle receive|send PORT SESSIONS

Both have the same settings, socket buffers and writes. Each end prints its processor time in ns, and the time that it
took, from the first octet on. `plain` is ours without batches: asyncio's own datagrams.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sys
import time
from typing import Any

HOST = "127.0.0.1"
CONV = 7
WRITE_OCTETS = 65536
WINDOW = 1024
MTU_VARIABLE = "HALO_BENCH_KCP_MTU"
MTU = int(os.environ.get(MTU_VARIABLE, "1400"))
INTERVAL_MS = 10
RESEND = 2
BUFFER_OCTETS = 4 << 20
SETTLE_S = 3.0
IDLE_S = 10.0
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33


def settings(**changes: Any) -> Any:
    """Ours, as the reference has them."""
    from halo_mp import kcp

    options: dict[str, Any] = {
        "format": "classic",
        "congestion": "none",
        "send_window": WINDOW,
        "receive_window": WINDOW,
        "mtu": MTU,
        "nodelay": 1,
        "interval_ms": INTERVAL_MS,
        "resend": RESEND,
    }
    return kcp.Settings(**{**options, **changes})


class Meter:
    """Processor time and time from `start` on."""

    def __init__(self) -> None:
        self._cpu_ns = self._ns = 0

    def start(self) -> None:
        """Begin, once."""
        if not self._ns:
            self._cpu_ns, self._ns = time.process_time_ns(), time.monotonic_ns()

    def read(self) -> tuple[int, int]:
        """Return both, in ns."""
        return time.process_time_ns() - self._cpu_ns, time.monotonic_ns() - self._ns


async def swallow(reader: asyncio.StreamReader, count: int, meter: Meter) -> None:
    """Read so many octets."""
    while count > 0:
        data = await reader.read(WRITE_OCTETS)
        meter.start()
        if not data:
            raise EOFError(f"the stream has ended, {count} octets before its end")
        count -= len(data)


async def pour(writer: asyncio.StreamWriter, count: int) -> None:
    """Write so many octets, and wait until all are acknowledged."""
    data = bytes(WRITE_OCTETS)
    for _ in range(count // WRITE_OCTETS):
        writer.write(data)
        await writer.drain()
    writer.transport.set_write_buffer_limits(0)
    await writer.drain()


async def ours_receive(port: int, count: int, *, batch: bool) -> tuple[int, int]:
    from halo_mp import kcp

    meter, done = Meter(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await swallow(reader, count, meter)
        done.set()

    server = await kcp.start_server(serve, HOST, port, settings=settings(), batch=batch)
    print("bound", flush=True)
    await done.wait()
    spent = meter.read()
    await asyncio.sleep(
        0.2
    )  # nothing ends a session of this format: the peer shall have its acknowledgements
    server.abort()
    return spent


async def ours_send(port: int, count: int, *, batch: bool) -> tuple[int, int]:
    from halo_mp import kcp

    _, writer = await kcp.open_connection(HOST, port, conv=CONV, settings=settings(), batch=batch)
    meter = Meter()
    meter.start()
    await pour(writer, count)
    spent = meter.read()
    writer.transport.abort()
    return spent


class Reference:
    """A session of the reference on a socket: take all that has come, update, sleep until the next is due."""

    def __init__(self, sock: socket.socket, peer: Any) -> None:
        from kcp import KCP  # type: ignore[import-untyped]

        self.sock, self.peer = sock, peer
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_OCTETS)
        sock.setblocking(False)
        self.kcp = KCP(
            CONV,
            max_transmission=MTU,
            no_delay=True,
            update_interval=INTERVAL_MS,
            resend_count=RESEND,
            no_congestion_control=True,
            send_window_size=WINDOW,
            receive_window_size=WINDOW,
        )
        self.kcp.include_outbound_handler(self._send)

    def _send(self, _: Any, data: bytes) -> None:
        try:
            self.sock.sendto(data, self.peer)
        except BlockingIOError:
            pass

    def turn(self) -> int:
        """Return how many octets it has delivered."""
        wait_ms = self.kcp.update_check()
        select.select([self.sock], [], [], max(wait_ms, 0) / 1000)
        try:
            while True:
                data, self.peer = self.sock.recvfrom(2048)
                self.kcp.receive(data)
        except (BlockingIOError, ConnectionRefusedError):
            pass
        delivered = sum(len(message) for message in self.kcp.get_all_received())
        self.kcp.update()
        return delivered


def reference_receive(port: int, count: int) -> tuple[int, int]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((HOST, port))
    end, meter = Reference(sock, None), Meter()
    print("bound", flush=True)
    select.select([sock], [], [])
    meter.start()
    while count > 0:
        count -= end.turn()
    spent = meter.read()
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        end.turn()
    return spent


def reference_send(port: int, count: int) -> tuple[int, int]:
    end, meter = Reference(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), (HOST, port)), Meter()
    data = bytes(WRITE_OCTETS)
    end.kcp.update()
    meter.start()
    while count > 0 or end.kcp.get_outbound_packets():
        while count > 0 and end.kcp.get_outbound_packets() < 2 * WINDOW:
            end.kcp.enqueue(data)
            count -= WRITE_OCTETS
        end.turn()
    return meter.read()


class Quiet(asyncio.Protocol):
    """Says nothing; tells when so many have come."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.all_here = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.left -= 1
        if self.left == 0:
            self.all_here.set()


async def idle_serve(port: int, count: int, seconds: float) -> tuple[int, int, int]:
    """Have a server with so many idle sessions; return ns of its, ns that passed, octets of a session."""
    from halo_mp import kcp

    quiet = Quiet(count)
    server = await kcp.create_server(lambda: quiet, HOST, port, settings=settings())
    print("bound", flush=True)
    await quiet.all_here.wait()
    await asyncio.sleep(SETTLE_S)
    meter = Meter()
    meter.start()
    await asyncio.sleep(seconds)
    spent = meter.read()
    octets = max(session.info.octets for session in server.endpoint.sessions.values())
    if len(server.endpoint.sessions) != count:
        raise RuntimeError(f"of {count} sessions {len(server.endpoint.sessions)} are left")
    server.abort()
    return *spent, octets


async def idle_ask(port: int, count: int) -> None:
    """Be the clients of all of them, from one socket."""
    from halo_mp.kcp.opening import open_endpoint

    clients = await open_endpoint(settings(), remote_addr=(HOST, port), most_sessions=count)
    address = clients.carrier.transport.get_extra_info("peername")
    for conv in range(1, count + 1):
        clients.open_session(conv, address, is_client=True).start()
        if conv % 256 == 0:
            await asyncio.sleep(0.005)
    await clients.closed


def main() -> None:
    kind, what, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if kind == "idle":
        if what == "receive":
            print(*asyncio.run(idle_serve(port, count, IDLE_S)))
        else:
            asyncio.run(idle_ask(port, count))
        return
    if kind == "reference":
        print(*(reference_send if what == "send" else reference_receive)(port, count))
        return
    end = ours_send if what == "send" else ours_receive
    print(*asyncio.run(end(port, count, batch=kind == "ours")))


if __name__ == "__main__":
    main()
