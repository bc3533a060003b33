# SPDX-License-Identifier: Apache-2.0
"""`python -m halo_mp.exporter`: what it refuses, and that it serves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from halo_mp.errors import UsageError
from halo_mp.exporter.__main__ import listen_address, main

COMMAND = [sys.executable, "-m", "halo_mp.exporter"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("[::1]:0", ("::1", 0)),
        (":65535", ("", 65535)),
    ],
)
def test_listen_address(text: str, expected: tuple[str, int]) -> None:
    assert listen_address(text) == expected


@pytest.mark.parametrize("text", ["", "9464", "localhost", "localhost:", "a:-1", "a:65536", "a:1e3", "a:²"])
def test_listen_address_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="write an address and a port"):
        listen_address(text)


def test_address_in_use_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert main(["--name", "absent", "--listen", address]) == 3
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert "can not be listened at: Address already in use. Take another" in capsys.readouterr().err


def test_once_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--name", "absent", "--once"]) == 0
    assert 'halo_mp_up{name="absent"} 0.0' in capsys.readouterr().out


def test_extra_that_is_missing_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert main(["--once"]) == 3
    assert "pip install 'halo-mp[prometheus]'" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_openmetrics_until_it_is_told_to_end(number: int) -> None:
    name = f"x{os.getpid() % 10000}"
    command = [*COMMAND, "--name", name, "--name", "other", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as exporter:
        assert exporter.stdout is not None
        url = exporter.stdout.readline().strip()
        asked = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
            [family] = text_string_to_metric_families(answer.read().decode())
        exporter.send_signal(number)
        assert exporter.wait(30) == 0
    assert {sample.labels["name"] for sample in family.samples} == {name, "other"}
