# SPDX-License-Identifier: Apache-2.0
"""Starts a module of halo-mp with native modules that have hooks: `python -P hooked.py FOLDER MODULE [ARGUMENTS]`.

MODULE halo_mp.supervisor starts its children the same way; it has no hooks itself. MODULE may be the path of a program
that hosts a driver. This file is run, never imported, by processes that know nothing of the tests.
"""

from __future__ import annotations

import dataclasses
import importlib.machinery
import importlib.util
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

SUPERVISOR, DRIVER = "halo_mp.supervisor", "halo_mp.supervisor.driver"


def load(name: str, folder: Path) -> None:
    """Make `import halo_mp.<name>` find the one that is built into the folder."""
    [path] = (folder / "halo_mp").glob(f"{name}.*.so")
    full_name = f"halo_mp.{name}"
    loader = importlib.machinery.ExtensionFileLoader(full_name, str(path))
    spec = importlib.util.spec_from_file_location(full_name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    loader.exec_module(module)


def hooked(command: Sequence[str], folder: str) -> tuple[str, ...]:
    """Return a command that runs `python ... -m MODULE ...` through this file."""
    at = list(command).index("-m")
    return (*command[:at], __file__, folder, *command[at + 1 :])


def hook_children(folder: str) -> None:
    """Have the supervisor of this process start hooked children."""
    from halo_mp.supervisor import supervisor

    ordinary = supervisor.Launch()

    def launch() -> supervisor.Launch:
        return dataclasses.replace(
            ordinary, driver=hooked(ordinary.driver, folder), worker=hooked(ordinary.worker, folder)
        )

    supervisor.Launch = launch  # type: ignore[assignment, misc]


def main() -> None:
    folder, module, *arguments = sys.argv[1:]
    if module == SUPERVISOR:
        hook_children(folder)
    else:
        load("_native", Path(folder))
    if module == DRIVER or module.endswith(".py"):
        load("_driver", Path(folder))
    sys.argv = [module, *arguments]
    if module.endswith(".py"):
        runpy.run_path(module, run_name="__main__")
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
