# SPDX-License-Identifier: Apache-2.0
"""Samples of an instance: counters ten times a second, a frame of everything once a second, the last minutes kept.

Counters, processes and log lines are read from shared memory, /proc and the runtime directory. Neighbors and routes are
the supervisor's, and asked for by who shows them.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from halo_mp import blackbox
from halo_mp.control.public import NeighborInfo, RouteInfo
from halo_mp.stats.model import Snapshot
from halo_mp.stats.processes import ProcessStats, read_processes
from halo_mp.stats.reader import Reader
from halo_mp.supervisor.boxes import OWN
from halo_mp.supervisor.status_text import moment

SAMPLE_S = 0.1
FRAME_S = 1.0
KEPT = 300  # frames: five minutes
LINES = 200  # of each log

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the supervisor knows, as it was when it was asked last; `problem`: why it could not be asked."""

    neighbors: tuple[NeighborInfo, ...] = ()
    routes: tuple[RouteInfo, ...] = ()
    more_routes: bool = False
    """There are more than are shown."""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A moment, and the one that its rates are over."""

    now: Snapshot
    before: Snapshot
    processes: Sequence[ProcessStats]
    processes_before: Sequence[ProcessStats]
    peaks: dict[int, int] = field(default_factory=dict)
    """Most descriptors that were seen on the rx ring of each slot in between."""
    lines: Sequence[str] = ()
    events: Sequence[str] = ()
    """What the supervisor logged last, oldest first."""
    asked: Asked = Asked()


class Feed:
    """Of one instance. `sample` and `frame` raise HaloError when it has ended."""

    def __init__(self, reader: Reader, directory: Path) -> None:
        """`directory` is the instance's own."""
        self._reader = reader
        self._boxes = directory / "last"
        self._supervisor = str(directory / OWN)
        self._supervisor_mark = (0, 0)
        self._events: list[str] = []
        self._before = reader.read()
        self._processes = read_processes(self._before.status)
        self._peaks: dict[int, int] = {}
        self.asked = Asked()
        """Put here by who asked."""
        self.frames: deque[Frame] = deque(maxlen=KEPT)
        """Oldest first."""

    def sample(self) -> Snapshot:
        """Read the counters."""
        now = self._reader.read()
        for number, slot in now.slots.items():
            self._peaks[number] = max(slot.rx_fill, self._peaks.get(number, 0))
        return now

    def frame(self, *, lines: bool = True) -> Frame:
        """Read everything, and keep it as the latest frame."""
        now = self.sample()
        if now.generation != self._before.generation:  # started anew: rates begin with this frame
            self._before, self._processes = now, []
        processes = read_processes(now.status)
        made = Frame(
            now=now,
            before=self._before,
            processes=processes,
            processes_before=self._processes,
            peaks=self._peaks,
            lines=self._lines(now) if lines else (),
            events=self._read_events(),
            asked=self.asked,
        )
        self._before, self._processes, self._peaks = now, processes, {}
        self.frames.append(made)
        return made

    def _read_events(self) -> list[str]:
        """Return what the supervisor logged last; the file is read when it has changed."""
        try:
            found = os.stat(blackbox.lines_path(self._supervisor))
        except OSError:  # it could not make one, or the instance has ended: the last that we know
            return self._events
        mark = found.st_ino, found.st_mtime_ns
        if mark != self._supervisor_mark:
            self._supervisor_mark = mark
            self._events = blackbox.read_lines(self._supervisor, LINES)
        return self._events

    def _lines(self, now: Snapshot) -> list[str]:
        """Return what processes logged last, and who has died, in the order of time."""
        found = list(self._read_events())
        for file in self._boxes.glob("*.lines"):
            found += blackbox.read_lines(str(file.with_suffix("")), LINES)
        found += (
            f"{moment(report.ended_at)} ERROR supervisor {report.name} {report.reason}"
            for report in now.status.reports
        )
        return sorted(found, key=time_of)


def time_of(line: str) -> str:
    """Return when a line was logged, as it says itself; nothing when it does not."""
    match = _TIME.search(line)
    return match.group() if match else ""


def first(routes: Iterable[RouteInfo], limit: int) -> tuple[tuple[RouteInfo, ...], bool]:
    """Return the first routes, and whether there are more."""
    found: list[RouteInfo] = []
    for route in routes:
        if len(found) == limit:
            return tuple(found), True
        found.append(route)
    return tuple(found), False
