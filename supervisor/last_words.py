# SPDX-License-Identifier: Apache-2.0
"""Asking a process that stands still where it is, before it is killed.

faulthandler answers SIGUSR2 from C, also while the interpreter is busy or waits. One that is stopped answers nothing,
and one that does not catch the signal would end by it: neither is asked.
"""

from __future__ import annotations

from pathlib import Path

from halo_mp import blackbox
from halo_mp.supervisor.process import Process, is_stopped

WAIT_S = 0.1
_POLL_S = 0.01


async def ask(child: Process) -> str | None:
    """Return when the process has written its traceback into its box; after 100 ms why it has not, as a sentence."""
    if child.box is None or child.gone:
        return None
    if silence := _silence(child.pid):
        return silence
    trace = blackbox.trace_path(child.box)
    try:
        with trace.open("wb"):
            pass  # what is in it by now is no answer of today
    except OSError as error:
        return f"There was no box to write into ({error.strerror})."
    child.signal(blackbox.ASKING)
    length = 0
    for _ in range(round(WAIT_S / _POLL_S)):
        if await child.wait_for(_POLL_S):
            return None
        before, length = length, _length(trace)
        if 0 < before == length:
            return None
    return None if length else f"It did not answer {blackbox.ASKING.name}: the kernel did not let it."


def _silence(pid: int) -> str | None:
    """Return why a process need not be asked, None when it may answer."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    caught = int(status.get("SigCgt", "0"), 16) >> (blackbox.ASKING - 1) & 1
    if is_stopped(pid):
        return "It was stopped, by SIGSTOP or by a debugger, so it could not say where it was."
    return (
        None if caught else f"It did not catch {blackbox.ASKING.name} yet, so it could not say where it was."
    )


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
