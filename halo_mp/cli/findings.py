# SPDX-License-Identifier: Apache-2.0
"""What `halo-mp doctor` finds: a sentence, how bad it is, and what to type about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["good", "note", "warning", "failure"]
"""A note is about speed or about devices that one may not want; with a warning something works badly, with a failure
nothing starts."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    level: Level
    text: str
    commands: tuple[str, ...] = ()
    """That mend it, to be typed as root unless they say sudo or otherwise."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where things are looked at; tests have a tree of their own."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")

    def read(self, path: Path) -> str:
        """Return what a file says, without blanks around it; nothing when it can not be read."""
        try:
            return path.read_text().strip()
        except (OSError, UnicodeDecodeError):
            return ""


def numbers(text: str) -> list[int]:
    """Return the numbers of a list as the kernel writes it: 0-3,7."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            found.extend(range(int(first), int(last or first) + 1))
    return found
