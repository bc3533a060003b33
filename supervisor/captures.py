# SPDX-License-Identifier: Apache-2.0
"""Captures and traces that the control socket is asked for, made by workers.

The supervisor makes a ring for each slot, gives one end to the worker and the other to the client, and keeps a
descriptor: a worker that takes over a slot goes on in the same ring. Frames never come by here. A capture ends with
its client.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from halo_mp import logs
from halo_mp.control.channel import ChannelError, RequestFailed
from halo_mp.control.messages import CaptureStart
from halo_mp.errors import EnvironmentProblem
from halo_mp.shm.capture_ring import MAX_OCTETS, MIN_OCTETS, check_steps, create_ring
from halo_mp.shm.layout import lib
from halo_mp.supervisor.keeper_worker import WorkerKeeper
from halo_mp.supervisor.life import Life
from halo_mp.supervisor.running import RefusedError

MAX_CAPTURES: int = lib.HALO_MAX_CAPTURES
MAX_SNAP_OCTETS: int = lib.HALO_MAX_SNAP_OCTETS
DEFAULT_SNAP_OCTETS = MAX_SNAP_OCTETS
DEFAULT_RING_OCTETS = 4 << 20
POINTS = {"rx": lib.HALO_POINT_RX, "tx": lib.HALO_POINT_TX, "drop": lib.HALO_POINT_DROP}
TRACE: int = lib.HALO_POINT_TRACE
START_TIMEOUT_S = 10.0
MEMORY = Path("/proc/meminfo")

log = logs.get("supervisor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked for, and is checked."""

    steps: bytes
    points: int
    ports: int
    """A bit for each; 0: all."""
    snap_octets: int
    ring_octets: int


@dataclass(slots=True, eq=False)
class Capture:
    """One that runs. `rings` are descriptors by slot, ours until `close`."""

    number: int
    wanted: Wanted
    rings: dict[int, int]
    hooks: list[list[Any]] = field(default_factory=list)
    """Slot, number and name of each hook that there was at the start."""
    refused: dict[int, str] = field(default_factory=dict)
    """By slot, why its worker copies nothing; a worker that takes over the slot is asked anew."""


class Captures:
    """All captures of an instance."""

    def __init__(self, workers: Mapping[int, WorkerKeeper]) -> None:
        self._workers = workers
        self._running: dict[int, Capture] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, wanted: Wanted) -> Capture:
        """Begin, and return when the workers that are ready have begun, or refused.

        Raises RefusedError, also when every worker refuses.
        """
        if len(self._running) == MAX_CAPTURES:
            raise RefusedError(
                f"{MAX_CAPTURES} captures and traces run, and there can be no more; each ends with the command "
                "or client that began it."
            )
        _check_memory(len(self._workers), wanted.ring_octets)
        capture = Capture(next(self._numbers), wanted, {})
        self._running[capture.number] = capture
        try:
            for slot in sorted(self._workers):
                capture.rings[slot] = create_ring(wanted.ring_octets)
            lives = [(slot, worker.life) for slot, worker in self._workers.items() if worker.is_useful]
            await asyncio.gather(*(self._tell(capture, slot, life) for slot, life in lives if life))
            _check_begun(capture)
        except EnvironmentProblem as error:
            self.end(capture)
            raise RefusedError(str(error)) from None
        except BaseException:
            self.end(capture)
            raise
        log.info("capture.started", number=capture.number, trace=wanted.points == TRACE)
        return capture

    def refused(self, number: int) -> dict[int, str]:
        """Return by slot why workers copy nothing for a capture that runs. Raises RefusedError when there is none."""
        if number not in self._running:
            raise RefusedError(
                f"no capture {number} runs; each ends with its client, halo-mp capture begins one."
            )
        return self._running[number].refused

    def end(self, capture: Capture) -> None:
        """Have the workers copy no more. May be called twice."""
        if self._running.pop(capture.number, None) is None:
            return
        for worker in self._workers.values():
            if worker.life is not None:
                worker.life.tell({"type": "capture.stop", "number": capture.number})
        for fd in capture.rings.values():
            os.close(fd)
        log.info("capture.ended", number=capture.number)

    def on_worker_ready(self, slot: int, life: Life) -> None:
        """Let a worker that is new go on where its predecessor stopped."""
        for capture in self._running.values():
            if slot in capture.rings:
                task = asyncio.create_task(self._tell(capture, slot, life))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _tell(self, capture: Capture, slot: int, life: Life) -> None:
        wanted = capture.wanted
        message = CaptureStart(
            type="capture.start",
            number=capture.number,
            filter=wanted.steps,
            points=wanted.points,
            ports=wanted.ports,
            snap=wanted.snap_octets,
        )
        if life.channel is None or life.channel.closed or capture.number not in self._running:
            return  # its successor will hear of it
        try:
            reply = await life.channel.request(message, [capture.rings[slot]], timeout_s=START_TIMEOUT_S)
        except (RequestFailed, TimeoutError) as error:
            capture.refused[slot] = str(error) or f"it did not answer within {START_TIMEOUT_S:.0f} s."
            log.warning("capture.failed", number=capture.number, slot=slot, reason=capture.refused[slot])
            return
        except ChannelError:
            return  # it has gone: likewise
        capture.refused.pop(slot, None)
        capture.hooks += [[slot, *_hook(entry)] for entry in reply.get("hooks", ())]


def _check_begun(capture: Capture) -> None:
    """Raise RefusedError when there is no worker that copies anything, or will once it is ready."""
    if capture.rings.keys() <= capture.refused.keys():
        why = " ".join(f"worker {slot}: {reason}" for slot, reason in sorted(capture.refused.items()))
        raise RefusedError(
            f"no worker can begin, so nothing is captured. {why} Ask for less memory, with halo-mp capture --buffer, "
            "or look with halo-mp status what is wrong with them."
        )


def _check_memory(rings: int, octets: int) -> None:
    """Refuse what the kernel would have to kill somebody for. Raises RefusedError."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", MEMORY.read_text(), re.MULTILINE)
    available = int(found[1]) >> 10 if found else 0
    wanted = rings * octets >> 20
    if found and wanted > available // 2:
        raise RefusedError(
            f"{rings} workers with rings of {octets >> 20} MiB are {wanted} MiB, more than half of the {available} "
            "MiB of memory that are available; ask for less, with halo-mp capture --buffer."
        )


def _hook(entry: object) -> tuple[int, str]:
    match entry:
        case [int(number), str(name)]:
            return number, name
    return 0, "?"


def parse_wanted(settings: Mapping[str, Any], ports: Callable[[], set[int]], *, trace: bool) -> Wanted:
    """Return what a request asks for; `ports` are those that there are. Raises RefusedError."""
    steps: bytes = settings.get("filter", b"")
    wrong = check_steps(steps)
    if wrong is not None:
        raise RefusedError(
            f"step {wrong} of the filter can not be run; send what pcap_compile makes of an expression, "
            f"at most {lib.HALO_MAX_FILTER_STEPS} steps."
        )
    return Wanted(
        steps=steps,
        points=TRACE if trace else _points(settings.get("points", ["rx", "tx", "drop"])),
        ports=_ports(settings.get("ports", []), ports()),
        snap_octets=_within("snap", settings.get("snap", DEFAULT_SNAP_OCTETS), 1, MAX_SNAP_OCTETS),
        ring_octets=_ring(settings.get("octets", DEFAULT_RING_OCTETS)),
    )


def _points(names: list[Any]) -> int:
    bits = 0
    for name in names:
        if not isinstance(name, str) or name not in POINTS:
            raise RefusedError(f"{name!r:.40} is no point of a capture; there are rx, tx and drop.")
        bits |= POINTS[name]
    if not bits:
        raise RefusedError("a capture without a point sees nothing; there are rx, tx and drop.")
    return bits


def _ports(numbers: list[Any], known: set[int]) -> int:
    for number in numbers:
        if type(number) is not int or number not in known:
            there = ", ".join(map(str, sorted(known)))
            raise RefusedError(f"there is no port {number!r:.40}; there are {there}.")
    return sum(1 << number for number in set(numbers))


def _within(name: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise RefusedError(f"{name} {value} is not within {least} to {most}.")
    return value


def _ring(octets: int) -> int:
    _within("octets", octets, MIN_OCTETS, MAX_OCTETS)
    return 1 << (octets - 1).bit_length()
