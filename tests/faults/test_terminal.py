# SPDX-License-Identifier: Apache-2.0
"""The terminal stops, is never read, or is closed: frames go on, nobody waits, the end is ordinary."""

from __future__ import annotations

import os
import re
import signal
import termios
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from halo_mp.errors import EnvironmentProblem
from tests.proc.conftest import assert_answered
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import Namespace, wait_until
from tests.support.pinger import Pinger

ADDRESS = "10.77.0.1"
NOISY = ("--log-level", "debug", "--debug-log", "--stats-log", "0.1")


@dataclass
class Terminal:
    """A pseudo terminal; what is written to it waits until somebody reads."""

    master: int
    slave: int

    def read(self) -> str:
        """Return what is there now."""
        os.set_blocking(self.master, False)
        octets = b""
        with suppress(BlockingIOError):
            while part := os.read(self.master, 1 << 16):
                octets += part
        return octets.decode(errors="replace")

    def hang_up(self) -> None:
        """Close the side of whoever looked at it."""
        os.close(self.master)
        self.master = -1

    def close(self) -> None:
        """Close both sides."""
        for fd in (self.master, self.slave):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal(*os.openpty())
    yield made
    made.close()


def on(terminal: Terminal, namespace: Namespace, *flags: str, **options: object) -> Instance:
    """Return an instance, to be entered, with nothing but a terminal."""
    ends = {"stdin": terminal.slave, "stdout": terminal.slave, "stderr": terminal.slave}
    return Instance(namespace, *flags, wait=False, **{**ends, **options})  # type: ignore[arg-type]


def worker(instance: Instance) -> int:
    """Return the pid of the worker that has the slot; 0 while there is none."""
    try:
        slot = instance.slot()
    except (FileNotFoundError, EnvironmentProblem):  # not made yet, or not whole yet
        return 0
    return slot["worker_pid"] if slot["state"] == "enabled" else 0


def logs_dropped(instance: Instance) -> int:
    """Return how many lines the worker has counted instead of written."""
    return instance.slot()["worker"]["counters"]["logs_dropped"]


def assert_works(instance: Instance) -> None:
    """It answers, and a worker that dies has a successor, which answers."""
    wait_until(lambda: worker(instance) != 0, timeout_s=30, what="a start")
    with Pinger(instance.namespace) as pinger:
        pinger.wait_for_more(100)
        victim = worker(instance)
        lives.kill(victim)
        wait_until(lambda: worker(instance) not in (0, victim), timeout_s=30, what="a successor")
        pinger.wait_for_more()
    assert set(pinger.answered.values()) == {1}


def test_terminal_stopped_holds_up_nobody(namespace: Namespace, terminal: Terminal) -> None:
    """As by Ctrl-S."""
    termios.tcflow(terminal.slave, termios.TCOOFF)
    with on(terminal, namespace, *NOISY) as instance:
        assert_works(instance)
        instance.signal(signal.SIGTERM)
        assert instance.wait() == 0


def test_terminal_stopped_failing_start_ends_with_its_code(namespace: Namespace, terminal: Terminal) -> None:
    termios.tcflow(terminal.slave, termios.TCOOFF)
    with (
        Instance(namespace) as running,
        on(terminal, namespace, name=running.name) as second,
    ):
        assert second.wait() == 4
        assert running.stop() == 0


def test_terminal_that_nobody_reads_says_later_how_many_lines_are_missing(
    namespace: Namespace, terminal: Terminal
) -> None:
    with on(terminal, namespace, *NOISY) as instance:
        wait_until(lambda: worker(instance) != 0, timeout_s=30, what="a start")
        with Pinger(namespace, interval_s=0) as pinger, Pinger(namespace, interval_s=0):
            pinger.wait_for_more()
            wait_until(lambda: logs_dropped(instance) > 0, timeout_s=60, what="lines dropped")
            said = ""

            def told() -> bool:
                nonlocal said
                said += terminal.read()
                return bool(re.search(r'"lines": [1-9].*"process": "worker.0", "event": "log.dropped"', said))

            wait_until(told, what="word of what is missing")
        assert_answered(namespace, ADDRESS)
        instance.signal(signal.SIGTERM)
        assert instance.wait() == 0


@pytest.mark.parametrize("has_file", [False, True])
def test_terminal_closed_ends_in_order(
    namespace: Namespace, terminal: Terminal, tmp_path: Path, has_file: bool
) -> None:
    """As when its window is closed: SIGHUP comes, and nothing can be written any more. None to reload."""
    file = tmp_path / "router.toml"
    file.write_text("[ports.0]\n")
    flags = ("--stats-log", "0.1", *(("--config", str(file)) if has_file else ()))
    with on(terminal, namespace, *flags, via=("setsid", "--ctty")) as instance:
        wait_until(lambda: "is up" in terminal.read(), timeout_s=30, what="a start")
        with Pinger(namespace) as pinger:
            pinger.wait_for_more()
        terminal.hang_up()
        assert instance.wait() == 0


def test_terminal_closed_nobody_told_goes_on(namespace: Namespace, terminal: Terminal) -> None:
    """No SIGHUP, because the terminal never was its controlling one: lines are lost, frames are not."""
    with on(terminal, namespace, *NOISY) as instance:
        wait_until(lambda: worker(instance) != 0, timeout_s=30, what="a start")
        terminal.hang_up()
        with Pinger(namespace) as pinger:
            pinger.wait_for_more(50)
            wait_until(lambda: logs_dropped(instance) > 0, what="lines counted")
        assert pinger.lost == set()
        assert_works(instance)
        instance.signal(signal.SIGTERM)
        assert instance.wait() == 0


def test_terminal_stops_who_writes_in_the_background_but_not_us(
    namespace: Namespace, terminal: Terminal
) -> None:
    """`stty tostop` and a shell's `&`: SIGTTOU would stop the supervisor at its first line."""
    mode = termios.tcgetattr(terminal.slave)
    mode[3] |= termios.TOSTOP
    termios.tcsetattr(terminal.slave, termios.TCSANOW, mode)
    # A shell with job control gives a job behind `&` a process group that is not in the foreground.
    script = 'set -m; "$@" & child=$!; trap "kill $child" TERM; while ! wait $child; do :; done'
    with on(terminal, namespace, via=("setsid", "--ctty", "sh", "-c", script, "sh")) as instance:
        wait_until(lambda: "is up" in terminal.read(), timeout_s=30, what="a start")
        assert_answered(namespace, ADDRESS)
        instance.signal(signal.SIGTERM)
        assert instance.wait() == 0
