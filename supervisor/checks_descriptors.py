# SPDX-License-Identifier: Apache-2.0
"""May every process of the instance open as many files as it needs?

The numbers were counted on instances with TAPs, with room for what is open for a moment: while Python imports,
while a driver maps what it was sent.
"""

from __future__ import annotations

import resource

from halo_mp.errors import EnvironmentProblem
from halo_mp.supervisor.config_model import Config

RESERVE = 10
"""Descriptors that the supervisor keeps back: for a process that it starts (8), or for netlink (4)."""

_SUPERVISOR = 32
_DRIVER = 40
_PER_LCORE = 6  # EAL's pipes, an epoll, a doorbell
_PER_PORT = 3
_PER_QUEUE = 3  # net_tap: receives and sends by a descriptor each


def descriptors_needed(config: Config) -> int:
    """Return how many descriptors the process that needs most of them has, and those of the reserve."""
    slots, lcores = len(config.slots), len(config.driver_cores)
    queues = sum(port.device_queues for port in config.ports)
    ports = len(config.ports) + sum(port.twin is not None for port in config.ports)
    supervisor = _SUPERVISOR + RESERVE + lcores + 4 * slots
    supervisor += 2 * (1 if config.spares is None else config.spares)
    driver = _DRIVER + _PER_LCORE * lcores + _PER_PORT * ports + _PER_QUEUE * queues + 2 * slots
    return max(supervisor, driver)


def check_descriptors(config: Config) -> None:
    """Refuse when the limit of open files is too low, and it can not be raised."""
    need = descriptors_needed(config)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < need:
        raise EnvironmentProblem(
            f"{need} open files are needed, and a process may have {most} here. As root, type: ulimit -n {need} "
            f"(systemd: LimitNOFILE={need}; for a container: docker run --ulimit nofile={need} ...), then "
            "start again from that shell; or use fewer --ports and --queues."
        )


def raise_descriptor_limit(config: Config) -> None:
    """Raise our own limit where it is too low, which it may be without leave. Children inherit it."""
    need = descriptors_needed(config)
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < need:
        reachable = need if most == resource.RLIM_INFINITY else min(need, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, most))
