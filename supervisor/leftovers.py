# SPDX-License-Identifier: Apache-2.0
"""Cleaning up after a run of the same name that died: its processes, its TAPs, its regions.

Only for who holds the instance's lock. Processes are known from the state file by pid and start time, and
from their command line, for those that were started after it was written last. A region is removed only
when its creator is dead.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Container, Iterator
from itertools import pairwise
from pathlib import Path

from halo_mp import logs
from halo_mp.errors import InstanceRunning
from halo_mp.shm.identity import start_ticks
from halo_mp.shm.region import DIRECTORY, is_stale, unlink
from halo_mp.supervisor import tap
from halo_mp.supervisor.boxes import OWN_LINES
from halo_mp.supervisor.instance import Instance
from halo_mp.supervisor.process import Orphan
from halo_mp.supervisor.state import Member, State

MODULES = {"halo_mp.supervisor.driver": "driver", "halo_mp.workers": "worker"}

log = logs.get("supervisor")


async def clean(instance: Instance) -> None:
    """Remove what a dead run of this name left. Raises InstanceRunning when something of it is alive."""
    left = instance.load()
    orphans = {member.pid: member for member in (*_recorded(left), *_running(instance.directory))}
    # In the order of an ordinary stop: who uses the driver goes before it.
    for role in ("worker", "driver"):
        await asyncio.gather(*(_end(member) for member in orphans.values() if member.role == role))
    deleted = await tap.delete(left.taps)
    for name in deleted:
        log.info("leftover.tap", interface=name)
    for name in _regions(instance.name):
        _remove(instance.name, name)
    instance.empty(keep=["reports", OWN_LINES])  # what died then, and why, may be of interest now


def _recorded(left: State) -> list[Member]:
    return [member for member in left.members if member.role != "supervisor" and member.is_alive]


async def end_strays(directory: Path, known: Container[int]) -> None:
    """End at once who belongs to this runtime directory and is not known: nobody would ever speak to it."""
    for member in _running(directory):
        process = None if member.pid in known else Orphan.take(member.pid, member.start_ticks)
        if process is not None:
            log.info("leftover.process", role=member.role, pid=member.pid)
            process.signal(signal.SIGKILL)
            await process.wait()


def _running(directory: Path) -> Iterator[Member]:
    """Yield processes whose command line says that they belong to this runtime directory."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().split(b"\0")
            ours = entry.stat().st_uid == os.geteuid() or os.geteuid() == 0
        except OSError:
            continue
        role = next(
            (role for module, role in MODULES.items() if _follows(argv, b"-m", module.encode())), None
        )
        ticks = start_ticks(int(entry.name))
        named = _follows(argv, b"--runtime", os.fsencode(directory))
        if role and ours and ticks and named and _sees(entry, directory):
            yield Member(role, None, int(entry.name), ticks)


def _sees(process: Path, directory: Path) -> bool:
    """Whether that directory is ours for the process, too: in a container the same path is another one."""
    try:
        return (process / "root" / directory.relative_to("/") / "lock").samefile(directory / "lock")
    except OSError:
        return False


def _follows(argv: list[bytes], flag: bytes, value: bytes) -> bool:
    return any(pair == (flag, value) for pair in pairwise(argv))


async def _end(member: Member) -> None:
    process = Orphan.take(member.pid, member.start_ticks)
    if process is not None:
        log.info("leftover.process", role=member.role, pid=member.pid)
        await process.end()


def _regions(instance: str) -> list[str]:
    """Return the POSIX names of the regions of exactly this instance: `a` has no part in those of `a.b`."""
    ours = re.compile(
        rf"halo-mp\.{re.escape(instance)}\.(owners|ports|tables|fib|routes|(slot|sessions)\.[0-9]+)"
    )
    return [f"/{entry.name}" for entry in DIRECTORY.iterdir() if ours.fullmatch(entry.name)]


def _remove(instance: str, name: str) -> None:
    if not is_stale(name):
        raise InstanceRunning(
            f"shared memory {name} is in use by another instance named {instance!r}, with other runtime files. "
            "Give this one another --name."
        )
    unlink(name)
    log.info("leftover.region", name=name)
