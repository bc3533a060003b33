# SPDX-License-Identifier: Apache-2.0
"""Processes: starting them with exec, waiting for their end through a pidfd, ending them, and saying how they ended.

A pidfd names one process for ever, so nothing here can hit a process that got a pid again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from pathlib import Path

from halo_mp import logs
from halo_mp.errors import EXIT_NO_MEMORY
from halo_mp.shm.identity import is_alive, start_ticks
from halo_mp.supervisor.boxes import NO_BOX, Box

TERM_GRACE_S = 2.0  # between SIGTERM and SIGKILL

OOM_SCORES = {"spare": 600, "worker": 300, "driver": 150}
"""By how much the kernel's out-of-memory score of a process is above ours: who is missed least goes first.

In thousandths of all memory. What they share counts for each of them, so without this it would be the driver.
"""
_MOST_OOM_SCORE = 1000

log = logs.get("supervisor")


class Process:
    """A process that is ours to end, child or not."""

    box: str | None = None
    """Its black box, when it has one; see `boxes`."""

    def __init__(self, pid: int, start_ticks: int = 0) -> None:
        """Raises ProcessLookupError when it is gone."""
        self.pid = pid
        self.start_ticks = start_ticks
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(pid)
        self._gone = asyncio.Event()
        self._loop.add_reader(self._pidfd, self._on_gone)

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._gone.is_set()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has ended."""
        if not self.gone:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    @property
    def ending(self) -> str:
        """How it ended, as the end of a sentence that starts with its name."""
        return "ended, and only its parent, which is dead, could have known how" if self.gone else "runs"

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs, when a signal killed it, and when only its parent could know."""
        return None

    @property
    def killed_by(self) -> str | None:
        """The name of the signal that killed it; None when none did, and when only its parent could know."""
        return None

    async def wait(self) -> None:
        """Return when it has ended."""
        await self._gone.wait()

    async def wait_for(self, timeout_s: float) -> bool:
        """Return whether it ended within that time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._gone.wait()
        return self.gone

    async def end(self) -> None:
        """SIGTERM, two seconds, SIGKILL. A stopped process knows only the last."""
        self.signal(signal.SIGTERM)
        if not await self.wait_for(TERM_GRACE_S):
            self.signal(signal.SIGKILL)
            await self._gone.wait()

    def close(self) -> None:
        """Forget it, ended or not."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self._gone.set()

    def _on_gone(self) -> None:
        self.close()


class Orphan(Process):
    """A process that an earlier supervisor of this instance started, and that outlived it."""

    @classmethod
    def take(cls, pid: int, start_ticks: int, box: str | None = None) -> Orphan | None:
        """Return the process that has this pid and started then, with that box; None when it is gone."""
        try:
            process = cls(pid, start_ticks)
        except ProcessLookupError:
            return None
        # The pidfd is of whoever has the pid now; only behind it do the start ticks prove who that is.
        if is_alive(pid, start_ticks):
            process.box = box
            return process
        process.close()
        return None

    def _on_gone(self) -> None:
        # Not ours to reap: somebody else may have got its pid by now, and then nothing of its group was left.
        with contextlib.suppress(OSError):  # out of descriptors: better not
            if start_ticks(self.pid) in (None, self.start_ticks):
                _end_group(self.pid)
        super()._on_gone()


class Child(Process):
    """A process that we started, in a session of its own, so that a Ctrl-C at the terminal is ours alone."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        super().__init__(process.pid, start_ticks(process.pid) or 0)  # 0: it has ended already

    @classmethod
    def spawn(
        cls, argv: Sequence[str], environment: Mapping[str, str], cores: Iterable[int], box: Box = NO_BOX
    ) -> Child:
        """Start a program, pinned to these cores, with that box. Raises OSError."""
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                close_fds=True,
                start_new_session=True,
                pass_fds=box.fds,
                env={**os.environ, **environment, **box.environment},
            )
        except MemoryError:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from None
        try:
            pin(process.pid, cores)
            child = cls(process)
            child.box = box.path
            return child
        except BaseException:  # out of descriptors: nobody would know of it
            process.kill()
            process.wait()
            raise

    @property
    def ending(self) -> str:
        """How it ended, as the end of a sentence that starts with its name."""
        return describe(self._process.returncode)

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs, and when a signal killed it."""
        code: int | None = self._process.returncode
        return None if code is None or code < 0 else code

    @property
    def killed_by(self) -> str | None:
        """The name of the signal that killed it; None when none did."""
        code: int | None = self._process.returncode
        return None if code is None or code >= 0 else signal_name(-code)

    def _on_gone(self) -> None:
        _end_group(self.pid)
        self._process.wait()  # returns at once: the pidfd says that it has ended
        super()._on_gone()


def _end_group(leader: int) -> None:
    """End what a process has started itself. Its pid names its process group until it is reaped, at least."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def pin(pid: int, cores: Iterable[int]) -> None:
    """Let a process run on these cores only, from its next instruction on, its later threads included."""
    wanted = sorted(set(cores))
    try:
        os.sched_setaffinity(pid, wanted)
    except ProcessLookupError:
        pass
    except OSError as error:
        log.warning("process.not_pinned", pid=pid, cores=wanted, reason=error.strerror)


def set_oom_score(pid: int, score: int) -> None:
    """Let the kernel, out of memory, prefer a process by that much to this one. More needs no privilege."""
    try:
        own = int(Path("/proc/self/oom_score_adj").read_text())
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(min(own + score, _MOST_OOM_SCORE)))
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        pass
    except OSError as error:
        log.warning("process.not_scored", pid=pid, score=score, reason=error.strerror)


def describe(returncode: int | None) -> str:
    """Return how a process ended, as the end of a sentence."""
    if returncode is None:
        return "runs"
    if returncode == EXIT_NO_MEMORY:
        return "ran out of memory"
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    return f"was killed by {signal_name(-returncode)}"


def signal_name(number: int) -> str:
    """Return `SIGKILL`, or `signal 40` of those that have no name of their own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def is_stopped(pid: int) -> bool:
    """Tell whether a process was stopped, by SIGSTOP or by a debugger."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] in "Tt"


async def first_of(*waits: Awaitable[object]) -> None:
    """Wait until one of them is done; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
