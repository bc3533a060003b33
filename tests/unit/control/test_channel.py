# SPDX-License-Identifier: Apache-2.0
"""Channels over real sockets: messages, descriptors, requests, and peers that misbehave."""

import array
import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from halo_mp.control import channel as channel_module
from halo_mp.control import frame
from halo_mp.control.channel import (
    Channel,
    ChannelClosed,
    ProtocolError,
    RequestFailed,
    connect,
)
from halo_mp.control.frame import MAX_FDS, MAX_FRAME_OCTETS, Message
from halo_mp.control.inbox import close_all

TIMEOUT_S = 20.0


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), TIMEOUT_S))  # type: ignore[arg-type]


def pair(**options: float) -> tuple[Channel, Channel]:
    first, second = socket.socketpair()
    return Channel(first), Channel(second, **options)


def raw(**options: float) -> tuple[socket.socket, Channel]:
    """A peer that speaks octets, and our end."""
    first, second = socket.socketpair()
    return first, Channel(second, **options)


def fd_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def same_file(first: int, second: int) -> bool:
    return os.path.samestat(os.fstat(first), os.fstat(second))


def test_message_and_descriptors_arrive_together() -> None:
    async def scenario() -> None:
        one, two = pair()
        fds = [os.eventfd(0), os.memfd_create("x")]
        await one.send({"type": "plain"})
        await one.send({"type": "loaded", "v": [1, b"\0", None]}, fds)
        assert await two.receive() == ({"type": "plain"}, [])
        message, received = await two.receive()
        assert message == {"type": "loaded", "v": [1, b"\0", None]}
        assert all(same_file(*both) for both in zip(fds, received, strict=True))
        assert all(not os.get_inheritable(fd) for fd in received)
        close_all(fds)
        close_all(received)
        one.close()
        two.close()

    run(scenario)


def test_descriptors_as_many_as_allowed_arrive_in_order() -> None:
    async def scenario() -> None:
        one, two = pair()
        fds = [os.memfd_create(str(number)) for number in range(MAX_FDS)]
        await one.send({"type": "x"}, fds)
        received = (await two.receive())[1]
        assert all(same_file(*both) for both in zip(fds, received, strict=True))
        with pytest.raises(ValueError, match="193 descriptors"):
            await one.send({"type": "x"}, [0] * (MAX_FDS + 1))
        close_all(fds)
        close_all(received)
        one.close()
        two.close()

    run(scenario)


def test_longest_message_arrives_and_longer_is_not_sent() -> None:
    async def scenario() -> None:
        one, two = pair()
        most = MAX_FRAME_OCTETS - len(frame.emit({"type": "x", "v": bytes(60000)})) + 4 + 60000
        sending = asyncio.create_task(one.send({"type": "x", "v": bytes(most)}))
        assert len((await two.receive())[0]["v"]) == most
        await sending
        with pytest.raises(ValueError, match="more than 65536"):
            await one.send({"type": "x", "v": bytes(most + 1)})
        one.close()
        two.close()

    run(scenario)


def test_many_senders_at_once_never_mix_their_frames() -> None:
    async def scenario() -> None:
        one, two = pair()
        fd = os.eventfd(0)

        async def send(number: int) -> None:
            await one.send({"type": "x", "v": bytes([number]) * 30_000}, [fd] if number % 2 else [])

        sending = [asyncio.create_task(send(number)) for number in range(24)]
        seen = set()
        for _ in range(24):
            message, fds = await two.receive()
            (value,) = set(message["v"])
            assert len(fds) == value % 2
            seen.add(value)
            close_all(fds)
        await asyncio.gather(*sending)
        assert seen == set(range(24))
        os.close(fd)
        one.close()
        two.close()

    run(scenario)


def test_send_cancelled_leaves_the_stream_whole() -> None:
    async def scenario() -> None:
        one, two = pair()
        fd = os.memfd_create("mine")
        tasks = [asyncio.create_task(one.send({"type": "x", "v": bytes(60_000)}, [fd])) for _ in range(10)]
        await asyncio.sleep(0.05)
        blocked = [task for task in tasks if not task.done()]
        assert blocked
        for task in blocked:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        os.close(fd)  # the caller's right; what is queued has its own
        for _ in range(10):
            message, fds = await two.receive()
            assert len(message["v"]) == 60_000
            assert len(fds) == 1
            close_all(fds)
        one.close()
        two.close()

    run(scenario)


def test_peer_that_does_not_read_is_given_up() -> None:
    async def scenario() -> None:
        one, two = pair()
        results = await asyncio.wait_for(
            asyncio.gather(
                *(one.send({"type": "x", "v": bytes(60_000)}) for _ in range(40)), return_exceptions=True
            ),
            5.0,
        )
        assert any("does not read" in str(result) for result in results if result is not None)
        assert one.closed
        two.close()

    run(scenario)


def test_request_gets_its_own_reply() -> None:
    async def scenario() -> None:
        one, two = pair()

        async def answer(message: Message, fds: list[int]) -> None:
            if message["v"] % 2:
                await two.refuse(message, f"{message['v']} is odd")
            else:
                await two.reply(message, half=message["v"] // 2)

        serving = [asyncio.create_task(two.serve(answer)), asyncio.create_task(one.serve(answer))]
        results = await asyncio.gather(
            *(one.request({"type": "half", "v": v}) for v in range(50)), return_exceptions=True
        )
        for v, result in enumerate(results):
            if v % 2:
                assert isinstance(result, RequestFailed)
                assert str(result) == f"{v} is odd"
            else:
                assert isinstance(result, dict)
                assert result["half"] == v // 2
        one.close()
        await asyncio.gather(*serving)

    run(scenario)


def test_request_late_reply_is_nobodys() -> None:
    async def scenario() -> None:
        one, two = pair()
        asked: list[Message] = []

        async def remember(message: Message, fds: list[int]) -> None:
            asked.append(message)

        serving = [asyncio.create_task(two.serve(remember)), asyncio.create_task(one.serve(remember))]
        with pytest.raises(TimeoutError):
            await one.request({"type": "x"}, timeout_s=0.05)
        await two.reply(asked[0])
        await two.send({"type": "reply", "id": "no number", "ok": True})
        await two.send({"type": "after"})
        await asyncio.sleep(0.05)
        assert [message["type"] for message in asked] == ["x", "after"]
        one.close()
        await asyncio.gather(*serving)

    run(scenario)


@pytest.mark.parametrize("by_peer", [True, False])
def test_close_wakes_everybody_who_waits(by_peer: bool) -> None:
    async def scenario() -> None:
        one, two = pair()
        waiting = [asyncio.create_task(one.request({"type": "x"})) for _ in range(3)]
        receiving = asyncio.create_task(one.receive())
        await asyncio.sleep(0.05)
        (two if by_peer else one).close()
        for result in await asyncio.gather(receiving, *waiting, return_exceptions=True):
            assert isinstance(result, ChannelClosed)
        with pytest.raises(ChannelClosed):
            await one.send({"type": "x"})
        with pytest.raises(ChannelClosed):
            await one.receive()
        one.close()
        two.close()

    run(scenario)


def test_last_words_are_read_after_a_send_has_failed() -> None:
    async def scenario() -> None:
        one, two = pair()
        await two.send({"type": "failed", "error": "why"})
        two.close()
        with pytest.raises(ChannelClosed):
            await one.send({"type": "too late"})
        assert await one.receive() == ({"type": "failed", "error": "why"}, [])
        with pytest.raises(ChannelClosed):
            await one.receive()

    run(scenario)


def test_peer_is_who_the_kernel_says() -> None:
    async def scenario() -> None:
        one, two = pair()
        assert (one.peer.pid, one.peer.uid, one.peer.gid) == (os.getpid(), os.getuid(), os.getgid())
        one.close()
        two.close()

    run(scenario)


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
        pytest.param(bytes(4), id="length 0"),
        pytest.param((MAX_FRAME_OCTETS + 1).to_bytes(4, "big"), id="oversized"),
        pytest.param(b"\xff\xff\xff\xff", id="4 GiB"),
        pytest.param((2).to_bytes(4, "big") + b"\xc1\xc1", id="no msgpack"),
        pytest.param((1).to_bytes(4, "big") + b"\x80", id="no type"),
        pytest.param(
            (2011).to_bytes(4, "big") + b"\x82\xa4type\xa1x\xa1v" + b"\x91" * 2001, id="2,000 levels"
        ),
        pytest.param(frame.emit({"type": "x", "fds": 1}), id="descriptor that did not come"),
    ],
)
def test_bad_frame_closes_that_channel_and_no_other(octets: bytes) -> None:
    async def scenario() -> None:
        peer, ours = raw()
        good, other = pair()
        peer.sendall(octets)
        with pytest.raises(ProtocolError):
            await ours.receive()
        assert ours.closed
        assert peer.recv(1) == b""
        await good.send({"type": "still here"})
        assert (await other.receive())[0] == {"type": "still here"}
        for end in (peer, good, other):
            end.close()

    run(scenario)


@pytest.mark.parametrize("length", range(0, 40, 3))
def test_truncated_then_closed_is_closed(length: int) -> None:
    async def scenario() -> None:
        peer, ours = raw()
        peer.sendall(frame.emit({"type": "x", "v": bytes(40)})[:length])
        peer.close()
        with pytest.raises(ChannelClosed):
            await ours.receive()

    run(scenario)


def test_half_a_message_then_silence_is_closed_in_time() -> None:
    async def scenario() -> None:
        peer, ours = raw(frame_timeout_s=0.1)
        whole = frame.emit({"type": "x"})
        peer.sendall(whole + whole[:-1])
        assert (await ours.receive())[0] == {"type": "x"}
        with pytest.raises(ProtocolError, match=r"not the rest for 0\.1 s"):
            await ours.receive()
        peer.close()

    run(scenario)


def test_message_in_drops_is_closed_in_time() -> None:
    async def scenario() -> None:
        peer, ours = raw(frame_timeout_s=0.2)
        octets = frame.emit({"type": "x", "v": bytes(100)})

        async def drip() -> None:
            for octet in octets:
                peer.send(bytes([octet]))
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        with pytest.raises(ProtocolError, match="not the rest"):
            await ours.receive()
        await asyncio.gather(dripping, return_exceptions=True)
        peer.close()

    run(scenario)


def test_silence_between_messages_is_allowed() -> None:
    async def scenario() -> None:
        peer, ours = raw(frame_timeout_s=0.05)
        receiving = asyncio.create_task(ours.receive())
        await asyncio.sleep(0.2)
        peer.sendall(frame.emit({"type": "x"}))
        assert (await receiving)[0] == {"type": "x"}
        peer.close()
        ours.close()

    run(scenario)


def test_descriptors_undeclared_are_closed() -> None:
    async def scenario() -> None:
        peer, ours = raw()
        before = fd_count()
        fd = os.eventfd(0)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd] * 20))]
        peer.sendmsg([frame.emit({"type": "x"})], rights)
        peer.sendmsg([frame.emit({"type": "y", "fds": 1})], rights)
        assert (await ours.receive()) == ({"type": "x"}, [])
        fds = (await ours.receive())[1]
        assert len(fds) == 1
        close_all(fds)
        os.close(fd)
        assert fd_count() == before
        peer.close()
        ours.close()

    run(scenario)


def test_descriptors_of_a_frame_that_never_ends_are_closed() -> None:
    async def scenario() -> None:
        peer, ours = raw()
        before = fd_count()
        fd = os.eventfd(0)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd] * 50))]
        peer.sendmsg([MAX_FRAME_OCTETS.to_bytes(4, "big")], rights)
        for _ in range(10):
            try:
                peer.sendmsg([b"\x82"], rights)
            except BrokenPipeError:
                break
        with pytest.raises(ProtocolError, match="more than 192 descriptors"):
            await ours.receive()
        os.close(fd)
        assert fd_count() == before - 1  # our end
        peer.close()

    run(scenario)


def test_ten_thousand_messages_with_descriptors_leave_none() -> None:
    async def scenario() -> None:
        one, two = pair()
        before = fd_count()
        fds = [os.eventfd(0), os.eventfd(0)]
        for number in range(10_000):
            await one.send({"type": "configure", "number": number}, fds)
            message, received = await two.receive()
            assert message["number"] == number
            close_all(received)
        close_all(fds)
        assert fd_count() == before
        one.close()
        two.close()

    run(scenario)


def test_ten_thousand_bad_peers_leave_no_descriptor() -> None:
    async def scenario() -> None:
        before = fd_count()
        fd = os.eventfd(0)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        for number in range(10_000):
            peer, ours = raw()
            peer.sendmsg([number.to_bytes(8, "little")], rights)
            peer.close()
            with pytest.raises((ProtocolError, ChannelClosed)):
                await ours.receive()
            ours.close()
        os.close(fd)
        assert fd_count() == before

    run(scenario)


def test_flood_of_messages_leaves_the_loop_to_others() -> None:
    async def scenario() -> None:
        one, two = pair()

        async def ignore(message: Message, fds: list[int]) -> None:
            pass

        async def flood() -> None:
            while True:
                await one.send({"type": "x", "v": bytes(1000)})

        tasks = [asyncio.create_task(two.serve(ignore)), asyncio.create_task(flood())]
        turns = 0
        deadline = asyncio.get_running_loop().time() + 0.3
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0)
            turns += 1
        assert turns > 20
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        one.close()
        two.close()

    run(scenario)


def test_two_receivers_are_a_mistake_that_is_told() -> None:
    async def scenario() -> None:
        one, two = pair()
        first = asyncio.create_task(one.receive())
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="two tasks"):
            await one.receive()
        await two.send({"type": "x"})
        assert (await first)[0] == {"type": "x"}
        one.close()
        two.close()

    run(scenario)


def test_connect_nobody_there_says_so(tmp_path: "os.PathLike[str]") -> None:
    async def scenario() -> None:
        path = channel_module.Path(tmp_path) / "nothing.sock"
        with pytest.raises(ChannelClosed, match="nobody answers"):
            await connect(path)

    run(scenario)
