# SPDX-License-Identifier: Apache-2.0
"""From --slot, --cores and --driver-cores to slots, each with what feeds it, its core and its home lcore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from halo_mp.shm.layout import MAX_LCORES, MAX_SLOTS
from halo_mp.supervisor import config_values as values
from halo_mp.supervisor.config_model import PortConfig, SlotConfig
from halo_mp.supervisor.config_reader import FlagReader

MAX_CORE = 1023

Feeds = dict[int, tuple[tuple[int, int], ...]]


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """The slots of an instance and where everything runs."""

    slots: tuple[SlotConfig, ...]
    driver_cores: tuple[int, ...]
    main_cores: tuple[int, ...]
    warnings: tuple[str, ...]


def plan_slots(reader: FlagReader, ports: Sequence[PortConfig], allowed: tuple[int, ...]) -> SlotPlan:
    """Return the slots in rising order, the workers' cores dealt to them in that order, round robin."""
    feeds = _feeds(ports, reader) if reader.given("--slot") else _one_for_each_queue(ports)
    if len(feeds) > MAX_SLOTS:
        sentence = f"--queues: {len(feeds)} port queues with a worker each are too many, at most {MAX_SLOTS}"
        reader.refuse("--queues", f"{sentence}; use fewer, or let a slot serve several: --slot 0=0,1.")
    workers, lcores = _cores(allowed, reader)
    slots = tuple(
        SlotConfig(
            number=number, feeds=feeds[number], core=workers[at % len(workers)], lcore=at % len(lcores)
        )
        for at, number in enumerate(sorted(feeds))
    )
    taken = {*lcores, *(slot.core for slot in slots)}
    idle = tuple(core for core in allowed if core not in taken)
    warnings = (*_unfed(ports, feeds), *_unused(lcores, slots), *_shared(lcores, slots))
    return SlotPlan(slots, lcores, idle or allowed, warnings)


def _one_for_each_queue(ports: Sequence[PortConfig]) -> Feeds:
    pairs = [(port.number, queue) for port in ports for queue in range(port.queues)]
    return {number: (pair,) for number, pair in enumerate(pairs)}


def _feeds(ports: Sequence[PortConfig], reader: FlagReader) -> Feeds:
    """Return what --slot says: every port queue at most once, and each slot fed by something."""
    found: Feeds = {}
    fed: dict[tuple[int, int], int] = {}
    queues = {port.number: port.queues for port in ports}
    for number, parts in reader.each("--slot", values.slot):
        if number in found or number >= MAX_SLOTS:
            reason = "is named twice" if number in found else f"is beyond the last, {MAX_SLOTS - 1}"
            reader.refuse(
                "--slot", f"--slot {number}=...: the slot {reason}; write each slot once, from 0 on."
            )
            continue
        pairs = _pairs(number, parts, queues, reader)
        for pair in pairs:
            if pair in fed:
                sentence = f"--slot: port {pair[0]} queue {pair[1]} feeds slot {fed[pair]} and slot {number}"
                reader.refuse("--slot", f"{sentence}; its frames can go to only one of them.")
            fed[pair] = number
        found[number] = tuple(pairs)
    return found


def _pairs(
    number: int, parts: Sequence[tuple[int, int | None]], queues: dict[int, int], reader: FlagReader
) -> list[tuple[int, int]]:
    """Return the port queues of one slot: a port without a queue stands for all of its queues."""
    pairs: list[tuple[int, int]] = []
    for port, queue in parts:
        count = queues.get(port, 0)
        if not count and reader.sound("--ports", "--vdev", "--pci"):
            sentence = (
                f"--slot {number}=...: port {port} is not one of the ports, {', '.join(map(str, queues))}"
            )
            reader.refuse("--slot", f"{sentence}; add it to --ports.")
        elif count and queue is not None and queue >= count and reader.sound("--queues"):
            sentence = f"--slot {number}=...: port {port} has no queue {queue}, only 0 to {count - 1}"
            reader.refuse("--slot", f"{sentence}; write --queues {queue + 1}.")
        elif count:
            pairs.extend((port, each) for each in ((queue,) if queue is not None else range(count)))
    return pairs


def _cores(allowed: tuple[int, ...], reader: FlagReader) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the cores of the workers and of the lcores, which take the first one that is free."""
    workers = reader.one("--cores", partial(values.numbers, high=MAX_CORE, example="1-3"), otherwise=())
    lcores = reader.one("--driver-cores", partial(values.distinct, high=MAX_CORE, example="0"), otherwise=())
    if len(lcores) > MAX_LCORES:
        sentence = f"--driver-cores: {len(lcores)} cores are too many"
        reader.refuse("--driver-cores", f"{sentence}; name at most {MAX_LCORES}.")
    lcores = lcores or tuple(core for core in allowed if core not in workers)[:1] or allowed[:1]
    workers = workers or tuple(core for core in allowed if core not in lcores) or allowed
    return workers, lcores


def _unfed(ports: Sequence[PortConfig], feeds: Feeds) -> list[str]:
    fed = {pair for pairs in feeds.values() for pair in pairs}
    return [
        f"Port {port.number} queue {queue} feeds no slot: what arrives there is counted and released."
        for port in ports
        for queue in range(port.queues)
        if (port.number, queue) not in fed
    ]


def _unused(lcores: tuple[int, ...], slots: Sequence[SlotConfig]) -> list[str]:
    return [
        f"Core {core} of --driver-cores has no slot to serve: {len(slots)} of them would do."
        for core in lcores[len(slots) :]
    ]


def _shared(lcores: tuple[int, ...], slots: Sequence[SlotConfig]) -> list[str]:
    """Say which processes have to take turns on a core."""
    warnings: list[str] = []
    for core in sorted({*lcores, *(slot.core for slot in slots)}):
        workers = [str(slot.number) for slot in slots if slot.core == core]
        if len(workers) + (core in lcores) < 2:
            continue
        tenants = [f"driver lcore {lcores.index(core)}"] if core in lcores else []
        plural = "s" if len(workers) > 1 else ""
        tenants.append(f"the worker{plural} of slot{plural} {', '.join(workers)}")
        warnings.append(
            f"Core {core} is shared by {' and '.join(tenants)}: they take turns, which costs rate and "
            "latency; --cores and --driver-cores name more cores."
        )
    return warnings
