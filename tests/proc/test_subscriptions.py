# SPDX-License-Identifier: Apache-2.0
"""Being told: what happens in an instance reaches who subscribed, and who does not listen holds up nobody."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import msgpack
import pytest

from halo_mp.control import frame
from halo_mp.control.client import AsyncClient, Client, Notice, NotReachableError, RefusedError
from halo_mp.control.public import InterfaceInfo
from halo_mp.supervisor.checks_privileges import in_first_user_namespace
from tests.proc.conftest import kill_supervisor, start_again
from tests.support import lives
from tests.support.flows import Listener, gather, send_paced, sender
from tests.support.instance import Instance
from tests.support.namespace import Namespace, wait_until
from tests.support.network import Network
from tests.support.pinger import Pinger

SUBSCRIBERS = 50
PATIENCE_S = 30.0
CHANGES = 5000
RATE = 1000
STREAM_PPS = 2000
STREAM = 10_000
PORT = 7000


def path_of(instance: Instance) -> Path:
    return instance.runtime / "control.sock"


def client_of(instance: Instance) -> Client:
    return Client(path=path_of(instance), timeout_s=30.0)


def until(notices: Iterator[Notice], wanted: Callable[[Notice], bool]) -> list[Notice]:
    """Return what comes, up to the notice that is wanted."""
    found = []
    for notice in notices:
        found.append(notice)
        if wanted(notice):
            return found
    raise AssertionError(f"nothing more came after {str(found)[-1000:]}")


def prefixes(notices: list[Notice]) -> dict[str, tuple[str, ...]]:
    return {each.prefix: each.hops for notice in notices for each in notice.changed}  # type: ignore[union-attr]


def test_what_is_changed_is_told(pair: Instance) -> None:
    with client_of(pair) as told, client_of(pair) as client:
        for topic in ("neighbors", "interfaces", "routes"):
            told.subscribe(topic)
        client.routes.add_all([(f"20.0.{i}.0/24", "10.77.0.2") for i in range(200)])
        client.routes.delete("20.0.7.0/24")
        client.addresses.add("0.7", "10.99.1.1/24")
        client.neighbors.add("0", "10.77.0.9", "02:00:00:00:00:09")
        assert told.show().name == pair.name, "calls may be made in between"
        client.neighbors.delete("0", "10.77.0.9")
        client.interfaces.set("0.7", mtu=1400)
        client.addresses.delete("0.7", "10.99.1.1/24")
        found = until(
            told.notices(PATIENCE_S),
            lambda notice: any(getattr(each, "addresses", None) == () for each in notice.changed),
        )
        [vlan] = [each for notice in found for each in notice.changed if isinstance(each, InterfaceInfo)][-1:]
        assert (vlan.name, vlan.mtu) == ("0.7", 1400)
        found += told.notices(0.3)
        routes = [notice for notice in found if notice.topic == "routes"]
        assert prefixes(routes)["20.0.8.0/24"] == ("10.77.0.2@0",)
        assert "20.0.7.0/24" in {gone for notice in routes for gone in notice.gone}
        neighbors = [notice for notice in found if notice.topic == "neighbors"]
        assert "10.77.0.9@0" in {gone for notice in neighbors for gone in notice.gone}
        listed = {each.prefix for each in client.routes.list()}
        assert {f"20.0.{i}.0/24" for i in range(200)} - {"20.0.7.0/24"} <= listed
        for topic in ("neighbors", "interfaces", "routes"):
            told.unsubscribe(topic)
        client.routes.delete("20.0.8.0/24")
        assert list(told.notices(0.3)) == []
        for topic, settings, sentence in (
            ("weather", {}, "there is no topic 'weather'; there are events, "),
            ("events", {"level": "loud"}, "there is no level 'loud'; there are debug, "),
            ("events", {"period_s": 1.0}, "only statistics have a period"),
            ("routes", {"level": "info"}, "only events have a level"),
            ("statistics", {"period_s": 0.05}, "a period of 50 ms can not be had"),
        ):
            with pytest.raises(RefusedError, match=sentence):
                told.subscribe(topic, **settings)  # type: ignore[arg-type]


def test_learned_neighbor_and_death_of_a_worker_are_told(pair: Instance) -> None:
    with client_of(pair) as told, client_of(pair) as client:
        client.neighbors.flush()
        told.subscribe("neighbors")
        told.subscribe("events", level="info")
        client.ping("10.77.0.2", count=1)
        until(
            told.notices(PATIENCE_S),
            lambda notice: any(getattr(each, "address", "") == "10.77.0.2" for each in notice.changed),
        )
        victim = lives.pid(pair, "worker", 0)
        lives.kill(victim)
        found = until(
            told.notices(PATIENCE_S), lambda notice: any(e.event == "worker.ready" for e in notice.events)
        )
        [died] = [e for notice in found for e in notice.events if e.event == "worker.died"]
        assert (died.level, died.fields["pid"], died.fields["slot"]) == ("warning", victim, 0)


def test_statistics_come_each_period_with_what_was_counted(pair: Instance) -> None:
    async def play() -> None:
        async with AsyncClient(path=path_of(pair), timeout_s=30.0) as client:
            await client.subscribe("statistics", period_s=0.1)
            found = []
            async for notice in client.notices(PATIENCE_S):
                assert notice.statistics is not None
                found.append(notice.statistics)
                if len(found) == 5:
                    break
            assert [each.name for each in await client.interfaces.list()] == ["0", "1"], "a call meanwhile"
            assert sorted(each.monotonic for each in found) == [each.monotonic for each in found]
            assert [port.state for port in found[-1].ports] == ["started", "started"]
            assert [slot.worker_pid for slot in found[-1].slots] == lives.pids(pair, "worker")
            assert [each.name for each in found[-1].interfaces] == ["0", "1"]
            assert found[-1].ports[0].tx_frames > 0

    asyncio.run(play())


def test_one_of_fifty_subscribers_never_reads_and_is_dropped_alone(pair: Instance) -> None:
    """Each change is long, so that few of them fill what may wait."""
    assert pair.process is not None
    hops = [[f"192.168.{i >> 8}.{i & 255}@1*{weight}" for i in range(2, 130)] for weight in (3, 4)]

    async def play() -> None:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(AsyncClient(path=path_of(pair), timeout_s=PATIENCE_S))
                for _ in range(SUBSCRIBERS - 1)
            ]
            for client in clients:
                await client.subscribe("routes")
                await client.subscribe("statistics", period_s=0.2)
            changed = 0
            while not pair.events("control.dropped"):
                assert changed < 200, "that fills what may wait several times"
                await asyncio.to_thread(replace_some, pair, hops[changed % 2])
                await asyncio.gather(*map(wait_for_route, clients))
                changed += 1
            assert changed > 5, "it had room"
            for client in clients:
                assert (await client.version())[1] == 1

    with Pinger(pair.namespace) as pinger, closing(silent(pair)):
        pinger.wait_for_more()
        asyncio.run(play())
        pinger.wait_for_more()
        assert pinger.lost == set()
    [dropped] = pair.events("control.dropped")
    assert dropped["pid"] == os.getpid()
    assert dropped["program"]
    assert "does not read" in dropped["reason"] or "has not read" in dropped["reason"]
    assert pair.stop() == 0


def silent(instance: Instance) -> socket.socket:
    """Return the connection of a client that subscribes, and never reads."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path_of(instance)))
    connection.sendall(frame.emit({"type": "hello", "version": 1}))
    connection.sendall(frame.emit({"type": "subscribe", "id": 1, "topic": "routes"}))
    connection.sendall(frame.emit({"type": "subscribe", "id": 2, "topic": "statistics", "period_ms": 100}))
    return connection


def replace_some(instance: Instance, hops: list[str]) -> None:
    with client_of(instance) as client:
        assert set(client.routes.replace_all([(f"30.0.{i}.0/24", hops) for i in range(10)])) == {None}


async def wait_for_route(client: AsyncClient) -> None:
    async for notice in client.notices(PATIENCE_S):
        if any(getattr(each, "prefix", "") == "30.0.9.0/24" for each in notice.changed):
            return
    raise AssertionError("not told of the last of some routes")


AS_NOBODY = """
import sys
from pathlib import Path
from halo_mp.control.client import Client, RefusedError

with Client(path=Path(sys.argv[1]), timeout_s=30.0) as client:
    client.subscribe("routes")
    try:
        client.routes.add("11.0.0.0/8", via="10.77.0.2")
    except RefusedError:
        print("may only look", flush=True)
    print(next(client.notices(30.0)).changed[0].prefix)
"""


def test_who_may_only_look_may_subscribe(namespace: Namespace) -> None:
    if not in_first_user_namespace():  # there is no nobody
        return
    nobody = pwd.getpwnam("nobody")
    with Instance(namespace) as instance, client_of(instance) as client:
        path_of(instance).chmod(0o666)
        with subprocess.Popen(
            [sys.executable, "-c", AS_NOBODY, str(path_of(instance))],
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            stdout=subprocess.PIPE,
            text=True,
        ) as looking:
            assert looking.stdout is not None
            assert looking.stdout.readline() == "may only look\n"
            client.routes.add("10.0.0.0/8", via="10.77.0.2")
            assert looking.stdout.readline() == "10.0.0.0/8\n"
        assert looking.returncode == 0


def test_who_watches_goes_on_with_the_next_supervisor(pair: Instance) -> None:
    program = [sys.executable, "-m", "halo_mp.cli", "watch", "routes", "events", "--json", "--reconnect"]
    told = client_of(pair)
    told.subscribe("routes")
    with subprocess.Popen(
        [*program, "--name", pair.name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        try:
            with client_of(pair) as client:
                change_until_told(client, watching.stdout.readline)
            kill_supervisor(pair)
            with pytest.raises(NotReachableError, match="the instance closed the connection"):
                list(told.notices(PATIENCE_S))
            with start_again(pair) as successor:
                while "connected again" not in watching.stderr.readline():
                    pass
                with client_of(successor) as again, client_of(successor) as client:
                    again.subscribe("routes")
                    change_until_told(client, watching.stdout.readline)
                    assert "40.0.0.0/8" in prefixes([next(again.notices(PATIENCE_S))])
                assert successor.stop() == 0
        finally:
            watching.terminate()


def change_until_told(client: Client, readline: Callable[[], str]) -> None:
    """Change a route once who watches has surely subscribed: it is told of that, too."""
    ready = threading.Event()

    def change() -> None:
        number = 0
        while not ready.wait(0.2):
            number += 1
            client.routes.replace("40.0.0.0/8", via=f"10.77.0.{2 + number % 200}")

    thread = threading.Thread(target=change)
    thread.start()
    try:
        while not any(each.get("prefix") == "40.0.0.0/8" for each in json.loads(readline())["changed"]):
            pass
    finally:
        ready.set()
        thread.join()


def test_thousand_route_changes_a_second_lose_no_datagram() -> None:
    """Four in a request; and somebody is told of all of them."""
    with Network() as network:
        left, right = network.hosts
        left.namespace.pinged(right.address)
        before = network.settled()
        with (
            Listener(right.namespace, PORT) as listener,
            sender(left.namespace) as out,
            network.client() as client,
            network.client() as told,
        ):
            told.subscribe("routes")
            to = [(right.address, PORT)] * STREAM
            thread = threading.Thread(target=send_paced, args=(out, to, b"halo", STREAM_PPS))
            thread.start()
            try:
                change_paced(client)
            finally:
                thread.join()
            assert len(gather([listener], STREAM)) == STREAM
            last: dict[str, tuple[str, ...]] = {}
            for notice in told.notices(0.5):
                assert not notice.missed
                last |= prefixes([notice])
            listed = {each.prefix: each.hops for each in client.routes.list("50.0.0.0/8")}
            assert {name: hops for name, hops in last.items() if name.startswith("50.")} == listed
        happened = network.settled().since(before)
        assert not happened.drops
        assert happened.worker["forwarded"] == STREAM
        network.stop()


def change_paced(client: Client) -> None:
    start = time.monotonic()
    for first in range(0, CHANGES, 4):
        time.sleep(max(0.0, start + first / RATE - time.monotonic()))
        some = [(f"50.0.{n % 250}.0/24", f"10.1.0.{2 + n % 7}") for n in range(first, first + 4)]
        assert client.routes.replace_all(some) == [None] * 4
    print(f"{CHANGES / (time.monotonic() - start):.0f} route changes a second")


def test_watch_prints_lines_and_ends_when_told_to(pair: Instance) -> None:
    words = [sys.executable, "-m", "halo_mp.cli", "watch", "--name", pair.name]

    def watched(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*words, *more], capture_output=True, text=True, check=False, timeout=60)

    done = watched("statistics", "--period", "0.1", "--count", "2")
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if " port 0 started, link up: " in line]) == 2
    assert " a second" in done.stdout
    assert watched("routes", "--timeout", "0.1").stdout == ""
    assert msgpack.packb(json.loads(watched("statistics", "--count", "1", "--json").stdout))
    wait_until(lambda: not pair.events("control.error"), what="no error")
