# SPDX-License-Identifier: Apache-2.0
"""A configuration that is taken back unless somebody confirms it in time, and the file in which that outlives us.

The file is written before anything is changed, so that a supervisor that takes over can always go back; it goes with
the confirmation, and with the instance. The deadline is one of the monotonic clock, which all processes of a boot share
and nobody sets.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import msgpack

from halo_mp.control.public import MAX_CONFIRM_S
from halo_mp.supervisor import history
from halo_mp.supervisor.history import Kept
from halo_mp.supervisor.running import RefusedError
from halo_mp.supervisor.state import write_whole

VERSION = 1
FILE = "confirm"
"""In the instance's directory."""
RETRY_S = 10.0
"""After which what could not be taken back is tried again."""
NOBODY = "no confirmation"
"""By whom a configuration is replaced that nobody confirmed."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """What is gone back to, and when."""

    before: Kept
    """`by` is who applied what is to be confirmed."""
    deadline: float
    """Of time.monotonic(); 0 while it is being applied: half of it, from a dead supervisor, is taken back at once."""
    until: float = 0.0
    """The same, as seconds since 1970, for people."""

    def applied(self, now: float, at: float, seconds: int) -> Awaited:
        """Return it with the time running, from `now` of the monotonic clock, `at` since 1970."""
        return dataclasses.replace(self, deadline=now + seconds, until=at + seconds)


def check_seconds(seconds: int) -> None:
    """Raise RefusedError unless one can wait so long for a confirmation."""
    if not 1 <= seconds <= MAX_CONFIRM_S:
        raise RefusedError(
            f"a confirmation can not be awaited for {seconds} s; for 1 to {MAX_CONFIRM_S} it can."
        )


def save(path: Path, awaited: Awaited) -> None:
    """Replace the file. Raises OSError."""
    content = {
        "version": VERSION,
        "before": history.to_map(awaited.before),
        "deadline": awaited.deadline,
        "until": awaited.until,
    }
    write_whole(path, msgpack.packb(content))


def load(path: Path) -> Awaited | None:
    """Return what the file says; None when it is not there, or makes no sense."""
    try:
        found = msgpack.unpackb(path.read_bytes(), strict_map_key=False)
        if found["version"] != VERSION:
            return None
        return Awaited(history.from_map(found["before"]), float(found["deadline"]), float(found["until"]))
    except (OSError, ValueError, TypeError, LookupError, ArithmeticError, msgpack.UnpackException):
        return None
