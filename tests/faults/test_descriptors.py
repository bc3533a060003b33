# SPDX-License-Identifier: Apache-2.0
"""Descriptors run out: nobody who works loses any, and who dies meanwhile has a successor."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from halo_mp.control.channel import Channel, connect
from halo_mp.control.listener import Listener
from halo_mp.control.reserve import Reserve
from halo_mp.shm.identity import is_alive, own_start_ticks
from halo_mp.supervisor.hang import read_activity
from tests.proc.conftest import ADDRESSES, assert_answered, everybody
from tests.support import lives
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.limits import limited
from tests.support.namespace import Namespace, wait_until
from tests.support.pinger import Pinger

CONNECTS = 10_000
HELD = 150  # connections at a time: more than a supervisor takes in, and than its backlog has room for with those


def supervisor(instance: Instance) -> int:
    assert instance.process is not None
    return instance.process.pid


def count(process: int) -> int:
    return len(lives.descriptors(process))


def dial(instance: Instance) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.connect(str(instance.runtime / "private.sock"))  # waits for room in the backlog
    return channel


def succeed(instance: Instance, role: lives.Role, slot: int | None = None) -> None:
    victim = lives.pid(instance, role, slot)
    lives.kill(victim)
    lives.wait_for_successor(instance, role, victim, slot, timeout_s=40)


def test_supervisor_at_its_limit_starts_who_dies(pair: Instance) -> None:
    """Every descriptor is taken and a hundred strangers want one: driver and worker come back all the same."""
    process, before = supervisor(pair), count(supervisor(pair))
    ledger = Ledger(pair, 0, 1)
    with Pinger(pair.namespace, ADDRESSES[0]) as other, limited(process, "nofile", 64), ExitStack() as stack:
        other.wait_for_more()
        for _ in range(HELD):
            stack.enter_context(dial(pair))
        pair.wait_for("listener.short")
        succeed(pair, "worker", 1)
        other.wait_for_more()
        assert other.lost == set()
        for _ in range(HELD):
            stack.enter_context(dial(pair))
        succeed(pair, "driver")
        other.wait_for_more()
    assert_answered(pair.namespace, *ADDRESSES)
    assert not pair.events("worker.failed")
    assert not pair.events("driver.failed")
    wait_until(lambda: count(process) == before, what="all of their descriptors closed")
    ledger.assert_whole()
    assert pair.stop() == 0


def test_supervisor_without_a_single_one_left_starts_a_worker(pair: Instance) -> None:
    process, before = supervisor(pair), count(supervisor(pair))
    with limited(process, "nofile", max(lives.descriptors(process)) + 1):
        for slot in (0, 1):
            succeed(pair, "worker", slot)
    assert_answered(pair.namespace, *ADDRESSES)
    assert len(lives.said(pair, "worker.died")) == 2
    for event in ("state.not_saved", "reports.not_saved", "status.not_saved", "box.not_made"):
        assert not pair.events(event)
    assert count(process) == before
    assert pair.stop() == 0


def test_supervisor_stops_in_order_without_a_single_one_left(pair: Instance) -> None:
    with limited(supervisor(pair), "nofile", max(lives.descriptors(supervisor(pair))) + 1):
        pair.signal()
        assert pair.wait() == 0
    assert not pair.events("instance.stop")
    assert pair.namespace.run("ip", "-o", "link", "show", "type", "tun").stdout == ""


def test_ten_thousand_connections_leave_no_descriptor_behind(pair: Instance) -> None:
    process, before, children = supervisor(pair), count(supervisor(pair)), everybody(pair)
    with Pinger(pair.namespace) as pinger:
        pinger.wait_for_more()
        for _ in range(CONNECTS):
            dial(pair).close()
        pinger.wait_for_more()
    assert pinger.lost == set()
    wait_until(lambda: count(process) == before, what="all of their descriptors closed")
    assert everybody(pair) == children
    told = pair.events("hello.refused")
    assert len(told) < CONNECTS / 10, "a line for each would fill the log"
    assert pair.stop() == 0


@pytest.mark.parametrize("role", ["driver", "worker"])
def test_child_at_its_limit_goes_on(pair: Instance, role: lives.Role) -> None:
    """Who is up opens nothing: frames flow, slots are reset and enabled."""
    slot = 0 if role == "worker" else None
    process = lives.pid(pair, role, slot)
    held = max(lives.descriptors(process)) + 1
    with limited(process, "nofile", held), Pinger(pair.namespace) as pinger:
        pinger.wait_for_more()
        succeed(pair, "worker", 1)
        pinger.wait_for_more()
    assert pinger.lost == set()
    assert lives.pid(pair, role, slot) == process
    assert_answered(pair.namespace, ADDRESSES[1])
    assert pair.stop() == 0


def test_limit_too_low_is_said_and_what_is_said_is_enough(namespace: Namespace) -> None:
    ports = ("--ports", "0,1", "--queues", "2")
    below = ("prlimit", "--nofile=40:40")
    with Instance(namespace, *ports, wait=False, via=below) as instance:
        assert instance.wait() == 3
        found = re.search(r"(\d+) open files are needed, and a process may have 40 here", instance.text())
    assert found, instance.text()
    assert f"ulimit -n {found[1]}" in instance.text()
    enough = ("prlimit", f"--nofile={found[1]}:{found[1]}")
    with Instance(namespace, *ports, via=enough) as instance:
        succeed(instance, "driver")
        succeed(instance, "worker", 3)
        assert_answered(namespace, *ADDRESSES)
        assert instance.stop() == 0


def test_soft_limit_too_low_is_raised(namespace: Namespace) -> None:
    with Instance(namespace, via=("prlimit", "--nofile=20:4096")) as instance:
        assert_answered(namespace, ADDRESSES[0])
        assert resource.prlimit(lives.pid(instance, "driver"), resource.RLIMIT_NOFILE)[0] > 20
        assert instance.stop() == 0


@contextmanager
def none_left() -> Iterator[None]:
    """Let this process open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(lowest_free := os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_reserve_is_there_when_nothing_else_is() -> None:
    reserve = Reserve(3)
    with none_left():
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(0)
        with reserve.lent():
            kept = os.dup(0)
            assert not reserve.refill(), "what is lent is not taken back"
            with reserve.lent():
                os.close(os.dup(0))
        assert not reserve.refill(), "one is missing"
        os.close(kept)
        assert reserve.refill()
    reserve.close()
    reserve.close()


def test_listener_with_a_reserve_takes_in_whom_it_waits_for(tmp_path: Path) -> None:
    """Its clients are all of one process here, so which is wanted is a matter of turns."""

    async def scenario() -> None:
        await asyncio.to_thread(int)  # imports what it needs for that
        wanted, accepted = False, asyncio.Queue[Channel]()
        path, reserve = tmp_path / "a.sock", Reserve(2)
        listener = Listener(path, 0o600, accepted.put_nowait, reserve=reserve, is_wanted=lambda _peer: wanted)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        with none_left():
            for stranger in clients[:2]:
                stranger.connect(str(path))
                assert await asyncio.to_thread(stranger.recv, 1) == b"", "closed at once"
            wanted = True
            clients[2].connect(str(path))
            channel = await asyncio.wait_for(accepted.get(), 5)
        assert accepted.empty()
        wanted = False
        clients.append(later := await connect(path))  # type: ignore[arg-type]
        await asyncio.wait_for(accepted.get(), 5)
        for each in (later, channel, listener, reserve, *clients[:3]):
            each.close()

    asyncio.run(scenario())


def test_process_that_can_not_be_looked_at_has_the_benefit_of_the_doubt() -> None:
    gone = read_activity(0)
    with none_left():
        first, second = read_activity(os.getpid()), read_activity(os.getpid())
    assert first
    assert not first.isdisjoint(second)
    assert not gone


def test_process_that_can_not_be_looked_at_is_not_taken_for_gone() -> None:
    """Else the memory of an instance that lives would be taken for a dead one's."""
    with none_left(), pytest.raises(OSError, match="Too many open files"):
        is_alive(os.getpid(), own_start_ticks())
    assert is_alive(os.getpid(), own_start_ticks())
