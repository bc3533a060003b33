# SPDX-License-Identifier: Apache-2.0
"""What an instance says of itself: values, as JSON and back.

The supervisor writes them to `<runtime>/status.json`; whoever wants to know reads that and asks nobody. Times are
seconds since 1970. A process is named by pid and start ticks, so that a reader sees for itself whether it lives.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from halo_mp.plain import from_plain, to_plain
from halo_mp.shm.identity import is_alive

VERSION = 4
FILE = "status.json"

ProcessState = Literal["starting", "ready", "failed", "stopped"]
InstanceState = Literal["starting", "up", "stopping"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStatus:
    """A process that the supervisor keeps, or the place of one that is not there now."""

    role: str
    slot: int | None
    ports: tuple[int, ...]
    """Whose frames come to this worker."""
    pid: int | None
    start_ticks: int
    state: ProcessState
    """`starting` until it does its work; `failed` while it waits for its next try, having ended too often."""
    since: float
    """When it came into that state."""
    restarts: int
    failed_because: str | None
    retry_at: float | None

    @property
    def name(self) -> str:
        """`driver`, `spare`, or `worker 0`."""
        return self.role if self.slot is None else f"{self.role} {self.slot}"

    @property
    def is_alive(self) -> bool:
        """Whether exactly this process runs."""
        return self.pid is not None and is_alive(self.pid, self.start_ticks)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortStatus:
    """A port, as the driver last said that it is. Before that nothing is known but its device."""

    number: int
    device: str
    driver: str
    mac: str
    mtu: int
    state: str
    """`started`, `failed`, or `absent` while there is no driver that has it."""
    link_up: bool
    counted_before: dict[str, int] = field(default_factory=dict)
    """What drivers before this one have counted: every counter of the port that is no xstat."""
    failed_because: str | None = None
    """Why it has no device, which is looked for."""
    spread: str = ""
    """Who spreads its frames over several queues, `hardware` or `software`; empty where there is one."""
    queues: int = 1
    kernel: str = ""
    """The kernel's interface, where the port is shared with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportLine:
    """A report in one line; all of it is in `<runtime>/reports`."""

    name: str
    pid: int | None
    ended_at: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """An instance."""

    instance: str
    state: InstanceState
    supervisor_pid: int
    supervisor_start_ticks: int
    since: float
    """When this supervisor started."""
    processes: tuple[ProcessStatus, ...]
    ports: tuple[PortStatus, ...]
    reports: tuple[ReportLine, ...]
    confirm_until: float | None = None
    """When its configuration is taken back unless somebody confirms it."""
    confirm_by: str | None = None
    """Who has applied that."""

    @property
    def is_supervised(self) -> bool:
        """Whether the supervisor that wrote it lives."""
        return is_alive(self.supervisor_pid, self.supervisor_start_ticks)

    @property
    def is_well(self) -> bool:
        """Whether everything does its work."""
        return (
            self.state == "up"
            and all(process.state == "ready" for process in self.processes)
            and all(port.state == "started" for port in self.ports)
        )


def to_json(status: Status) -> str:
    """Return it as text."""
    return json.dumps({"version": VERSION, **to_plain(status)})


def from_json(text: str) -> Status | None:
    """Return what `to_json` was given; None when it was something else, or of another version."""
    try:
        found = json.loads(text)
        return from_plain(Status, found) if found.pop("version") == VERSION else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
