# SPDX-License-Identifier: Apache-2.0
"""Can this machine do what the configuration asks? Looked at before anything starts.

`check` raises EnvironmentProblem for the first thing that cannot work, with what to type. It is no promise:
memory may be gone a moment later, so whoever takes something still says what failed. Nothing is changed, and
nothing stays behind.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path

from halo_mp.errors import EnvironmentProblem
from halo_mp.supervisor.checks_app import missing
from halo_mp.supervisor.checks_descriptors import check_descriptors, raise_descriptor_limit
from halo_mp.supervisor.checks_devices import check_devices
from halo_mp.supervisor.checks_memory import check_hugepages, check_memory, check_shared_memory
from halo_mp.supervisor.checks_privileges import check_privileges
from halo_mp.supervisor.checks_taps import check_taps
from halo_mp.supervisor.checks_user import PrivilegesPlan, privileges_plan
from halo_mp.supervisor.config_model import Config

__all__ = ["PrivilegesPlan", "check", "privileges_plan", "raise_descriptor_limit"]

SYSFS = Path("/sys")


def check(config: Config, *, sysfs: Path = SYSFS) -> None:
    """Raise EnvironmentProblem for the first reason why this configuration cannot run here."""
    check_driver()
    check_cores(config, sysfs=sysfs)
    check_devices(config, sysfs=sysfs)
    check_privileges(config)
    check_taps(config)
    check_shared_memory(config)
    check_hugepages(config, sysfs=sysfs)
    check_memory(config)
    check_descriptors(config)
    check_app(config)
    privileges_plan(config)


def check_app(config: Config) -> None:
    """Refuse an application that can not be there."""
    if config.app is not None and (sentence := missing(config.app)):
        raise EnvironmentProblem(sentence)


def check_driver() -> None:
    """Refuse to go on without the module that links DPDK: a build without DPDK leaves it out."""
    if importlib.util.find_spec("halo_mp._driver") is None:
        raise EnvironmentProblem(
            "halo_mp._driver is missing: halo-mp was built where DPDK was not installed, and without DPDK "
            "there are no ports. Type: sudo apt install libdpdk-dev pkg-config, then build again: in a "
            "checkout make setup, else pip install --force-reinstall --no-deps --no-cache-dir --no-binary "
            "halo-mp halo-mp."
        )


def check_cores(config: Config, *, sysfs: Path = SYSFS) -> None:
    """Refuse cores that are not there or not ours to use."""
    allowed = os.sched_getaffinity(0)
    online = _online(sysfs)
    for core in (*config.driver_cores, *(slot.core for slot in config.slots)):
        flag = "--driver-cores" if core in config.driver_cores else "--cores"
        if core not in online:
            raise EnvironmentProblem(
                f"{flag}: there is no core {core}, this machine has {ranges(online)}. Name some of those."
            )
        if core not in allowed:
            raise EnvironmentProblem(
                f"{flag}: core {core} is there, but this process may use only {ranges(allowed)} (taskset, "
                "a cpuset or a container says so). Name some of those, or widen that limit."
            )


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as people write them: 0-3,7."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in runs)


def _online(sysfs: Path) -> set[int]:
    """Return the cores that run; os.cpu_count() would only say how many, and one in the middle may be off."""
    try:
        text = (sysfs / "devices/system/cpu/online").read_text()
    except OSError:
        return set(range(os.cpu_count() or 1))
    bounds = [part.split("-") for part in text.strip().split(",")]
    return {core for low, *high in bounds for core in range(int(low), int((high or [low])[0]) + 1)}
