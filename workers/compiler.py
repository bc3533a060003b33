# SPDX-License-Identifier: Apache-2.0
"""`python -m halo_mp.workers.compiler`: compiles one hook into an instance's cache while its worker goes on.

Started by a worker, beside it and without its haste. The hook is found by module and name, as the application has it.
Exit status: 0 it is in the cache, 1 not, and standard output says why.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from halo_mp.app import launch
from halo_mp.app.registry import HookSpec
from halo_mp.app.verdict import Stage
from halo_mp.workers.app_loader import import_application
from halo_mp.workers.compiled import NotCompiled, compile_hook
from halo_mp.workers.settings import AppSettings

NICENESS = 10


def command(settings: AppSettings, spec: HookSpec, cache: Path) -> list[str]:
    """Return what compiles a hook. Raises NotCompiled for a function that another process could not find."""
    function = spec.function
    module, name = function.__module__, function.__qualname__
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not function:
        raise NotCompiled(
            f"{name} is no global of {module}: another process, which is to compile it, can not find it"
        )
    arguments = [sys.executable, "-P", "-m", "halo_mp.workers.compiler", "--cache", str(cache)]
    arguments += [
        "--app-file",
        settings.file,
        "--app-module",
        settings.module,
        "--app-dir",
        settings.directory,
    ]
    arguments += ["--hook", f"{module}:{name}"]
    return [*arguments, "--octets"] if spec.octets else arguments


def main() -> int:
    """Compile, and say how it went."""
    parser = argparse.ArgumentParser(prog="python -m halo_mp.workers.compiler", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--app-file", default="")
    parser.add_argument("--app-module", default="")
    parser.add_argument("--app-dir", required=True)
    parser.add_argument("--hook", required=True, help="module:name")
    parser.add_argument("--octets", action="store_true", help="it takes the octets of the frame too")
    options = parser.parse_args()
    os.nice(NICENESS)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))  # not on the core of the worker that waits for it
    launch.in_worker = True
    try:
        import_application(AppSettings(options.app_file, options.app_module, "app", options.app_dir, False))
        module, _, name = options.hook.partition(":")
        function: Any = sys.modules[module]
        for part in name.split("."):
            function = getattr(function, part)
        spec = HookSpec(
            function=function, name=name, stage=Stage.INGRESS, form="packet", jit=True, octets=options.octets
        )
        compile_hook(spec, options.cache)
    except (Exception, SystemExit) as error:
        sys.stdout.write(str(error) if isinstance(error, NotCompiled) else f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
