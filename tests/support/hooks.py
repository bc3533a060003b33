# SPDX-License-Identifier: Apache-2.0
"""Native modules with hooks between the instructions that matter, and the order that a hook obeys.

native/include/halo/hook.h has the hooks. `build` makes modules that have them, once per test run; `Instance` and the
rig of tests/native start processes with those through tests/support/hooked.py; `Hooks` says what shall happen where:

    with Hooks() as hooks, Instance(namespace, via=hooks.via(build())) as instance:
        hooks.order("rx.claimed", Action.KILL, passage=3)   # the third time that a process comes by: kill -9
        hooks.wait_until_hit()
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Self

from tests.support.namespace import wait_until

ROOT = Path(__file__).resolve().parents[2]
BOOTSTRAP = Path(__file__).with_name("hooked.py")
VARIABLE = "HALO_MP_TEST_HOOKS"
_ORDER = struct.Struct("<IIIiII40s")  # struct halo_hook_order
_ARMED_AT, _HITS_AT = 0, 20
_folders: list[tempfile.TemporaryDirectory[str]] = []  # kept until this process ends
_HOOK = re.compile(r'HALO_HOOK\("([a-z._]+)"\)')


class Action(IntEnum):
    """What happens at a hook; enum halo_hook_action."""

    KILL = 1
    STOP = 2
    SLEEP = 3


def hook_names(folder: str) -> list[str]:
    """Return the hooks of native/driver or native/fastpath, in the order of the sources."""
    sources = sorted((ROOT / "native" / folder).glob("*.c"))
    return [name for source in sources for name in _HOOK.findall(source.read_text())]


@cache
def build() -> Path:
    """Build both native modules with hooks; return the folder, which goes when this process ends."""
    made = tempfile.TemporaryDirectory(prefix="halo-mp-test-hooks-")
    _folders.append(made)
    folder = Path(made.name)
    folder.chmod(0o755)  # workers that have given up root read it
    command = [sys.executable, "setup.py", "-q", "build_ext"]
    command += ["--build-lib", str(folder), "--build-temp", str(folder / "objects")]
    done = subprocess.run(command, cwd=ROOT, env=_compiler(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def _compiler() -> dict[str, str]:
    flags = f"{os.environ.get('CFLAGS', '')} -DHALO_TEST_HOOKS".strip()
    environment = os.environ | {"CFLAGS": flags}
    if shutil.which("ccache"):
        defaults = {"CC": "ccache gcc", "CCACHE_DIR": str(ROOT / "build" / "ccache"), "CCACHE_NOHASHDIR": "1"}
        environment = defaults | environment
    return environment


class Hooks:
    """One order at a time for all hooked processes that are started with `environment`. Use as a context manager."""

    def __init__(self) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="halo-mp-test-", suffix=".hooks")  # noqa: SIM115
        self._file.write(bytes(_ORDER.size))
        self._file.flush()
        Path(self._file.name).chmod(0o666)  # of workers too that have given up root
        self._memory = mmap.mmap(self._file.fileno(), _ORDER.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.close()
        self._file.close()

    @property
    def environment(self) -> Mapping[str, str]:
        """What a hooked process needs in its environment."""
        return {VARIABLE: self._file.name}

    def via(self, folder: Path) -> tuple[str, ...]:
        """Return what stands before `python -m MODULE ...` or `python PROGRAM ...` to run it with hooks."""
        environment = [f"{name}={value}" for name, value in self.environment.items()]
        command = 'python=$3; folder=$1 bootstrap=$2; shift 3; [ "$1" != -m ] || shift; '
        command += 'exec "$python" -P "$bootstrap" "$folder" "$@"'
        return ("env", *environment, "sh", "-c", command, "sh", str(folder), str(BOOTSTRAP))

    def order(
        self, name: str, action: Action = Action.KILL, *, passage: int = 1, pid: int = 0, argument: int = 0
    ) -> None:
        """Have that passage of a hook do something, in one process or (pid 0) in whichever comes by.

        `argument`: milliseconds of a sleep. Replaces the order before.
        """
        self.cancel()
        order = _ORDER.pack(0, action, argument, passage, pid, 0, name.encode())
        self._memory[4:] = order[4:]
        self._memory[_ARMED_AT : _ARMED_AT + 4] = (1).to_bytes(4, "little")  # last: a hook reads it first

    def cancel(self) -> None:
        """Let nothing happen any more."""
        self._memory[_ARMED_AT : _ARMED_AT + 4] = bytes(4)

    @property
    def hit(self) -> bool:
        """Whether the latest order was obeyed."""
        return any(self._memory[_HITS_AT : _HITS_AT + 4])

    def wait_until_hit(self, *, timeout_s: float = 10.0) -> None:
        """Wait until the order was obeyed."""
        order = _ORDER.unpack(self._memory[:])
        name = order[-1].rstrip(b"\0").decode()
        wait_until(
            lambda: self.hit, timeout_s=timeout_s, what=f"somebody passes {name}, {order[3]} times more"
        )
