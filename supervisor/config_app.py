# SPDX-License-Identifier: Apache-2.0
"""Which application runs in the workers: --app, --app-dir, --app-debug."""

from __future__ import annotations

from pathlib import Path

from halo_mp.supervisor.config_model import AppConfig
from halo_mp.supervisor.config_reader import FlagReader
from halo_mp.supervisor.config_values import refusal

DEFAULT_NAME = "app"


def plan_app(reader: FlagReader, *, debug: bool) -> AppConfig | None:
    """Return the application, None where there is none. What is wrong with the flags is noted."""
    directory = reader.one("--app-dir", _directory, otherwise=str(Path.cwd()))
    found = reader.one("--app", _target, otherwise=None)
    if found is None:
        for flag in ("--app-dir", "--app-debug"):
            if reader.given(flag):
                reader.refuse(flag, f"{flag}: there is no application for it; add --app module:app.")
        return None
    place, name = found
    if place.endswith(".py"):
        return AppConfig("", str(Path(directory, place)), name, directory, debug)
    return AppConfig(place, "", name, directory, debug)


def _target(flag: str, text: str) -> tuple[str, str]:
    """Return file or module, and name, of `MODULE[:NAME]` or `FILE.py[:NAME]`."""
    place, _, name = text.partition(":")
    name = name or DEFAULT_NAME
    is_file = place.endswith(".py")
    if not is_file and not all(part.isidentifier() for part in place.split(".")):
        reason = "expected a module or a file that ends in .py, then ':' and the name of the App in it"
        raise refusal(flag, text, reason, "filter:app")
    if not name.isidentifier():
        raise refusal(flag, text, f"{name!r} can not be the name of a variable", f"{place}:app")
    return place, name


def _directory(flag: str, text: str) -> str:
    path = Path(text).absolute()
    if not path.is_dir():
        raise refusal(flag, text, "there is no such directory", ".")
    return str(path)
