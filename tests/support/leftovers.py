# SPDX-License-Identifier: Apache-2.0
"""What an instance could leave behind: processes, shared memory, runtime directories.

Only what this test run made: its processes carry a mark in their environment, and regions or directories that a living
process holds are that process's business (if it is ours, it is found by its mark).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from halo_mp.shm.region import is_stale

MARK = "HALO_MP_TEST_RUN"
_MODULES = (b"halo_mp.supervisor", b"halo_mp.workers")


def mark_this_run() -> None:
    """Let every process that is started from here on carry the mark."""
    os.environ[MARK] = str(os.getpid())


def leftovers() -> set[str]:
    """Return a name for each thing of this run's instances that is on the machine now."""
    found = {
        f"shared memory {path.name}"
        for path in Path("/dev/shm").glob("halo-mp.*")
        if is_stale(f"/{path.name}")
    }
    found |= {f"runtime directory {path}" for path in Path("/run/halo-mp").glob("*") if not _is_held(path)}
    return found | _processes()


def _is_held(runtime: Path) -> bool:
    try:
        with (runtime / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return not runtime.exists()
    return False


def _processes() -> set[str]:
    mark = f"{MARK}={os.environ.get(MARK, '')}".encode()
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
            if not any(word.startswith(_MODULES) for word in words):
                continue
            if mark in (directory / "environ").read_bytes().split(b"\0"):
                found.add(f"process {directory.name} ({b' '.join(words).decode(errors='replace')})")
        except OSError:  # it ended meanwhile
            continue
    return found
