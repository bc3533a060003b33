# SPDX-License-Identifier: Apache-2.0
"""The commands of README.md, run as they stand there, and what it says that one then sees."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, blocks
from tests.support.namespace import Namespace, wait_until

README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in blocks(README) if block.info == "sh" for line in block.body.splitlines()]
SHOWN = [block.body for block in blocks(README) if block.info == "text"]
ELSEWHERE = {"make test": "it is what runs this"}
START_TIMEOUT_S = 30.0
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class Running:
    """What `make run` has started, in a namespace of its own and under a name of its own."""

    namespace: Namespace
    name: str
    process: subprocess.Popen[bytes]
    output: Path

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of README's there; the instance is not called as README has it."""
        words = [sys.executable if word == ".venv/bin/python" else word for word in command.split()]
        if words[-1] == "examples/counters.py":
            words.append(self.name)
        return self.namespace.run(*words, check=False)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run README's first command, but for its set-up, which has tests of its own and would build under running ones."""
    name, output = f"r{os.getpid() % 10**7}", tmp_path_factory.mktemp("readme") / "output"
    # A spare would come some time later, and count as what a test has left behind.
    environment = {**os.environ, "ARGS": f"--name {name} --spare 0"}
    with Namespace() as namespace, output.open("wb") as file:
        first = COMMANDS[0].replace("make ", "make --old-file=setup ")
        process = namespace.popen(
            *first.split(), cwd=ROOT, env=environment, stdout=file, start_new_session=True
        )
        try:
            wait_until(
                lambda: "Ctrl-C" in output.read_text() or process.poll() is not None,
                timeout_s=START_TIMEOUT_S,
                what="make run says that it is up",
            )
            yield Running(namespace, name, process, output)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: to make and to what it runs
                process.wait(START_TIMEOUT_S)


def test_readme_starts_with_make_run() -> None:
    assert COMMANDS[0] == "make run"
    assert "make test" in COMMANDS


def test_make_run_shows_what_readme_shows(running: Running) -> None:
    seen = (
        running.output.read_text()
        .replace(f"'{running.name}'", "'default'")
        .replace(f"{running.name}.", "halo")
    )
    assert _MAC.sub("MAC", seen) == _MAC.sub("MAC", SHOWN[0])


@pytest.mark.parametrize("command", [command for command in COMMANDS[1:] if command not in ELSEWHERE])
def test_command_of_readme_works(running: Running, command: str) -> None:
    done = running.run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    if command.startswith("ping"):
        assert " 0% packet loss" in done.stdout
    else:
        assert "enabled" in done.stdout


def test_ctrl_c_stops_it_and_says_so(running: Running) -> None:
    os.killpg(running.process.pid, signal.SIGINT)
    running.process.wait(START_TIMEOUT_S)
    assert not Path("/run/halo-mp", running.name).exists()
    assert running.name not in running.namespace.run("ip", "link").stdout


def test_readme_has_a_place_for_figures() -> None:
    assert README.count("<!-- figures -->") == 1
