# SPDX-License-Identifier: Apache-2.0
"""The control socket's server, with real sockets: who is let in, what is refused, and that nobody waits for anybody."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from halo_mp import logs
from halo_mp.control import frame
from halo_mp.control.channel import Channel, ChannelClosed, Peer, RequestFailed, connect
from halo_mp.control.client import AsyncClient
from halo_mp.control.frame import MAX_FRAME_OCTETS, emit
from halo_mp.control.public import MAX_CHANGES, MAX_PINGS, REQUESTS
from halo_mp.supervisor import control
from halo_mp.supervisor import outbox as outbox_module
from halo_mp.supervisor.change_order import ChangeOrder
from halo_mp.supervisor.control import MAX_CLIENTS, ControlServer, is_admin
from halo_mp.supervisor.opened import Opened
from halo_mp.supervisor.outbox import Outbox
from halo_mp.supervisor.running import RefusedError
from tests.unit.supervisor.tree import until

HELLO = {"type": "hello", "version": 1}


class Recorder:
    """Operations that write down what they were asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.page = 1
        self.outboxes: list[Outbox] = []
        self.clients: Callable[[], int] = lambda: 0
        self.order = ChangeOrder()

    def _note(self, *what: Any) -> dict[str, Any]:
        self.asked.append(what)
        return {}

    def show(self) -> Mapping[str, Any]:
        return self._note("show") | {"instance": {"name": "x"}}

    def list_interfaces(self, start: int) -> Mapping[str, Any]:
        return self._note("interfaces", start) | {"interfaces": [], "next": None}

    async def set_interface(self, interface: str, settings: Mapping[str, Any]) -> None:
        self._note("set", interface, settings)

    async def add_address(self, interface: str, address: str, *, primary: bool) -> None:
        self._note("add", interface, address, primary)
        await asyncio.sleep(0)

    async def delete_address(self, interface: str, address: str) -> None:
        self._note("delete", interface, address)
        raise RefusedError("no such address.")

    def list_neighbors(self, interface: str | None, start: int) -> Mapping[str, Any]:
        return self._note("neighbors", interface, start) | {"neighbors": [], "next": None}

    def add_neighbor(self, interface: str, address: str, mac: str) -> None:
        self._note("add", interface, address, mac)

    def delete_neighbor(self, interface: str, address: str) -> None:
        self._note("delete", interface, address)

    def flush_neighbors(self, interface: str | None) -> int:
        self._note("flush", interface)
        return 7

    def list_routes(self, within: str | None, start: int) -> Mapping[str, Any]:
        page = {"prefix": "10.0.0.0/8", "hops": ["x" * 60_000], "origin": "static"}
        return self._note("routes", within, start) | {"routes": [page] * self.page, "next": None}

    def change_routes(self, kind: str, changes: Sequence[tuple[str, Sequence[str]]]) -> list[str | None]:
        self._note(kind, [(prefix, list(hops)) for prefix, hops in changes])
        return [None] * len(changes)

    def lookup(self, address: str, flow: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if address == "bug":
            raise ZeroDivisionError
        self._note("lookup", address, dict(flow))
        return None

    async def list_kcp(self, start: int) -> dict[str, Any]:
        self._note("kcp", start)
        return {"slot": None, "kcp": None, "next": None}

    async def ping(self, address: str, settings: Mapping[str, Any]) -> list[Any]:
        self._note("ping", address, dict(settings))
        try:
            await asyncio.sleep(3600 if address == "for ever" else 0)
        except asyncio.CancelledError:
            self._note("cancelled")
            raise
        return []

    async def capture(self, settings: Mapping[str, Any], *, trace: bool) -> Opened:
        fields = self._note("trace" if trace else "capture", dict(settings))
        fields |= {"number": 1, "slots": [], "ports": [], "hooks": [], "refused": []}
        return Opened(fields, fds=[], close=lambda: self.asked.append(("closed",)))

    def show_capture(self, number: int) -> dict[str, Any]:
        return self._note("refused", number) | {"refused": []}

    def stop(self) -> None:
        self._note("stop")

    @property
    def configuration(self) -> ConfigRecorder:
        return ConfigRecorder(self)

    @property
    def feeds(self) -> Recorder:
        return self

    def subscribe(self, outbox: Outbox, topic: str, *, level: str | None, period_ms: int | None) -> None:
        self._note("subscribe", topic, level, period_ms)
        self.outboxes.append(outbox)

    def unsubscribe(self, outbox: Outbox, topic: str) -> None:
        self._note("unsubscribe", topic)
        assert outbox in self.outboxes

    def forget(self, outbox: Outbox) -> None:
        if outbox in self.outboxes:
            self.outboxes.remove(outbox)


class ConfigRecorder:
    """The same for `config.*`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def _note(self, *what: Any) -> dict[str, Any]:
        self._recorder.asked.append(what)
        return {"changes": [], "count": 0}

    def show(self, part: str, start: int) -> Mapping[str, Any]:
        self._note("show", part, start)
        return {"text": "", "next": None, "version": 1}

    def history(self) -> Mapping[str, Any]:
        self._note("history")
        return {"kept": []}

    def stage(
        self, candidate: int | None, file: str, text: str | None, routes: Sequence[Any] | None
    ) -> Mapping[str, Any]:
        self._note("stage", candidate, file, text, routes)
        return {"candidate": 1, "results": []}

    async def diff(self, candidate: int) -> Mapping[str, Any]:
        return {**self._note("diff", candidate), "restart": []}

    async def apply(self, candidate: int, by: str, confirm_s: int | None) -> Mapping[str, Any]:
        return {**self._note("apply", candidate, by, confirm_s), "confirm_until": None}

    async def confirm(self, by: str) -> None:
        self._note("confirm", by)

    async def rollback(self, steps: int, by: str) -> Mapping[str, Any]:
        return self._note("rollback", steps, by)

    async def reload(self, by: str) -> Mapping[str, Any]:
        return self._note("reload", by)

    def single_change(self) -> AbstractAsyncContextManager[None]:
        return self._recorder.order.single(0.05)


ME = f"uid {os.getuid()}"
Play = Callable[[Path, Recorder], Awaitable[None]]


def serve(tmp_path: Path, play: Play, recorder: Recorder | None = None) -> None:
    """Play against a server, and assert that it leaves nothing."""
    path = tmp_path / "control.sock"
    recorder = recorder or Recorder()

    async def scenario() -> None:
        server = ControlServer(path, recorder, instance="x", group=os.getegid())
        recorder.clients = lambda: len(server._clients)
        try:
            await asyncio.wait_for(play(path, recorder), 20)  # type: ignore[arg-type]
        finally:
            await server.close()
            await server.close()

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(scenario())
    assert len(os.listdir("/proc/self/fd")) == before
    assert not path.exists()


async def greeted(path: Path) -> Channel:
    """Return a channel on which hellos were exchanged."""
    channel = await connect(path)
    await channel.send(HELLO)
    answer, _ = await channel.receive()
    assert answer["type"] == "hello"
    return channel


async def ask(channel: Channel, kind: str, **fields: Any) -> dict[str, Any]:
    """Return the reply to a request."""
    reading = asyncio.create_task(channel.receive())
    try:
        return await channel.request({"type": kind, **fields})
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def is_closed(channel: Channel) -> str:
    """Wait until it is; return why, as far as that was said."""
    said: list[str] = []
    with suppress(ChannelClosed):
        while len(said) < 2:
            message, _ = await channel.receive()
            assert message["type"] == "goodbye"
            said.append(message["error"])
    assert channel.closed
    assert all(sentence.endswith(".") for sentence in said)
    assert len(said) < 2
    return said[0] if said else ""


def test_hello_says_who_is_there(tmp_path: Path) -> None:
    async def play(path: Path, _recorder: Recorder) -> None:
        channel = await connect(path)
        await channel.send(HELLO)
        answer, _ = await channel.receive()
        assert answer.pop("package")
        assert answer == {"type": "hello", "version": 1, "instance": "x", "admin": True}
        channel.close()

    serve(tmp_path, play)


@pytest.mark.parametrize(
    "first",
    [
        {"type": "version", "id": 1},
        {"type": "hello"},
        {"type": "hello", "version": "1"},
        {"type": "hello", "version": True},
    ],
)
def test_without_a_hello_it_is_closed(tmp_path: Path, first: dict[str, Any]) -> None:
    async def play(path: Path, recorder: Recorder) -> None:
        channel = await connect(path)
        await channel.send(first)
        assert "before its hello with a version" in await is_closed(channel)
        assert not recorder.asked

    serve(tmp_path, play)


def test_other_version_is_told_ours_and_closed(tmp_path: Path) -> None:
    async def play(path: Path, _recorder: Recorder) -> None:
        channel = await connect(path)
        await channel.send({"type": "hello", "version": 2})
        answer, _ = await channel.receive()
        assert answer["version"] == 1
        await is_closed(channel)

    serve(tmp_path, play)


def test_silent_client_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "HELLO_TIMEOUT_S", 0.05)

    async def play(path: Path, _recorder: Recorder) -> None:
        assert "says nothing" in await is_closed(await connect(path))

    serve(tmp_path, play)


ROUTE = ["10.0.0.0/8", ["10.0.0.2"]]
SOUND = [
    ("instance.show", {}, ("show",)),
    ("interfaces.list", {}, ("interfaces", 0)),
    ("interfaces.list", {"start": 9}, ("interfaces", 9)),
    ("interfaces.set", {"interface": "0", "up": False, "mtu": 9}, ("set", "0", {"up": False, "mtu": 9})),
    ("addresses.add", {"interface": "0", "address": "a"}, ("add", "0", "a", False)),
    ("addresses.add", {"interface": "0", "address": "a", "primary": True}, ("add", "0", "a", True)),
    ("neighbors.list", {}, ("neighbors", None, 0)),
    ("neighbors.list", {"interface": "1.2", "start": 4}, ("neighbors", "1.2", 4)),
    ("neighbors.add", {"interface": "0", "address": "a", "mac": "m"}, ("add", "0", "a", "m")),
    ("neighbors.delete", {"interface": "0", "address": "a"}, ("delete", "0", "a")),
    ("neighbors.flush", {}, ("flush", None)),
    ("routes.list", {"within": "p", "start": 4}, ("routes", "p", 4)),
    ("routes.add", {"routes": [ROUTE]}, ("add", [("10.0.0.0/8", ["10.0.0.2"])])),
    ("routes.replace", {"routes": []}, ("replace", [])),
    ("routes.delete", {"prefixes": ["p", "q"]}, ("delete", [("p", []), ("q", [])])),
    (
        "routes.lookup",
        {"address": "a", "src": "b", "dst_port": 5},
        ("lookup", "a", {"src": "b", "dst_port": 5}),
    ),
    ("kcp.list", {}, ("kcp", 0)),
    ("kcp.list", {"start": 2}, ("kcp", 2)),
    ("ping", {"address": "a", "count": 3, "df": True}, ("ping", "a", {"count": 3, "df": True})),
    ("capture.start", {"points": ["rx"], "snap": 60}, ("capture", {"points": ["rx"], "snap": 60})),
    ("capture.show", {"number": 3}, ("refused", 3)),
    ("trace.start", {"filter": b"x", "ports": [1]}, ("trace", {"filter": b"x", "ports": [1]})),
    ("instance.stop", {}, ("stop",)),
    ("subscribe", {"topic": "events", "level": "debug"}, ("subscribe", "events", "debug", None)),
    ("subscribe", {"topic": "statistics", "period_ms": 9}, ("subscribe", "statistics", None, 9)),
    ("config.show", {}, ("show", "all", 0)),
    ("config.stage", {"file": "f", "text": "t"}, ("stage", None, "f", "t", None)),
    (
        "config.stage",
        {"candidate": 2, "routes": [ROUTE]},
        ("stage", 2, "the candidate", None, [tuple(ROUTE)]),
    ),
    ("config.diff", {"candidate": 2}, ("diff", 2)),
    ("config.apply", {"candidate": 2}, ("apply", 2, ME, None)),
    ("config.apply", {"candidate": 2, "confirm_s": 9}, ("apply", 2, ME, 9)),
    ("config.confirm", {}, ("confirm", ME)),
    ("config.rollback", {}, ("rollback", 1, ME)),
    ("config.reload", {}, ("reload", ME)),
    ("config.history", {}, ("history",)),
]


@pytest.mark.parametrize(("kind", "fields", "asked"), SOUND)
def test_request_reaches_its_operation_and_is_answered_with_its_fields(
    tmp_path: Path, kind: str, fields: dict[str, Any], asked: tuple[Any, ...]
) -> None:
    async def play(path: Path, recorder: Recorder) -> None:
        channel = await greeted(path)
        reply = await ask(channel, kind, **fields)
        assert recorder.asked == [asked]
        assert reply.keys() - {"type", "id", "ok"} == set(REQUESTS[kind].reply)
        channel.close()

    serve(tmp_path, play)


SINGLE = [
    (kind, fields)
    for kind, fields, _ in SOUND
    if kind.partition(".")[0] in ("interfaces", "addresses", "neighbors", "routes")
    and REQUESTS[kind].changes
    and kind != "neighbors.flush"  # which is about none of the configuration
] + [("addresses.delete", {"interface": "0", "address": "10.0.0.1/24"})]


@pytest.mark.parametrize(("kind", "fields"), SINGLE)
def test_change_by_hand_is_refused_while_a_whole_configuration_takes_long(
    tmp_path: Path, kind: str, fields: dict[str, Any]
) -> None:
    async def play(path: Path, recorder: Recorder) -> None:
        channel = await greeted(path)
        async with recorder.order.whole():
            with pytest.raises(RequestFailed, match="a whole configuration is being applied"):
                await ask(channel, kind, **fields)
            await ask(channel, "instance.show")
        assert recorder.asked == [("show",)]
        channel.close()

    serve(tmp_path, play)


def test_capture_ends_when_its_client_goes(tmp_path: Path) -> None:
    async def play(path: Path, recorder: Recorder) -> None:
        channel = await greeted(path)
        await ask(channel, "capture.start")
        assert ("closed",) not in recorder.asked
        channel.close()
        await until(lambda: ("closed",) in recorder.asked)

    serve(tmp_path, play)


def test_every_request_is_tried() -> None:
    assert {kind for kind, _, _ in SOUND} == set(REQUESTS) - {"version", "addresses.delete", "unsubscribe"}


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        ("routes.ad", {}, "there is no request 'routes.ad'; the nearest is 'routes.add'."),
        ("qq", {}, "there is no request 'qq'; there are version, instance.show, "),
        ("hello", {"version": 1}, "there is no request 'hello'; "),
        ("version", {"x": 1}, "version has no field 'x'; it has none."),
        (
            "addresses.add",
            {"interface": "0", "adress": "a"},
            "addresses.add has no field 'adress'; the nearest is",
        ),
        ("addresses.add", {"interface": "0"}, "addresses.add needs a field 'address'."),
        (
            "addresses.add",
            {"interface": 0, "address": "a"},
            "addresses.add needs interface to be a text, not 0.",
        ),
        ("interfaces.list", {"start": True}, "interfaces.list needs start to be a whole number, not True."),
        ("interfaces.list", {"start": -1}, "interfaces.list can not start at -1; "),
        ("interfaces.list", {"start": 1 << 40}, "interfaces.list can not start at"),
        ("interfaces.set", {"interface": "0"}, "interfaces.set names nothing to set; "),
        (
            "interfaces.set",
            {"interface": "0", "up": 1},
            "interfaces.set needs up to be true or false, not 1.",
        ),
        ("interfaces.set", {"interface": "0", "number": 1}, "interfaces.set has no field 'number'; "),
        ("routes.add", {"routes": {}}, "routes.add needs routes to be a list, not {}."),
        ("routes.add", {"routes": [["p"]]}, "['p'] is no route: a list of a prefix and a list of hops"),
        ("routes.add", {"routes": [["p", "h"]]}, "['p', 'h'] is no route"),
        ("routes.add", {"routes": [["p", [1]]]}, "['p', [1]] is no route"),
        ("routes.delete", {"prefixes": [1]}, "1 is no prefix: a text such as 10.0.0.0/8."),
        (
            "routes.delete",
            {"prefixes": ["p"] * (MAX_CHANGES + 1)},
            "1025 changes are too many for one request",
        ),
        ("addresses.delete", {"interface": "0", "address": "a"}, "no such address."),
    ],
)
def test_request_that_is_wrong_is_refused_and_the_next_one_served(
    tmp_path: Path, kind: str, fields: dict[str, Any], sentence: str
) -> None:
    async def play(path: Path, _recorder: Recorder) -> None:
        channel = await greeted(path)
        with pytest.raises(RequestFailed) as refusal:
            await ask(channel, kind, **fields)
        assert str(refusal.value).startswith(sentence)
        assert str(refusal.value).endswith(".")
        assert (await ask(channel, "version"))["protocol"] == 1
        channel.close()

    serve(tmp_path, play)


def test_who_is_no_admin_may_look_and_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "is_admin", lambda _peer, _group: False)

    async def play(path: Path, recorder: Recorder) -> None:
        channel = await greeted(path)
        for kind, fields, _ in SOUND:
            if not REQUESTS[kind].changes:
                await ask(channel, kind, **fields)
                continue
            with pytest.raises(RequestFailed, match="this user may only look"):
                await ask(channel, kind, **fields)
        assert {asked[0] for asked in recorder.asked} == {
            "show",
            "interfaces",
            "neighbors",
            "routes",
            "lookup",
            "history",
            "kcp",
            "refused",
            "subscribe",
        }
        channel.close()

    serve(tmp_path, play)


@pytest.mark.parametrize(
    ("uid", "groups", "admin"),
    [(0, {0}, True), (12345, {12345, 77}, True), (12345, {12345}, False)],
)
def test_admins_are_root_and_members_of_the_group(uid: int, groups: set[int], admin: bool) -> None:
    assert is_admin(Peer(1, uid, uid, frozenset(groups)), 77) == admin


def test_peer_has_its_supplementary_groups(tmp_path: Path) -> None:
    async def play(path: Path, _recorder: Recorder) -> None:
        channel = await greeted(path)
        assert channel.peer.groups == {os.getegid(), *os.getgroups()}
        channel.close()

    serve(tmp_path, play)


@pytest.mark.parametrize(
    "octets",
    [
        b"\0\0\0\0",
        (MAX_FRAME_OCTETS + 1).to_bytes(4, "big"),
        b"\0\0\0\1\xc1",
        b"\0\0\0\3abc",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\x0e\x81\xa4type\xa7version",  # a request without id
    ],
)
def test_frame_that_is_wrong_closes_its_client_and_no_other(tmp_path: Path, octets: bytes) -> None:
    async def play(path: Path, _recorder: Recorder) -> None:
        good, bad = await greeted(path), await greeted(path)
        bad._socket.send(octets)
        assert (await is_closed(bad)).startswith("this client sent ")
        assert (await ask(good, "version"))["protocol"] == 1
        good.close()

    serve(tmp_path, play)


def test_end_of_the_instance_is_told_to_everybody(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "control.sock"
        server = ControlServer(path, Recorder(), instance="x", group=os.getegid())
        first, second = await greeted(path), await greeted(path)
        await first.send({"type": "ping", "address": "for ever", "id": 1})
        await server.close()
        assert await is_closed(first) == await is_closed(second) == "the instance ends."

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_client_that_does_not_read_is_dropped_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "SEND_TIMEOUT_S", 0.2)

    async def play(path: Path, recorder: Recorder) -> None:
        good, lazy = await greeted(path), await greeted(path)
        for number in range(200):  # 60 KB each: more than the kernel keeps
            await lazy.send({"type": "routes.list", "id": number})
        await until(lambda: len(recorder.asked) > 2)
        assert (await ask(good, "version"))["protocol"] == 1
        await until(lambda: recorder.clients() == 1)
        await is_closed(lazy)
        assert len(recorder.asked) < 200
        assert (await ask(good, "version"))["protocol"] == 1
        good.close()

    serve(tmp_path, play)


def test_ping_of_a_client_that_goes_away_is_cancelled(tmp_path: Path) -> None:
    async def play(path: Path, recorder: Recorder) -> None:
        channel, other = await greeted(path), await greeted(path)
        await channel.send({"type": "ping", "address": "for ever", "id": 1})
        await until(lambda: ("ping", "for ever", {}) in recorder.asked)
        assert (await ask(other, "version"))["protocol"] == 1
        channel.close()
        await until(lambda: ("cancelled",) in recorder.asked)
        await until(lambda: recorder.clients() == 1)
        other.close()

    serve(tmp_path, play)


def test_as_many_outcomes_as_there_can_be_fit_into_one_answer() -> None:
    longest = ["timeout", "255.255.255.255", 1 << 63, 255, 255, 255, 0xFFFF]
    emit({"type": "reply", "id": 1 << 63, "ok": True, "outcomes": [longest] * MAX_PINGS})


def test_requests_behind_a_ping_are_done_after_it(tmp_path: Path) -> None:
    async def play(path: Path, recorder: Recorder) -> None:
        channel = await greeted(path)
        requests = [{"type": "ping", "address": str(number)} for number in range(20)]
        requests += [{"type": "neighbors.flush"}]
        reading = asyncio.create_task(channel.receive())
        replies = await asyncio.gather(*map(channel.request, requests))
        assert replies[-1]["count"] == 7
        assert recorder.asked == [*(("ping", str(number), {}) for number in range(20)), ("flush", None)]
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        channel.close()

    serve(tmp_path, play)


def test_mistake_of_ours_costs_one_client(tmp_path: Path) -> None:
    async def play(path: Path, _recorder: Recorder) -> None:
        good, bad = await greeted(path), await greeted(path)
        await bad.send({"type": "routes.lookup", "address": "bug", "id": 1})
        assert "mistake of halo-mp's own" in await is_closed(bad)
        assert (await ask(good, "version"))["protocol"] == 1
        good.close()

    serve(tmp_path, play)


def read_all(connection: socket.socket) -> None:
    with suppress(OSError):
        while connection.recv(1 << 16):
            pass


def test_client_that_has_sent_very_much_already_lets_others_have_their_turn(tmp_path: Path) -> None:
    sent = 1000

    class Slow(Recorder):
        def list_interfaces(self, start: int) -> Mapping[str, Any]:
            end = time.perf_counter() + control.TURN_S / 4  # of work
            while time.perf_counter() < end:
                pass
            return super().list_interfaces(start)

    async def play(path: Path, recorder: Recorder) -> None:
        requests = [emit({"type": "interfaces.list", "start": 0, "id": number}) for number in range(sent)]
        octets = emit(HELLO) + b"".join(requests)
        assert len(octets) < 1 << 16, "they come with one read"
        other = await greeted(path)
        with socket.socket(socket.AF_UNIX) as busy:
            busy.connect(str(path))
            busy.sendall(octets)
            reading = asyncio.create_task(asyncio.to_thread(read_all, busy))
            await until(lambda: bool(recorder.asked))
            assert (await ask(other, "version"))["protocol"] == 1
            assert len(recorder.asked) < sent
            busy.shutdown(socket.SHUT_RDWR)
            await reading
        other.close()

    serve(tmp_path, play, Slow())


def test_more_clients_than_there_can_be_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_CLIENTS_FOR_OWNERS", MAX_CLIENTS)

    async def play(path: Path, recorder: Recorder) -> None:
        channels = [await greeted(path) for _ in range(MAX_CLIENTS)]
        sentence = await is_closed(await connect(path))
        assert sentence.startswith(f"{MAX_CLIENTS} clients are connected already, {MAX_CLIENTS} of them by ")
        assert sentence.endswith(f", pid {os.getpid()}: end some, then try again.")
        assert (await ask(channels[0], "version"))["protocol"] == 1
        channels.pop().close()
        await until(lambda: recorder.clients() < MAX_CLIENTS)
        channels.append(await greeted(path))
        for channel in channels:
            channel.close()

    serve(tmp_path, play)


def test_owners_get_in_when_others_have_taken_all_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(path: Path, recorder: Recorder) -> None:
        channels = [await greeted(path) for _ in range(MAX_CLIENTS)]
        assert (await ask(await greeted_into(channels, path), "version"))["protocol"] == 1
        with monkeypatch.context() as others:
            others.setattr(control, "_is_owner", lambda _peer: False)
            assert "clients are connected already" in await is_closed(await connect(path))
        for channel in channels:
            channel.close()
        await until(lambda: not recorder.clients())

    serve(tmp_path, play)


async def greeted_into(channels: list[Channel], path: Path) -> Channel:
    channels.append(await greeted(path))
    return channels[-1]


def test_flood_of_clients_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_CLIENTS_FOR_OWNERS", 1)
    told: list[str] = []
    logs.listen("warning", lambda _at, _level, event, _fields: told.append(event))

    async def play(path: Path, _recorder: Recorder) -> None:
        channel = await greeted(path)
        for _ in range(50):
            await is_closed(await connect(path))
        assert told == ["control.refused"]
        channel.close()

    try:
        serve(tmp_path, play)
    finally:
        logs.unlisten()


def test_descriptors_that_are_sent_along_are_never_ours(tmp_path: Path) -> None:
    async def play(path: Path, recorder: Recorder) -> None:
        before = len(os.listdir("/proc/self/fd"))
        clients = [socket.socket(socket.AF_UNIX) for _ in range(10)]
        for number, client in enumerate(clients, 1):
            client.setblocking(False)
            client.connect(str(path))
            half = emit({"type": "version", "id": 1})[:-1]
            socket.send_fds(client, [emit(HELLO), half], [0] * 190)
            await until(lambda number=number: recorder.clients() == number)  # type: ignore[misc]
            await asyncio.get_running_loop().sock_recv(client, 1 << 16)
        assert len(os.listdir("/proc/self/fd")) == before + 2 * len(clients)
        clients[0].send(b"\1")
        assert frame_of(await asyncio.get_running_loop().sock_recv(clients[0], 1 << 16))["protocol"] == 1
        for client in clients:
            client.close()
        await until(lambda: not recorder.clients())

    serve(tmp_path, play)


def frame_of(octets: bytes) -> dict[str, Any]:
    return frame.parse_body(octets[frame.LENGTH_OCTETS :])


def test_descriptors_that_are_declared_close_their_client(tmp_path: Path) -> None:
    async def play(path: Path, _recorder: Recorder) -> None:
        channel = await greeted(path)
        await channel.send({"type": "version", "id": 1}, [0, 1])
        assert await is_closed(channel) == "this client sent 2 descriptors declared, of which 0 came."

    serve(tmp_path, play)


def test_answer_to_nothing_is_ignored_whatever_its_id(tmp_path: Path) -> None:
    async def play(path: Path, _recorder: Recorder) -> None:
        channel = await greeted(path)
        for odd in (1, [1], {"a": 1}, None, 1.5, "x"):
            await channel.send({"type": "reply", "id": odd, "ok": True})
        assert (await ask(channel, "version"))["protocol"] == 1
        channel.close()

    serve(tmp_path, play)


def test_requests_may_be_sent_before_the_first_is_answered(tmp_path: Path) -> None:
    async def play(path: Path, recorder: Recorder) -> None:
        channel = await greeted(path)
        reading = asyncio.create_task(channel.receive())
        requests = ({"type": "interfaces.list", "start": number} for number in range(50))
        replies = await asyncio.gather(*map(channel.request, requests))
        assert len(replies) == 50
        assert recorder.asked == [("interfaces", number) for number in range(50)]
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        channel.close()

    serve(tmp_path, play)


def test_socket_is_for_its_group(tmp_path: Path) -> None:
    async def play(path: Path, _recorder: Recorder) -> None:
        found = os.stat(path)
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert found.st_gid == os.getegid()
        async with AsyncClient(path=path) as client:
            assert client.hello["admin"]

    serve(tmp_path, play)


NOTICE = emit({"type": "notice", "topic": "events", "x": "y" * 60_000})


async def subscribed(path: Path, recorder: Recorder) -> tuple[Channel, Outbox]:
    channel = await greeted(path)
    await ask(channel, "subscribe", topic="events")
    return channel, recorder.outboxes[-1]


def test_notices_come_between_replies_until_the_client_goes(tmp_path: Path) -> None:
    async def play(path: Path, recorder: Recorder) -> None:
        channel, outbox = await subscribed(path, recorder)
        for _ in range(8):  # more than the kernel takes at once
            outbox.put(NOTICE)
        await channel.send({"type": "version", "id": 7})
        kinds = [(await channel.receive())[0]["type"] for _ in range(8)]
        assert kinds == ["notice"] * 8
        await ask(channel, "unsubscribe", topic="events")
        assert recorder.asked[-1] == ("unsubscribe", "events")
        channel.close()
        await until(lambda: not recorder.outboxes and not recorder.clients())

    serve(tmp_path, play)


def test_client_that_lets_notices_come_together_is_dropped_and_nobody_else(tmp_path: Path) -> None:
    async def play(path: Path, recorder: Recorder) -> None:
        silent, outbox = await subscribed(path, recorder)
        reading, other = await subscribed(path, recorder)
        for _ in range(16):
            outbox.put(NOTICE)
            other.put(NOTICE)
            assert (await reading.receive())[0]["type"] == "notice"
        assert recorder.outboxes == [other]
        assert outbox.octets == 0
        outbox.put(NOTICE)
        assert outbox.octets == 0, "it is gone"
        await ask(reading, "version")
        await until(lambda: recorder.clients() == 1)
        silent.close()
        reading.close()

    serve(tmp_path, play)


def test_client_that_reads_no_notice_for_long_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "STALL_TIMEOUT_S", 0.05)

    async def play(path: Path, recorder: Recorder) -> None:
        channel, outbox = await subscribed(path, recorder)
        for _ in range(8):
            outbox.put(NOTICE)
        await until(lambda: not recorder.outboxes and not recorder.clients())
        channel.close()

    serve(tmp_path, play)


def test_state_that_was_not_sent_gives_way_to_the_next(tmp_path: Path) -> None:
    async def play(path: Path, recorder: Recorder) -> None:
        channel, outbox = await subscribed(path, recorder)
        for _ in range(6):
            outbox.put(NOTICE)
        waiting = outbox.octets
        for number in range(1000):
            outbox.put(emit({"type": "notice", "topic": "statistics", "n": number}), is_state=True)
            assert outbox.octets <= waiting + 100
        numbers = [(await channel.receive())[0].get("n") for _ in range(7)]
        assert numbers == [None] * 6 + [999]
        channel.close()

    serve(tmp_path, play)
