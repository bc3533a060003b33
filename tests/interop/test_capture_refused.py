# SPDX-License-Identifier: Apache-2.0
"""A worker that has no memory for a capture: who captures is told, and the other workers go on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from halo_mp.capture.session import Session
from halo_mp.control.capture_client import AsyncCaptureClient, CaptureClient
from halo_mp.control.client import RefusedError
from halo_mp.control.public import socket_path
from tests.support import lives
from tests.support.instance import Instance
from tests.support.limits import limited
from tests.support.namespace import Namespace

HALO = (sys.executable, "-m", "halo_mp.cli")
ROOM, RING = 16 << 20, 64 << 20
"""What a worker may still map, and the ring that it is asked for."""
REASON = "a capture's memory is refused: Cannot allocate memory."


@contextmanager
def running_pair() -> Iterator[Instance]:
    with Namespace() as namespace:
        namespace.silence()
        with Instance(namespace, "--ports", "0,1") as instance:
            yield instance
            assert instance.stop() == 0


@pytest.fixture(scope="module")
def pair() -> Iterator[Instance]:
    with running_pair() as instance:
        yield instance


@contextmanager
def short_of_memory(pair: Instance, *slots: int) -> Iterator[None]:
    with ExitStack() as stack:
        for slot in slots:
            pid = lives.pid(pair, "worker", slot)
            stack.enter_context(limited(pid, "as", psutil.Process(pid).memory_info().vms + ROOM))
        yield


def begun(pair: Instance, *words: str) -> subprocess.Popen[bytes]:
    """Return a command that says on standard error what it has begun, and that captures both workers' echoes."""
    command = (*HALO, words[0], "--name", pair.name, *words[1:])
    return pair.namespace.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_capture_goes_on_with_the_others_and_says_so(pair: Instance, tmp_path: Path) -> None:
    path = tmp_path / "one.pcapng"
    with short_of_memory(pair, 1):
        process = begun(pair, "capture", "--buffer", "64", "-w", str(path), "--point", "rx", "icmp")
        assert process.stderr is not None
        first = process.stderr.readline().decode()
        assert process.stderr.readline().startswith(b"capturing"), first
    pair.namespace.pinged("10.77.0.1", count=2)
    pair.namespace.pinged("10.77.1.1", count=2)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 0
    assert first == f"worker 1 copies nothing: {REASON} The others go on.\n"
    assert told.decode().endswith(f"nothing is here of worker 1: {REASON}\n")
    assert f"nothing is here of worker 1: {REASON}".encode() in path.read_bytes()  # a comment at its end
    found = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-T", "fields", "-e", "ip.dst"], capture_output=True, check=True
    )
    assert set(found.stdout.decode().split()) == {"10.77.0.1"}


def test_trace_says_so_in_its_last_object(pair: Instance) -> None:
    client = CaptureClient(path=socket_path(pair.name))
    # The ring of a trace has 4 MiB: less room than that.
    with client, ExitStack() as stack:
        pid = lives.pid(pair, "worker", 0)
        stack.enter_context(limited(pid, "as", psutil.Process(pid).memory_info().vms + (1 << 20)))
        process = begun(pair, "trace", "--json", "-c", "1", "icmp")
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"worker 0 copies nothing: ")
        assert process.stderr.readline().startswith(b"tracing")
        stack.close()
        pair.namespace.pinged("10.77.1.1", count=1)
        out, told = process.communicate(timeout=30)
    assert process.returncode == 0, told
    packet, end = map(json.loads, out.splitlines())
    assert packet["slot"] == 1
    assert end == {"end": {"packets": 1, "lost": 0, "refused": {"0": REASON}}}


def test_all_workers_refuse_and_so_does_the_capture(pair: Instance) -> None:
    with short_of_memory(pair, 0, 1):
        done = pair.namespace.run(*HALO, "capture", "--name", pair.name, "--buffer", "64", check=False)
        with (
            CaptureClient(path=socket_path(pair.name)) as client,
            pytest.raises(RefusedError, match="no worker can begin"),
        ):
            client.capture(octets=RING)
    assert done.returncode == 1, done
    assert (
        f"no worker can begin, so nothing is captured. worker 0: {REASON} worker 1: {REASON}" in done.stderr
    )
    assert "--buffer" in done.stderr
    with CaptureClient(path=socket_path(pair.name)) as client:  # four may run: none of those is left
        found = [client.capture(octets=1 << 20) for _ in range(4)]
        for each in found:
            for fd in each.rings.values():
                os.close(fd)


def test_worker_that_is_replaced_is_asked_anew() -> None:
    async def play(pair: Instance) -> None:
        async with AsyncCaptureClient(path=socket_path(pair.name)) as client:
            with short_of_memory(pair, 1):
                info = await client.capture(points=["rx"], octets=RING)
            with Session(client, info) as session:
                assert info.refused == await client.refused(info.number) == {1: REASON}
                before = len(pair.events("worker.ready"))
                os.kill(lives.pid(pair, "worker", 1), signal.SIGKILL)
                pair.wait_for("worker.ready", count=before + 1)
                while await client.refused(info.number):  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.01)
                pair.namespace.pinged("10.77.1.1", count=1)
                async for batch in session.follow():
                    if any(slot == 1 for slot, _ in batch):
                        break
            with pytest.raises(RefusedError, match=r"no capture 99 runs"):
                await client.refused(99)

    with running_pair() as instance:
        asyncio.run(asyncio.wait_for(play(instance), 60))
