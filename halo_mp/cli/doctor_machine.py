# SPDX-License-Identifier: Apache-2.0
"""Memory, hugepages, cores and limits."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

from halo_mp.cli.findings import Finding, Machine, numbers

MIB = 1 << 20
LEAST_SHM_MIB = 64
LEAST_MEMORY_MIB = 512
PAGES_2M = 512
"""1 GiB: room for the default pool of a port, and for DPDK."""
LEAST_FILES = 256


def hugepages(machine: Machine) -> Iterator[Finding]:
    """Look for free hugepages, on each NUMA node."""
    sizes = sorted((machine.sys / "kernel/mm/hugepages").glob("hugepages-*kB"))
    free = {entry.name[10:-2]: int(machine.read(entry / "free_hugepages") or 0) for entry in sizes}
    if not sizes:
        yield Finding(
            "hugepages", "note", "This kernel has none: ports run on ordinary pages, at a lower rate."
        )
    elif not any(free.values()):
        text = "None is free. Ports of --pci need them, and all others are faster with them."
        keep = f"echo vm.nr_hugepages={PAGES_2M} > /etc/sysctl.d/80-halo-mp.conf"
        yield Finding("hugepages", "note", text, (f"sysctl -w vm.nr_hugepages={PAGES_2M}", keep))
    else:
        listed = ", ".join(f"{count} of {int(size) >> 10} MiB" for size, count in free.items() if count)
        yield Finding("hugepages", "good", f"Free: {listed}.")
    yield from _hugepages_of_nodes(machine)


def _hugepages_of_nodes(machine: Machine) -> Iterator[Finding]:
    nodes = sorted((machine.sys / "devices/system/node").glob("node[0-9]*"))
    if len(nodes) < 2:
        return
    counts = {
        node.name: sum(int(machine.read(each) or 0) for each in node.glob("hugepages/*/free_hugepages"))
        for node in nodes
    }
    without = [name for name, count in counts.items() if not count]
    if without and len(without) < len(nodes):
        commands = tuple(
            f"echo {PAGES_2M} > /sys/devices/system/node/{name}/hugepages/hugepages-2048kB/nr_hugepages"
            for name in without
        )
        yield Finding(
            "NUMA",
            "note",
            f"{', '.join(without)} has no hugepages: NICs there would use far memory.",
            commands,
        )
    else:
        yield Finding(
            "NUMA", "good", f"{len(nodes)} nodes; keep a NIC, its cores and its hugepages on one of them."
        )


def shared_memory(machine: Machine) -> Iterator[Finding]:
    """Look at /dev/shm, where rings and tables are."""
    path = machine.dev / "shm"
    try:
        found = os.statvfs(path)
    except OSError as error:
        text = f"{path} can not be used: {error.strerror}. Rings and tables are kept there."
        yield Finding(
            "shared memory", "failure", text, (f"mount -t tmpfs -o size=1G,mode=1777 tmpfs {path}",)
        )
        return
    size, free = found.f_blocks * found.f_frsize // MIB, found.f_bavail * found.f_frsize // MIB
    if not os.access(path, os.W_OK):
        yield Finding(
            "shared memory", "failure", f"{path} is not writable for this user.", (f"chmod 1777 {path}",)
        )
    elif free < LEAST_SHM_MIB:
        text = f"{path} has {free} MiB free of {size}, and an instance needs {LEAST_SHM_MIB} or more."
        docker = "docker run --shm-size=1g ...    # in a container"
        yield Finding("shared memory", "failure", text, (f"mount -o remount,size=1G {path}", docker))
    else:
        yield Finding("shared memory", "good", f"{path} has {free} MiB free.")


def memory(machine: Machine) -> Iterator[Finding]:
    """Look at the memory that is available."""
    lines = dict(line.partition(":")[::2] for line in machine.read(machine.proc / "meminfo").splitlines())
    words = lines.get("MemAvailable", "").split()
    mib = int(words[0]) >> 10 if words and words[0].isdecimal() else 0
    if mib < LEAST_MEMORY_MIB:
        text = f"{mib} MiB are available: use a smaller --ring-size, and no spare workers."
        yield Finding("memory", "warning", text, ("halo-mp run --ring-size 1024 --spare 0 ...",))
    else:
        yield Finding("memory", "good", f"{mib} MiB are available.")


def limits(_machine: Machine) -> Iterator[Finding]:
    """Look at the limits of processes."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < LEAST_FILES:
        text = f"A process may have {files} open files; an instance needs {LEAST_FILES} with few ports, more with many."
        yield Finding(
            "limits",
            "failure",
            text,
            (f"ulimit -n {4 * LEAST_FILES}", "LimitNOFILE=1024    # in a systemd unit"),
        )
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if locked != resource.RLIM_INFINITY and os.geteuid() != 0:
        text = f"This user may lock {locked >> 10} KiB of memory, and VFIO locks all of the pool: --pci will not work."
        yield Finding(
            "limits", "note", text, ("ulimit -l unlimited", "LimitMEMLOCK=infinity    # in a systemd unit")
        )
    if files == resource.RLIM_INFINITY or files >= LEAST_FILES:
        yield Finding(
            "limits", "good", f"Open files: {'no limit' if files == resource.RLIM_INFINITY else files}."
        )


def cores(machine: Machine) -> Iterator[Finding]:
    """Look at the cores that we may use, and at who else may."""
    ours = sorted(os.sched_getaffinity(0))
    cpu = machine.sys / "devices/system/cpu"
    isolated = numbers(machine.read(cpu / "isolated"))
    if len(ours) < 2:
        text = "One core: driver and workers take turns on it, which costs rate and latency."
        yield Finding("cores", "warning", text, ("taskset -p $$    # is it a limit of this shell?",))
    else:
        yield Finding("cores", "good", f"{len(ours)} cores may be used.")
    if isolated and (kept := [core for core in isolated if core not in ours]):
        text = f"Cores {_listed(kept)} are isolated, and not among those that this process may use."
        yield Finding(
            "isolation", "note", text, (f"taskset -c 0-{max(kept)} halo-mp run --cores {_listed(kept)} ...",)
        )
    elif isolated:
        yield Finding("isolation", "good", f"Isolated: {_listed(isolated)}.")
    elif len(ours) > 2:
        cut = f"{ours[1]}-{ours[-2]}"
        line = f"isolcpus=managed_irq,domain,{cut} nohz_full={cut}"
        text = "No core is isolated: whatever else runs here may hold up a worker for milliseconds."
        yield Finding(
            "isolation",
            "note",
            text,
            (f"add to GRUB_CMDLINE_LINUX_DEFAULT: {line}; then update-grub, and reboot",),
        )
    if len(ours) > 1 and machine.read(cpu / "smt/active") == "1":
        text = "SMT is on: two of the cores that you see share one, and slow each other."
        yield Finding("SMT", "note", text, ("echo off > /sys/devices/system/cpu/smt/control",))


def governors(machine: Machine) -> Iterator[Finding]:
    """Look at how cores choose their frequency."""
    cpu = machine.sys / "devices/system/cpu"
    found = {
        core: machine.read(cpu / f"cpu{core}/cpufreq/scaling_governor")
        for core in sorted(os.sched_getaffinity(0))
    }
    slow = sorted({governor for governor in found.values() if governor and governor != "performance"})
    if slow:
        text = f"Cores follow the governor {', '.join(slow)}: they are slow when a burst comes."
        yield Finding(
            "frequency", "note", text, ("cpupower frequency-set -g performance    # package linux-cpupower",)
        )
    elif any(found.values()):
        yield Finding("frequency", "good", "All cores follow the governor performance.")
    else:
        yield Finding(
            "frequency", "good", "The kernel sets no frequencies here, as in most virtual machines."
        )


def _listed(cores: list[int]) -> str:
    return ",".join(map(str, cores))


CHECKS = (shared_memory, memory, limits, hugepages, cores, governors)
