# SPDX-License-Identifier: Apache-2.0
"""The native modules, DPDK and its drivers, and where an instance keeps its files."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from halo_mp.cli.findings import Finding, Machine
from halo_mp.errors import HaloError

VIRTUAL = ("tap", "af_packet", "af_xdp", "memif", "pcap", "ring", "null")
PKG_CONFIG = os.environ.get("PKG_CONFIG", "/usr/bin/pkg-config")


def modules(_machine: Machine) -> Iterator[Finding]:
    """Look for what is built from native/."""
    for name, what in (("_native", "rings, tables and the fast path"), ("_driver", "DPDK")):
        if importlib.util.find_spec(f"halo_mp.{name}") is None:
            text = f"halo_mp.{name} ({what}) was not built; nothing starts without it."
            commands = (
                "apt install gcc python3-dev pkg-config libdpdk-dev",
                "make setup    # or install halo-mp anew",
            )
            yield Finding("halo-mp", "failure", text, commands)
        else:
            yield Finding("halo-mp", "good", f"halo_mp.{name} is there.")


def dpdk(_machine: Machine) -> Iterator[Finding]:
    """Look for DPDK, its version and its drivers."""
    version = _asked("--modversion")
    if not version:
        text = "pkg-config knows no libdpdk. What is built runs; it can not be built again."
        yield Finding("DPDK", "note", text, ("apt install libdpdk-dev pkg-config",))
        return
    yield Finding("DPDK", "good", f"Version {version}.")
    there = _drivers(Path(_asked("--variable=libdir") or "/usr/lib"))
    if there:
        missing = [name for name in VIRTUAL if name not in there]
        listed = f"{len(there)} drivers of network devices"
        if missing:
            text = f"{listed}, but none called {', '.join(missing)}."
            yield Finding(
                "DPDK", "warning", text, ("apt install librte-net* dpdk    # or build DPDK with them",)
            )
        else:
            yield Finding("DPDK", "good", f"{listed}, all virtual ones among them.")


def _asked(question: str) -> str:
    try:
        found = subprocess.run([PKG_CONFIG, question, "libdpdk"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return found.stdout.strip()


def _drivers(libraries: Path) -> set[str]:
    """Return the network drivers' names among DPDK's plugins."""
    found = libraries.glob("dpdk/pmds-*/librte_net_*.so*")
    return {entry.name.removeprefix("librte_net_").partition(".so")[0] for entry in found}


def files(_machine: Machine) -> Iterator[Finding]:
    """Look for the runtime directory."""
    from halo_mp.runtime import runtime_base

    try:
        base = runtime_base()
    except HaloError as error:
        export = "export XDG_RUNTIME_DIR=$(mktemp -d)"
        yield Finding("runtime files", "failure", str(error), ("sudo halo-mp run ...", export))
        return
    yield Finding("runtime files", "good", f"Instances keep them in {base}.")


def clock(machine: Machine) -> Iterator[Finding]:
    """Look at the clock source: every burst reads the time."""
    name = machine.read(machine.sys / "devices/system/clocksource/clocksource0/current_clocksource")
    if name in ("hpet", "acpi_pm"):
        text = f"The kernel's clock is {name}: reading the time is a system call, for each burst."
        yield Finding(
            "clock",
            "warning",
            text,
            ("echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource",),
        )
    elif name:
        yield Finding("clock", "good", f"The kernel's clock is {name}.")


CHECKS = (modules, dpdk, files, clock)
