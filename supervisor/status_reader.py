# SPDX-License-Identifier: Apache-2.0
"""Finding out how an instance is without asking it: from its runtime files, /proc, and its shared memory.

Everything is only read, so nothing here can disturb what it looks at, and a hung supervisor does not matter. Only the
instance's user and root may.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from halo_mp.errors import HaloError
from halo_mp.shm.counters import read_driver_counters, read_ports, read_worker_counters
from halo_mp.shm.layout import RegionKind
from halo_mp.shm.region import Region, region_name
from halo_mp.stats.status_model import FILE, ProcessStatus, Status, from_json
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
    counters, missing = _counters(status)
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


def _counters(status: Status) -> tuple[dict[int, PortCounters], str | None]:
    """Return the counters of each port, or why there are none."""
    drops: dict[int, Counter[str]] = {port.number: Counter() for port in status.ports}
    try:
        with _region(status.instance, "ports", RegionKind.PORTS) as region:
            ports = read_ports(region)["ports"]
        for process in status.processes:
            if process.slot is not None and process.ports:
                drops[process.ports[0]].update(_drops(status.instance, process))
    except (HaloError, KeyError) as error:
        return {}, str(error)
    found = {}
    for port in status.ports:
        stats = ports[port.number]["stats"] if port.number in ports else {}
        found[port.number] = PortCounters(
            frames_in=port.frames_in_before + stats.get("rx_frames", 0),
            frames_out=port.frames_out_before + stats.get("tx_frames", 0),
            drops=dict(drops[port.number].most_common()),
        )
    return found, None


def _drops(instance: str, worker: ProcessStatus) -> dict[str, int]:
    with _region(instance, f"slot.{worker.slot}", RegionKind.SLOT) as region:
        happened = Counter(read_worker_counters(region)["drops"])
        happened.update(read_driver_counters(region)["drops"])
    return {name: count for name, count in happened.items() if count}


@contextmanager
def _region(instance: str, name: str, kind: RegionKind) -> Iterator[Region]:
    region = Region.attach(region_name(instance, name), kind, writable=False)
    try:
        yield region
    finally:
        region.close()
