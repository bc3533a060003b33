# SPDX-License-Identifier: Apache-2.0
"""Who is let in at the private socket."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from halo_mp.control.channel import Channel, ChannelClosed, ProtocolError, connect
from halo_mp.control.messages import PRIVATE_VERSION
from halo_mp.shm.identity import boot_id
from halo_mp.supervisor import greeter as greeter_module
from halo_mp.supervisor.greeter import MAX_STRANGERS, Greeter

HELLO = {"type": "hello", "role": "worker", "slot": 1, "pid": os.getpid(), "version": PRIVATE_VERSION}
HELLO["boot_id"] = boot_id()


def run(path: Path, play: Callable[[Greeter], Awaitable[None]]) -> None:
    async def scenario() -> None:
        greeter = Greeter(path)
        try:
            await asyncio.wait_for(play(greeter), 20)  # type: ignore[arg-type]
        finally:
            await greeter.close()
            await greeter.close()

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(scenario())
    assert len(os.listdir("/proc/self/fd")) == before
    assert not path.exists()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "private.sock"


async def closed(channel: Channel) -> None:
    with pytest.raises(ChannelClosed):
        await channel.receive()
    channel.close()


def test_child_that_is_expected_is_let_in(path: Path) -> None:
    async def play(greeter: Greeter) -> None:
        expected = greeter.expect(os.getpid(), "worker", 1)
        client = await connect(path)
        await client.send(HELLO, [0, 1])
        channel = await expected
        await channel.send({"type": "configure"})
        assert (await client.receive())[0] == {"type": "configure"}
        greeter.forget(os.getpid())
        client.close()

    run(path, play)


@pytest.mark.parametrize(
    "change",
    [
        {"version": PRIVATE_VERSION + 1},
        {"version": True},
        {"boot_id": bytes(16)},
        {"boot_id": None},
        {"slot": 2},
        {"slot": None},
        {"role": "driver"},
        {"pid": 1},
        {"type": "ready"},
    ],
)
def test_child_that_greets_wrongly_is_closed_and_its_keeper_told(
    path: Path, change: dict[str, object]
) -> None:
    async def play(greeter: Greeter) -> None:
        expected = greeter.expect(os.getpid(), "worker", 1)
        client = await connect(path)
        await client.send(HELLO | change)
        await closed(client)
        greeter.forget(os.getpid())
        with pytest.raises((ProtocolError, asyncio.CancelledError)):
            await expected

    run(path, play)


def test_process_that_nobody_expects_is_closed(path: Path) -> None:
    async def play(greeter: Greeter) -> None:
        expected = greeter.expect(os.getpid() + 1, "worker", 1)
        client = await connect(path)
        await client.send(HELLO)
        await closed(client)
        assert not expected.done()

    run(path, play)


def test_child_that_greets_twice_has_one_channel(path: Path) -> None:
    async def play(greeter: Greeter) -> None:
        expected = greeter.expect(os.getpid(), "worker", 1)
        first, second = await connect(path), await connect(path)
        await first.send(HELLO)
        channel = await expected
        await second.send(HELLO)
        await closed(second)
        assert not channel.closed
        channel.close()
        first.close()

    run(path, play)


def test_child_that_died_before_its_channel_was_taken_leaves_none(path: Path) -> None:
    async def play(greeter: Greeter) -> None:
        expected = greeter.expect(os.getpid(), "worker", 1)
        client = await connect(path)
        await client.send(HELLO)
        await asyncio.wait([expected])
        greeter.forget(os.getpid())
        await closed(client)

    run(path, play)


def test_silent_stranger_is_closed_in_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeter_module, "HELLO_TIMEOUT_S", 0.1)

    async def play(greeter: Greeter) -> None:
        await closed(await connect(path))

    run(path, play)


def test_crowd_of_strangers_is_bounded_and_a_child_gets_in_behind_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greeter_module, "HELLO_TIMEOUT_S", 0.3)

    async def play(greeter: Greeter) -> None:
        expected = greeter.expect(os.getpid(), "worker", 1)
        crowd = [await connect(path) for _ in range(MAX_STRANGERS + 10)]
        for stranger in crowd:
            await closed(stranger)
        client = await connect(path)
        await client.send(HELLO)
        (await expected).close()
        client.close()

    run(path, play)


def test_other_user_may_not_even_connect(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")

    async def play(greeter: Greeter) -> None:
        path.parent.chmod(0o711)
        script = "import os, socket, sys; os.setuid(65534); socket.socket(1).connect(sys.argv[1])"
        tried = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(path), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        _, text = await tried.communicate()
        assert b"PermissionError" in text

    run(path, play)
