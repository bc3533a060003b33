# SPDX-License-Identifier: Apache-2.0
"""What a service manager is told, at a socket that is one's."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from halo_mp.supervisor.service import Service


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@halo-mp-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind("\0" + name[1:] if name.startswith("@") else name)
        made.setblocking(False)
        yield made, name


def said(manager: socket.socket) -> list[dict[str, str]]:
    found = []
    while True:
        try:
            text = manager.recv(4096).decode()
        except BlockingIOError:
            return found
        found.append(dict(line.split("=", 1) for line in text.splitlines()))


def test_life_of_a_service_is_told(manager: tuple[socket.socket, str]) -> None:
    environment = {"NOTIFY_SOCKET": manager[1], "HOME": "/"}
    service = Service(environment)
    assert environment == {"HOME": "/"}  # children do not speak for us
    service.starting("a")
    service.ready("b")
    service.reloading()
    service.ready("c")
    service.stopping()
    service.close()
    found = said(manager[0])
    assert [sorted(message) for message in found] == [
        ["STATUS"],
        ["MAINPID", "READY", "STATUS"],
        ["MONOTONIC_USEC", "RELOADING", "STATUS"],
        ["MAINPID", "READY", "STATUS"],
        ["STATUS", "STOPPING"],
    ]
    assert found[1] == {"READY": "1", "STATUS": "b", "MAINPID": str(os.getpid())}


def test_watchdog_hears_of_us_well_within_its_time(manager: tuple[socket.socket, str]) -> None:
    service = Service(
        {"NOTIFY_SOCKET": manager[1], "WATCHDOG_USEC": "8000000", "WATCHDOG_PID": str(os.getpid())}
    )
    assert service.watchdog_s == 8.0
    for tick in range(100):
        service.alive(1000.0 + tick / 10)
    assert said(manager[0]) == [{"WATCHDOG": "1"}] * 5
    service.close()


@pytest.mark.parametrize(
    "variables", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}]
)
def test_watchdog_of_nobody_is_not_fed(manager: tuple[socket.socket, str], variables: dict[str, str]) -> None:
    service = Service({"NOTIFY_SOCKET": manager[1], **variables})
    service.alive(1000.0)
    assert said(manager[0]) == []
    service.close()


def test_nobody_is_told_where_there_is_no_manager() -> None:
    before = len(os.listdir("/proc/self/fd"))
    service = Service({})
    service.ready("x")
    service.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_manager_that_is_gone_or_does_not_read_holds_up_nobody(manager: tuple[socket.socket, str]) -> None:
    service = Service({"NOTIFY_SOCKET": manager[1]})
    for _ in range(2000):  # more than its queue takes
        service.ready("x" * 1000)
    manager[0].close()
    service.ready("x")
    service.close()
    service.stopping()


def test_manager_that_reads_late_hears_what_counts(manager: tuple[socket.socket, str]) -> None:
    service = Service({"NOTIFY_SOCKET": manager[1], "WATCHDOG_USEC": "4000000"})
    service.starting("a")
    for second in range(100):  # more than its queue takes
        service.alive(1000.0 + second)
    service.ready("b")
    service.reloading()
    service.ready("c")
    assert {"WATCHDOG": "1"} in said(manager[0])
    service.alive(2000.0)
    found = said(manager[0])
    assert [message.get("STATUS", "") for message in found] == ["b", "Reloading the configuration", "c", ""]
    service.close()
