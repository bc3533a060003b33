# SPDX-License-Identifier: Apache-2.0
"""Reports of processes that ended though nobody asked them to: how, why, and what they said last.

The last 8 of each process and 64 in all are kept, in memory and in `<runtime>/reports`, which is replaced whole, so
that they survive a sudden death of the supervisor. They go when the instance is stopped.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from halo_mp import blackbox, logs
from halo_mp.plain import from_plain, to_plain
from halo_mp.supervisor import boxes
from halo_mp.supervisor.process import Process
from halo_mp.supervisor.restart import Restart
from halo_mp.supervisor.state import Member, write_whole
from halo_mp.supervisor.wiring import role_name

PER_PROCESS = 8
IN_ALL = 64
LINES = 32
LINES_OCTETS = 8192  # of the log lines in one report
OCTETS = 256 * 1024  # of all reports together
TRACEBACK_PAUSE_S = 10.0  # between two tracebacks of one process in the log

log = logs.get("supervisor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One end."""

    name: str
    """`the driver`, or `the worker of slot 0`."""
    role: str
    slot: int | None
    pid: int | None
    """None: it could not be started at all."""
    ended_at: float
    """Seconds since 1970."""
    lived_s: float | None
    useful_s: float
    exit_code: int | None
    """None: a signal ended it, or nobody knows."""
    signal: str | None
    """Its name, when one ended it."""
    reason: str
    """Why it ended, as the end of a sentence: what it was killed for, how it ended."""
    failure: str | None
    """Its own sentence on why it can not work."""
    silence: str | None
    """Why a process that stood still left no traceback, as a sentence."""
    lines: tuple[str, ...]
    """What it logged last, oldest first."""
    traceback: str
    restarts: int
    """Before this end."""
    failed: bool
    """Whether it has ended too often, and is only tried again later."""
    restart_in_s: float

    @property
    def octets(self) -> int:
        """About how much memory it takes."""
        return 512 + len(self.traceback) + len(self.failure or "") + sum(map(len, self.lines))


class Reports:
    """The reports of one instance, oldest first. Without a directory they are kept in memory alone."""

    def __init__(self, directory: Path | None = None) -> None:
        """Start with what an earlier supervisor has left there."""
        self._path = None if directory is None else directory / "reports"
        self._reports = [] if self._path is None else load(self._path)
        self.lent: Callable[[], AbstractContextManager[None]] = nullcontext
        """What has descriptors for us when there are no others."""
        self._is_saved = True
        self._complained = False
        self._emptied: list[str | None] = []
        self._told: dict[str, float] = {}

    def all(self) -> list[Report]:
        """Return them, oldest first."""
        return list(self._reports)

    def ended(
        self,
        name: str,
        role: str,
        slot: int | None,
        child: Process | None,
        restart: Restart,
        *,
        reason: str,
        failure: str | None,
        silence: str | None,
        useful_s: float,
        restarts: int,
    ) -> dict[str, object]:
        """Keep a report of an end; return what else the log should say of it: a traceback, if it is time for one."""
        box = child.box if child is not None else None
        with self.lent():
            lines, traceback = _last_lines(box), _last_trace(box)
        report = Report(
            name=name,
            role=role,
            slot=slot,
            pid=child.pid if child else None,
            ended_at=time.time(),
            lived_s=_lived_s(child.start_ticks) if child else None,
            useful_s=round(useful_s, 3),
            exit_code=child.exit_code if child else None,
            signal=child.killed_by if child else None,
            reason=reason,
            failure=failure,
            silence=silence,
            lines=lines,
            traceback=traceback,
            restarts=restarts,
            failed=restart.failed,
            restart_in_s=round(restart.delay_s, 3),
        )
        self._emptied.append(box)
        self.add(report)
        return self._traceback(report, time.monotonic())

    def take_over(self, members: Iterable[Member]) -> None:
        """Keep a report of each of these that ended while there was no supervisor."""
        for member in members:
            if member.role == "supervisor" or member.is_alive:
                continue
            self.add(
                Report(
                    name=role_name("driver" if member.role == "driver" else "worker", member.slot),
                    role=member.role,
                    slot=member.slot,
                    pid=member.pid,
                    ended_at=time.time(),
                    lived_s=None,
                    useful_s=0.0,
                    exit_code=None,
                    signal=None,
                    reason="ended while there was no supervisor, which could have known how",
                    failure=None,
                    silence=None,
                    lines=_last_lines(member.box),
                    traceback=_last_trace(member.box),
                    restarts=0,
                    failed=False,
                    restart_in_s=0.0,
                )
            )

    def add(self, report: Report) -> None:
        """Keep a report, and let the oldest go that there is no more room for."""
        self._reports = bounded([*self._reports, report])
        self._is_saved = self._path is None

    def save(self) -> None:
        """Write down what is new, and remove boxes. Not as soon as it is: a successor would have to wait."""
        while self._emptied:
            boxes.remove(self._emptied.pop())
        if self._path is None or self._is_saved:
            return
        try:
            with self.lent():
                save(self._path, self._reports)
        except OSError as error:  # tried again the next time
            if not self._complained:
                log.warning("reports.not_saved", reason=error.strerror)
            self._complained = True
        else:
            self._is_saved, self._complained = True, False

    def _traceback(self, report: Report, now: float) -> dict[str, object]:
        """Return the traceback as a field, unless that process has had one in the log a moment ago."""
        told = self._told.get(report.name)
        if not report.traceback or (told is not None and now < told + TRACEBACK_PAUSE_S):
            return {}
        self._told[report.name] = now
        return {"traceback": report.traceback}


def bounded(reports: list[Report]) -> list[Report]:
    """Return the newest of these that may be kept."""
    kept: list[Report] = []
    octets = 0
    per_process: Counter[str] = Counter()
    for report in reversed(reports):
        if per_process[report.name] == PER_PROCESS:
            continue
        octets += report.octets
        if len(kept) == IN_ALL or octets > OCTETS:
            break
        per_process[report.name] += 1
        kept.append(report)
    return kept[::-1]


def save(path: Path, reports: list[Report]) -> None:
    """Replace the file. Raises OSError."""
    write_whole(path, json.dumps([to_plain(report) for report in reports]).encode())


def load(path: Path) -> list[Report]:
    """Return the reports of a file; none when it is not there, or makes no sense."""
    try:
        return [from_plain(Report, report) for report in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []


def _last_trace(box: str | None) -> str:
    return "" if box is None else blackbox.read_trace(box)


def _last_lines(box: str | None) -> tuple[str, ...]:
    """Return the newest lines of a box that there is room for in a report."""
    kept: list[str] = []
    octets = 0
    lines = [] if box is None else blackbox.read_lines(box, LINES)
    for line in reversed(lines):
        octets += len(line)
        if octets > LINES_OCTETS:
            break
        kept.append(line)
    return tuple(reversed(kept))


def _lived_s(start_ticks: int) -> float | None:
    """Return for how long a process that has just ended was there; None when it was gone before we looked."""
    if start_ticks == 0:
        return None
    return round(time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks / os.sysconf("SC_CLK_TCK"), 3)
