# SPDX-License-Identifier: Apache-2.0
"""Is the application there, and what must a worker be able to read of it?

It is not imported here: that is the workers' matter, once they have given up their privileges.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from halo_mp.supervisor.config_model import AppConfig


def missing(app: AppConfig) -> str:
    """Return the sentence that says why an application can not be there, or nothing."""
    if app.file:
        return "" if Path(app.file).is_file() else f"--app {app.text}: there is no file {app.file}."
    if not _top_level(app):
        top = app.module.partition(".")[0]
        return (
            f"--app {app.text}: there is no module {top} in {app.directory}, nor where Python looks for modules. "
            "Name its directory with --app-dir, or write --app path/to/file.py:app."
        )
    return ""


def read_paths(app: AppConfig) -> Iterator[Path]:
    """Yield what a worker must be able to read of an application: its file, or the package that it starts from."""
    if app.file:
        yield Path(app.file)
    elif found := _top_level(app):
        yield found
    yield Path(app.directory)


def _top_level(app: AppConfig) -> Path | None:
    """Return the file or the directory that a module's first name stands for."""
    top = app.module.partition(".")[0]
    for directory in (app.directory, *(entry for entry in sys.path if entry)):
        for candidate in (Path(directory, f"{top}.py"), Path(directory, top)):
            if candidate.exists():
                return candidate
    return None
