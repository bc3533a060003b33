# SPDX-License-Identifier: Apache-2.0
"""Sessions of both ends over a network in memory, with a clock that jumps: how they begin, live, move and end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from halo_mp import kcp
from halo_mp.kcp import EndReason, SessionEndedError, Settings
from halo_mp.kcp.control import ControlKind, ControlPacket, parse
from halo_mp.kcp.opening import open_endpoint
from halo_mp.kcp.session import SessionState
from tests.support.datagram_net import NetLoop, run

SERVER = ("10.0.0.1", 4000)
CLIENT = ("10.0.0.2", 5000)
STRANGER = ("10.0.0.3", 6000)
MESSAGES = Settings(stream=False, keep_alive_s=0, idle_timeout_s=0)
CLASSIC = MESSAGES.replace(format="classic")


def controls(loop: NetLoop, kind: ControlKind, src: Any = None) -> list[ControlPacket]:
    """The control packets of a kind that were sent, by whomever or by `src`."""
    sent = [parse(data) for who, _, data in loop.net.log if len(data) == 20 and src in (None, who)]
    return [packet for packet in sent if packet.kind is kind]


def is_control(data: bytes, kind: ControlKind) -> bool:
    return len(data) == 20 and parse(data).kind is kind


async def pair(
    loop: NetLoop, settings: Settings = MESSAGES, server_settings: Settings | None = None, **options: Any
) -> tuple[kcp.Listener, kcp.Connection, kcp.Connection]:
    """A listener, and both ends of one session with it."""
    conv = {"conv": 77} if settings.format == "classic" else {}
    listener = await kcp.listen(*SERVER, settings=server_settings or settings, **options)
    client = await kcp.connect(*SERVER, settings=settings, local_addr=CLIENT, **conv)
    if conv:
        client.send_nowait(b"first")
    server = await listener.accept_connection()
    if conv:
        assert await server.receive() == b"first"
    return listener, client, server


async def finish(listener: kcp.Listener, *clients: kcp.Connection) -> None:
    for client in clients:
        client.close()
        await client.wait_closed()
    listener.close()
    await listener.wait_closed()


# ---- how they begin


@pytest.mark.parametrize("settings", [MESSAGES, CLASSIC, MESSAGES.replace(check="crc32")])
def test_messages_go_both_ways_in_order(settings: Settings) -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop, settings)
        sent = [bytes([i]) * (i * 37 % 5000) for i in range(100)]
        for message in sent:
            await client.send(message)
        assert [await server.receive() for _ in sent] == sent
        for message in sent:
            await server.send(message)
        assert [await client.receive() for _ in sent] == sent
        await finish(listener, client)

    run(program)


def test_server_may_speak_first() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop)
        await server.send(b"welcome")
        assert await client.receive() == b"welcome"
        await finish(listener, client)

    run(program)


@pytest.mark.parametrize("kind", [ControlKind.SYN, ControlKind.EST])
def test_connecting_lost_packets_are_sent_again(kind: ControlKind) -> None:
    async def program(loop: NetLoop) -> None:
        lost = 0

        def judge(src: Any, dst: Any, data: bytes) -> bool:
            nonlocal lost
            lost += is_control(data, kind)
            return not is_control(data, kind) or lost > 3

        loop.net.judge = judge
        listener, client, server = await pair(loop)
        assert len(controls(loop, ControlKind.SYN)) == 4
        assert len({packet.conv for packet in controls(loop, ControlKind.EST)}) == 1, "the same answer"
        assert client.conv == server.conv
        loop.net.judge = lambda *_: True
        await finish(listener, client)

    run(program)


def test_connecting_first_packet_lost_is_sent_again() -> None:
    async def program(loop: NetLoop) -> None:
        dropped = []

        def judge(src: Any, dst: Any, data: bytes) -> bool:
            if len(data) != 20 and src == CLIENT and len(dropped) < 3:
                dropped.append(data)
                return False
            return True

        loop.net.judge = judge
        listener, client, _ = await pair(loop)
        assert len(dropped) == 3
        await finish(listener, client)

    run(program)


def test_connecting_nobody_answers() -> None:
    async def program(loop: NetLoop) -> None:
        loop.net.has_icmp = False
        before = loop.time()
        with pytest.raises(TimeoutError, match=r"10\.0\.0\.1 port 4000 has answered 8 SYNs in 10 s"):
            await kcp.connect(*SERVER)
        assert loop.time() - before == pytest.approx(10.0, abs=0.01)

    run(program)


def test_connecting_is_refused_at_once() -> None:
    async def program(loop: NetLoop) -> None:
        with pytest.raises(ConnectionRefusedError, match="nobody has the peer's address and port"):
            await kcp.connect(*SERVER)
        assert len(controls(loop, ControlKind.SYN)) == 1

    run(program)


def test_connecting_cancelled_leaves_nothing() -> None:
    async def program(loop: NetLoop) -> None:
        loop.net.has_icmp = False
        for wait_s in (0.0, 0.1, 1.0, 9.0):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await kcp.connect(*SERVER, settings=MESSAGES.replace(connect_timeout_s=100))

    run(program)


def test_connecting_est_from_another_address_is_not_believed() -> None:
    async def program(loop: NetLoop) -> None:
        listener = await kcp.listen(*SERVER, settings=MESSAGES)
        forged = ControlPacket(ControlKind.EST, 666, 1234567890).emit()
        loop.call_later(0.001, loop.net.inject, STRANGER, CLIENT, forged)
        client = await kcp.connect(*SERVER, settings=MESSAGES, local_addr=CLIENT)
        assert client.conv != 666
        await finish(listener, client)

    run(program)


def test_flood_of_syns_disturbs_no_session() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop)
        syn = ControlPacket(ControlKind.SYN, 0, 1234567890).emit()
        for i in range(10000):
            loop.net.inject((f"198.51.{i >> 8}.{i & 255}", 1), SERVER, syn)
        await asyncio.sleep(1)
        await client.send(b"still here")
        assert await server.receive() == b"still here"
        pending = listener.endpoint.pending
        assert (len(pending), pending.counters.pending_evicted) == (4096, 10000 - 4096)
        assert len(listener.endpoint.sessions) == 1
        await finish(listener, client)

    run(program)


def test_full_backlog_keeps_clients_waiting() -> None:
    async def program(loop: NetLoop) -> None:
        listener = await kcp.listen(*SERVER, settings=MESSAGES, backlog=2)
        clients = [await kcp.connect(*SERVER, settings=MESSAGES) for _ in range(4)]
        for i, client in enumerate(clients):
            client.send_nowait(bytes([i]))
        await asyncio.sleep(1)
        assert len(listener.endpoint.sessions) == 2
        assert listener.endpoint.counters.refused_full >= 2
        got = set()
        for _ in clients:
            server = await listener.accept_connection()
            got.add(await server.receive())
        assert got == {b"\0", b"\1", b"\2", b"\3"}
        await finish(listener, *clients)

    run(program)


def test_most_sessions_is_a_bound() -> None:
    async def program(loop: NetLoop) -> None:
        listener = await kcp.listen(*SERVER, settings=MESSAGES, most_sessions=1)
        first = await kcp.connect(*SERVER, settings=MESSAGES)
        await asyncio.sleep(1)
        second = await kcp.connect(*SERVER, settings=MESSAGES)
        await asyncio.sleep(1)
        assert len(listener.endpoint.sessions) == 1
        assert listener.endpoint.counters.refused_full > 0
        second.abort()
        await finish(listener, first)

    run(program)


def test_classic_server_takes_no_late_datagrams_for_a_beginning() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, _ = await pair(loop, CLASSIC)
        head = (78).to_bytes(4, "little")
        late = [
            head
            + bytes([81, 0])
            + bytes(2 + 4)
            + (0).to_bytes(4, "little")
            + (9).to_bytes(4, "little")
            + bytes(4),
            head + bytes([81, 0]) + bytes(2 + 4) + (40).to_bytes(4, "little") + bytes(8),
            head + bytes([82, 0]) + bytes(18),
            head + bytes([99, 0]) + bytes(18),
            head + bytes([81, 0]) + bytes(2 + 4 + 8) + (1).to_bytes(4, "little"),
            head,
        ]
        for octets in late:
            loop.net.inject(STRANGER, SERVER, octets)
        await asyncio.sleep(1)
        assert len(listener.endpoint.sessions) == 1
        assert listener.endpoint.counters.unknown_conv == len(late)
        await finish(listener, client)

    run(program)


def test_classic_sessions_of_one_conv_are_told_apart_by_their_address() -> None:
    async def program(loop: NetLoop) -> None:
        listener = await kcp.listen(*SERVER, settings=CLASSIC)
        clients = [await kcp.connect(*SERVER, settings=CLASSIC, conv=5) for _ in range(3)]
        for i, client in enumerate(clients):
            await client.send(bytes([i]))
        servers = [await listener.accept_connection() for _ in clients]
        for server in servers:
            await server.send(b"you are " + await server.receive())
        assert [await client.receive() for client in clients] == [b"you are \0", b"you are \1", b"you are \2"]
        await finish(listener, *clients)

    run(program)


def test_classic_client_that_starts_anew_is_taken_when_nothing_can_be_late() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop, CLASSIC)
        for each in (client, server):
            each.close()
            await each.wait_closed()
        settings = CLASSIC.replace(dead_link=1000)
        again = await kcp.connect(*SERVER, settings=settings, local_addr=CLIENT, conv=77)
        again.send_nowait(b"anew")
        await asyncio.sleep(55)
        assert not listener.endpoint.sessions
        taken = await listener.accept_connection()
        assert await taken.receive() == b"anew"
        await finish(listener, again)

    run(program)


@pytest.mark.parametrize("messages", [0, 1])
def test_client_that_has_closed_before_it_was_accepted_is_heard(messages: int) -> None:
    async def program(loop: NetLoop) -> None:
        listener = await kcp.listen(*SERVER, settings=MESSAGES)
        early = await kcp.connect(*SERVER, settings=MESSAGES)
        await asyncio.sleep(1)
        for _ in range(messages):
            await early.send(b"all that I have")
        early.close()
        await early.wait_closed()
        late = await kcp.connect(*SERVER, settings=MESSAGES)
        await late.send(b"later")
        await late.drain()
        servers = [await listener.accept_connection() for _ in range(messages + 1)]
        heard = [await each.receive() for each in servers]
        assert heard == [b"all that I have"] * messages + [b"later"]
        await finish(listener, late)

    run(program)


# ---- how they end


def test_close_delivers_what_was_written_before_its_fin() -> None:
    async def program(loop: NetLoop) -> None:
        loop.net.loss = 0.2
        listener, client, server = await pair(loop)
        sent = [bytes([i]) * 3000 for i in range(200)]
        for message in sent:
            client.send_nowait(message)
        client.close()
        with pytest.raises(SessionEndedError, match="was closed here"):
            client.send_nowait(b"too late")
        assert [message async for message in server] == sent
        assert server.end is not None
        assert (server.end.reason, server.end.graceful) == ("client_close", True)
        loop.net.loss = 0
        await finish(listener, client)

    run(program, seed=5)


@pytest.mark.parametrize("lost", [1, 3])
def test_what_was_in_flight_when_the_peer_closed_is_acknowledged_first(lost: int) -> None:
    """The peer has read it; the datagrams that say so are lost, and its FIN is not."""

    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop)
        left = lost

        def judge(src: Any, dst: Any, data: bytes) -> bool:
            nonlocal left
            is_lost = src == CLIENT and len(data) != 20 and left > 0
            left -= is_lost
            return not is_lost

        loop.net.judge = judge
        server.send_nowait(b"answer")
        assert await client.receive() == b"answer"
        client.close()
        await server.drain()  # no error: it has arrived
        assert left == 0
        with pytest.raises(SessionEndedError, match="the peer has ended") as ended:
            await server.receive()
        assert ended.value.graceful
        await client.wait_closed()
        assert client.end is not None
        assert client.end.graceful
        await finish(listener)

    run(program)


def test_what_a_peer_that_has_closed_never_acknowledges_is_told() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop)
        loop.net.judge = lambda src, dst, data: src != CLIENT or len(data) == 20
        server.send_nowait(b"answer")
        client.close()
        with pytest.raises(SessionEndedError, match="the peer has ended"):
            await server.drain()
        with pytest.raises(SessionEndedError, match="the peer has ended"):
            server.send_nowait(b"more")
        await client.wait_closed()
        await finish(listener)

    run(program)


def test_both_close_with_windows_that_nobody_reads() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop, MESSAGES.replace(send_window=64, receive_window=128))
        for end in (client, server):
            for _ in range(500):
                end.send_nowait(bytes(1000))
        await asyncio.sleep(5)
        for end in (client, server):
            assert end.info.unread == 128
            end.close()
        for end in (client, server):
            await end.wait_closed()
            assert end.end is not None
            assert end.end.graceful
        await finish(listener)

    run(program)


def test_lost_fin_is_sent_again() -> None:
    async def program(loop: NetLoop) -> None:
        lost = 0

        def judge(src: Any, dst: Any, data: bytes) -> bool:
            nonlocal lost
            lost += is_control(data, ControlKind.FIN)
            return not is_control(data, ControlKind.FIN) or lost > 2

        loop.net.judge = judge
        listener, client, server = await pair(loop)
        client.close()
        await client.wait_closed()
        assert server.end is not None
        assert server.end.reason == "client_close"
        await finish(listener)

    run(program)


def test_fin_that_never_arrived_is_told_to_who_speaks_of_the_session() -> None:
    async def program(loop: NetLoop) -> None:
        loop.net.judge = lambda src, dst, data: not (src == SERVER and is_control(data, ControlKind.FIN))
        listener, client, server = await pair(loop)
        server.close()
        await server.wait_closed()
        loop.net.judge = lambda *_: True
        client.send_nowait(b"hello?")
        with pytest.raises(SessionEndedError) as ended:
            await client.receive()
        assert (ended.value.reason, ended.value.graceful) == ("server_shutdown", True)
        await finish(listener, client)

    run(program)


def test_server_started_anew_tells_clients_of_old_sessions() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, _ = await pair(loop)
        listener.endpoint.close()  # as when it dies
        second = await kcp.listen(*SERVER, settings=MESSAGES)
        await client.send(b"hello?")
        with pytest.raises(SessionEndedError) as ended:
            await client.receive()
        assert (ended.value.reason, ended.value.graceful) == ("not_found_session", False)
        await finish(second, client)

    run(program)


@pytest.mark.parametrize("event", [EndReason.SERVER_KICK, EndReason.WAIT_SEND_MAX, 987654321])
def test_reason_of_a_fin_reaches_the_reader(event: int) -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop)
        await server.send(b"last words")
        server.close(event)
        assert await client.receive() == b"last words"
        with pytest.raises(SessionEndedError) as ended:
            await client.receive()
        assert ended.value.reason == (EndReason(event).name.lower() if event < 100 else str(event))
        assert not ended.value.graceful
        await finish(listener, client)

    run(program)


def test_fin_of_a_stranger_is_counted_and_ignored() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop)
        fin = ControlPacket(ControlKind.FIN, server.conv, EndReason.SERVER_KICK)
        loop.net.inject(STRANGER, SERVER, fin.emit())
        loop.net.inject(STRANGER, CLIENT, fin.emit())
        for conv in (server.conv ^ 1, server.conv ^ 1 << 63):
            loop.net.inject(CLIENT, SERVER, ControlPacket(ControlKind.FIN, conv, 5).emit())
        await asyncio.sleep(1)
        await client.send(b"still here")
        assert await server.receive() == b"still here"
        assert listener.endpoint.counters.fins_ignored == 3
        await finish(listener, client)

    run(program)


def test_control_packets_are_nothing_in_the_classic_format() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop, CLASSIC)
        for kind in ControlKind:
            loop.net.inject(CLIENT, SERVER, ControlPacket(kind, 77, 0).emit())
        await asyncio.sleep(1)
        await client.send(b"still here")
        assert await server.receive() == b"still here"
        await finish(listener, client)

    run(program)


@pytest.mark.parametrize("settings", [MESSAGES, CLASSIC])
def test_dead_link_ends_the_session_with_its_reason(settings: Settings) -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop, settings.replace(dead_link=5))
        loop.net.judge = lambda src, dst, data: False
        client.send_nowait(b"does this arrive?")
        with pytest.raises(
            SessionEndedError, match="acknowledged nothing: a segment was sent 5 times"
        ) as ended:
            await client.receive()
        assert ended.value.reason == "dead_link"
        with pytest.raises(SessionEndedError, match="acknowledged nothing"):
            client.send_nowait(b"and this?")
        with pytest.raises(SessionEndedError, match="acknowledged nothing"):
            await client.drain()
        server.abort()
        await finish(listener)

    run(program)


def test_refused_ends_an_open_session_at_once() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, _ = await pair(loop)
        listener.endpoint.close()
        client.send_nowait(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            await client.receive()

    run(program)


def test_close_that_can_not_deliver_ends_in_its_time() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop, MESSAGES.replace(close_timeout_s=3))
        loop.net.judge = lambda src, dst, data: len(data) == 20
        client.send_nowait(b"does this arrive?")
        before = loop.time()
        client.close()
        await client.wait_closed()
        assert loop.time() - before == pytest.approx(3.0, abs=0.1)
        assert client.end is not None
        assert client.end.reason == "close_timeout"
        with pytest.raises(SessionEndedError) as ended:
            await server.receive()
        assert ended.value.reason == "timeout"
        await finish(listener)

    run(program)


def test_both_ends_closing_at_once_full_of_unread_data() -> None:
    async def program(loop: NetLoop) -> None:
        settings = MESSAGES.replace(receive_window=128, congestion="none")
        listener, client, server = await pair(loop, settings)
        for _ in range(500):
            client.send_nowait(bytes(1000))
            server.send_nowait(bytes(1000))
        client.close()
        server.close()
        before = loop.time()
        await client.wait_closed()
        await server.wait_closed()
        assert client.end is not None
        assert server.end is not None
        assert client.end.graceful
        assert server.end.graceful
        assert loop.time() - before < settings.close_timeout_s
        await finish(listener)

    run(program)


def test_abort_tells_the_peer() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop)
        client.abort()
        with pytest.raises(SessionEndedError) as ended:
            await server.receive()
        assert ended.value.reason == "transfer_failed"
        await finish(listener)

    run(program)


# ---- how they live


def test_silent_session_lives_by_pings() -> None:
    async def program(loop: NetLoop) -> None:
        settings = MESSAGES.replace(keep_alive_s=10, idle_timeout_s=30)
        listener, client, server = await pair(loop, settings)
        await asyncio.sleep(3600)
        assert client.end is None
        assert server.end is None
        pings = controls(loop, ControlKind.PING, CLIENT)
        assert 300 <= len(pings) <= 400
        assert listener.endpoint.counters.pings_in == len(pings)
        assert len(controls(loop, ControlKind.PING, SERVER)) == len(pings), "each is answered, once"
        await finish(listener, client)

    run(program)


@pytest.mark.parametrize("settings", [MESSAGES, CLASSIC])
def test_silent_session_lives_though_much_is_lost(settings: Settings) -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop, settings.replace(keep_alive_s=5, idle_timeout_s=60))
        loop.net.loss = 0.3
        await asyncio.sleep(3600)
        assert client.end is None
        assert server.end is None
        loop.net.loss = 0
        await finish(listener, client)

    run(program)


@pytest.mark.parametrize("settings", [MESSAGES, CLASSIC])
def test_silent_peer_is_noticed_by_both(settings: Settings) -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop, settings.replace(keep_alive_s=10, idle_timeout_s=30))
        loop.net.judge = lambda *_: False
        before = loop.time()
        for each in (client, server):
            with pytest.raises(SessionEndedError, match="nothing was heard of the peer for 30 s") as ended:
                await each.receive()
            assert ended.value.reason == "idle_timeout"
        assert loop.time() - before == pytest.approx(30.0, abs=0.1)
        await finish(listener)

    run(program)


def test_two_servers_do_not_answer_each_others_pings() -> None:
    async def program(loop: NetLoop) -> None:
        first = await kcp.listen(*SERVER, settings=MESSAGES)
        second = await kcp.listen(*STRANGER, settings=MESSAGES)
        for conv in (0, 1, 1 << 40):
            ping = ControlPacket(ControlKind.PING, conv, 7).emit()
            loop.net.inject(SERVER, STRANGER, ping)
            loop.net.inject(STRANGER, SERVER, ping)
        await asyncio.sleep(10)
        assert not controls(loop, ControlKind.PING)
        assert len(loop.net.log) == 4, "a FIN for each conv that is none, and no answer to it"
        await finish(first)
        await finish(second)

    run(program)


def test_malformed_control_packets_are_counted() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop)
        before = listener.endpoint.counters.control_in
        for i in range(100):
            loop.net.inject(CLIENT, SERVER, bytes([i]) * 20)
        await asyncio.sleep(1)
        assert listener.endpoint.counters.control_malformed == 100
        assert listener.endpoint.counters.control_in == before + 100
        await client.send(b"still here")
        assert await server.receive() == b"still here"
        await finish(listener, client)

    run(program)


@pytest.mark.parametrize("start_s", [4294960.0, 4294967.2, 2147483.0])
def test_clock_that_wraps_disturbs_nothing(start_s: float) -> None:
    async def program(loop: NetLoop) -> None:
        loop.net.loss = 0.05
        settings = MESSAGES.replace(keep_alive_s=2, idle_timeout_s=20)
        listener, client, server = await pair(loop, settings)
        sent = [bytes([i & 255]) * 700 for i in range(600)]
        for message in sent:
            await client.send(message)
            await asyncio.sleep(0.02)
        assert [await server.receive() for _ in sent] == sent
        await asyncio.sleep(60)
        assert client.end is None
        assert server.end is None
        loop.net.loss = 0
        await finish(listener, client)

    run(program, start_s=start_s)


# ---- how they move


def test_server_follows_a_client_that_is_bound_anew() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop)
        await client.send(b"from here")
        assert await server.receive() == b"from here"
        await kcp.rebind(client._endpoint, local_addr=("10.0.0.7", 7000))
        await client.send(b"from there")
        assert await server.receive() == b"from there"
        assert server.peer == ("10.0.0.7", 7000)
        await server.send(b"welcome")
        assert await client.receive() == b"welcome"
        assert listener.endpoint.counters.migrations == 1
        await finish(listener, client)

    run(program)


def test_rebind_after_the_idle_time_ends_the_session() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, _ = await pair(loop, MESSAGES.replace(idle_timeout_s=1))
        endpoint = client._endpoint
        loop.clock.now_s += 5  # as when the process was stopped: no timer has had its turn
        await kcp.rebind(endpoint)
        await client.wait_closed()
        assert client.end is not None
        assert client.end.reason == "idle_timeout"
        assert not endpoint.sessions
        await finish(listener)

    run(program)


def test_rebind_lets_what_is_in_flight_be_acknowledged_when_the_peer_has_closed() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop)
        endpoint = client._endpoint
        loop.net.judge = lambda src, dst, data: src != CLIENT
        client.send_nowait(b"in flight")
        server.close()
        await asyncio.sleep(0.05)
        assert client._session.state is SessionState.LINGERING
        await kcp.rebind(endpoint, local_addr=("10.0.0.7", 7000))
        await client.drain()
        await finish(listener)

    run(program)


def test_nothing_that_a_stranger_sends_moves_a_session() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop)
        for kind in ControlKind:
            loop.net.inject(STRANGER, SERVER, ControlPacket(kind, server.conv, 0).emit())
        head = server.conv.to_bytes(8, "little")
        for octets in (
            head + bytes(20),  # no command
            head
            + bytes([81, 0])
            + bytes(2 + 4)
            + (9999).to_bytes(4, "little")
            + bytes(8),  # beyond the window
            head
            + bytes([82, 0])
            + bytes(2 + 4)
            + (5).to_bytes(4, "little")
            + bytes(8),  # acknowledges nothing of ours
            head + bytes([81, 0]) + bytes(14) + (77).to_bytes(4, "little"),  # a length that lies
            head,
        ):
            loop.net.inject(STRANGER, SERVER, octets)
        await asyncio.sleep(1)
        assert server.peer == CLIENT
        assert listener.endpoint.counters.migrations == 0
        await client.send(b"still here")
        assert await server.receive() == b"still here"
        await finish(listener, client)

    run(program)


def test_classic_session_does_not_move() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop, CLASSIC)
        await kcp.rebind(client._endpoint, local_addr=("10.0.0.7", 7000))
        client.send_nowait(b"from there")
        await asyncio.sleep(0.1)
        assert server.peer == CLIENT
        client.abort()
        server.abort()
        await finish(listener)

    run(program)


# ---- back-pressure, cancellation, bounds


def test_peer_that_never_reads_stalls_the_sender() -> None:
    async def program(loop: NetLoop) -> None:
        settings = MESSAGES.replace(send_window=64, receive_window=128, congestion="none", dead_link=1000)
        listener, client, server = await pair(loop, settings)
        sent = 0

        async def send() -> None:
            nonlocal sent
            while True:
                await client.send(bytes(1000))
                sent += 1

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send(), 300)
        assert sent <= 128 + 128 + 2, "the receiver's window, the sender's buffer"
        assert server.info.unread == 128
        assert server.info.octets < 1 << 20
        for _ in range(sent):
            assert await server.receive() == bytes(1000)
        await client.drain()
        await finish(listener, client)

    run(program)


def test_cancelled_waits_lose_nothing() -> None:
    async def program(loop: NetLoop) -> None:
        settings = MESSAGES.replace(send_window=4, write_buffer_segments=4, congestion="none")
        listener, client, server = await pair(loop, settings)
        got: list[bytes] = []

        async def read() -> None:
            while len(got) < 300:
                try:
                    async with asyncio.timeout(loop.net.random.random() * 0.02):
                        got.append(await server.receive())
                except TimeoutError:
                    pass

        reading = asyncio.create_task(read())
        i = 0
        while i < 300:
            try:
                async with asyncio.timeout(loop.net.random.random() * 0.02):
                    await client.send(i.to_bytes(4, "big"))
                    i += 1
            except TimeoutError:
                pass
        await reading
        assert got == [i.to_bytes(4, "big") for i in range(300)]
        assert not client._readers | client._writers | server._readers | server._writers
        await finish(listener, client)

    run(program)


def test_messages_that_are_too_long_are_refused() -> None:
    async def program(loop: NetLoop) -> None:
        listener, client, server = await pair(loop)
        most = MESSAGES.message_octets
        with pytest.raises(
            ValueError, match=f"a message of {most + 1} octets is too long; at most {most} fit"
        ):
            client.send_nowait(bytes(most + 1))
        await client.send(bytes(most))
        assert await server.receive() == bytes(most)
        await client.send(b"")
        assert await server.receive() == b""
        await finish(listener, client)

    run(program)


def test_hundreds_of_sessions_share_one_timer() -> None:
    async def program(loop: NetLoop) -> None:
        settings = MESSAGES.replace(keep_alive_s=10, idle_timeout_s=30)
        listener = await kcp.listen(*SERVER, settings=settings, backlog=2000)
        endpoint = await open_endpoint(settings, local_addr=CLIENT, remote_addr=SERVER)
        sessions = []
        for _ in range(400):
            session = await endpoint.connect(SERVER)
            session.start()  # which has the server accept it, so that the address is free for the next one
            sessions.append(session)
        await asyncio.sleep(120)
        assert len(listener.endpoint.sessions) == len(endpoint.sessions) == 400
        timers = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        mine = [handle for handle in timers if "Endpoint" in repr(handle)]
        assert len(mine) == 2, "one for each endpoint"
        assert {session.conv for session in sessions} == {
            each.conv for each in listener.endpoint.sessions.values()
        }
        endpoint.close()
        listener.abort()
        await listener.wait_closed()

    run(program)


def test_totals_go_on_when_sessions_end() -> None:
    async def program(loop: NetLoop) -> None:
        listener = await kcp.listen(*SERVER, settings=MESSAGES)
        octets = 0
        for i in range(5):
            client = await kcp.connect(*SERVER, settings=MESSAGES)
            await client.send(bytes(100 + i))
            octets += 100 + i
            server = await listener.accept_connection()
            await server.receive()
            client.close()
            await client.wait_closed()
            assert listener.endpoint.totals.bytes_received == octets
        counters = listener.endpoint.counters
        assert (counters.passive_opens, counters.established, counters.most_established) == (5, 0, 1)
        assert counters.ended_by_peer == 5
        await finish(listener)

    run(program)
