# SPDX-License-Identifier: Apache-2.0
"""The listening socket: its mode, its path, and what it does when descriptors run out."""

import asyncio
import os
import resource
import socket
import stat
from pathlib import Path

import pytest

from halo_mp.control.channel import Channel, connect
from halo_mp.control.listener import Listener
from halo_mp.errors import EnvironmentProblem


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sock"


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_listen_socket_has_its_mode_whatever_the_umask(path: Path, mode: int) -> None:
    async def scenario() -> None:
        mask = os.umask(0)
        listener = Listener(path, mode, lambda channel: channel.close())
        os.umask(mask)
        assert stat.S_IMODE(os.stat(path).st_mode) == mode
        listener.close()
        listener.close()
        assert path.name not in os.listdir(path.parent)

    asyncio.run(scenario())


def test_listen_hands_out_channels_that_work(path: Path) -> None:
    async def scenario() -> None:
        accepted: asyncio.Queue[Channel] = asyncio.Queue()
        listener = Listener(path, 0o600, accepted.put_nowait)
        ends = []
        for number in range(50):
            client = await connect(path)
            server = await asyncio.wait_for(accepted.get(), 5)
            await client.send({"type": "hello", "number": number})
            assert (await server.receive())[0]["number"] == number
            assert server.peer.pid == os.getpid()
            ends += [client, server]
        listener.close()
        for end in ends:
            end.close()

    asyncio.run(scenario())


def test_listen_over_a_dead_socket_replaces_it(path: Path) -> None:
    async def scenario() -> None:
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(path))
        dead.close()
        listener = Listener(path, 0o600, lambda channel: channel.close())
        (await connect(path)).close()
        listener.close()

    asyncio.run(scenario())


def test_listen_at_a_long_path_is_a_sentence(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(EnvironmentProblem, match="too long"):
            Listener(tmp_path / ("x" * 100), 0o600, lambda channel: channel.close())

    asyncio.run(scenario())


def test_listen_in_no_directory_is_a_sentence(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(EnvironmentProblem, match="can not be listened at"):
            Listener(tmp_path / "no" / "a.sock", 0o600, lambda channel: channel.close())

    asyncio.run(scenario())


def test_listen_out_of_descriptors_pauses_and_recovers(path: Path) -> None:
    async def scenario() -> None:
        accepted: list[Channel] = []
        all_accepted = asyncio.Event()

        def on_channel(channel: Channel) -> None:
            accepted.append(channel)
            if len(accepted) == 20:
                all_accepted.set()

        listener = Listener(path, 0o600, on_channel)
        clients = []
        for _ in range(20):
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(path))
            clients.append(client)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        os.close(lowest_free := os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 4, hard))
        try:
            await asyncio.sleep(0.2)
            assert len(accepted) <= 4
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await asyncio.wait_for(all_accepted.wait(), 5)
        listener.close()
        for end in (*accepted, *clients):
            end.close()

    asyncio.run(scenario())
