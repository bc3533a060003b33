# SPDX-License-Identifier: Apache-2.0
"""`bench idle`: what driver and workers cost when nothing comes in, with the default policy on two TAP ports."""

from __future__ import annotations

import time

import psutil

from bench.instance import Instance
from bench.machine import enter_network_namespace
from bench.rows import Row, row_at_most

SETTLE_S = 3.0
MEASURE_S = 10.0
MOST_PERCENT = 5.0


def run(_rounds: int) -> list[Row]:
    """Return processor time of driver and workers together, in percent of one core."""
    enter_network_namespace()
    with Instance(["--ports", "0,1"], slots=2) as instance:
        assert instance.process is not None
        time.sleep(SETTLE_S)
        children = psutil.Process(instance.process.pid).children()
        before = sum(_seconds(child) for child in children)
        time.sleep(MEASURE_S)
        used = sum(_seconds(child) for child in children) - before
    note = f"{len(children)} processes over {MEASURE_S:g} s"
    return [row_at_most("idle.cpu_percent", used / MEASURE_S * 100, "%", MOST_PERCENT, note=note)]


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
