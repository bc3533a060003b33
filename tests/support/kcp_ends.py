# SPDX-License-Identifier: Apache-2.0
"""Both ends of a transfer over kernel UDP, as processes: ours, and the reference's by PyPI's `kcp`.

    python -m tests.support.kcp_ends ours|streams|reference send|receive HOST PORT OCTETS [settings as JSON]
    python -m tests.support.kcp_ends relay PORT HOST PORT PERCENT [SEED]

The relay stands between them: it loses so much of all datagrams, repeats half as much, and lets some overtake others.

Who receives binds the port, and answers with the digest of all; who sends says by JSON what came of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import select
import socket
import sys
import time
from typing import Any

MESSAGE_OCTETS = 1000
CONV = 77
DIGEST_OCTETS = 32
WRITE_OCTETS = 20_000
"""Of a stream."""


def octets_of(count: int) -> bytes:
    """What is sent."""
    return random.Random(count).randbytes(count)


async def ours_send(host: str, port: int, count: int, options: dict[str, Any]) -> None:
    from halo_mp import kcp

    settings = kcp.Settings(**options)
    conv = {"conv": CONV} if settings.format == "classic" else {}
    octets = octets_of(count)
    async with await kcp.connect(host, port, settings=settings, **conv) as connection:
        for at in range(0, count, MESSAGE_OCTETS):
            await connection.send(octets[at : at + MESSAGE_OCTETS])
        digest = await connection.receive()
        counters = connection.counters
        carrier: Any = connection._endpoint.carrier
        print(
            json.dumps(
                {
                    "intact": digest == hashlib.sha256(octets).digest(),
                    "retransmitted": counters.retransmitted,
                    "offloads": carrier.offloads,
                    **carrier.counters,
                }
            )
        )


async def ours_receive(host: str, port: int, count: int, options: dict[str, Any]) -> None:
    from halo_mp import kcp

    async with await kcp.listen(host, port, settings=kcp.Settings(**options)) as listener:
        print("bound", flush=True)
        connection = await listener.accept_connection()
        got = bytearray()
        while len(got) < count:
            got += await connection.receive()
        await connection.send(hashlib.sha256(got).digest())
        try:
            await connection.drain()
        except kcp.SessionEndedError as end:
            # The peer has the digest and has closed; what acknowledged it was lost.
            if not end.graceful:
                raise
        await asyncio.sleep(0.5)  # the classic format has no FIN: let the peer have its acknowledgements


async def streams_send(host: str, port: int, count: int, options: dict[str, Any]) -> None:
    from halo_mp import kcp

    settings = kcp.Settings(**options)
    conv = {"conv": CONV} if settings.format == "classic" else {}
    octets = octets_of(count)
    reader, writer = await kcp.open_connection(host, port, settings=settings, **conv)
    for at in range(0, count, WRITE_OCTETS):
        writer.write(octets[at : at + WRITE_OCTETS])
        await writer.drain()
    digest = await reader.readexactly(DIGEST_OCTETS)
    counters = writer.get_extra_info("kcp").counters
    intact = digest == hashlib.sha256(octets).digest()
    print(json.dumps({"intact": intact, "retransmitted": counters.retransmitted}))
    writer.close()
    await writer.wait_closed()


async def streams_receive(host: str, port: int, count: int, options: dict[str, Any]) -> None:
    from halo_mp import kcp

    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = hashlib.sha256()
        left = count
        while left:
            data = await reader.read(min(left, WRITE_OCTETS))
            got.update(data)
            left -= len(data)
        writer.write(got.digest())
        writer.close()
        await writer.wait_closed()
        done.set()

    async with await kcp.start_server(serve, host, port, settings=kcp.Settings(**options)):
        print("bound", flush=True)
        await done.wait()
        await asyncio.sleep(0.5)


class Reference:
    """A session of the reference on a socket, driven as its documentation shows."""

    def __init__(self, sock: socket.socket, peer: Any) -> None:
        from kcp import KCP  # type: ignore[import-untyped]

        self.sock, self.peer = sock, peer
        self.kcp = KCP(
            CONV,
            no_delay=True,
            update_interval=10,
            resend_count=2,
            no_congestion_control=True,
            send_window_size=128,
            receive_window_size=128,
        )
        self.kcp.include_outbound_handler(lambda _, data: sock.sendto(data, self.peer))
        sock.settimeout(0.002)

    def turn(self) -> bytes:
        """Send what is due, take what has come, and return what that delivers."""
        self.kcp.update()
        try:
            for _ in range(64):
                data, self.peer = self.sock.recvfrom(65536)
                self.kcp.receive(data)
                self.sock.setblocking(False)
        except (TimeoutError, BlockingIOError, ConnectionRefusedError):
            pass
        self.sock.settimeout(0.002)
        return b"".join(self.kcp.get_all_received())


def reference_send(host: str, port: int, count: int) -> None:
    octets, at, digest = octets_of(count), 0, b""
    end = Reference(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), (host, port))
    while len(digest) < DIGEST_OCTETS:
        while at < count and end.kcp.get_outbound_packets() < 256:
            end.kcp.enqueue(octets[at : at + MESSAGE_OCTETS])
            at += MESSAGE_OCTETS
        digest += end.turn()
    _linger(end)
    print(json.dumps({"intact": digest == hashlib.sha256(octets).digest()}))


def reference_receive(host: str, port: int, count: int) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, port))
    print("bound", flush=True)
    end, got = Reference(sock, None), bytearray()
    while len(got) < count:
        got += end.turn()
    end.kcp.enqueue(hashlib.sha256(got).digest())
    until = time.monotonic() + 5
    while end.kcp.get_outbound_packets() and time.monotonic() < until:  # the peer may be gone: nobody says so
        end.turn()
    _linger(end)


def _linger(end: Reference) -> None:
    """Nothing ends a session of the reference: let the peer have its acknowledgements."""
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        end.turn()


def relay(port: int, to: tuple[str, int], percent: float, seed: int = 7) -> None:
    """Pass datagrams on, of one client; never returns."""
    fate = random.Random(seed)
    front, back = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    front.bind((to[0], port))
    back.connect(to)
    client: Any = None
    late: list[tuple[socket.socket, bytes]] = []
    print("bound", flush=True)
    while True:
        for sock in select.select([front, back], [], [], 0.005)[0]:
            try:
                data, source = sock.recvfrom(65536)
            except ConnectionRefusedError:
                continue
            client = source if sock is front else client
            passed = [(back if sock is front else front, data)]
            if fate.random() * 100 < percent:
                passed = []
            elif fate.random() * 200 < percent:
                passed *= 2
            elif fate.random() * 100 < percent:
                late += passed
                continue
            _pass(passed + late, client)
            late.clear()


def _pass(passed: list[tuple[socket.socket, bytes]], client: Any) -> None:
    for sock, data in passed:
        try:
            sock.send(data) if client is None or _is_connected(sock) else sock.sendto(data, client)
        except ConnectionRefusedError:
            pass


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def main() -> None:
    if sys.argv[1] == "relay":
        seed = int(sys.argv[6]) if len(sys.argv) > 6 else 7
        relay(int(sys.argv[2]), (sys.argv[3], int(sys.argv[4])), float(sys.argv[5]), seed)
    whose, what, host, port, count = sys.argv[1:6]
    if whose == "reference":
        (reference_send if what == "send" else reference_receive)(host, int(port), int(count))
        return
    options = json.loads(sys.argv[6] if len(sys.argv) > 6 else "{}")
    if whose == "streams":
        asyncio.run(
            (streams_send if what == "send" else streams_receive)(host, int(port), int(count), options)
        )
        return
    options = {"stream": False, **options}
    asyncio.run((ours_send if what == "send" else ours_receive)(host, int(port), int(count), options))


if __name__ == "__main__":
    main()
