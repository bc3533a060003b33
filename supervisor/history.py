# SPDX-License-Identifier: Apache-2.0
"""The configurations that were replaced, and the file in which they outlive their supervisor.

The file goes with the instance: a start that takes nothing over removes it. One of another version of this program, or
that makes no sense, is no history. Up to two million routes at 9 octets each: it is written by a thread.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from halo_mp.plain import from_plain, to_plain
from halo_mp.shm.fib import Columns
from halo_mp.supervisor.config_changes import Wanted
from halo_mp.supervisor.config_model import Config, HopConfig
from halo_mp.supervisor.config_routes import RouteList
from halo_mp.supervisor.state import write_whole

VERSION = 1
FILE = "history"
"""In the instance's directory."""
_CODES = ("I", "B", "I")
"""Of the columns of routes."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A configuration that was there, until another one was applied."""

    wanted: Wanted
    until: float
    """Seconds since 1970."""
    by: str
    changes: int


def save(path: Path, kept: Sequence[Kept]) -> None:
    """Replace the file. Raises OSError."""
    write_whole(path, msgpack.packb({"version": VERSION, "kept": [to_map(each) for each in kept]}))


def load(path: Path) -> list[Kept]:
    """Return what the file says, the oldest first; nothing when it is not there, or makes no sense."""
    try:
        found = msgpack.unpackb(path.read_bytes(), strict_map_key=False)
        return [from_map(each) for each in found["kept"]] if found["version"] == VERSION else []
    except (OSError, ValueError, TypeError, LookupError, ArithmeticError, msgpack.UnpackException):
        return []


def to_map(kept: Kept) -> dict[str, Any]:
    """Return one as what msgpack can hold."""
    columns = kept.wanted.routes.columns
    return {
        "config": to_plain(kept.wanted.config),
        "hops": to_plain(kept.wanted.routes.hops),
        "columns": [column.tobytes() for column in (columns.prefixes, columns.lengths, columns.which)],
        "until": kept.until,
        "by": kept.by,
        "changes": kept.changes,
    }


def from_map(plain: dict[str, Any]) -> Kept:
    """Return what `to_map` was given. Raises ValueError, TypeError, LookupError and ArithmeticError for rubbish."""
    routes = RouteList()
    for hops in plain["hops"]:
        routes.number(tuple(from_plain(HopConfig, hop) for hop in hops))
    prefixes, lengths, which = (
        array(code, octets) for code, octets in zip(_CODES, plain["columns"], strict=True)
    )
    if not len(prefixes) == len(lengths) == len(which) or max(which, default=-1) >= len(routes.hops):
        raise ValueError("columns of different lengths, or hops that are not there")
    routes.columns = Columns(prefixes, lengths, which)
    wanted = Wanted(from_plain(Config, plain["config"]), routes)
    return Kept(wanted, float(plain["until"]), str(plain["by"]), int(plain["changes"]))
