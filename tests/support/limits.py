# SPDX-License-Identifier: Apache-2.0
"""Limits of processes that run already."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import psutil

from tests.support import lives

_LIMITS = {"nofile": psutil.RLIMIT_NOFILE, "as": psutil.RLIMIT_AS}

Limit = Literal["nofile", "as"]


@contextmanager
def limited(process: int, limit: Limit, amount: int) -> Iterator[None]:
    """Let a running process have no more of something, until the end of the block or its own."""
    soft, _ = psutil.Process().rlimit(_LIMITS[limit])  # as everybody has it here
    set_limit(process, limit, amount)
    try:
        yield
    finally:
        if lives.is_running(process):
            set_limit(process, limit, soft)


def set_limit(process: int, limit: Limit, amount: int) -> None:
    """Set a soft limit, -1 for none, as the user that the process is of: a worker's is not ours."""
    of = psutil.Process(process)
    become = ["setpriv", f"--reuid={of.uids().real}", f"--regid={of.gids().real}", "--clear-groups", "--"]
    wanted = "unlimited" if amount == -1 else str(amount)
    subprocess.run([*become, "prlimit", f"--pid={process}", f"--{limit}={wanted}:"], check=True)
