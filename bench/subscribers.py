# SPDX-License-Identifier: Apache-2.0
"""`bench subscribers`: what fifty subscribers, of which one never reads, take from forwarding.

The router of `bench forward` with one route, and for each round two measurements of one instance: with and without
subscribers to events and statistics (each second), the first of them alternating. Both of its cores are busy, so that
supervisor and subscribers take their time from driver and worker. In the last part the subscribers are told of routes
as well, a thousand changes a second. On a machine where others work, too, rates say little: there the supervisor's own
processor time does.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from bench import forward
from bench.forward import HUGEPAGES, Instance, router
from bench.machine import hugepages, wait_until
from bench.rows import Row, interval, row_at_most, row_skipped
from halo_mp.control.client import Client

SUBSCRIBERS = 50
SETTLE_S = 1.5
MEASURE_S = 3.0
MOST_PERCENT = 2.0
CHANGES_PER_S = 1000
_TOGETHER = 10
_PATIENCE_S = 30.0

_PROGRAM = """
import asyncio, sys
from contextlib import AsyncExitStack
from halo_mp.control.client import AsyncClient

async def read(client):
    async for _ in client.notices():
        pass

async def main(name, count, topics):
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(name)) for _ in range(count)]
        for client in clients:
            for topic in topics:
                await client.subscribe(topic)
        silent = clients[0]
        silent._reader._transport.pause_reading()
        print("subscribed", flush=True)
        await asyncio.gather(*map(read, clients[1:]))

asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
"""


def run(rounds: int) -> list[Row]:
    """Return by how much forwarding is slower, in percent, and how many frames were lost in between."""
    with hugepages(HUGEPAGES) as there:
        if not there:
            return [row_skipped("subscribers", f"{HUGEPAGES} hugepages of 2 MiB cannot be had")]
        with tempfile.TemporaryDirectory() as directory:
            devices = forward.pcap_devices(
                Path(directory) / "few.pcap", forward.FEW_FRAMES, random.Random(forward.SEED)
            )
            with router(devices, ("--route", "default=10.1.0.2")) as instance:
                return [
                    *_rows("subscribers", _quiet(instance, rounds)),
                    *_rows("subscribers.routes", _changing(instance, rounds)),
                ]


def _rows(name: str, pairs: list[Pair]) -> Iterator[Row]:
    slower = [pair.slower_percent for pair in pairs]
    note = f"{interval(slower)}; {SUBSCRIBERS} subscribers, one of which never reads"
    row = row_at_most(f"{name}.slower_percent", statistics.median(slower), "%", MOST_PERCENT, note=note)
    low, _, high = statistics.quantiles(slower, n=4) if len(slower) > 1 else (slower[0],) * 3
    told = low > MOST_PERCENT or high <= MOST_PERCENT  # else the rounds differ by more than what is asked
    yield row if told else replace(row, met=None)
    taken = [pair.supervisor_percent for pair in pairs]
    yield Row(
        metric=f"{name}.supervisor_percent",
        value=statistics.median(taken),
        unit="% of a core more",
        note=interval(taken),
    )


@dataclass(frozen=True, slots=True)
class Pair:
    """What subscribers make of an instance, in one round."""

    slower_percent: float
    supervisor_percent: float
    """Of a core, more than without them."""


def _quiet(instance: Instance, rounds: int) -> list[Pair]:
    return [_pair(instance, number, "events", "statistics") for number in range(rounds)]


def _changing(instance: Instance, rounds: int) -> list[Pair]:
    """Make the changes all the time, with and without anybody who is told."""
    with _changes(instance):
        return [_pair(instance, number, "events", "statistics", "routes") for number in range(rounds)]


def _pair(instance: Instance, number: int, *topics: str) -> Pair:
    """Measure with subscribers and without; which is first takes turns."""
    assert instance.process is not None
    supervisor = psutil.Process(instance.process.pid)
    used: dict[bool, float] = {}
    rates: dict[bool, float] = {}
    for told in (number % 2 == 0, number % 2 == 1):
        with _subscribers(instance.name, *topics) if told else contextlib.nullcontext():
            time.sleep(SETTLE_S)
            before = sum(supervisor.cpu_times()[:2])
            rates[told] = instance.tx_rate(MEASURE_S)
            used[told] = sum(supervisor.cpu_times()[:2]) - before
    return Pair(100 * (1 - rates[True] / rates[False]), 100 * (used[True] - used[False]) / MEASURE_S)


@contextlib.contextmanager
def _subscribers(name: str, *topics: str) -> Iterator[None]:
    command = [sys.executable, "-c", _PROGRAM, name, str(SUBSCRIBERS), *topics]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        try:
            assert program.stdout is not None
            if program.stdout.readline() != "subscribed\n":
                raise RuntimeError("the subscribers could not subscribe")
            yield
        finally:
            program.terminate()
    with Client(name) as client:
        wait_until(lambda: client.version()[1] == 1, _PATIENCE_S, "the instance to answer")


@contextlib.contextmanager
def _changes(instance: Instance) -> Iterator[None]:
    """Have routes changed meanwhile, by a thread of ours."""
    enough = threading.Event()

    def change() -> None:
        with Client(instance.name) as client:
            begin, number = time.monotonic(), 0
            while not enough.wait(max(0.0, begin + number / CHANGES_PER_S - time.monotonic())):
                some = [
                    (f"198.18.{(number + i) % 250}.0/24", f"10.1.0.{2 + number % 7}")
                    for i in range(_TOGETHER)
                ]
                client.routes.replace_all(some)
                number += _TOGETHER

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
