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
class AppSettings:
    """The application to run: a file, or else a module."""

    file: str
    module: str
    name: str
    directory: str
    debug: bool

    @property
    def text(self) -> str:
        """What --app was given."""
        return f"{self.file or self.module}:{self.name}"


@dataclass(frozen=True, slots=True)
class Privileges:
    """As whom to go on."""

    mode: str  # "setuid", "capabilities" or "keep"
    user: tuple[int, int] | None  # uid, gid


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Where the supervisor is and which slot is ours."""

    runtime: Path
    instance: str
    slot: int | None  # None: a spare, which is told by its configuration
    log_level: str
    log_format: str
    app: AppSettings | None = None  # of a spare, which imports it before it is needed
    privileges: Privileges | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The `configure` message, checked."""

    slot: int
    idle: IdlePolicy
    spin_ns: int
    debug_log: bool
    privileges: Privileges
    macswap: tuple[tuple[int, int], ...]
    twins: tuple[
        tuple[int, int, int], ...
    ]  # port, its twin, the one of our addresses that is ours there or 0
    orphan_timeout_s: float
    slots: frozenset[int] = frozenset()  # that there are: frames may be handed to their workers
    probe: bool = False  # addresses before they are used
    icmp_rate: int = 100  # errors a second; 0: none
    reachable_time_s: float = 30.0  # of a neighbor that has answered
    ports: tuple[int, ...] = ()  # that feed the slot
    app: AppSettings | None = None


def parse_command_line(arguments: Sequence[str]) -> CommandLine:
    """Parse the arguments that the supervisor starts a worker with; nobody else does."""
    parser = argparse.ArgumentParser(prog="python -m halo_mp.workers", description=__doc__)
    parser.add_argument("--runtime", type=Path, required=True, help="runtime directory of the instance")
    parser.add_argument("--instance", required=True)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--slot", type=int, help="number of the slot to serve")
    which.add_argument("--spare", action="store_true", help="wait to be told which slot to serve")
    parser.add_argument("--app", help="the application that a spare imports, FILE.py:NAME or MODULE:NAME")
    parser.add_argument("--app-dir", default="")
    parser.add_argument("--app-debug", action="store_true")
    parser.add_argument("--privileges", default="keep", help="what a spare does with them before that")
    parser.add_argument("--user", help="uid:gid that it becomes")
    options = parser.parse_args(arguments)
    return CommandLine(
        runtime=options.runtime,
        instance=options.instance,
        slot=options.slot,
        log_level=os.environ.get("HALO_MP_LOG_LEVEL", "info"),
        log_format=os.environ.get("HALO_MP_LOG_FORMAT", "text"),
        app=_app(options) if options.app else None,
        privileges=_privileges(options) if options.app else None,
    )


def _app(options: argparse.Namespace) -> AppSettings:
    place, _, name = options.app.rpartition(":")
    is_file = place.endswith(".py")
    file, module = (place, "") if is_file else ("", place)
    return AppSettings(file, module, name, options.app_dir, options.app_debug)


def _privileges(options: argparse.Namespace) -> Privileges:
    if options.user is None:
        return Privileges(options.privileges, None)
    uid, _, gid = options.user.partition(":")
    return Privileges(options.privileges, (int(uid), int(gid)))


def parse_settings(message: dict[str, Any]) -> Settings:
    """Return the settings that a `configure` message carries. Raises KeyError, ValueError, TypeError."""
    user = message.get("user")
    return Settings(
        slot=int(message["slot"]),
        idle=IdlePolicy[str(message["idle"]).upper()],
        spin_ns=int(message.get("spin_ns", SPIN_NS)),
        debug_log=bool(message.get("debug_log", False)),
        privileges=Privileges(
            str(message.get("privileges", "keep")),
            None if user is None else (int(user["uid"]), int(user["gid"])),
        ),
        twins=tuple((int(port), int(twin), int(only)) for port, twin, only in message.get("twins", ())),
        macswap=tuple((int(port), int(to)) for port, to in message.get("macswap", ())),
        orphan_timeout_s=float(message["orphan_timeout_s"]),
        slots=frozenset(int(slot) for slot in message.get("slots", ())),
        probe=bool(message.get("probe", False)),
        icmp_rate=int(message.get("icmp_rate", 100)),
        reachable_time_s=float(message.get("reachable_time_s", 30.0)),
        ports=tuple(int(port) for port in message.get("ports", ())),
        app=None if message.get("app") is None else AppSettings(**message["app"]),
    )
