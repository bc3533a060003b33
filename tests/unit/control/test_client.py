# SPDX-License-Identifier: Apache-2.0
"""The clients: both have the same methods, large requests are cut, and what goes wrong is a sentence."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from halo_mp.control import async_client, calls, capture_client, client, config_calls, frame, public
from halo_mp.control.client import Client, ControlError, NotReachableError, RefusedError
from halo_mp.control.frame import LENGTH_OCTETS, Message
from halo_mp.control.public import MAX_CHANGES, socket_path

HELLO = {"type": "hello", "version": 1, "instance": "x", "package": "0", "admin": True}


def served(path: Path, answers: list[bytes]) -> threading.Thread:
    """Serve one client: each message that comes is answered with the next of these octets."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        with listener, listener.accept()[0] as connection:
            for answer in answers:
                length = frame.parse_length(connection.recv(LENGTH_OCTETS, socket.MSG_WAITALL))
                connection.recv(length, socket.MSG_WAITALL)
                connection.sendall(answer)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def drive(call: Any, answer: Callable[[Message], Message]) -> tuple[Any, list[Message]]:
    """Make a call without I/O; return its result and what it asked."""
    asked: list[Message] = []
    try:
        request = next(call)
        while True:
            asked.append(request)
            request = call.send(answer(request))
    except StopIteration as end:
        return end.value, asked


@pytest.mark.parametrize(
    "name", ["Client", "Interfaces", "Addresses", "Neighbors", "Routes", "Configuration"]
)
def test_both_clients_have_the_same_methods(name: str) -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in vars(kind).items()
            if inspect.isfunction(method) and not name.startswith("_")
        }

    blocking = methods(getattr(client, name))
    for_asyncio = methods(getattr(async_client, f"Async{name}"))
    for_asyncio.pop("connect", None)
    assert blocking == for_asyncio


def test_both_clients_that_capture_ask_the_same_way() -> None:
    blocking, for_asyncio = capture_client.CaptureClient, capture_client.AsyncCaptureClient
    assert inspect.signature(blocking.capture) == inspect.signature(for_asyncio.capture)


def test_both_clients_have_the_same_groups(path: Path) -> None:
    thread = served(path, [frame.emit(HELLO)])
    with Client(path=path) as blocking:
        for_asyncio = vars(async_client.AsyncClient(path=path))
        groups = {name: type(value).__name__ for name, value in vars(blocking).items() if name in for_asyncio}
    thread.join()
    found = {name: kind for name, kind in groups.items() if not name.startswith("_") and name != "hello"}
    assert found.keys() == {"interfaces", "addresses", "neighbors", "routes", "config"}
    assert {name: type(for_asyncio[name]).__name__ for name in found} == {
        name: f"Async{kind}" for name, kind in found.items()
    }


def test_fields_that_only_a_newer_instance_knows_are_ignored() -> None:
    entries: dict[str, Any] = {
        "interface": dict.fromkeys(public.InterfaceInfo.__dataclass_fields__, 1) | {"addresses": ["a"]},
        "neighbor": dict.fromkeys(public.NeighborInfo.__dataclass_fields__, "x"),
        "instance": dict.fromkeys(public.InstanceInfo.__dataclass_fields__, 1),
        "kept": dict.fromkeys(public.KeptInfo.__dataclass_fields__, 1),
        "route": {"prefix": "p", "hops": ["h"], "origin": "static"},
    }
    newer = {name: {**entry, "from_next_year": 1} for name, entry in entries.items()}
    replies: dict[str, tuple[Any, Message]] = {
        "interface": (calls.interfaces(), {"interfaces": [newer["interface"]], "next": None}),
        "neighbor": (calls.neighbors(None), {"neighbors": [newer["neighbor"]], "next": None}),
        "instance": (calls.show(), {"instance": newer["instance"]}),
        "kept": (config_calls.history(), {"kept": [newer["kept"]]}),
        "route": (calls.routes_page(None, 0), {"routes": [newer["route"]], "next": None}),
        "outcome": (calls.ping("a"), {"outcomes": [["reply", "a", 1, 2, 3, 4, 5, "from_next_year"]]}),
    }
    for call, reply in replies.values():
        found, _ = drive(call, lambda _request, reply=reply: reply)  # type: ignore[misc]
        assert found


def test_changes_are_cut_by_number_and_by_octets() -> None:
    many = [(f"10.0.{i >> 8}.{i & 255}/32", "x") for i in range(MAX_CHANGES + 1)]
    results, asked = drive(
        calls.change_routes("routes.add", (calls.route(*each) for each in many)),
        lambda request: {"results": [None] * len(request["routes"])},
    )
    assert len(results) == len(many)
    assert [len(request["routes"]) for request in asked] == [MAX_CHANGES, 1]
    long = [("10.0.0.0/8", ["y" * 100] * 100)] * 20
    results, asked = drive(
        calls.change_routes("routes.replace", (calls.route(*each) for each in long)),
        lambda request: {"results": [None] * len(request["routes"])},
    )
    assert len(results) == 20
    assert len(asked) == 4
    assert all(len(frame.emit({**request, "id": 1 << 31})) for request in asked)


def test_lists_follow_their_pages() -> None:
    entry = {"interface": "0", "address": "10.0.0.2", "mac": "02:00:00:00:00:01", "static": False}
    pages = iter([([entry] * 3, 3), ([], 5), ([entry], None)])

    def answer(_request: Message) -> Message:
        found, follows = next(pages)
        return {"neighbors": found, "next": follows}

    found, asked = drive(calls.neighbors("0"), answer)
    assert len(found) == 4
    assert [request["start"] for request in asked] == [0, 3, 5]
    assert {request["interface"] for request in asked} == {"0"}


def test_nothing_to_change_asks_nothing() -> None:
    assert drive(calls.change_routes("routes.delete", []), lambda request: request) == ([], [])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def test_refusal_is_raised_with_its_sentence(path: Path) -> None:
    refusal = {"type": "reply", "id": 0, "ok": False, "error": "no."}
    thread = served(path, [frame.emit(HELLO), frame.emit(refusal)])
    with Client(path=path) as asking, pytest.raises(RefusedError, match=r"^no\.$"):
        asking.show()
    thread.join()


def test_other_version_says_which_client_to_use(path: Path) -> None:
    thread = served(path, [frame.emit({**HELLO, "version": 2, "package": "9.9"})])
    with pytest.raises(ControlError, match=r"halo-mp 9\.9, whose control protocol is version 2; this client"):
        Client(path=path)
    thread.join()


def test_no_halo_mp_is_a_sentence(path: Path) -> None:
    thread = served(path, [b"\xff" * 20])
    with pytest.raises(ControlError, match="it is no halo-mp"):
        Client(path=path)
    thread.join()


def test_nobody_there_is_a_sentence(path: Path) -> None:
    with pytest.raises(NotReachableError, match="is the instance running, and is that its name"):
        Client(path=path)


def test_who_does_not_answer_in_time_is_given_up(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(NotReachableError, match="busy or gone"):
            Client(path=path, timeout_s=0.05)


def test_connection_that_ends_is_a_sentence(path: Path) -> None:
    thread = served(path, [frame.emit(HELLO)])
    with Client(path=path) as asking:
        thread.join()
        with pytest.raises(NotReachableError, match="the instance closed the connection"):
            asking.show()


def test_call_that_was_interrupted_leaves_no_answer_to_the_next_one(path: Path) -> None:
    thread = served(path, [frame.emit(HELLO)])

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with Client(path=path) as asking:
        asking._receive = interrupt  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            asking.ping("10.0.0.1")
        with pytest.raises(NotReachableError, match="this client is closed; make another one"):
            asking.show()
    thread.join()


GOODBYE = frame.emit({"type": "goodbye", "error": "64 clients are here."})


@pytest.mark.parametrize("answers", [[GOODBYE], [frame.emit(HELLO), GOODBYE]])
def test_goodbye_of_the_instance_is_told(path: Path, answers: list[bytes]) -> None:
    async def for_asyncio() -> None:
        async with async_client.AsyncClient(path=path) as asking:
            await asking.show()

    thread = served(path, answers)
    with pytest.raises(NotReachableError, match=r": 64 clients are here\.$"), Client(path=path) as asking:
        asking.show()
    thread.join()
    path.unlink()
    thread = served(path, answers)
    with pytest.raises(NotReachableError, match=r": 64 clients are here\.$"):
        asyncio.run(for_asyncio())
    thread.join()


def test_goodbye_that_came_before_anything_was_sent_is_told(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(str(path))
        listener.listen()
        gone = threading.Event()

        def refuse() -> None:
            with listener.accept()[0] as connection:
                connection.sendall(GOODBYE)
            gone.set()

        thread = threading.Thread(target=refuse)
        thread.start()

        class Late(Client):
            def _send(self, octets: bytes) -> None:
                assert gone.wait(30)
                super()._send(octets)

        with pytest.raises(NotReachableError, match=r"64 clients are here\.$"):
            Late(path=path)
        thread.join()


def test_messages_that_are_not_known_are_ignored(path: Path) -> None:
    strange = frame.emit({"type": "from_next_year", "error": "x"})
    reply = frame.emit({"type": "reply", "id": 0, "ok": True, "version": "9", "protocol": 1})

    async def for_asyncio() -> tuple[str, int]:
        async with async_client.AsyncClient(path=path) as asking:
            return await asking.version()

    thread = served(path, [frame.emit(HELLO) + strange, strange + reply])
    with Client(path=path) as asking:
        assert asking.version() == ("9", 1)
    thread.join()
    path.unlink()
    thread = served(path, [frame.emit(HELLO) + strange, strange + reply])
    assert asyncio.run(for_asyncio()) == ("9", 1)
    thread.join()


def test_socket_is_looked_for_where_instances_without_root_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert socket_path("no-such-instance") == Path("/run/halo-mp/no-such-instance/control.sock")
    own = tmp_path / "halo-mp/no-such-instance/control.sock"
    own.parent.mkdir(parents=True)
    own.touch()
    assert socket_path("no-such-instance") == own
