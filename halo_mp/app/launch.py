# SPDX-License-Identifier: Apache-2.0
"""From `app.run(...)` in a file to the supervisor's command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

SUPERVISOR = ("-P", "-m", "halo_mp.supervisor")


in_worker = False  # set by a worker before it imports an application


def run(app: object, flags: Mapping[str, Any]) -> NoReturn:
    """Replace this process by a supervisor that runs `app`. Raises RuntimeError, TypeError."""
    if in_worker:
        raise RuntimeError(
            "app.run() was called in a worker, which runs the application already: call it below "
            '`if __name__ == "__main__":`'
        )
    command = [sys.executable, *SUPERVISOR, *find(app), *words(flags), *sys.argv[1:]]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, command)


def find(app: object) -> list[str]:
    """Return the flags that say where an application is: in the file that was started. Raises RuntimeError."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    names = [name for name, value in vars(main).items() if value is app] if main else []
    if file is None or not names:
        raise RuntimeError(
            "app.run() starts the file that holds `app` as a global variable, and was called from elsewhere: call it "
            'in that file, below `if __name__ == "__main__":`'
        )
    path = Path(file).resolve()
    return ["--app", f"{path}:{names[0]}"]


def words(flags: Mapping[str, Any]) -> list[str]:
    """Return keyword arguments as a command line: numbers of a list behind commas, its texts each with a flag."""
    found = []
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        match value:
            case None | False:
                pass
            case True:
                found.append(flag)
            case str() | int() | float():
                found.append(f"{flag}={value}")
            case Iterable():
                found += _list(flag, list(value))
            case _:
                raise TypeError(
                    f"app.run({name}={value!r}): a flag is a text, a number, True, or a list of these"
                )
    return found


def _list(flag: str, values: list[Any]) -> list[str]:
    if values and all(isinstance(each, int) for each in values):
        return [f"{flag}={','.join(map(str, values))}"]
    return [f"{flag}={each}" for each in values]
