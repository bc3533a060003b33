# SPDX-License-Identifier: Apache-2.0
"""Who made something, in words that stay true when pids are reused and machines reboot."""

from __future__ import annotations

import errno
import os
from functools import cache
from pathlib import Path

_CAN_NOT_LOOK = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@cache
def boot_id() -> bytes:
    """Return the 16 octets that differ for each boot of this kernel."""
    return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when it is gone or a zombie.

    Raises OSError when there is no descriptor to look with: who can not be looked at is not gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError as error:
        if error.errno in _CAN_NOT_LOOK:
            raise
        return None
    # The name in parentheses may hold anything, also spaces and parentheses.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def is_alive(pid: int, ticks: int) -> bool:
    """Tell whether exactly that process runs: a reused pid has other start ticks."""
    return pid > 0 and start_ticks(pid) == ticks


def own_start_ticks() -> int:
    """Return the start ticks of this process; from the second time on without a descriptor."""
    return _start_ticks_of(os.getpid())


@cache
def _start_ticks_of(pid: int) -> int:
    ticks = start_ticks(pid)
    assert ticks is not None  # /proc is mounted, and we are no zombie
    return ticks
