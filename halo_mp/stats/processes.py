# SPDX-License-Identifier: Apache-2.0
"""What the processes of an instance take of the machine, by psutil and /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from halo_mp.shm.identity import is_alive
from halo_mp.stats.status_model import Status

_MINOR_FAULTS, _MAJOR_FAULTS, _STATE = (
    10,
    12,
    3,
)  # fields of /proc/<pid>/stat; the state is the first behind the name


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStats:
    """A process, or the place of one that is not there now. Sums are since it was started."""

    name: str
    """`supervisor`, `driver`, `spare`, or `worker 0`."""
    role: str
    slot: int | None
    pid: int | None
    state: str
    since: float
    """When it came into that state; seconds since 1970."""
    restarts: int
    note: str
    """Why it has failed."""
    cpu_s: float = 0.0
    affinity: tuple[int, ...] = ()
    """Cores that it may run on; lcores, which are threads of the driver, have cores of their own."""
    core: int = -1
    """On which its main thread ran last."""
    resident_octets: int = 0
    threads: int = 0
    open_files: int = 0
    switches: int = 0
    """Context switches that it wanted: it waited for something."""
    switches_forced: int = 0
    minor_faults: int = 0
    major_faults: int = 0


def read_processes(status: Status) -> list[ProcessStats]:
    """Return the processes of an instance, the supervisor first. One that ends meanwhile is one that has ended."""
    return [_measured(process) for process in _listed(status)]


def _listed(status: Status) -> Iterator[tuple[ProcessStats, int]]:
    """Yield what the instance says of each, with its start ticks."""
    supervised = status.is_supervised
    yield (
        ProcessStats(
            name="supervisor",
            role="supervisor",
            slot=None,
            pid=status.supervisor_pid if supervised else None,
            state="ready" if supervised else "gone",
            since=status.since,
            restarts=0,
            note="",
        ),
        status.supervisor_start_ticks,
    )
    for process in status.processes:
        found = ProcessStats(
            name=process.name,
            role=process.role,
            slot=process.slot,
            pid=process.pid,
            state=process.state,
            since=process.since,
            restarts=process.restarts,
            note=process.failed_because or "",
        )
        yield found, process.start_ticks


def _measured(listed: tuple[ProcessStats, int]) -> ProcessStats:
    found, start_ticks = listed
    if found.pid is None:
        return found
    try:
        if not is_alive(found.pid, start_ticks):
            return _gone(found)
        return _measure(found, psutil.Process(found.pid))
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return _gone(found)


def _gone(found: ProcessStats) -> ProcessStats:
    return replace(found, pid=None, state="gone")


def _measure(found: ProcessStats, process: psutil.Process) -> ProcessStats:
    with process.oneshot():
        times, switches = process.cpu_times(), process.num_ctx_switches()
        minor, major = _faults(process.pid)
        return replace(
            found,
            cpu_s=times.user + times.system,
            affinity=tuple(process.cpu_affinity() or ()),
            core=process.cpu_num(),
            resident_octets=process.memory_info().rss,
            threads=process.num_threads(),
            open_files=len(os.listdir(f"/proc/{process.pid}/fd")),
            switches=switches.voluntary,
            switches_forced=switches.involuntary,
            minor_faults=minor,
            major_faults=major,
        )


def _faults(pid: int) -> tuple[int, int]:
    """Return minor and major page faults, which psutil has not."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[_MINOR_FAULTS - _STATE]), int(words[_MAJOR_FAULTS - _STATE])
