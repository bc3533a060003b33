# SPDX-License-Identifier: Apache-2.0
"""Importing an application into a worker, once it has given up its privileges.

What would take the worker away from its packets is refused or turned aside before that: other event loops, and
output to a terminal or a pipe that nobody may read.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import io
import logging
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from halo_mp import logs
from halo_mp.app import App, launch
from halo_mp.errors import RuntimeFailure
from halo_mp.workers.settings import AppSettings

log = logs.get("app")

MOST_LINE = 8192
"""Characters of a line of the log that an application prints."""

_LOOP_REFUSED = (
    "{what} is refused in a worker: its event loop runs already, and polls the packets. Write async def functions and "
    "register them with @app.on_start or @app.task"
)


def load(settings: AppSettings, level: str) -> App:
    """Import an application and return its App. Raises RuntimeFailure with a sentence; the traceback is logged."""
    _prepare()
    try:
        module = import_application(settings)
    except Exception as error:
        log.exception("app.not_imported", app=settings.text)
        raise RuntimeFailure(
            f"the application {settings.text} could not be imported: {logs.describe(error)} ({_place(error)})."
        ) from None
    except SystemExit:
        raise RuntimeFailure(f"the application {settings.text} ended Python while it was imported.") from None
    app = getattr(module, settings.name, None)
    if not isinstance(app, App):
        found = "no variable of that name" if app is None else f"one of type {type(app).__name__}"
        names = [name for name, value in vars(module).items() if isinstance(value, App)]
        hint = f"; name {names[0]} instead" if names else f"; write {settings.name} = App() in it"
        raise RuntimeFailure(f"--app {settings.text}: the file has {found}, and an App is needed{hint}.")
    for name in {app.name, module.__name__}:
        logging.getLogger(name).setLevel(logs.LEVELS[level])
    return app


def _prepare() -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a worker has one core
    launch.in_worker = True
    sys.stdout = _LogStream("stdout")
    sys.stderr = _LogStream("stderr")
    _refuse_loops()


def import_application(settings: AppSettings) -> ModuleType:
    """Import the file or the module, and let it import its neighbors."""
    sys.path.insert(0, settings.directory)
    if settings.module:
        return importlib.import_module(settings.module)
    path = Path(settings.file)
    sys.path.insert(0, str(path.parent))
    name = path.stem
    if name in sys.modules or name in sys.stdlib_module_names:
        name = f"app_{name}"  # the file must not hide what others import by that name
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _place(error: BaseException) -> str:
    """Return file and line that an exception came from, past the import machinery."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    frames = [each for each in traceback.extract_tb(error.__traceback__) if "importlib" not in each.filename]
    return f"{frames[-1].filename}, line {frames[-1].lineno}"


def _refuse_loops() -> None:
    """Let no second event loop begin in this process."""
    for module in (asyncio, asyncio.runners):
        for name in ("run", "Runner"):
            setattr(module, name, _refusal(f"asyncio.{name}()"))
    for module in (asyncio, asyncio.events):
        module.new_event_loop = _refusal("asyncio.new_event_loop()")  # type: ignore[attr-defined]
    for name in ("run_forever", "run_until_complete"):
        _refuse_of_others(name)


def _refuse_of_others(name: str) -> None:
    """Let a method of event loops work for the one that runs now, which ends with it."""
    ours = asyncio.get_running_loop()
    method = getattr(asyncio.BaseEventLoop, name)
    refuse = _refusal(f"{name}()")

    def choose(loop: asyncio.BaseEventLoop, *arguments: Any) -> Any:
        return method(loop, *arguments) if loop is ours else refuse(*arguments)

    setattr(asyncio.BaseEventLoop, name, choose)


def _refusal(what: str) -> Any:
    def refuse(*arguments: Any, **_: Any) -> NoReturn:
        for each in arguments:
            if asyncio.iscoroutine(each):
                each.close()  # nobody will await it, and Python need not say so
        raise RuntimeError(_LOOP_REFUSED.format(what=what))

    return refuse


class _LogStream(io.TextIOBase):
    """What an application prints becomes lines of the log: whoever reads it can not hold up the worker.

    What does not end is a line when it has MOST_LINE characters; else each print(end="") would copy all before it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Libraries ask for it."""
        return "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, rest = (self._rest + text).split("\n")
        if len(rest) >= MOST_LINE:
            lines.append(rest)
            rest = ""
        self._rest = rest
        for line in lines:
            for start in range(0, max(1, len(line)), MOST_LINE):
                logs.line("print", stream=self._name, text=line[start : start + MOST_LINE])
        return len(text)
