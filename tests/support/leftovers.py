# SPDX-License-Identifier: Apache-2.0
"""What an instance could leave behind: processes, shared memory, runtime directories, hugepages."""

from __future__ import annotations

from pathlib import Path

import psutil

_MODULES = ("halo_mp.supervisor", "halo_mp.workers")


def leftovers() -> set[str]:
    """Return a name for each thing of halo-mp that is on the machine now."""
    found = {f"shared memory {path.name}" for path in Path("/dev/shm").glob("halo-mp.*")}
    found |= {f"runtime directory {path}" for path in Path("/run/halo-mp").glob("*")}
    found |= {f"EAL directory {path}" for path in Path("/run/dpdk").glob("halo-mp*")}
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        words = process.info["cmdline"] or []
        if any(
            module in words or any(word.startswith(f"{module}.") for word in words) for module in _MODULES
        ):
            found.add(f"process {process.info['pid']} ({' '.join(words)})")
    return found
