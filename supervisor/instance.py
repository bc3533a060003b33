# SPDX-License-Identifier: Apache-2.0
"""An instance's runtime directory and the lock that says that it runs.

    <directory>/lock          locked (flock) by the supervisor for life; holds its pid
    <directory>/private.sock  for driver and workers
    <directory>/state         what the run is to be, has started and made
    <directory>/dpdk          what EAL keeps while the driver runs
    <directory>/last          the black boxes of the processes that run
    <directory>/reports       of processes that died
    <directory>/supervisor.lines   what the supervisor logged last
    <directory>/numba         compiled hooks, written by the workers
    <directory>/history      configurations that can be gone back to
    <directory>/confirm      what is gone back to unless somebody confirms in time
    <directory>/status.json   what a person or a program should know of the instance

The lock is the kernel's: it can not be left behind. Whoever holds it may clean up what the name left
elsewhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Collection
from pathlib import Path
from typing import Self

from halo_mp.errors import EnvironmentProblem, InstanceRunning, UsageError
from halo_mp.runtime import runtime_base
from halo_mp.supervisor import state
from halo_mp.supervisor.state import State

FORKED_S = 1.0
"""For which the lock of a supervisor that is dead may be held: by what it was starting just then."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


class Instance:
    """The directory of a name, locked by this process until `release`."""

    def __init__(self, name: str, directory: Path, lock_fd: int) -> None:
        self.name = name
        self.directory = directory
        self._lock_fd = lock_fd

    @classmethod
    def acquire(cls, name: str, base: Path | None = None) -> Self:
        """Make the directory and lock it. Raises InstanceRunning with the pid of who has it."""
        if not NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no name for an instance. Use up to 32 letters, digits, dots, dashes, underscores."
            )
        directory = (base or runtime_base()) / name
        patience_ends = time.monotonic() + FORKED_S
        while True:
            fd = _open_lock(directory)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = _read_pid(fd)
                os.close(fd)
                if time.monotonic() < patience_ends and pid is not None and not Path(f"/proc/{pid}").exists():
                    time.sleep(0.005)  # a child that it had forked, and that is not yet another program
                    continue
                raise running(name, pid) from None
            if _is_current(fd, directory / "lock"):
                break
            os.close(fd)  # its last owner removed it between our open and our lock
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return cls(name, directory, fd)

    @property
    def socket_path(self) -> Path:
        """Where driver and workers connect to."""
        return self.directory / "private.sock"

    def make_cache(self, uid: int | None) -> None:
        """Have a directory in which workers of that user keep what they have compiled; None: of ours."""
        directory = self.directory / "numba"
        directory.mkdir(mode=0o700, exist_ok=True)
        if uid is not None:
            os.chown(directory, uid, -1)

    def save(self, content: State) -> None:
        """Replace the state file."""
        state.save(self.directory / "state", content)

    def load(self) -> State:
        """Return what the last run wrote, as far as that is still of use."""
        return state.load(self.directory / "state")

    def empty(self, *, keep: Collection[str] = ()) -> None:
        """Remove everything but the lock and `keep`, also what the driver's EAL keeps there."""
        for entry in self.directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != "lock" and entry.name not in keep:
                entry.unlink(missing_ok=True)

    def leave(self) -> None:
        """Give the name free, and keep what a dead supervisor left: what runs may still be adopted."""
        if not (self.directory / "state").exists():
            self.release()
        elif self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def release(self) -> None:
        """Remove the files and give the name free. May be called twice, and after `leave`."""
        if self._lock_fd < 0:
            return
        self.empty()
        (self.directory / "lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody put something there, or waits for the lock
            self.directory.rmdir()
        os.close(self._lock_fd)
        self._lock_fd = -1


def _open_lock(directory: Path) -> int:
    while True:
        try:
            directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with contextlib.suppress(
                FileExistsError
            ):  # unlike exist_ok this does not look again, when it may be gone
                directory.mkdir()
            directory.chmod(0o711)
            return os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # its last owner removed the directory under our hands
        except OSError as error:
            raise EnvironmentProblem(f"{directory} can not be used: {error.strerror}.") from None


def _is_current(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _read_pid(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None


def running(name: str, pid: int | None) -> InstanceRunning:
    """Return the refusal of a name that somebody has."""
    who = f"as process {pid}" if pid else "already"
    stop = f"Stop it with `kill {pid}`" if pid else "Stop it"
    return InstanceRunning(
        f"instance {name!r} is running {who}. {stop}, or give this one another --name.", pid=pid
    )
