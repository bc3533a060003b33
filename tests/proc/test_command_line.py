# SPDX-License-Identifier: Apache-2.0
"""What the program says without starting anything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import halo_mp
from halo_mp.supervisor import arguments

ROOT = Path(__file__).resolve().parents[2]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_flag_and_exit_code(flag: str) -> None:
    done = run("halo_mp.supervisor", flag)
    assert (done.returncode, done.stderr) == (0, "")
    for action in arguments.parser()._actions:
        for name in action.option_strings:
            assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", done.stdout), name
    for status in range(7):
        assert re.search(rf"^  {status}  \w", done.stdout, re.MULTILINE), f"exit code {status}"
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_version_is_the_package_s() -> None:
    done = run("halo_mp.supervisor", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"halo-mp {halo_mp.__version__}\n", "")


def test_page_of_flags_is_what_the_program_prints() -> None:
    done = run("halo_mp.supervisor.arguments")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (ROOT / "docs/flags.md").read_text()


@pytest.mark.parametrize("module", ["halo_mp.supervisor.driver", "halo_mp.workers"])
def test_child_that_is_started_by_hand_says_why_it_ends(module: str, tmp_path: Path) -> None:
    """Nobody but the supervisor starts these; who tries gets a sentence."""
    slot = ("--slot", "0") if module == "halo_mp.workers" else ()
    done = run(module, *slot, "--runtime", str(tmp_path), "--instance", "x")
    assert (done.returncode, done.stdout) == (5, "")
    assert "cannot reach its supervisor" in done.stderr
    assert "Traceback" not in done.stderr
