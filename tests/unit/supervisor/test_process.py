# SPDX-License-Identifier: Apache-2.0
"""Children from spawn to reaped, and other processes that are ended."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from halo_mp.shm.identity import start_ticks
from halo_mp.supervisor import process
from halo_mp.supervisor.process import Child, Process, describe
from tests.unit.supervisor.tree import until

SLEEP = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(1000)")
IGNORE = (sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(1000)")


def run(play: Callable[[], Awaitable[None]]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(asyncio.wait_for(play(), 20))  # type: ignore[arg-type]
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("script", "ending", "code"),
    [
        ("", "ended with exit code 0", 0),
        ("import os; os._exit(5)", "ended with exit code 5", 5),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL", None),
        ("import os; os.abort()", "was killed by SIGABRT", None),
    ],
)
def test_child_ends_it_is_reaped_and_described(script: str, ending: str, code: int | None) -> None:
    async def play() -> None:
        child = Child.spawn([sys.executable, "-c", script], {}, [0])
        assert (child.ending, child.exit_code, child.gone) == ("runs", None, False)
        await child.wait()
        assert (child.ending, child.exit_code, child.gone) == (ending, code, True)
        assert start_ticks(child.pid) is None
        child.signal(signal.SIGKILL)  # to nobody
        child.close()

    run(play)


def test_child_environment_is_ours_and_what_is_added() -> None:
    async def play() -> None:
        script = "import os; os._exit(0 if os.environ['ADDED'] == 'x' and os.environ['PATH'] else 1)"
        child = Child.spawn([sys.executable, "-c", script], {"ADDED": "x"}, [0])
        await child.wait()
        assert child.exit_code == 0

    run(play)


def test_child_that_can_not_be_watched_is_not_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(pid: int) -> int:
        raise OSError(errno.ENFILE, "Too many open files in system")

    monkeypatch.setattr(os, "pidfd_open", none_left)

    async def play() -> None:
        with pytest.raises(OSError, match="Too many open files"):
            Child.spawn(SLEEP, {}, [0])
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222

    run(play)


def test_child_inherits_no_descriptor() -> None:
    async def play() -> None:
        fd = os.dup(1)
        os.set_inheritable(fd, True)
        script = "import os; os._exit(len(os.listdir('/proc/self/fd')) - 1)"
        child = Child.spawn([sys.executable, "-c", script], {}, [0])
        await child.wait()
        os.close(fd)
        assert child.exit_code == 3

    run(play)


def test_child_on_a_core_that_is_not_there_runs_unpinned() -> None:
    async def play() -> None:
        child = Child.spawn(SLEEP, {}, [4095])
        assert os.sched_getaffinity(child.pid) == os.sched_getaffinity(0)
        await child.end()

    run(play)


def _ignored(status: str) -> int:
    line = next(line for line in Path(status).read_text().splitlines() if line.startswith("SigIgn"))
    return int(line.split()[1], 16)


def test_end_child_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TERM_GRACE_S", 0.3)

    async def play() -> None:
        child = Child.spawn(IGNORE, {}, [0])
        status = f"/proc/{child.pid}/status"
        # One bit of the mask: others are ignored by Python itself, or by whoever runs the tests.
        await until(lambda: _ignored(status) & 1 << signal.SIGTERM - 1 != 0)
        await child.end()
        assert child.ending == "was killed by SIGKILL"

    run(play)


def test_end_stopped_child_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TERM_GRACE_S", 0.3)

    async def play() -> None:
        child = Child.spawn(SLEEP, {}, [0])
        child.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)  # noqa: ASYNC222
        await child.end()
        assert child.ending == "was killed by SIGKILL"

    run(play)


def test_wait_for_child_that_lives_is_false_in_time() -> None:
    async def play() -> None:
        child = Child.spawn(SLEEP, {}, [0])
        assert not await child.wait_for(0.05)
        await child.end()
        assert await child.wait_for(0.0)

    run(play)


def test_process_that_is_no_child_is_ended() -> None:
    async def play() -> None:
        other = subprocess.Popen(SLEEP, stdout=subprocess.DEVNULL)  # noqa: ASYNC220
        found = Process(other.pid)
        await found.end()
        assert other.wait(5) == -signal.SIGTERM

    run(play)


def test_process_that_is_gone_is_said_so() -> None:
    async def play() -> None:
        with pytest.raises(ProcessLookupError):
            Process(2**22 + 1)

    run(play)


def test_describe_signal_without_a_name() -> None:
    assert describe(-60) == "was killed by signal 60"
