# SPDX-License-Identifier: Apache-2.0
"""Finding out how an instance is without asking it: from its runtime files, /proc, and its shared memory.

Everything is only read, so nothing here can disturb what it looks at, and a hung supervisor does not matter. Only the
instance's user and root may.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from halo_mp.errors import HaloError
from halo_mp.stats.reader import NoMemory, Reader
from halo_mp.stats.status_model import FILE, Status, from_json
from halo_mp.supervisor.reports import Report, load


class Verdict(enum.Enum):
    """How an instance is."""

    WELL = "well"
    UNWELL = "unwell"
    """It runs, and something of it has failed, or is not ready yet."""
    STARTING = "starting"
    """It runs, and has said nothing of itself yet."""
    ORPHANED = "orphaned"
    """Its supervisor is dead, and processes of it live on."""
    DEAD = "dead"
    """Only files are left."""
    UNKNOWN = "unknown"
    """There is none of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortCounters:
    """Since the instance was started: frames that a port took from the wire and gave to it, and drops of the slots that
    it is the first to feed."""

    frames_in: int
    frames_out: int
    drops: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found of a name."""

    name: str
    verdict: Verdict
    pid: int | None = None
    """Of the supervisor that runs."""
    status: Status | None = None
    alive: tuple[str, ...] = ()
    """Processes that live, of an instance without a supervisor."""
    counters: dict[int, PortCounters] = field(default_factory=dict)
    counters_missing: str | None = None
    """Why there are none."""
    reports: tuple[Report, ...] = ()


def look(base: Path, name: str) -> Found:
    """Return what there is of an instance. Raises PermissionError."""
    directory = base / name
    status = _read_status(directory)
    pid = _running_pid(directory, status)
    if status is None:
        if pid is not None:
            return Found(name=name, verdict=Verdict.STARTING, pid=pid)
        left = directory.is_dir()
        return Found(name=name, verdict=Verdict.DEAD if left else Verdict.UNKNOWN)
    alive = tuple(process.name for process in status.processes if process.is_alive)
    counters, missing = _counters(base, name)
    return Found(
        name=name,
        verdict=_verdict(status, pid, alive),
        pid=pid,
        status=status,
        alive=alive,
        counters=counters,
        counters_missing=missing,
        reports=tuple(load(directory / "reports")),
    )


def others(base: Path) -> list[str]:
    """Return the names of which there is something."""
    try:
        return sorted(entry.name for entry in base.iterdir() if (entry / "lock").exists())
    except OSError:
        return []


def _verdict(status: Status, pid: int | None, alive: tuple[str, ...]) -> Verdict:
    if pid is not None:
        return Verdict.WELL if status.is_well else Verdict.UNWELL
    return Verdict.ORPHANED if alive else Verdict.DEAD


def _read_status(directory: Path) -> Status | None:
    try:
        return from_json((directory / FILE).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _running_pid(directory: Path, status: Status | None) -> int | None:
    """Return the pid of a supervisor that lives.

    Not by trying the lock: a supervisor that starts at that moment would find it taken.
    """
    if status is not None:
        return status.supervisor_pid if status.is_supervised else None
    try:
        text = (directory / "lock").read_text().strip()
        words = Path(f"/proc/{text}/cmdline").read_bytes().split(b"\0") if text.isdigit() else []
    except OSError:
        return None
    return int(text) if any(word.startswith(b"halo_mp.supervisor") for word in words) else None


def _counters(base: Path, name: str) -> tuple[dict[int, PortCounters], str | None]:
    """Return the counters of each port, or why there are none."""
    try:
        with Reader(name, base=base) as reader:
            found = reader.read()
    except NoMemory:
        return {}, "it has no shared memory."
    except HaloError as error:
        return {}, str(error)
    drops: dict[int, Counter[str]] = {number: Counter() for number in found.ports}
    for slot in found.slots.values():
        if slot.ports:
            drops[slot.ports[0]].update(slot.drops)
    return {
        number: PortCounters(
            frames_in=port.counters["rx_frames"],
            frames_out=port.counters["tx_frames"],
            drops=dict(drops[number].most_common()),
        )
        for number, port in found.ports.items()
    }, None
