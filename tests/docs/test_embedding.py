# SPDX-License-Identifier: Apache-2.0
"""docs/embedding.md: each block of Python is whole, means what it says, and satisfies a strict type checker."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from halo_mp.app import App, Burst, Packet
from tests.docs.markdown import ROOT
from tests.support import frames
from tests.unit.app.test_packet import ip_frame, udp_frame

PAGE = ROOT / "docs/embedding.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
FRAMES = [udp_frame(), udp_frame(bytes(900)), ip_frame(frames.icmp(8, 0), 1), ip_frame(bytes(20), 6)]
numbered = pytest.mark.parametrize("number", range(len(BLOCKS)))


def run(number: int) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": f"block{number}"}
    exec(compile(BLOCKS[number], f"{PAGE.name}, block {number}", "exec"), namespace)
    return namespace


def test_there_are_blocks_of_each_kind() -> None:
    text = "".join(BLOCKS)
    assert [word in text for word in ('form="burst"', "jit=True", "from_octets")] == [True] * 3


@numbered
def test_block_runs_and_its_hooks_take_packets(number: int) -> None:
    namespace = run(number)
    for app in (value for value in namespace.values() if isinstance(value, App)):
        for hook in app.hooks:
            if hook.form == "burst":
                burst = Burst.from_octets(FRAMES)
                hook.function(burst)
                assert len(burst.settle()) == len(FRAMES)
                continue
            for frame in FRAMES:
                packet = Packet.from_octets(frame)
                arguments = (packet, packet.octets) if hook.octets else (packet,)
                packet.settle(hook.function(*arguments))


@numbered
def test_tests_in_a_block_pass(number: int) -> None:
    namespace = run(number)
    for name, function in namespace.items():
        if name.startswith("test_") and "frame" in inspect.signature(function).parameters:
            function(udp_frame())


def test_blocks_and_examples_satisfy_a_strict_type_checker(tmp_path: Path) -> None:
    for number, block in enumerate(BLOCKS):
        (tmp_path / f"block{number}.py").write_text(block)
    examples = [path for path in (ROOT / "examples").glob("*.py") if "halo_mp.app import" in path.read_text()]
    for path in examples:
        (tmp_path / path.name).write_text(path.read_text())
    command = [sys.executable, "-m", "mypy", "--strict", "--no-warn-unused-ignores", "--cache-dir"]
    files = sorted(map(str, tmp_path.glob("*.py")))
    checked = subprocess.run(
        [*command, str(ROOT / ".mypy_cache"), *files], capture_output=True, text=True, cwd=ROOT
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
