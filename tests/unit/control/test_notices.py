# SPDX-License-Identifier: Apache-2.0
"""Notices as a client keeps them: in order, bounded, put together, and no others."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from halo_mp.control import frame, notices
from halo_mp.control.client import Client, NotReachableError
from halo_mp.control.frame import FrameError
from halo_mp.control.notices import Notices

HELLO = {"type": "hello", "version": 1, "instance": "x", "package": "0", "admin": True}


def gone(name: str, topic: str = "routes") -> dict[str, Any]:
    return {"type": "notice", "topic": topic, "missed": False, "changed": [], "gone": [name]}


def statistics(number: int, *, more: bool) -> dict[str, Any]:
    counted = {"name": str(number), "rx_packets": 1, "rx_octets": 2, "tx_packets": 3, "tx_octets": 4}
    head = {"type": "notice", "topic": "statistics", "at": 1.0, "monotonic": 2.0, "pool_free": 3}
    return {**head, "ports": [], "slots": [], "interfaces": [counted], "more": more}


def test_of_too_many_the_oldest_are_forgotten_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "MAX_HELD", 6)  # two for each: the notice, and what it tells of
    held = Notices()
    for number in range(5):
        assert held.put(gone(str(number)))
    found = [held.take() for _ in range(4)]
    assert [(each.gone, each.missed) for each in found if each] == [
        (("2",), True),
        (("3",), False),
        (("4",), False),
    ]
    assert found[-1] is None


@pytest.mark.parametrize("topic", ["routes", "events"])
def test_what_long_notices_tell_of_is_bounded_too(monkeypatch: pytest.MonkeyPatch, topic: str) -> None:
    monkeypatch.setattr(notices, "MAX_HELD", 100)
    event = {"at": 1.0, "level": "info", "event": "x", "fields": {}}
    held = Notices()
    for number in range(20):
        long = gone(str(number)) if topic == "routes" else {**gone("", topic), "events": [event] * 30}
        held.put({**long, "gone": [str(number)] * 30})
    found = []
    while (notice := held.take()) is not None:
        found.append(notice)
    assert [notice.missed for notice in found] == [True, False, False]
    assert held.put(gone("x"))
    assert held.take() is not None


def test_parts_of_statistics_are_one() -> None:
    held = Notices()
    for number in range(3):
        assert held.take() is None
        assert held.put(statistics(number, more=number < 2))
    notice = held.take()
    assert notice is not None
    assert notice.statistics is not None
    assert [each.name for each in notice.statistics.interfaces] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"topic": "weather", "missed": False, "changed": [{}], "gone": []},
        {"topic": "routes", "missed": False, "changed": [{"x": 1}], "gone": []},
        {"topic": "events", "missed": False, "events": 7},
        {"topic": "statistics", "more": False},
    ],
)
def test_notice_that_is_none_is_a_frame_error(odd: dict[str, Any]) -> None:
    with pytest.raises(FrameError, match="a notice that is none"):
        Notices().put({"type": "notice", **odd})
    assert not Notices().put({"type": "reply", "id": 0})


def test_notice_that_comes_in_pieces_is_waited_for_again(tmp_path: Path) -> None:
    """A time-out in the middle of a frame loses nothing of it, and notices come before and after replies."""
    path, go = tmp_path / "control.sock", threading.Event()
    octets = frame.emit(gone("10.0.0.0/8"))
    reply = {"type": "reply", "id": 0, "ok": True, "version": "9", "protocol": 1}

    def serve(listener: socket.socket) -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(1 << 16)
            connection.sendall(frame.emit(HELLO) + octets[:9])
            go.wait(10)
            connection.sendall(octets[9:])
            connection.recv(1 << 16)
            connection.sendall(frame.emit(gone("0.7", "interfaces")) + frame.emit(reply))

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    thread = threading.Thread(target=serve, args=(listener,))
    thread.start()
    with Client(path=path) as client:
        assert list(client.notices(0.05)) == []
        go.set()
        assert next(client.notices(10)).gone == ("10.0.0.0/8",)
        assert client.version() == ("9", 1)
        assert next(client.notices(10)).gone == ("0.7",)
        with pytest.raises(NotReachableError, match="the instance closed the connection"):
            next(client.notices(10))
    thread.join()
