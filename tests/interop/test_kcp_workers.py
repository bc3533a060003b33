# SPDX-License-Identifier: Apache-2.0
"""KCP in workers, on the stack of halo: with each other across two ports, with kernel sockets behind them, and when a
worker dies.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, wait_until
from tests.support.remote import REMOTE, Remote

ROOT = Path(__file__).resolve().parents[2]
SERVE = """
    from halo_mp import kcp
    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
    kept["server"] = await kcp.start_server(echo, "10.77.0.1", 4000)
    return kept["server"].endpoint.carrier.transport.get_extra_info("halo")
"""
CLIENT = """
    import random
    from halo_mp import kcp
    reader, writer = await kcp.open_connection({host!r}, {port})
    sent = random.Random(1).randbytes({count})
    async def write():
        for at in range(0, len(sent), 10000):
            writer.write(sent[at : at + 10000])
            await writer.drain()
    writing = asyncio.ensure_future(write())
    got = await reader.readexactly(len(sent))
    await writing
    found = [got == sent, writer.get_extra_info("halo"), writer.get_extra_info("kcp").counters.bytes_received]
    writer.close()
    await writer.wait_closed()
    return found
"""
ENDED = "the session has ended: "
REASONS = (
    "the peer has ended the session: not_found_session",  # its successor is asked
    "nobody has the peer's address and port",  # not yet
    "nothing was heard of the peer for 5 s",
)
STOP = """
    kept["server"].abort()
    await kept.pop("server").wait_closed()
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """Two ports with a worker for each, and one kernel behind both."""
    with Namespace() as namespace:
        namespace.silence()
        with Instance(namespace, "--ports", "0,1", "--app", REMOTE) as instance:
            ledger = Ledger(instance, 0, 1)
            yield instance
            ledger.assert_balanced()
            assert not instance.events("protocol.error")
            assert not instance.events("worker.died")
            assert instance.stop() == 0


@pytest.fixture
def remotes(running: Instance) -> Iterator[tuple[Remote, Remote]]:
    with Remote(running.namespace, 0) as first, Remote(running.namespace, 1) as second:
        yield first, second


def test_two_workers_across_two_ports(remotes: tuple[Remote, Remote]) -> None:
    assert remotes[0].run(SERVE) is True
    assert remotes[1].run(CLIENT.format(host="10.77.0.1", port=4000, count=300_000)) == [True, True, 300_000]
    remotes[0].run(STOP)


def test_bursts_that_are_longer_than_buffers_are_there(remotes: tuple[Remote, Remote]) -> None:
    """A window of 4,096 is more than the 512 spare buffers of a worker: the rest waits, and nothing is lost."""
    remotes[0].run(
        """
        import hashlib
        from halo_mp import kcp
        async def digest(reader, writer):
            found = hashlib.sha256()
            left = 8_000_000
            while left:
                data = await reader.read(65536)
                found.update(data)
                left -= len(data)
            writer.write(found.digest())
            writer.close()
        settings = kcp.Settings(congestion="none", send_window=4096, receive_window=4096)
        kept["server"] = await kcp.start_server(digest, "10.77.0.1", 4000, settings=settings)
        """
    )
    found = remotes[1].run(
        """
        import hashlib, random
        from halo_mp import kcp
        settings = kcp.Settings(congestion="none", send_window=4096, receive_window=4096)
        reader, writer = await kcp.open_connection("10.77.0.1", 4000, settings=settings)
        sent = random.Random(1).randbytes(8_000_000)
        for at in range(0, len(sent), 100_000):
            writer.write(sent[at : at + 100_000])
            await writer.drain()
        digest = await reader.readexactly(32)
        carrier = writer.get_extra_info("kcp_endpoint").carrier
        writer.close()
        await writer.wait_closed()
        return [digest == hashlib.sha256(sent).digest(), carrier.counters["waits"], carrier.counters["bursts"]]
        """
    )
    assert found[0]
    assert min(found[1:]) > 0
    received = remotes[0].run("return kept['server'].endpoint.carrier.counters")
    assert received["received"] > 5000
    assert received["bursts"] < received["received"]
    remotes[0].run(STOP)


def test_client_and_server_in_one_worker(remotes: tuple[Remote, Remote]) -> None:
    assert remotes[0].run(SERVE) is True
    assert remotes[0].run(CLIENT.format(host="10.77.0.1", port=4000, count=300_000)) == [True, True, 300_000]
    remotes[0].run(STOP)


def test_kernel_client_of_a_worker(running: Instance, remotes: tuple[Remote, Remote]) -> None:
    assert remotes[0].run(SERVE) is True
    lines = b"".join(b"line %d\n" % number for number in range(500))
    words = running.namespace.inside((sys.executable, str(ROOT / "examples/kcp_client.py"), "10.77.0.1"))
    done = subprocess.run(words, input=lines, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, lines), done.stderr
    assert b"datagrams out" in done.stderr
    remotes[0].run(STOP)


def test_worker_is_a_client_of_a_kernel_socket(running: Instance, remotes: tuple[Remote, Remote]) -> None:
    words = ("tests.support.kcp_ends", "ours", "receive", "10.77.0.2", "4000", "300000", "{}")
    with running.namespace.popen(sys.executable, "-m", *words, stdout=subprocess.PIPE) as receiving:
        assert receiving.stdout is not None
        assert receiving.stdout.readline() == b"bound\n"
        digest = remotes[1].run(
            """
            from halo_mp import kcp
            async with await kcp.connect("10.77.0.2", 4000) as connection:
                for _ in range(300):
                    await connection.send(bytes(1000))
                return (await connection.receive()).hex()
            """
        )
        assert receiving.wait(timeout=30) == 0
    assert digest == hashlib.sha256(bytes(300_000)).hexdigest()


def test_show_kcp_tells_of_both_workers(running: Instance, remotes: tuple[Remote, Remote]) -> None:
    words = (sys.executable, "-m", "halo_mp.cli", "show", "kcp", "--name", running.name)
    assert remotes[0].run(SERVE) is True
    opened = """
        from halo_mp import kcp
        kept["client"] = await kcp.connect("10.77.0.1", 4000, settings=kcp.Settings())
        await kept["client"].send(b"12345")
        return (await kept["client"].receive()).decode()
    """
    assert remotes[1].run(opened) == "12345"
    found = json.loads(subprocess.run([*words, "--json"], capture_output=True, text=True, check=True).stdout)
    [server], [client] = found["0"]["endpoints"], found["1"]["endpoints"]
    assert (server["role"], server["address"], server["stack"]) == ("server", ["10.77.0.1", 4000], "halo")
    assert server["totals"]["bytes_received"] >= 5
    assert (client["role"], client["sessions"]) == ("client", 1)
    [session] = found["1"]["sessions"]
    assert (session["peer"], session["state"]) == (["10.77.0.1", 4000], "open")
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert f"{session['conv']:#x}" in text
    assert text.splitlines()[0].split()[:3] == ["worker", "address", "stack"]
    remotes[1].run("kept['client'].close()\nawait kept.pop('client').wait_closed()")
    remotes[0].run(STOP)


def test_closed_port_of_a_worker_is_told_at_once(remotes: tuple[Remote, Remote]) -> None:
    ended = remotes[1].run(
        """
        from halo_mp import kcp
        try:
            await kcp.connect("10.77.0.2", 4999)
        except ConnectionRefusedError as error:
            return str(error)
        """
    )
    assert "nobody has the peer's address and port" in str(ended)


def test_two_workers_survive_the_death_of_either() -> None:
    example = (sys.executable, str(ROOT / "examples/kcp_echo.py"))
    with Namespace() as namespace, Instance(namespace, "--ports", "0,1", program=example) as running:

        def said(text: str) -> int:
            return sum(text in entry["message"] for entry in running.events("log"))

        def heard(text: str, count: int) -> None:
            wait_until(
                lambda: said(text) >= count, what=f"{text!r} {count} times in\n{running.text()}", timeout_s=30
            )

        def kill(slot: int) -> None:
            pids = [each["pid"] for each in running.events("worker.spawned") if each["slot"] == slot]
            os.kill(pids[-1], signal.SIGKILL)

        def ended() -> list[str]:
            """For which reasons the client's sessions have ended."""
            entries = (entry["message"] for entry in running.events("log"))
            return [each.partition(ENDED)[2] for each in entries if ENDED in each]

        def server() -> dict[str, int]:
            words = (sys.executable, "-m", "halo_mp.cli", "show", "kcp", "--name", running.name, "--json")
            report = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)["0"]
            return report["endpoints"][0]["counters"] if report else {}

        heard("hello 1 came back", 1)
        before = len(ended())
        kill(0)
        wait_until(lambda: len(ended()) > before, what="the client's session to end", timeout_s=30)
        assert ended()[before].startswith(REASONS)
        heard("hello 0 came back", 2)
        assert server()["passive_opens"] == 1, "the successor knows nothing of the session before"
        kill(1)
        heard("hello 0 came back", 3)
        wait_until(
            lambda: sum(server().get(f"ended_{why}", 0) for why in ("idle", "refused", "by_peer")) == 1,
            what="the server's session with the client that died to end",
            timeout_s=30,
        )
        assert server()["established"] == 1
        assert not running.events("protocol.error")
        assert running.stop() == 0
