# SPDX-License-Identifier: Apache-2.0
"""The state file: what a run is to be, has started and made, so that the next one can go on with it, or clean up.

Written whole and renamed into place, so that there is never half of one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from halo_mp.shm.identity import boot_id, is_alive

VERSION = 4


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the run."""

    role: str  # supervisor, driver, worker
    slot: int | None
    pid: int
    start_ticks: int
    box: str | None = None
    """Path of its black box; see `boxes`."""

    @property
    def is_alive(self) -> bool:
        """Whether exactly this process runs."""
        return is_alive(self.pid, self.start_ticks)


@dataclass(frozen=True, slots=True)
class State:
    """What a run leaves behind when it dies."""

    members: tuple[Member, ...] = ()
    taps: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    generation: int = 0
    """Of the regions; each run makes its own."""
    desired: Any = None
    """The configuration as `plain.to_plain` has it."""
    loaded: Any = None
    """What flags and file said when they were last read, likewise: who takes over has to ask for the same."""
    running: Any = None
    """What has become of it at run time, `running.Running`, likewise."""
    waiting: Sequence[Any] = ()
    """Routes behind connected ones, which the FIB does not hold: `plain.to_plain` of `Routes.waiting`."""
    kept: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """What dead drivers' ports had counted; see `Statistics.kept`."""


def save(path: Path, state: State) -> None:
    """Replace the file. Raises OSError."""
    octets: bytes = msgpack.packb(
        {
            "version": VERSION,
            "boot_id": boot_id(),
            "members": [[m.role, m.slot, m.pid, m.start_ticks, m.box] for m in state.members],
            "taps": list(state.taps),
            "regions": list(state.regions),
            "generation": state.generation,
            "desired": state.desired,
            "loaded": state.loaded,
            "running": state.running,
            "waiting": list(state.waiting),
            "kept": {name: dict(counters) for name, counters in state.kept.items()},
        }
    )
    write_whole(path, octets)


def write_whole(path: Path, octets: bytes) -> None:
    """Replace a file that only its owner may read; there is never half of one. Raises OSError."""
    new = path.with_name(f"{path.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(octets)
    new.rename(path)


def load(path: Path) -> State:
    """Return what the file says; nothing when it is not there, of another boot, or makes no sense."""
    try:
        found = msgpack.unpackb(path.read_bytes(), raw=False)
        if found["version"] != VERSION or found["boot_id"] != boot_id():
            return State()
        return State(
            members=tuple(
                Member(str(role), slot, int(pid), int(ticks), box)
                for role, slot, pid, ticks, box in found["members"]
            ),
            taps=tuple(str(name) for name in found["taps"]),
            regions=tuple(str(name) for name in found["regions"]),
            generation=int(found["generation"]),
            desired=found["desired"],
            loaded=found["loaded"],
            running=found["running"],
            waiting=tuple(found.get("waiting", ())),
            kept={str(name): dict(counters) for name, counters in found["kept"].items()},
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException):
        return State()
