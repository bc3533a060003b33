# SPDX-License-Identifier: Apache-2.0
"""`bench faults`: how long a port is without service when something dies under traffic.

Two TAP ports, each asked for an echo every millisecond. The time without service is from the signal to the first answer
to a request that was sent after the process had ended. 50 faults of each kind (fewer with --rounds below 7), then ten
minutes of stress-ng on every core, in which nothing may be killed.
"""

from __future__ import annotations

import math
import os
import select
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence

from bench.instance import Instance
from bench.machine import enter_network_namespace, wait_until
from bench.prober import Prober
from bench.rows import Row, row_at_most, row_skipped

FAULTS_A_ROUND, MOST_FAULTS = 8, 50
STOPS = 10
REPLACEMENTS = 10
STRESS_S_A_ROUND, MOST_STRESS_S = 86, 600
ADDRESSES = ["10.77.0.1", "10.77.1.1"]
FLAGS = ["--ports", "0,1", "--restart-limit", "1000/10", "--hugepages", "off"]
PAUSE_S = 0.3
RECOVERY_S = 20.0


def run(rounds: int) -> list[Row]:
    """Return a row for each kind of fault."""
    enter_network_namespace()
    count = min(MOST_FAULTS, rounds * FAULTS_A_ROUND)
    return [
        *_workers(("faults.worker.p99_ms", "faults.worker.other_lost"), count, spares=0, most_ms=300),
        *_workers(
            ("faults.worker_spare.p99_ms", "faults.worker_spare.other_lost"), count, spares=1, most_ms=50
        ),
        *_driver(count),
        *_stopped(min(STOPS, count)),
        *_supervisor(count),
        *_replaced(min(REPLACEMENTS, count)),
        *_stress(min(MOST_STRESS_S, rounds * STRESS_S_A_ROUND)),
    ]


def _workers(metrics: tuple[str, str], count: int, *, spares: int, most_ms: float) -> list[Row]:
    """Kill one worker after the other."""
    gaps: list[float] = []
    others = [0, 0]
    with Instance([*FLAGS, "--spare", str(spares)], slots=2) as instance:
        for slot in (0, 1):  # one port's worker at a time, so that it is known who must lose nothing
            with Prober(ADDRESSES) as prober:
                for number in range(slot, count, 2):
                    _wait_for_spares(instance, spares, gaps)
                    gaps.append(_kill(prober, instance.worker_pids()[slot], slot))
                    assert number < count
            others[slot] = prober.lost(1 - slot)
    return [
        _p99(metrics[0], gaps, most_ms),
        row_at_most(metrics[1], sum(others), "packets", 0, note="of the port whose worker lived"),
    ]


def _wait_for_spares(instance: Instance, spares: int, gaps: Sequence[float]) -> None:
    if spares:
        wait_until(lambda: instance.log().count("spare.ready") > len(gaps), RECOVERY_S, "the next spare")
    time.sleep(PAUSE_S)


def _driver(count: int) -> list[Row]:
    """Kill the driver again and again."""
    with Instance([*FLAGS, "--spare", "0"], slots=2) as instance:
        workers = instance.worker_pids()
        with Prober(ADDRESSES) as prober:
            gaps = []
            for _ in range(count):
                time.sleep(PAUSE_S)
                gaps.append(_kill(prober, instance.driver_pid(), 0, 1))
        same = float(workers == instance.worker_pids())
    note = "1: the workers are the ones that they were before"
    return [
        _p99("faults.driver.p99_ms", gaps, 1000),
        Row(metric="faults.driver.same_workers", value=same, unit="", note=note),
    ]


def _stopped(count: int) -> list[Row]:
    """Stop a worker as a debugger does, and let the supervisor find it."""
    with Instance([*FLAGS, "--spare", "1"], slots=2) as instance, Prober(ADDRESSES) as prober:
        found, gaps = [], []
        for _ in range(count):
            _wait_for_spares(instance, 1, gaps)
            victim = instance.worker_pids()[0]
            gaps.append(_kill(prober, victim, 0, number=signal.SIGSTOP, on_ended=found.append))
    note = f"time without service {statistics.median(gaps):.0f} ms in the median"
    return [row_at_most("faults.stopped.found_ms", max(found), "ms", 1500, note=f"{_spread(found)}; {note}")]


def _supervisor(count: int) -> list[Row]:
    """Kill the supervisor and start the next."""
    took_s: list[float] = []
    with Instance([*FLAGS, "--spare", "0"], slots=2) as instance:
        children = [instance.driver_pid(), *instance.worker_pids()]
        with Prober(ADDRESSES) as prober:
            for number in range(count):
                time.sleep(PAUSE_S)
                instance.kill()
                time.sleep(PAUSE_S)
                begin_s = time.monotonic()
                instance.launch()
                up = number + 2  # the first start was the first
                wait_until(lambda up=up: instance.log().count("instance.up") >= up, RECOVERY_S, "adoption")  # type: ignore[misc]
                took_s.append(time.monotonic() - begin_s)
        assert children == [instance.driver_pid(), *instance.worker_pids()]
    lost = prober.lost(0) + prober.lost(1)
    requests = sum(map(len, prober.answers)) + lost
    note = f"{_spread([1000 * each for each in took_s])} from exec to instance.up"
    return [
        row_at_most("faults.supervisor.lost", lost, "packets", 0, note=f"of {requests}, in {count} deaths"),
        row_at_most("faults.adopt_s", max(took_s), "s", 2, note=note),
    ]


def _replaced(count: int) -> list[Row]:
    """Have all workers replaced; who waits is a request, and what it waits is the gap."""
    gaps: list[float] = []
    with Instance([*FLAGS, "--spare", "1"], slots=2) as instance, Prober(ADDRESSES) as prober:
        assert instance.process is not None
        for number in range(1, count + 1):
            wait_until(
                lambda: instance.log().count("spare.ready") > 2 * len(gaps), RECOVERY_S, "the next spare"
            )
            time.sleep(PAUSE_S)
            begin_ns = time.monotonic_ns()
            instance.process.send_signal(signal.SIGUSR1)
            done = 2 * number
            wait_until(lambda done=done: instance.log().count("worker.replaced") >= done, RECOVERY_S, "both")  # type: ignore[misc]
            time.sleep(PAUSE_S)
            late = (answer for answers in prober.answers for answer in answers if answer.sent_ns >= begin_ns)
            gaps.append(max(answer.received_ns - answer.sent_ns for answer in late) / 1e6)
    lost = prober.lost(0) + prober.lost(1)
    return [
        row_at_most(
            "faults.replace.lost", lost, "packets", 0, note=f"in {2 * count} replacements of a worker"
        ),
        row_at_most(
            "faults.replace.gap_ms", max(gaps), "ms", 20, note=f"longest wait of a request; {_spread(gaps)}"
        ),
    ]


def _stress(seconds: float) -> list[Row]:
    """Let others take the processor; whoever is killed was killed for nothing."""
    program = shutil.which("stress-ng")
    if program is None:
        return [row_skipped("faults.false_kills", "stress-ng is not installed")]
    with Instance([*FLAGS, "--spare", "1"], slots=2) as instance:
        with Prober(ADDRESSES, 0.01) as prober:
            command = [program, "--cpu", "4", "--timeout", f"{seconds:g}s", "--quiet"]
            subprocess.run(command, check=True)
        died = sum(instance.log().count(f"{who}.died") for who in ("worker", "driver", "spare"))
        lost = prober.lost(0) + prober.lost(1)
    note = f"in {seconds:g} s of stress-ng --cpu 4; {lost} of {sum(map(len, prober.answers)) + lost} packets lost"
    return [row_at_most("faults.false_kills", died, "kills", 0, note=note)]


def _kill(
    prober: Prober,
    victim: int,
    *ports: int,
    number: signal.Signals = signal.SIGKILL,
    on_ended: Callable[[float], object] = lambda _ms: None,
) -> float:
    """Send a signal to a process that will end of it, and return for how many ms the longest port had no service."""
    pidfd = os.pidfd_open(victim)
    try:
        begin_ns = time.monotonic_ns()
        os.kill(victim, number)
        if not select.select([pidfd], [], [], RECOVERY_S)[0]:
            raise TimeoutError(f"process {victim} lives on")
        ended_ns = time.monotonic_ns()
    finally:
        os.close(pidfd)
    on_ended((ended_ns - begin_ns) / 1e6)
    answers = [prober.wait_for_answer(port, ended_ns, RECOVERY_S) for port in ports]
    return (max(answer.received_ns for answer in answers) - begin_ns) / 1e6


def _p99(metric: str, gaps_ms: Sequence[float], most_ms: float) -> Row:
    return row_at_most(metric, _quantile(gaps_ms, 0.99), "ms", most_ms, note=_spread(gaps_ms))


def _quantile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least that part of the values does not exceed."""
    return sorted(values)[math.ceil(part * len(values)) - 1]


def _spread(values_ms: Sequence[float]) -> str:
    half, most = _quantile(values_ms, 0.5), max(values_ms)
    return f"p50 {half:.0f}, p99 {_quantile(values_ms, 0.99):.0f}, max {most:.0f} ms of {len(values_ms)}"
