# SPDX-License-Identifier: Apache-2.0
"""`bench subscribers`: what fifty clients that are told of everything cost a router that forwards as fast as it can.

One of them never reads. The same instance is measured with them and without, in many short pairs of which each has the
other order than the one before. What is compared is frames in a second of the time that the two forwarding cores had:
where there are no other cores, clients and supervisor take theirs from them, whatever they do with it, and
`wall_percent` says how much that was. (The worker's cycles for a frame tell less: a burst that was interrupted counts
a thousand others.) Once while nothing happens, and once with a thousand changes of routes a second, which all of them
are told of.
"""

from __future__ import annotations

import contextlib
import math
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from bench import forward
from bench.forward import HUGEPAGES, Instance, router
from bench.machine import hugepages
from bench.rows import Row, interval, row_at_most, row_skipped
from halo_mp.control.client import Client

SUBSCRIBERS = 50
PAIRS = 10
"""In each round."""
SETTLE_S = 0.25
MEASURE_S = 1.0
"""The period of statistics, too: each time they are told once."""
MOST_PERCENT = 2.0
CHANGES_PER_S = 1000
_TOGETHER = 10

# Told "+" it connects clients that subscribe, the first of which reads nothing more; told "-" it ends that. What comes
# is not looked at: what clients make of it is their own affair, and no fifty programs run beside a router.
_PROGRAM = """
import selectors, sys
from halo_mp.control.client import Client

def connected(name, topics):
    client = Client(name, timeout_s=60.0)
    for topic in topics:
        client.subscribe(topic)
    return client

def main(name, count, topics):
    ready, clients = selectors.DefaultSelector(), []
    ready.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj is not sys.stdin:
                if not key.fileobj.recv(1 << 20):
                    sys.exit("a client that reads was dropped")
                continue
            word = sys.stdin.readline().strip()
            if word == "+":
                clients = [connected(name, topics) for _ in range(count)]
                for client in clients[1:]:
                    ready.register(client._socket, selectors.EVENT_READ)
            else:
                for client in clients[1:]:
                    ready.unregister(client._socket)
                for client in clients:
                    client.close()
                clients = []
            print(word, flush=True)
            break  # what else was ready may be closed now

main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
"""


def run(rounds: int) -> list[Row]:
    """Return by how much forwarding is slower, in percent, and what the supervisor takes."""
    with hugepages(HUGEPAGES) as there:
        if not there:
            return [row_skipped("subscribers", f"{HUGEPAGES} hugepages of 2 MiB cannot be had")]
        with tempfile.TemporaryDirectory() as directory:
            devices = forward.pcap_devices(
                Path(directory) / "few.pcap", forward.FEW_FRAMES, random.Random(forward.SEED)
            )
            with router(devices, ("--route", "default=10.1.0.2")) as instance:
                return [
                    *_rows("subscribers", _quiet(instance, rounds * PAIRS)),
                    *_rows("subscribers.routes", _changing(instance, rounds * PAIRS)),
                ]


def _rows(name: str, pairs: list[Pair]) -> Iterator[Row]:
    slower = [pair.slower_percent for pair in pairs]
    low, high = _confidence(slower)
    note = f"95 % of such medians are within {low:.2g} to {high:.2g}; {interval(slower)}"
    row = row_at_most(f"{name}.slower_percent", statistics.median(slower), "%", MOST_PERCENT, note=note)
    told = low > MOST_PERCENT or high <= MOST_PERCENT  # else the rounds differ by more than what is asked
    yield row if told else replace(row, met=None)
    for metric, unit, values in (
        ("wall_percent", "% of a core's frames", [pair.wall_percent for pair in pairs]),
        ("supervisor_percent", "% of a core more", [pair.supervisor_percent for pair in pairs]),
    ):
        yield Row(
            metric=f"{name}.{metric}", value=statistics.median(values), unit=unit, note=interval(values)
        )


def _confidence(values: Sequence[float]) -> tuple[float, float]:
    """Return where the median is, with 95 % of certainty whatever the distribution: between two of the values."""
    ranked = sorted(values)
    away = math.ceil(0.98 * math.sqrt(len(ranked)))
    middle = (len(ranked) - 1) / 2
    return ranked[max(0, math.floor(middle - away))], ranked[min(len(ranked) - 1, math.ceil(middle + away))]


@dataclass(frozen=True, slots=True)
class Pair:
    """What subscribers make of an instance: with them, against without."""

    slower_percent: float
    """Frames in a second that worker and driver ran."""
    wall_percent: float
    """Frames in a second."""
    supervisor_percent: float
    """Of a core, more than without them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What there was until now."""

    frames: int
    wall_ns: int
    running_ns: tuple[int, ...]
    """Of the threads that forward."""
    supervisor_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What happened in a while."""

    per_running_s: float
    """Frames, in a second of the forwarding threads."""
    per_s: float
    supervisor_s: float


def _quiet(instance: Instance, pairs: int) -> list[Pair]:
    return _pairs(instance, pairs, "events", "statistics")


def _changing(instance: Instance, pairs: int) -> list[Pair]:
    """Make the changes all the time, with and without anybody who is told."""
    with _changes(instance):
        return _pairs(instance, pairs, "events", "statistics", "routes")


def _pairs(instance: Instance, count: int, *topics: str) -> list[Pair]:
    threads = _forwarding(instance)
    with _Subscribers(instance.name, *topics) as subscribers:
        return [_pair(instance, threads, subscribers, first=number % 2 == 0) for number in range(count)]


def _pair(instance: Instance, threads: Sequence[Path], subscribers: _Subscribers, *, first: bool) -> Pair:
    """Measure with subscribers and without, `first` with them."""
    found: dict[bool, Measured] = {}
    for told in (first, not first):
        subscribers.say("+" if told else "-")
        time.sleep(SETTLE_S)
        found[told] = _measure(instance, threads)
    subscribers.say("-")
    with_them, without = found[True], found[False]
    return Pair(
        100 * (1 - with_them.per_running_s / without.per_running_s),
        100 * (1 - with_them.per_s / without.per_s),
        100 * (with_them.supervisor_s - without.supervisor_s) / MEASURE_S,
    )


def _measure(instance: Instance, threads: Sequence[Path]) -> Measured:
    before = _sample(instance, threads)
    time.sleep(MEASURE_S)
    after = _sample(instance, threads)
    frames = after.frames - before.frames
    # A frame waits for whichever of them had less time.
    running_ns = min(late - early for early, late in zip(before.running_ns, after.running_ns, strict=True))
    return Measured(
        frames / running_ns * 1e9,
        frames / (after.wall_ns - before.wall_ns) * 1e9,
        after.supervisor_s - before.supervisor_s,
    )


def _sample(instance: Instance, threads: Sequence[Path]) -> Sample:
    assert instance.process is not None
    slot = instance.slot()
    return Sample(
        frames=int(slot.driver.tx_sent),
        wall_ns=time.monotonic_ns(),
        running_ns=tuple(_running_ns(thread) for thread in threads),
        supervisor_s=sum(psutil.Process(instance.process.pid).cpu_times()[:2]),
    )


def _running_ns(thread: Path) -> int:
    return int((thread / "schedstat").read_text().split()[0])


def _forwarding(instance: Instance) -> list[Path]:
    """Return the threads in /proc that forward: of the first worker and of the driver those that run most."""
    found = []
    for pid in (instance.worker_pids()[0], instance.driver_pid()):
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        before = {task: _running_ns(task) for task in tasks}
        time.sleep(SETTLE_S)
        found.append(max(tasks, key=lambda task: _running_ns(task) - before[task]))
    return found


class _Subscribers:
    """A program with clients that subscribe when they are told to. Use as a context manager."""

    def __init__(self, name: str, *topics: str) -> None:
        command = [sys.executable, "-c", _PROGRAM, name, str(SUBSCRIBERS), *topics]
        self._program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._said = "-"

    def __enter__(self) -> _Subscribers:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.terminate()
        self._program.communicate()

    def say(self, word: str) -> None:
        """Have them subscribe, or unsubscribe; return when all have."""
        if word == self._said:
            return
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{word}\n")
        self._program.stdin.flush()
        if self._program.stdout.readline().strip() != word:
            raise RuntimeError("the subscribers could not subscribe")
        self._said = word


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
