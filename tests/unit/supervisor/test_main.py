# SPDX-License-Identifier: Apache-2.0
"""`python -m halo_mp.supervisor` where it ends before anything is started: exit codes and sentences."""

import os
import subprocess
import sys

import pytest

from halo_mp.supervisor.instance import Instance
from tests.unit.supervisor.tree import FLAGS


def supervisor(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "halo_mp.supervisor", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)


def test_flags_that_make_no_sense_are_said_one_by_one() -> None:
    done = supervisor("--ring-size", "3", "--queues", "none")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("halo-mp: ") for line in lines)
    assert done.stdout == ""


def test_name_that_runs_is_refused_and_left_alone() -> None:
    name = f"u{os.getpid() % 100000}"
    held = Instance.acquire(name)
    done = supervisor("--name", name, *FLAGS)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"halo-mp: instance '{name}' is running as process {os.getpid()}.")
    held.release()


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_is_no_failure(flag: str) -> None:
    done = supervisor(flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
