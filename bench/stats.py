# SPDX-License-Identifier: Apache-2.0
"""`bench stats`: what looking at an instance costs who looks: reading all statistics of eight workers, the dashboard.

The instance has eight ports of net_null. One of them receives without end for the dashboard, so that figures change
and a core is busy; the others are quiet. Time is the reader's own, of its processor, and not that of the machine.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import termios
import time

import psutil

from bench.instance import Instance
from bench.rows import Row, interval, row_at_most
from halo_mp.stats.reader import Reader

WORKERS = 8
READS = 200
MOST_READ_US = 1000.0
MOST_PERCENT = 8.0
SETTLE_S = 3.0
MEASURE_S = 10.0
COLUMNS, LINES = 200, 50


def run(rounds: int) -> list[Row]:
    """Return the time to read everything, and the processor time of the dashboard in percent of one core."""
    return [_reading(rounds), *_showing()]


def _reading(rounds: int) -> Row:
    with _instance("no-rx=1") as instance, Reader(instance.name) as reader:
        medians = []
        for _ in range(rounds):
            taken = []
            for _ in range(READS):
                begin = time.thread_time_ns()
                reader.read()
                taken.append((time.thread_time_ns() - begin) / 1000)
            medians.append(statistics.median(taken))
    value = statistics.median(medians)
    return row_at_most("stats.read_us", value, "µs", MOST_READ_US, note=interval(medians))


def _showing() -> list[Row]:
    with _instance("") as instance:
        used = _dashboard_seconds(instance.name)
    note = f"{COLUMNS} by {LINES}, {WORKERS} workers, over {MEASURE_S:g} s"
    return [row_at_most("dashboard.cpu_percent", used / MEASURE_S * 100, "%", MOST_PERCENT, note=note)]


def _instance(first_device: str) -> Instance:
    devices = ["net_null0" + (f",{first_device}" if first_device else "")]
    devices += [f"net_null{number},no-rx=1" for number in range(1, WORKERS)]
    flags = ["--ports", ",".join(map(str, range(WORKERS))), "--spare", "0", "--ring-size", "1024"]
    return Instance([*flags, *(word for device in devices for word in ("--vdev", device))], slots=WORKERS)


def _dashboard_seconds(name: str) -> float:
    """Return the processor time of a dashboard in a terminal of its own."""
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    command = [sys.executable, "-m", "halo_mp.dashboard", "--name", name]
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, start_new_session=True
    ) as dashboard:
        try:
            _drain(ours, SETTLE_S)
            before = _seconds(dashboard.pid)
            _drain(ours, MEASURE_S)
            return _seconds(dashboard.pid) - before
        finally:
            dashboard.terminate()
            os.close(ours)
            os.close(terminal)


def _drain(terminal: int, seconds: float) -> None:
    """Read what a terminal shows, for so long."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            os.read(terminal, 65536)


def _seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
