# SPDX-License-Identifier: Apache-2.0
"""The machine that benchmarks run on: cores, hugepages, a network namespace of our own."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNET = 0x40000000
_HUGEPAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


def pick_cores(count: int) -> list[int]:
    """Return `count` cores that we may use, repeating them where there are fewer."""
    allowed = sorted(os.sched_getaffinity(0))
    return [allowed[i % len(allowed)] for i in range(count)]


def enter_network_namespace() -> None:
    """Move this process, and so its children, into a network namespace of its own with lo up. Needs root."""
    if getattr(enter_network_namespace, "entered", False):
        return
    from pyroute2 import IPRoute

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"a network namespace cannot be made: {os.strerror(error)}; run as root")
    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")
    enter_network_namespace.entered = True  # type: ignore[attr-defined]


@contextmanager
def hugepages(count: int) -> Iterator[bool]:
    """Have at least `count` free 2 MiB hugepages within the block; False when the machine does not give them."""
    reserve = _HUGEPAGES / "nr_hugepages"
    try:
        before = int(reserve.read_text())
        reserve.write_text(str(before + count))
    except OSError:
        yield False
        return
    try:
        yield int((_HUGEPAGES / "free_hugepages").read_text()) >= count
    finally:
        reserve.write_text(str(before))


def wait_until(condition: object, timeout_s: float, what: str) -> None:
    """Wait until `condition()` is true. Raises TimeoutError that names what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(0.01)
