# SPDX-License-Identifier: Apache-2.0
"""From `app.run(...)` to a command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from halo_mp.app import App, launch

SCRIPT = """
import os
from halo_mp.app import App
os.execv = lambda program, words: print(*words[4:], sep="\\n")
service = App()
service.run(ports=[0, 1], address=["0=10.0.0.1/24", "1=10.1.0.1/24"], no_forward=True, spare=None, icmp_rate=5)
"""


def test_flags_are_made_of_keywords() -> None:
    words = launch.words(
        {"ports": [0, 1], "vdev": ["a", "b"], "debug_log": True, "probe": False, "ring_size": 64}
    )
    assert words == ["--ports=0,1", "--vdev=a", "--vdev=b", "--debug-log", "--ring-size=64"]


def test_value_that_is_no_flag_is_refused() -> None:
    with pytest.raises(TypeError, match=r"app.run\(ports=<object"):
        launch.words({"ports": object()})


def test_run_becomes_the_supervisor(tmp_path: Path) -> None:
    file = tmp_path / "service.py"
    file.write_text(SCRIPT)
    ran = subprocess.run(
        [sys.executable, str(file), "--name", "edge"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == [
        *("--app", f"{file}:service", "--ports=0,1", "--address=0=10.0.0.1/24", "--address=1=10.1.0.1/24"),
        *("--no-forward", "--icmp-rate=5", "--name", "edge"),
    ]


def test_run_from_elsewhere_is_refused() -> None:
    with pytest.raises(RuntimeError, match="holds `app` as a global variable"):
        App().run(ports=[0])


def test_run_in_a_worker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "in_worker", True)
    with pytest.raises(RuntimeError, match="was called in a worker"):
        App().run(ports=[0])
