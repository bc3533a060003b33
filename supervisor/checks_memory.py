# SPDX-License-Identifier: Apache-2.0
"""Is there enough memory: in /dev/shm for the regions, as hugepages, and at all?"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from halo_mp.errors import EnvironmentProblem
from halo_mp.shm.region import DIRECTORY
from halo_mp.supervisor.config_model import Config, free_pages
from halo_mp.supervisor.config_pool import MIB, memory_mb, pages_needed, pool_geometry, region_octets


def check_shared_memory(config: Config) -> None:
    """Refuse when /dev/shm cannot hold the regions. The pool is no file there, but counts as memory."""
    need = region_octets(config)
    try:
        found = os.statvfs(DIRECTORY)
    except OSError as error:
        raise EnvironmentProblem(
            f"{DIRECTORY} can not be used: {error.strerror}. Type: sudo mount -t tmpfs tmpfs {DIRECTORY}"
        ) from None
    free = found.f_bavail * found.f_frsize
    if free < need:
        size = found.f_blocks * found.f_frsize + need - free
        raise EnvironmentProblem(
            f"{DIRECTORY} has {_mib(free, up=False)} MiB free, and rings and tables need {_mib(need)} MiB. "
            f"Type: sudo mount -o remount,size={_mib(size)}m {DIRECTORY} (for a container: docker run "
            f"--shm-size={_mib(size)}m ...), or use a smaller --ring-size."
        )


def check_hugepages(config: Config, *, sysfs: Path = Path("/sys")) -> None:
    """Refuse when there are not enough hugepages of the size that is wanted."""
    if config.hugepages is None:
        return
    directory = sysfs / "kernel/mm/hugepages"
    need = pages_needed(pool_geometry(config), memory_mb(config), config.hugepages)
    free = free_pages(directory).get(config.hugepages)
    without = "" if config.pcis else " (or do without: --hugepages off)"
    if free is None:
        raise EnvironmentProblem(
            f"This kernel has no hugepages of {_mib(config.hugepages)} MiB. Use another size with "
            f"--hugepages{without}."
        )
    if free < need:
        file = directory / f"hugepages-{config.hugepages >> 10}kB" / "nr_hugepages"
        total = int(file.read_text()) + need - free
        raise EnvironmentProblem(
            f"{need} hugepages of {_mib(config.hugepages)} MiB are needed, {free} are free. Type: echo "
            f"{total} | sudo tee {file}{without}."
        )


def check_memory(config: Config) -> None:
    """Refuse when the pool would not fit into RAM: the kernel would kill something instead, maybe us."""
    need = region_octets(config)
    if config.hugepages is None:
        need += pool_geometry(config).size_octets + memory_mb(config) * MIB
    free, where = _available()
    if free < need:
        raise EnvironmentProblem(
            f"Pool, rings and DPDK need {_mib(need)} MiB of memory, and {where} has {_mib(free, up=False)} "
            "MiB. Use a smaller --ring-size or --pool-size, fewer --queues, or free some memory."
        )


def _available() -> tuple[int, str]:
    """Return how much memory there is for us, and what sets that bound."""
    free, where = psutil.virtual_memory().available, "this machine"
    for limit in _cgroup_limits():
        if limit < free:
            free, where = limit, "this control group or container"
    return free, where


def _cgroup_limits() -> list[int]:
    """Return the memory limits of this process's own control groups, of version 2 and 1."""
    limits: list[int] = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            kind = "memory/" if controllers else ""
            file = Path(f"/sys/fs/cgroup/{kind}{path.lstrip('/')}") / (
                "memory.limit_in_bytes" if controllers else "memory.max"
            )
            text = file.read_text().strip() if file.exists() else ""
            limits += [int(text)] if text.isdecimal() else []
    return limits


def _mib(octets: int, *, up: bool = True) -> int:
    return -(-octets // MIB) if up else octets // MIB
