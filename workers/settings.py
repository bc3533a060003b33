# SPDX-License-Identifier: Apache-2.0
"""What a worker is told: by its command line, and by the supervisor's `configure` message."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halo_mp.shm.layout import IdlePolicy

SPIN_NS = 100_000  # an idle worker polls this long before it sleeps: about one wake-up's cost, twice


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Where the supervisor is and which slot is ours."""

    runtime: Path
    instance: str
    slot: int | None  # None: a spare, which is told by its configuration
    log_level: str
    log_format: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The `configure` message, checked."""

    slot: int
    idle: IdlePolicy
    spin_ns: int
    debug_log: bool
    privileges: str  # "setuid", "capabilities" or "keep"
    user: tuple[int, int] | None  # uid, gid
    macswap: tuple[tuple[int, int], ...]
    twins: tuple[
        tuple[int, int, int], ...
    ]  # port, its twin, the one of our addresses that is ours there or 0
    orphan_timeout_s: float
    slots: frozenset[int] = frozenset()  # that there are: frames may be handed to their workers
    probe: bool = False  # addresses before they are used
    icmp_rate: int = 100  # errors a second; 0: none
    reachable_time_s: float = 30.0  # of a neighbor that has answered


def parse_command_line(arguments: Sequence[str]) -> CommandLine:
    """Parse the arguments that the supervisor starts a worker with; nobody else does."""
    parser = argparse.ArgumentParser(prog="python -m halo_mp.workers", description=__doc__)
    parser.add_argument("--runtime", type=Path, required=True, help="runtime directory of the instance")
    parser.add_argument("--instance", required=True)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--slot", type=int, help="number of the slot to serve")
    which.add_argument("--spare", action="store_true", help="wait to be told which slot to serve")
    options = parser.parse_args(arguments)
    return CommandLine(
        runtime=options.runtime,
        instance=options.instance,
        slot=options.slot,
        log_level=os.environ.get("HALO_MP_LOG_LEVEL", "info"),
        log_format=os.environ.get("HALO_MP_LOG_FORMAT", "text"),
    )


def parse_settings(message: dict[str, Any]) -> Settings:
    """Return the settings that a `configure` message carries. Raises KeyError, ValueError, TypeError."""
    user = message.get("user")
    return Settings(
        slot=int(message["slot"]),
        idle=IdlePolicy[str(message["idle"]).upper()],
        spin_ns=int(message.get("spin_ns", SPIN_NS)),
        debug_log=bool(message.get("debug_log", False)),
        privileges=str(message.get("privileges", "keep")),
        user=None if user is None else (int(user["uid"]), int(user["gid"])),
        twins=tuple((int(port), int(twin), int(only)) for port, twin, only in message.get("twins", ())),
        macswap=tuple((int(port), int(to)) for port, to in message.get("macswap", ())),
        orphan_timeout_s=float(message["orphan_timeout_s"]),
        slots=frozenset(int(slot) for slot in message.get("slots", ())),
        probe=bool(message.get("probe", False)),
        icmp_rate=int(message.get("icmp_rate", 100)),
        reachable_time_s=float(message.get("reachable_time_s", 30.0)),
    )
