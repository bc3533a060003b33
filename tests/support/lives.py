# SPDX-License-Identifier: Apache-2.0
"""Who of an instance lives: pids from its log, and what /proc says of them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from tests.support.instance import Instance
from tests.support.namespace import wait_until

Role = Literal["driver", "worker"]


def said(instance: Instance, event: str, **fields: object) -> list[dict[str, Any]]:
    """Return the supervisor's own events of that name with these fields; children use some of the names too."""
    wanted = {"process": "supervisor", **fields}.items()
    return [entry for entry in instance.events(event) if wanted <= entry.items()]


def when(entry: dict[str, Any]) -> datetime:
    """Return when an event was logged."""
    return datetime.fromisoformat(entry["time"])


def pids(instance: Instance, role: Role, slot: int | None = None) -> list[int]:
    """Return the pids of all lives of a child in order, the latest last, the one that was adopted included."""
    began = (f"{role}.adopted", f"{role}.spawned")
    return [int(entry["pid"]) for event in began for entry in said(instance, event, **_slot(slot))]


def pid(instance: Instance, role: Role, slot: int | None = None) -> int:
    """Return the pid of a child's latest life."""
    return pids(instance, role, slot)[-1]


def is_useful(instance: Instance, role: Role, slot: int | None = None) -> bool:
    """Whether a child's latest life is one that does its work."""
    latest = pid(instance, role, slot)
    return bool(said(instance, f"{role}.ready", pid=latest, **_slot(slot))) and is_running(latest)


def wait_for_successor(
    instance: Instance, role: Role, old: int, slot: int | None = None, *, timeout_s: float = 15.0
) -> int:
    """Wait until a child has another life than `old`, and is useful; return its pid."""
    wait_until(
        lambda: pid(instance, role, slot) != old and is_useful(instance, role, slot),
        timeout_s=timeout_s,
        what=f"a successor of {role} {old} in\n{instance.text()}",
    )
    return pid(instance, role, slot)


def kill(process: int) -> None:
    """End a process as nothing can refuse."""
    os.kill(process, signal.SIGKILL)


def is_running(process: int) -> bool:
    """Whether a process is there, and no zombie."""
    return state(process) not in ("", "Z", "X")


def state(process: int) -> str:
    """Return a process's state as ps(1) has it, T when it is stopped; nothing when it is gone."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return stat[stat.rindex(")") + 2 :].split()[0]


def threads(process: int) -> list[dict[str, str]]:
    """Return /proc/<pid>/task/<tid>/status of each thread as a map."""
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        found.append({name: value.strip() for name, _, value in (line.partition(":") for line in lines)})
    return found


def descriptors(process: int) -> dict[int, str]:
    """Return what each descriptor of a process is, as the links of /proc/<pid>/fd say."""
    found = {}
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed while we looked
            found[int(entry.name)] = os.readlink(entry)
    return found


def _slot(slot: int | None) -> dict[str, object]:
    return {} if slot is None else {"slot": slot}
