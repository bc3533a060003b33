# SPDX-License-Identifier: Apache-2.0
"""All tests, a folder of tests/ at a time and several folders side by side: most tests wait, they do not compute.

Each folder is a pytest of its own with processes, /run and /dev/shm of its own (tools/isolate). Its output is passed on
line by line, with the folder's name in front. The last line is as pytest's, for all of them. A part that crashes, is
killed or takes too long is an error there. Nothing outlives this program, however it ends.

Exit status: 0 when all passed, 1 when not, 2 when interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

TOOLS = Path(__file__).resolve().parent
# What is not among them, a new folder, comes first: a long part that starts last is waited for alone.
LONGEST_FIRST = ("proc", "faults", "interop", "unit", "packaging", "native", "fuzz", "docs")
APART = {"soak"}  # an hour; `make soak`
JOBS = 2
LIMIT_S = 900.0
TURN_S = 0.5
GRACE_S = 30.0  # for fixtures that take down what they have made
HANGING_S = 240  # a test that runs so long shows its stack, and goes on
COUNTED = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "warnings", "error")


@dataclass(frozen=True, slots=True)
class Failure:
    """What the summary names: a test, or a part."""

    word: str  # FAILED, ERROR
    what: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.word} {self.what}" + (f" - {self.why}" if self.why else "")


@dataclass(slots=True)
class Result:
    """How tests went."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    running: str = ""  # the last test that began
    finished: bool = False  # pytest came to its end

    def take(self, event: dict[str, Any]) -> None:
        """Take in what tools/run_part.py said."""
        self.running = event.get("running", self.running)
        self.finished |= event.get("finished", False)
        if outcome := event.get("outcome"):
            self.counts[outcome] += event.get("count", 1)
            if outcome in ("failed", "error"):
                self.failures.append(Failure(outcome.upper(), event["test"], event["why"]))

    def fail(self, part: str, why: str) -> None:
        """Count a part that did not come to its end as an error."""
        self.counts["error"] += 1
        self.failures.append(Failure("ERROR", part, why))

    def add(self, other: Result) -> None:
        """Add a part's."""
        self.counts += other.counts
        self.failures += other.failures

    def __str__(self) -> str:
        said = [_counted(self.counts[word], word) for word in COUNTED if self.counts[word]]
        return ", ".join(said) or "no tests ran"


def _counted(count: int, word: str) -> str:
    if word in ("error", "warnings"):
        word = word.rstrip("s") + ("s" if count != 1 else "")
    return f"{count} {word}"


class Lines:
    """The reading end of a pipe, by whole lines."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor, self._rest = descriptor, b""

    def fileno(self) -> int:
        """Return the descriptor, for select."""
        return self._descriptor

    def read(self) -> list[str]:
        """Return the lines that have come since."""
        with suppress(BlockingIOError):
            while octets := os.read(self._descriptor, 1 << 16):
                self._rest += octets
        *lines, self._rest = self._rest.split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def close(self) -> list[str]:
        """Return the last lines, also one that has no end."""
        self._rest += b"\n" if self._rest else b""
        lines = self.read()
        os.close(self._descriptor)
        return lines


class Part:
    """One pytest, running."""

    def __init__(self, name: str, paths: Sequence[Path], *, isolated: bool) -> None:
        self.name, self.result = name, Result()
        self._isolated = isolated
        self._why = ""  # it is an error of its own
        self._began, self._ended_at = time.monotonic(), 0.0
        events, told = os.pipe()
        self._process = subprocess.Popen(
            self._command(told, paths),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[told],
            start_new_session=True,  # a Ctrl-C is ours to handle
        )
        os.close(told)
        assert self._process.stdout
        self._events, self._output = Lines(events), Lines(os.dup(self._process.stdout.fileno()))
        self._process.stdout.close()

    def _command(self, told: int, paths: Sequence[Path]) -> list[str | Path]:
        # When we are killed, so is it, and with the first process of a namespace all others there.
        command: list[str | Path] = ["setpriv", "--pdeathsig", "KILL", "--"]
        command += [TOOLS / "isolate"] if self._isolated else []
        command += [sys.executable, TOOLS / "run_part.py", str(told), *paths]
        # No cache: of several writers the last one would decide what had failed.
        command += ["-p", "no:cacheprovider", "-o", f"faulthandler_timeout={HANGING_S}"]
        return command + (["--color=yes"] if sys.stdout.isatty() else [])

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return (self._ended_at or time.monotonic()) - self._began

    @property
    def pipes(self) -> list[Lines]:
        """What to wait for."""
        return [self._events, self._output]

    def turn(self) -> bool:
        """Take in and pass on what it says; return whether it goes on."""
        status = self._process.poll()  # before its last words are read
        for line in self._events.read():
            self.result.take(json.loads(line))
        self._say(self._output.read())
        if status is None:
            return True
        self._conclude(status)
        return False

    def end(self, why: str) -> None:
        """End it and all that it has started, which is an error: `why`."""
        self._why = why
        if self._isolated:
            self._kill_children()
        else:
            self._process.send_signal(signal.SIGINT)  # its fixtures have to take down what they have made
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._kill_children()
            self._process.kill()
            self._process.wait()
        self.turn()

    def _kill_children(self) -> None:
        """Kill them, first of all the first process of its namespace: when that has ended no other is left there."""
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()

    def _conclude(self, status: int) -> None:
        self._say(self._output.close())
        self._events.close()
        self._ended_at = time.monotonic()
        self._why = self._why or self._unexpected(status)
        if self._why:
            self.result.fail(
                f"{self.name}: {self._why}", f"the last test was {self.result.running or 'none'}"
            )
            self._say([str(self.result.failures[-1])])

    def _unexpected(self, status: int) -> str:
        """Return what is wrong with an exit status that the tests do not explain."""
        failed = self.result.counts["failed"] + self.result.counts["error"] > 0
        if status not in (0, 1):
            return f"pytest ended with exit status {status}"
        if not self.result.finished:
            return f"pytest ended in the middle, with exit status {status}"
        return "" if failed or status == 0 else "pytest failed, and no test did"

    def _say(self, lines: Sequence[str]) -> None:
        for line in lines:
            print(f"{self.name:>9} | {line}")
        sys.stdout.flush()


def find_parts(tests: Path) -> dict[str, list[Path]]:
    """Return the parts by name, the longest first: folders of `tests`, and the files beside them."""
    folders = {path.relative_to(tests).parts[0] for path in tests.glob("*/**/test_*.py")} - APART
    parts = {name: [tests / name] for name in sorted(folders)}
    if files := sorted(tests.glob("test_*.py")):
        parts["tests"] = files
    new = [name for name in parts if name not in LONGEST_FIRST]
    return {name: parts[name] for name in (*new, *LONGEST_FIRST) if name in parts}


def refusal() -> str:
    """Return why this system does not let us isolate parts, or nothing if it does."""
    probe = subprocess.run([TOOLS / "isolate", "true"], capture_output=True, text=True, check=False)
    return "" if probe.returncode == 0 else (probe.stderr.strip() or "no reason given").splitlines()[-1]


class Run:
    """All parts, so many at a time."""

    def __init__(self, parts: dict[str, list[Path]], *, jobs: int, limit_s: float, isolated: bool) -> None:
        self._waiting = list(parts.items())
        self._running: list[Part] = []
        self._ended: list[Part] = []
        self._jobs, self._limit_s, self._isolated = jobs, limit_s, isolated
        self._began = time.monotonic()

    def work(self) -> None:
        """Run them all."""
        while self._waiting or self._running:
            while self._waiting and len(self._running) < self._jobs:
                name, paths = self._waiting.pop(0)
                self._running.append(Part(name, paths, isolated=self._isolated))
            select.select([pipe for part in self._running for pipe in part.pipes], [], [], TURN_S)
            for part in list(self._running):
                if not part.turn():
                    self._retire(part)
                elif part.seconds > self._limit_s:
                    part.end(f"ended after {self._limit_s:g} s, its limit")
                    self._retire(part)

    def interrupt(self) -> None:
        """End what runs."""
        for part in list(self._running):
            part.end("interrupted")
            self._retire(part)

    def _retire(self, part: Part) -> None:
        self._running.remove(part)
        self._ended.append(part)

    def conclude(self) -> bool:
        """Print what there is to know of all; return whether all is well."""
        total = Result()
        for part in self._ended:
            total.add(part.result)
        if total.failures:
            print(_headline("what failed, of all parts"), *total.failures, sep="\n")
        print(_headline("parts"))
        for part in self._ended:
            print(f"{part.name:>9} | {part.result} in {part.seconds:.0f} s")
        for name, _ in self._waiting:
            print(f"{name:>9} | not run")
        print(_headline(f"{total} in {_duration(time.monotonic() - self._began)}"), flush=True)
        return not (total.failures or self._waiting)


def _headline(text: str) -> str:
    return f" {text} ".center(shutil.get_terminal_size().columns, "=")


def _duration(seconds: float) -> str:
    exact = f"{seconds:.2f}s"
    return exact if seconds < 60 else f"{exact} ({timedelta(seconds=int(seconds))})"


def main() -> int:
    """Run them as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tests", type=Path, default=Path("tests"), help="the folder of the parts")
    parser.add_argument("--jobs", type=int, default=JOBS, help="how many parts at a time; %(default)s")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for each part; %(default)s")
    arguments = parser.parse_args()
    jobs = arguments.jobs
    if refused := refusal():
        print(f"halo-mp: this system refuses parts of the tests a namespace of their own ({refused}),")
        print("halo-mp: so they run one after the other, which takes about twice as long.")
        jobs = 1
    run = Run(find_parts(arguments.tests), jobs=jobs, limit_s=arguments.limit, isolated=not refused)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        run.work()
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the end is on its way
        run.interrupt()
        run.conclude()
        return 2
    return 0 if run.conclude() else 1


if __name__ == "__main__":
    sys.exit(main())
