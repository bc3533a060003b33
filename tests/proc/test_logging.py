# SPDX-License-Identifier: Apache-2.0
"""What all processes of an instance write: one event a line, in one of two shapes, and nobody waits for a reader."""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from tests.proc.conftest import ADDRESSES, assert_answered
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import Namespace, wait_until
from tests.support.pinger import Pinger

WORD = r"[A-Za-z0-9_.:/,+@%*\[\]-]+"
VALUE = rf'(?:{WORD}|"(?:[^"\\]|\\.)*"|\{{[^}}]*\}}|\[[^\]]*\]|null|true|false)'
LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "
    r"(?:DEBUG|INFO |WARN |ERROR) "
    r"(?P<process>supervisor|driver|worker\.\d+) "
    r"(?P<event>[a-z_]+(?:\.[a-z_]+)*)"
    rf"(?P<fields>(?: [a-z_]+={VALUE})*)"
)
SMALLEST_PIPE_OCTETS = 4096


def run_a_life(namespace: Namespace, directory: Path, style: str, *flags: str) -> list[str]:
    """Go through start, a death, statistics, a learned neighbor and the stop; return the lines of stderr."""
    path = directory / "stderr"
    every = ("--log-format", style, "--log-level", "debug", "--stats-log", "0.2", "--ports", "0,1", *flags)
    with (
        path.open("wb") as stderr,
        Instance(namespace, *every, wait=False, stderr=stderr) as instance,
    ):
        wait_until(lambda: "instance.up" in path.read_text(), timeout_s=30, what="a start")
        assert_answered(namespace, *ADDRESSES, count=2)
        victim = re.search(r'worker\.spawned slot=0 pid=(\d+)|"slot": 0, "pid": (\d+)', path.read_text())
        assert victim
        lives.kill(int(victim[1] or victim[2]))
        wait_until(lambda: path.read_text().count("slot.reset") == 1, what="a reset")
        wait_until(lambda: path.read_text().count("interface.up") == 3, what="a new worker")
        wait_until(lambda: path.read_text().count("stats") >= 4, what="statistics")
        assert instance.stop() == 0
        assert instance.text().startswith("halo-mp: instance"), (
            "stdout has what a person reads, and that alone"
        )
    text = path.read_text()
    assert text.endswith("\n")
    return text.splitlines()


EVENTS = {
    "supervisor": {
        "driver.spawned",
        "worker.died",
        "worker.ready",
        "slot.reset",
        "stats",
        "instance.stopped",
    },
    "driver": {"driver.ready", "driver.stopped", "dpdk"},
    "worker.0": {"worker.attached", "worker.ready", "worker.stopped", "frame"},
    "worker.1": {"worker.attached", "worker.ready", "worker.stopped", "frame"},
}


def test_text_lines_have_the_documented_shape(namespace: Namespace, tmp_path: Path) -> None:
    seen: dict[str, set[str]] = {}
    for line in run_a_life(namespace, tmp_path, "text", "--debug-log"):
        found = LINE.fullmatch(line)
        assert found, line
        seen.setdefault(found["process"], set()).add(found["event"])
    for process, events in EVENTS.items():
        assert seen[process] >= events


def test_json_lines_parse(namespace: Namespace, tmp_path: Path) -> None:
    seen: dict[str, set[str]] = {}
    for line in run_a_life(namespace, tmp_path, "json", "--debug-log"):
        entry: dict[str, Any] = json.loads(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"])
        assert entry["level"] in ("debug", "info", "warn", "error")
        seen.setdefault(entry["process"], set()).add(entry["event"])
        if entry["event"] == "stats":
            assert set(entry) >= {"port", "rx_pps", "tx_pps", "rx_octets", "tx_octets", "drops"}
    for process, events in EVENTS.items():
        assert seen[process] >= events


def test_level_leaves_out_what_is_below(namespace: Namespace) -> None:
    with Instance(
        namespace, "--log-level", "warning", "--cores", "0", "--driver-cores", "0", wait=False
    ) as instance:
        wait_until(lambda: "is up" in instance.text(), timeout_s=30, what="a start")
        assert {entry["level"] for entry in instance.events()} == {"warn"}
        assert instance.stop() == 0


def test_full_pipe_stops_nobody(namespace: Namespace) -> None:
    """A reader that never reads: frames go on, deaths are handled, and the end is an ordinary one."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE_OCTETS)
    noisy = ("--log-level", "debug", "--debug-log", "--stats-log", "0.1")
    try:
        with Instance(namespace, *noisy, wait=False, stderr=writing) as instance:
            wait_until(lambda: "is up" in instance.text(), timeout_s=30, what="a start")
            with Pinger(namespace) as pinger:
                pinger.wait_for_more()
                wait_until(lambda: is_full(writing), what="a full pipe")
                pinger.wait_for_more(100)
                victim = instance.slot()["worker_pid"]
                lives.kill(victim)
                wait_until(lambda: instance.slot()["worker_pid"] not in (0, victim), what="a successor")
                pinger.wait_for_more()
            assert set(pinger.answered.values()) == {1}
            assert instance.stop() == 0
    finally:
        os.close(reading)
        os.close(writing)


def is_full(pipe: int) -> bool:
    """Whether a line finds no room in a pipe of the smallest size."""
    octets = bytearray(4)
    fcntl.ioctl(pipe, 0x541B, octets)  # FIONREAD
    return int.from_bytes(octets, sys.byteorder) > SMALLEST_PIPE_OCTETS - 512


def test_reader_that_goes_away_stops_nobody(namespace: Namespace) -> None:
    reading, writing = os.pipe()
    with Instance(namespace, "--debug-log", wait=False, stderr=writing) as instance:
        os.close(writing)
        wait_until(lambda: "is up" in instance.text(), timeout_s=30, what="a start")
        os.close(reading)
        with Pinger(namespace) as pinger:
            pinger.wait_for_more(50)
        assert pinger.lost == set()
        assert instance.stop() == 0
