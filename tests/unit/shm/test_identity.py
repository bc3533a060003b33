# SPDX-License-Identifier: Apache-2.0
"""Telling a process from another one with the same pid."""

import os
import subprocess
import sys

from halo_mp.shm.identity import boot_id, is_alive, own_start_ticks, start_ticks


def test_own_start_ticks_name_this_process() -> None:
    assert is_alive(os.getpid(), own_start_ticks())
    assert not is_alive(os.getpid(), own_start_ticks() + 1)


def test_start_ticks_of_nobody_is_none() -> None:
    assert start_ticks(2**22 + 1) is None
    assert not is_alive(0, 0)
    assert not is_alive(-1, 0)


def test_start_ticks_of_a_zombie_is_none() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_ticks(child.pid) is None
    child.wait()


def test_start_ticks_name_with_parentheses_and_spaces() -> None:
    script = "import pathlib; pathlib.Path('/proc/self/comm').write_text(') R 1 2 (('); input()"
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    while b") R 1" not in open(f"/proc/{child.pid}/comm", "rb").read():  # noqa: SIM115
        pass
    ticks = start_ticks(child.pid)
    assert ticks is not None
    assert ticks >= own_start_ticks()
    child.communicate(b"\n")


def test_boot_id_is_sixteen_octets_and_stays() -> None:
    assert len(boot_id()) == 16
    assert boot_id() == boot_id()
