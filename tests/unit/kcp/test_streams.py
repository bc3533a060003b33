# SPDX-License-Identifier: Apache-2.0
"""Readers, writers and protocols on KCP have the manners of asyncio's own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from halo_mp import kcp
from halo_mp.kcp import EndReason, SessionEndedError, Settings
from tests.support.datagram_net import NetLoop, run

SERVER = ("10.0.0.1", 4000)
STREAMS = Settings(keep_alive_s=0, idle_timeout_s=0)
MESSAGES = STREAMS.replace(stream=False)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_echo_of_much_over_a_link_that_loses(loss: float) -> None:
    async def program(loop: NetLoop) -> None:
        loop.net.loss, loop.net.duplicates, loop.net.jitter_s = loss, loss, 0.01
        async with await kcp.start_server(echo, *SERVER, settings=STREAMS):
            reader, writer = await kcp.open_connection(*SERVER, settings=STREAMS)
            sent = loop.net.random.randbytes(500_000)

            async def write() -> None:
                for at in range(0, len(sent), 10_000):
                    writer.write(sent[at : at + 10_000])
                    await writer.drain()

            writing = asyncio.create_task(write())
            assert await reader.readexactly(len(sent)) == sent
            await writing
            await closed(writer)

    run(program)


def test_one_write_of_much_goes_in_pieces() -> None:
    async def program(loop: NetLoop) -> None:
        async with await kcp.start_server(echo, *SERVER, settings=STREAMS):
            reader, writer = await kcp.open_connection(*SERVER, settings=STREAMS)
            sent = loop.net.random.randbytes(2_000_000)
            writer.write(sent)
            assert await reader.readexactly(len(sent)) == sent
            await closed(writer)

    run(program)


def test_peer_that_closes_is_the_end_of_the_stream() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"one line\nand a half")
        writer.close()

    async def program(loop: NetLoop) -> None:
        async with await kcp.start_server(serve, *SERVER, settings=STREAMS):
            reader, writer = await kcp.open_connection(*SERVER, settings=STREAMS)
            assert await reader.readline() == b"one line\n"
            assert await reader.read() == b"and a half"
            writer.write(b"is anybody there?")
            with pytest.raises(ConnectionResetError):
                await writer.drain()
            await closed(writer)

    run(program)


def test_end_waits_for_a_reader_that_has_paused() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(300_000))
        writer.close()

    async def program(loop: NetLoop) -> None:
        async with await kcp.start_server(serve, *SERVER, settings=STREAMS):
            reader, writer = await kcp.open_connection(*SERVER, settings=STREAMS, limit=1000)
            await asyncio.sleep(10)
            assert len(await reader.read()) == 300_000
            await closed(writer)

    run(program)


@pytest.mark.parametrize("event", [EndReason.SERVER_KICK, None])
def test_end_that_is_an_error_is_raised_to_the_reader(event: int | None) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transport: Any = writer.transport
        if event is None:
            transport.abort()
        else:
            transport.close_with(event)

    async def program(loop: NetLoop) -> None:
        async with await kcp.start_server(serve, *SERVER, settings=STREAMS):
            reader, writer = await kcp.open_connection(*SERVER, settings=STREAMS)
            with pytest.raises(SessionEndedError) as ended:
                await reader.read()
            assert ended.value.reason == ("transfer_failed" if event is None else "server_kick")
            writer.close()

    run(program)


def test_dead_link_is_raised_to_the_reader_and_the_writer() -> None:
    async def program(loop: NetLoop) -> None:
        server = await kcp.start_server(echo, *SERVER, settings=STREAMS)
        reader, writer = await kcp.open_connection(*SERVER, settings=STREAMS.replace(dead_link=4))
        loop.net.judge = lambda *_: False
        writer.write(b"does this arrive?")
        with pytest.raises(SessionEndedError, match="a segment was sent 4 times"):
            await reader.read()
        writer.write(b"ignored, as asyncio does")
        with pytest.raises(SessionEndedError):
            await writer.drain()
        server.abort()
        await server.wait_closed()

    run(program)


def test_drain_waits_while_the_peer_does_not_read() -> None:
    async def program(loop: NetLoop) -> None:
        settings = STREAMS.replace(receive_window=128, send_window=64, congestion="none")
        taken = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await taken.wait()
            await echo(reader, writer)

        async with await kcp.start_server(serve, *SERVER, settings=settings, limit=1000):
            reader, writer = await kcp.open_connection(*SERVER, settings=settings)
            written = 0

            async def write() -> None:
                nonlocal written
                while True:
                    writer.write(bytes(10_000))
                    written += 10_000
                    await writer.drain()

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(write(), 100)
            segments = 128 + 128
            assert written < (segments + 8) * settings.segment_octets + 2 * (256 << 10)
            taken.set()
            assert len(await reader.readexactly(written)) == written
            await closed(writer)

    run(program)


def test_error_in_a_callback_ends_its_session_alone() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline() == b"fail\n":
            raise ValueError("on purpose")
        await echo(reader, writer)

    async def program(loop: NetLoop) -> None:
        async with await kcp.start_server(serve, *SERVER, settings=STREAMS):
            good = await kcp.open_connection(*SERVER, settings=STREAMS)
            bad = await kcp.open_connection(*SERVER, settings=STREAMS)
            good[1].write(b"work\n")
            bad[1].write(b"fail\n")
            with pytest.raises(SessionEndedError):
                await bad[0].read()
            good[1].write(b"still")
            assert await good[0].readexactly(5) == b"still"
            await closed(good[1])
        [context] = loop.errors
        assert str(context["exception"]) == "on purpose"
        loop.errors.clear()

    run(program)


def test_error_of_a_protocol_ends_its_session_alone() -> None:
    class Bad(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            raise ValueError("on purpose")

    async def program(loop: NetLoop) -> None:
        async with await kcp.create_server(Bad, *SERVER, settings=STREAMS) as server:
            reader, writer = await kcp.open_connection(*SERVER, settings=STREAMS)
            writer.write(b"x")
            with pytest.raises(SessionEndedError):
                await reader.read()
            assert not server.endpoint.sessions
        assert [str(context["exception"]) for context in loop.errors] == ["on purpose"]
        loop.errors.clear()

    run(program)


def test_server_that_closes_delivers_and_ends_all_sessions() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(100_000))
        await asyncio.Event().wait()

    async def program(loop: NetLoop) -> None:
        server = await kcp.start_server(serve, *SERVER, settings=STREAMS)
        clients = [await kcp.open_connection(*SERVER, settings=STREAMS) for _ in range(5)]
        await asyncio.sleep(0.02)
        server.close()
        await server.wait_closed()
        for reader, writer in clients:
            assert len(await reader.read()) == 100_000
            writer.close()
        for task in server._tasks:
            task.cancel()

    run(program)


def test_server_that_closes_answers_no_new_client() -> None:
    async def program(loop: NetLoop) -> None:
        server = await kcp.start_server(give_much, *SERVER, settings=STREAMS)
        _, writer = await kcp.open_connection(*SERVER, settings=STREAMS)
        await asyncio.sleep(0.02)
        server.close()  # which takes as long as nobody reads
        with pytest.raises(TimeoutError, match="no KCP server"):
            await kcp.open_connection(*SERVER, settings=replace(STREAMS, connect_timeout_s=0.1))
        assert server.endpoint.pending.counters.syns_refused > 0
        writer.close()
        server.abort()
        await server.wait_closed()

    run(program)


@pytest.mark.parametrize("most", [0, -1, 1 << 31])
def test_number_of_sessions_that_can_not_be_is_refused(most: int) -> None:
    async def program(loop: NetLoop) -> None:
        with pytest.raises(ValueError, match=f"most_sessions must be 1 or more, not {most}"):
            await kcp.start_server(give_much, *SERVER, most_sessions=most)
        server = await kcp.start_server(give_much, *SERVER)  # the port is free
        server.abort()

    run(program)


async def give_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write more than a reader's buffer and a session's window hold."""
    writer.write(bytes(2_000_000))
    await writer.drain()


async def give_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write more than a reader's buffer holds, all of which the session takes."""
    writer.write(bytes(1_000_000))
    writer.close()


@pytest.mark.parametrize(("serve", "ends_first"), [(give_much, False), (give_and_close, True)])
@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("pauses", [False, True])
def test_close_of_a_reader_that_does_not_read_is_told(
    serve: Any, ends_first: bool, end: str, pauses: bool
) -> None:
    async def program(loop: NetLoop) -> None:
        server = await kcp.start_server(serve, *SERVER, settings=STREAMS)
        _reader, writer = await kcp.open_connection(*SERVER, settings=STREAMS)
        if pauses:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(5)
        assert (writer.get_extra_info("kcp").error is not None) == ends_first
        getattr(writer.transport, end)()
        await writer.wait_closed()
        server.abort()

    run(program)


@pytest.mark.parametrize("count", [484 * 127, 484 * 127 + 1, 65_536, 65_537])
def test_write_of_more_than_small_datagrams_hold_at_a_time(count: int) -> None:
    async def program(loop: NetLoop) -> None:
        settings = STREAMS.replace(mtu=512)
        assert settings.message_octets == 484 * 127
        async with await kcp.start_server(echo, *SERVER, settings=settings):
            reader, writer = await kcp.open_connection(*SERVER, settings=settings)
            sent = loop.net.random.randbytes(count)
            writer.write(sent)
            assert await reader.readexactly(count) == sent
            await closed(writer)

    run(program)


class Log(asyncio.Protocol):
    """Says what it is told."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.said.append("made")

    def data_received(self, data: bytes) -> None:
        self.said.append(data)

    def eof_received(self) -> None:
        self.said.append("eof")

    def pause_writing(self) -> None:
        self.said.append("pause")

    def resume_writing(self) -> None:
        self.said.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.said.append(exc and type(exc).__name__)
        self.lost.set_result(None)


def test_protocols_are_told_in_order_and_get_messages_whole() -> None:
    async def program(loop: NetLoop) -> None:
        made: list[Log] = []

        def factory() -> Log:
            made.append(Log())
            return made[-1]

        async with await kcp.create_server(factory, *SERVER, settings=MESSAGES):
            transport, protocol = await kcp.create_connection(Log, *SERVER, settings=MESSAGES)
            assert isinstance(protocol, Log)
            transport.write(b"one")
            transport.write(bytes(5000))
            transport.write(b"")
            transport.writelines([b"a", b"b"])
            transport.close()
            transport.write(b"never")
            await protocol.lost
            await made[0].lost
            assert protocol.said == ["made", None]
            assert made[0].said == ["made", b"one", bytes(5000), b"", b"ab", "eof", None]

    run(program)


def test_transport_tells_what_it_is() -> None:
    async def program(loop: NetLoop) -> None:
        async with await kcp.create_server(Log, *SERVER, settings=STREAMS):
            transport, protocol = await kcp.create_connection(
                Log, *SERVER, settings=STREAMS, local_addr=("10.0.0.2", 5000)
            )
            assert transport.get_extra_info("peername") == SERVER
            assert transport.get_extra_info("sockname") == ("10.0.0.2", 5000)
            assert transport.get_extra_info("kcp").info.mss == STREAMS.segment_octets
            assert not transport.can_write_eof()
            with pytest.raises(NotImplementedError, match="no half-close"):
                transport.write_eof()
            low, high = transport.get_write_buffer_limits()
            assert (low, high) == (512 * STREAMS.segment_octets, 1024 * STREAMS.segment_octets)
            transport.set_write_buffer_limits(high=2 * STREAMS.segment_octets)
            transport.write(bytes(10 * STREAMS.segment_octets))
            await asyncio.sleep(1)
            assert isinstance(protocol, Log)
            assert protocol.said == ["made", "pause", "resume"]
            assert transport.get_write_buffer_size() == 0
            transport.abort()
            await protocol.lost
            assert repr(transport).startswith("<KcpTransport closed conv=0x")

    run(program)


@pytest.mark.parametrize(
    ("settings", "options", "sentence"),
    [
        (STREAMS, {"conv": 5}, "the server chooses the conv"),
        (STREAMS.replace(format="classic"), {}, "both sides must be given the same conv="),
        (STREAMS.replace(format="classic"), {"conv": 1 << 32}, "expected 0 to 4294967295"),
    ],
)
def test_conv_is_asked_for_where_it_belongs(
    settings: Settings, options: dict[str, int], sentence: str
) -> None:
    async def program(loop: NetLoop) -> None:
        with pytest.raises(ValueError, match=sentence):
            await kcp.open_connection(*SERVER, settings=settings, **options)

    run(program)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": "both"}, "format is 'both'; expected one of: classic, halo"),
        ({"check": "md5"}, "check is 'md5'; expected one of: off, zero, crc32, xxh3"),
        ({"mtu": 49}, "mtu is 49; expected 50 to 65507"),
        ({"send_window": 0}, "send_window is 0; expected 1 to 65535"),
        ({"interval_ms": 5001}, "interval_ms is 5001"),
        ({"idle_timeout_s": -1}, "idle_timeout_s is -1; expected seconds"),
        ({"close_timeout_s": float("nan")}, "close_timeout_s is nan"),
        ({"write_buffer_segments": -1}, "write_buffer_segments is -1"),
    ],
)
def test_settings_that_can_not_be_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Settings(**changes)


@pytest.mark.parametrize("raises_in", ["turn", "resume", "end"])
def test_protocol_that_raises_costs_its_session_and_is_told_of_the_end_once(raises_in: str) -> None:
    class Raiser(Log):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            raise ValueError("of the user")

    async def program(loop: NetLoop) -> None:
        told: list[Any] = []
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        made: list[Raiser] = []

        def factory() -> Raiser:
            made.append(Raiser())
            return made[-1]

        server = await kcp.create_server(factory, *SERVER, settings=MESSAGES)
        transport, _ = await kcp.create_connection(Log, *SERVER, settings=MESSAGES)
        await asyncio.sleep(0.1)
        raiser = made[0]
        if raises_in != "turn":
            raiser.transport.pause_reading()
        for message in (b"one", b"two"):
            transport.write(message)
        if raises_in == "end":
            transport.close()
        await asyncio.sleep(0.1)
        if raises_in != "turn":
            raiser.transport.resume_reading()
        await raiser.lost
        await asyncio.sleep(0.1)
        assert raiser.said == ["made", b"one", None]
        assert [str(each) for each in told] == ["of the user"]
        assert not server.endpoint.sessions
        server.abort()

    run(program)


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
def test_what_a_protocol_raises_costs_no_other_session_its_data(error: type[BaseException]) -> None:
    class Raiser(Log):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            raise error

    async def program(loop: NetLoop) -> None:
        told: list[Any] = []
        loop.set_exception_handler(lambda _, context: told.append(type(context["exception"])))
        made: list[Log] = []

        def factory() -> Log:
            made.append(Log() if made else Raiser())
            return made[-1]

        server = await kcp.create_server(factory, *SERVER, settings=MESSAGES)
        transports = []
        for _ in range(2):
            transport, _ = await kcp.create_connection(Log, *SERVER, settings=MESSAGES)
            transports.append(transport)
            await asyncio.sleep(0.1)
        for transport in transports:
            transport.write(b"one")  # which one turn of the server's brings
        await made[0].lost
        assert made[0].said == ["made", b"one", None]
        await asyncio.sleep(0.1)
        assert made[1].said == ["made", b"one"]
        assert told == [error]
        server.abort()

    run(program)


@pytest.mark.parametrize("error", [None, OSError("the port has gone")])
def test_stream_whose_socket_is_closed_under_it_does_not_just_end(error: OSError | None) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half of a file")
        await reader.read()

    async def program(loop: NetLoop) -> None:
        server = await kcp.start_server(serve, *SERVER, settings=STREAMS)
        reader, writer = await kcp.open_connection(*SERVER, settings=STREAMS)
        assert await reader.readexactly(4) == b"half"
        writer.get_extra_info("kcp_endpoint").carrier.connection_lost(error)
        with pytest.raises(SessionEndedError, match="was closed under it") as found:
            await reader.read()
        assert found.value.reason == "socket_closed"
        server.abort()

    run(program)
