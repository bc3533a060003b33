# SPDX-License-Identifier: Apache-2.0
"""`python -m halo_mp.exporter`: what it refuses."""

from __future__ import annotations

import signal
import socket
import sys

import pytest

from halo_mp.exporter.__main__ import main


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
