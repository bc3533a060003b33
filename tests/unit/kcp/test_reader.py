# SPDX-License-Identifier: Apache-2.0
"""Readers take from their session what they want, and are asyncio's in all else."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from halo_mp import kcp
from halo_mp.kcp import Settings
from tests.support.datagram_net import NetLoop, run

SERVER = ("10.0.0.1", 4000)
STREAMS = Settings(keep_alive_s=0, idle_timeout_s=0)
LIMIT = 4096


class Ends:
    """A reader whose limit is LIMIT, and who writes to it."""

    reader: asyncio.StreamReader
    back: asyncio.StreamWriter
    writer: asyncio.StreamWriter


async def connect(settings: Settings = STREAMS) -> tuple[Ends, kcp.Server]:
    ends, here = Ends(), asyncio.Event()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.reader, ends.back = reader, writer
        here.set()

    server = await kcp.start_server(serve, *SERVER, settings=settings, limit=LIMIT)
    _, ends.writer = await kcp.open_connection(*SERVER, settings=settings)
    await here.wait()
    return ends, server


async def written(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write, and wait until the peer has it."""
    writer.write(data)
    writer.transport.set_write_buffer_limits(0)
    await writer.drain()
    writer.transport.set_write_buffer_limits()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(LIMIT):
        writer.write(data)


@pytest.mark.parametrize("stream", [True, False])
def test_methods_of_all_kinds_give_it_in_order(stream: bool) -> None:
    async def program(loop: NetLoop) -> None:
        ends, server = await connect(STREAMS.replace(stream=stream))
        data = loop.net.random.randbytes(100_000).replace(b"\n", b"_")
        ends.writer.write(data[:50] + b"\n" + data[50:])
        ends.writer.close()
        found = [await ends.reader.readexactly(20), await ends.reader.readuntil(b"\n")]
        assert found[1].endswith(b"\n")
        found[1] = found[1][:-1]
        found += [await ends.reader.readexactly(5 * LIMIT), await ends.reader.read(100)]
        assert len(found[-1]) <= 100
        found += [await ends.reader.readexactly(1000), await ends.reader.read(LIMIT)]
        assert not ends.reader.at_eof()
        found.append(await ends.reader.read())
        assert b"".join(found) == data
        assert ends.reader.at_eof()
        assert await ends.reader.read(10) == b""
        server.abort()

    run(program)


def test_read_that_waits_gets_what_comes() -> None:
    async def program(loop: NetLoop) -> None:
        ends, server = await connect()
        reading = asyncio.create_task(ends.reader.read(1000))
        await asyncio.sleep(1)
        assert not reading.done()
        await written(ends.writer, b"something")
        assert await reading == b"something"
        assert ends.back.get_extra_info("kcp").info.unread == 0
        server.abort()

    run(program)


def test_reader_that_does_not_read_has_limit_and_window() -> None:
    settings = STREAMS.replace(receive_window=32, send_window=64)
    most = 32 + -(-2 * LIMIT // settings.segment_octets)

    async def program(loop: NetLoop) -> None:
        ends, server = await connect(settings)
        session, data = ends.back.get_extra_info("kcp"), loop.net.random.randbytes(150_000)
        ends.writer.write(data)
        await asyncio.sleep(5)
        assert session.info.unread == most
        assert await ends.reader.readexactly(len(data)) == data
        server.abort()

    run(program)


def test_line_beyond_the_limit_is_refused() -> None:
    async def program(loop: NetLoop) -> None:
        ends, server = await connect()
        await written(ends.writer, bytes(3 * LIMIT) + b"\n")
        with pytest.raises(asyncio.LimitOverrunError):
            await ends.reader.readuntil(b"\n")
        assert await ends.reader.readexactly(3 * LIMIT + 1) == bytes(3 * LIMIT) + b"\n"
        server.abort()

    run(program)


def test_reader_that_has_paused_gets_it_when_it_resumes() -> None:
    async def program(loop: NetLoop) -> None:
        ends, server = await connect()
        ends.back.transport.pause_reading()  # type: ignore[attr-defined]
        await written(ends.writer, b"later")
        reading = asyncio.create_task(ends.reader.read(10))
        await asyncio.sleep(1)
        assert not reading.done()
        ends.back.transport.resume_reading()  # type: ignore[attr-defined]
        assert await reading == b"later"
        server.abort()

    run(program)


def test_reader_that_is_woken_for_nothing_waits_on() -> None:
    async def program(loop: NetLoop) -> None:
        ends, server = await connect()
        reading = asyncio.create_task(ends.reader.read(10))
        for _ in range(3):
            await asyncio.sleep(1)
            ends.back.transport.pause_reading()  # type: ignore[attr-defined]
            ends.back.transport.resume_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        assert not reading.done()
        await written(ends.writer, b"at last")
        assert await reading == b"at last"
        server.abort()

    run(program)


def test_reader_is_told_that_closing_took_too_long() -> None:
    async def program(loop: NetLoop) -> None:
        ends, server = await connect()
        reading = asyncio.create_task(ends.reader.read(10))
        await asyncio.sleep(1)
        loop.net.loss = 1
        ends.back.write(b"to nobody")
        ends.back.close()
        with pytest.raises(kcp.SessionEndedError, match="not delivered"):
            await reading
        server.abort()
        ends.writer.transport.abort()

    run(program)


def test_limit_may_be_as_large_as_asyncio_takes_it() -> None:
    async def program(loop: NetLoop) -> None:
        server = await kcp.start_server(echo, *SERVER, settings=STREAMS, limit=sys.maxsize)
        reader, writer = await kcp.open_connection(*SERVER, settings=STREAMS, limit=sys.maxsize)
        data = loop.net.random.randbytes(300_000)
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        server.abort()

    run(program)


def test_what_came_before_a_close_can_be_read_after_it() -> None:
    async def program(loop: NetLoop) -> None:
        ends, server = await connect()
        await written(ends.writer, b"before")
        ends.back.close()
        await ends.back.wait_closed()
        assert await ends.reader.read() == b"before"
        server.abort()

    run(program)


class Collector(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data


def test_another_protocol_gets_what_comes_after() -> None:
    async def program(loop: NetLoop) -> None:
        ends, server = await connect()
        await written(ends.writer, b"old")
        transport: Any = ends.back.transport
        collector = Collector()
        transport.set_protocol(collector)
        await written(ends.writer, b"new")
        assert collector.data == b"new"
        assert await ends.reader.read(10) == b"old"
        server.abort()

    run(program)
