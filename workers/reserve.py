# SPDX-License-Identifier: Apache-2.0
"""The last of a process's memory, kept for its last words; native/include/halo/reserve_def.h says how.

Python tells that memory has run out with an exception that arises anywhere: inside an application's `except`, in a C
extension that does not look, in the logger. Some of these places crash. So the first allocation that would fail gets
what was kept, and the process is told instead, at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from halo_mp.errors import HaloError
from halo_mp.shm.layout import ffi, lib

RESERVE_OCTETS = 8 << 20
"""Of address space; no page of it is touched. Several of Python's arenas of 1 MiB."""

_said: list[Callable[[], None]] = []


def hold(when_used: Callable[[], None]) -> None:
    """Keep the reserve, once a process; `when_used` is called in the main thread once it had to be given back.

    Requests of more than a quarter of it fail with MemoryError as ever, and leave it alone. Raises HaloError when there
    is no room for it.
    """
    error = lib.halo_reserve_hold(RESERVE_OCTETS)
    if error:
        raise HaloError(
            f"there is no room for a reserve of {RESERVE_OCTETS >> 20} MiB of address space: {os.strerror(-error)}. "
            "Raise the limit that the worker was started with (ulimit -v)."
        )
    _said.append(when_used)


@ffi.def_extern()  # type: ignore[untyped-decorator]
def halo_reserve_used() -> None:
    """Be told by C."""
    for when_used in _said:
        when_used()
