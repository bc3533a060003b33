# SPDX-License-Identifier: Apache-2.0
"""A client that was written from docs/control-protocol.md alone, with a socket and msgpack: nothing of ours is in it.

What it is told has the fields that the page names, and no others.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.docs.markdown import ROOT, rows, section, spans
from tests.proc.conftest import ADDRESSES, assert_answered
from tests.support.instance import Instance


class Foreign:
    """The client."""

    def __init__(self, path: Path, version: int = 1) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(path))
        self.octets = b""
        self.fds: list[int] = []
        self.notices: list[dict[str, Any]] = []
        self.send(type="hello", version=version)
        self.hello = self.receive()

    def send(self, **message: Any) -> None:
        body = msgpack.packb(message)
        self.socket.sendall(len(body).to_bytes(4, "big") + body)

    def receive(self) -> dict[str, Any]:
        while len(self.octets) < 4 or len(self.octets) < 4 + int.from_bytes(self.octets[:4], "big"):
            more, fds, _, _ = socket.recv_fds(self.socket, 65536, 253)
            self.fds += fds
            if not more:
                raise ConnectionError
            self.octets += more
        end = 4 + int.from_bytes(self.octets[:4], "big")
        message: dict[str, Any] = msgpack.unpackb(self.octets[4:end])
        self.octets = self.octets[end:]
        return message

    def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        self.send(type=kind, id=7, **fields)
        while (reply := self.receive())["type"] == "notice":
            self.notices.append(reply)
        assert (reply["type"], reply["id"]) == ("reply", 7)
        return reply

    def pages(self, kind: str, **fields: Any) -> Iterator[dict[str, Any]]:
        start: int | None = 0
        while start is not None:
            reply = self.ask(f"{kind}.list", start=start, **fields)
            yield from reply[kind]
            start = reply["next"]

    def notice(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while True:
            found = self.notices.pop(0) if self.notices else self.receive()
            if wanted(found):
                return found


PAGE = (ROOT / "docs/control-protocol.md").read_text()


def told(place: str, value: str) -> set[str]:
    """Return the fields that the page has for a value: what is in brackets explains the field before it."""
    [(_, text)] = [cells for cells in rows(section(PAGE, place)) if cells[0] == value]
    while text != (text := re.sub(r"\([^()]*\)", "", text)):
        pass
    return set(spans(text))


@pytest.fixture
def foreign(pair: Instance) -> Iterator[Foreign]:
    client = Foreign(pair.runtime / "control.sock")
    yield client
    client.socket.close()
    for fd in client.fds:
        os.close(fd)


def test_client_from_the_page_alone_can_do_everything(pair: Instance, foreign: Foreign) -> None:
    assert foreign.hello.keys() == {"type", "version", "instance", "package", "admin"}
    assert foreign.hello["admin"] is True
    assert foreign.ask("instance.show")["instance"].keys() == told("## Requests", "instance")
    assert_answered(pair.namespace, ADDRESSES[0])
    for kind in ("interfaces", "neighbors", "routes"):
        found = list(foreign.pages(kind))
        assert found
        assert all(entry.keys() == told("## Requests", kind.removesuffix("s")) for entry in found)
    refusal = foreign.ask("routes.add", routes=[["10.9.0.0/16", ["nonsense"]]])["results"]
    assert [type(each) for each in refusal] == [str]
    assert foreign.ask("nothing")["ok"] is False
    assert foreign.ask("config.rollback")["ok"] is False
    found = foreign.ask("routes.lookup", address="10.77.0.2")["found"]
    assert found.keys() == {"route", "hop"}
    [outcome] = foreign.ask("ping", address="10.77.0.2", count=1)["outcomes"]
    assert dict(zip(spans_in_order("outcome"), outcome, strict=True))["src"] == "10.77.0.2"


def spans_in_order(value: str) -> list[str]:
    """Return the fields of a value that is sent as a list."""
    [(_, text)] = [cells for cells in rows(section(PAGE, "## Requests")) if cells[0] == value]
    return [each for each in spans(text) if each in told("## Requests", value)]


def test_client_from_the_page_alone_is_told_what_happens(pair: Instance, foreign: Foreign) -> None:
    for topic in ("events", "routes", "statistics"):
        assert foreign.ask("subscribe", topic=topic)["ok"]
    statistics = foreign.notice(lambda each: each["topic"] == "statistics")
    assert statistics.keys() - {"type", "topic"} == {
        *("at", "monotonic", "pool_free", "ports", "slots", "interfaces", "more")
    }
    for kind in ("port", "slot", "interface"):
        assert all(each.keys() == told("## Notices", kind) for each in statistics[f"{kind}s"])
        assert statistics[f"{kind}s"]
    assert foreign.ask("routes.add", routes=[["10.9.0.0/16", ["10.77.0.2"]]])["results"] == [None]
    changed = foreign.notice(lambda each: each["topic"] == "routes")
    assert [each["prefix"] for each in changed["changed"]] == ["10.9.0.0/16"]
    assert foreign.ask("routes.delete", prefixes=["10.9.0.0/16"])["results"] == [None]
    assert foreign.notice(lambda each: each["topic"] == "routes")["gone"] == ["10.9.0.0/16"]
    os.kill(pair.slot()["worker_pid"], 9)
    events = foreign.notice(lambda each: each["topic"] == "events")["events"]
    assert all(each.keys() == told("## Notices", "event") for each in events)


def test_client_from_the_page_alone_gets_the_memory_of_captures(pair: Instance, foreign: Foreign) -> None:
    reply = foreign.ask("capture.start", points=["rx"])
    assert reply["slots"] == [0, 1]
    assert reply["fds"] == len(foreign.fds) == 2
    assert all(os.fstat(fd).st_size > 4 << 20 for fd in foreign.fds)
    foreign.socket.close()
    pair.wait_for("capture.ended")


def test_client_from_the_page_alone_hears_why_it_is_sent_away(pair: Instance) -> None:
    path = pair.runtime / "control.sock"
    other = Foreign(path, version=2)
    assert other.hello["version"] == 1
    assert other.receive() == {
        "type": "goodbye",
        "error": "this client speaks version 2 of the protocol, not 1.",
    }
    with pytest.raises(ConnectionError):
        other.receive()
    other.socket.close()
    odd = Foreign(path)
    odd.socket.sendall(b"\0\1\0\1")
    assert odd.receive()["error"] == "this client sent a frame of 65537 octets; 1 to 65536 are allowed."
    with pytest.raises(ConnectionError):
        odd.receive()
    odd.socket.close()
