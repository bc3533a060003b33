# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio

import msgpack

from halo_mp import kcp
from halo_mp.kcp import Settings
from halo_mp.kcp.report import MOST_ENDPOINTS, MOST_SESSIONS, report
from tests.support.datagram_net import NetLoop, run

SERVER = ("10.0.0.1", 4000)
MESSAGES = Settings(stream=False)


def test_report_of_nothing() -> None:
    async def program(loop: NetLoop) -> None:
        assert report() == {"endpoints": [], "sessions": [], "left_out": 0}

    run(program)


def test_report_has_both_ends_and_what_they_count() -> None:
    async def program(loop: NetLoop) -> None:
        listener = await kcp.listen(*SERVER, settings=MESSAGES)
        client = await kcp.connect(*SERVER, settings=MESSAGES, local_addr=("10.0.0.2", 5000))
        await client.send(b"12345")
        server = await listener.accept_connection()
        await server.receive()
        await client.drain()
        found = report()
        first, second = found["endpoints"]
        assert (first["role"], first["address"], first["stack"]) == ("server", ["10.0.0.1", 4000], "kernel")
        assert (second["role"], second["address"]) == ("client", ["10.0.0.2", 5000])
        assert first["totals"]["bytes_received"] == second["totals"]["bytes_sent"] == 5
        assert first["handshakes"]["accepted"] == 1
        theirs, ours = found["sessions"]
        assert (theirs["endpoint"], theirs["peer"], theirs["state"]) == (0, ["10.0.0.2", 5000], "open")
        assert theirs["conv"] == ours["conv"] == client.conv
        assert ours["counters"]["bytes_sent"] == 5
        assert ours["info"]["rto_ms"] > 0
        client.close()
        await client.wait_closed()
        listener.close()
        await listener.wait_closed()
        assert report()["endpoints"] == []

    run(program)


def test_report_of_many_sessions_fits_a_message() -> None:
    async def program(loop: NetLoop) -> None:
        listener = await kcp.listen(*SERVER, settings=MESSAGES, backlog=1000)
        clients = [await kcp.connect(*SERVER, settings=MESSAGES) for _ in range(150)]
        await asyncio.sleep(1)
        found = report(100)
        assert (len(found["sessions"]), found["left_out"]) == (100, 200)
        assert found["endpoints"][0]["sessions"] == 150
        found = report()
        assert (len(found["sessions"]), len(found["endpoints"])) == (MOST_SESSIONS, MOST_ENDPOINTS)
        assert len(msgpack.packb(found)) < 1 << 16
        for client in clients:
            client.abort()
        listener.abort()
        await listener.wait_closed()

    run(program)
