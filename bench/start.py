# SPDX-License-Identifier: Apache-2.0
"""`bench start`: from exec to the first echo reply, and the private memory of a worker without an application."""

from __future__ import annotations

import os
import select
import socket
import statistics
import struct
import time
from pathlib import Path

from bench.instance import Instance
from bench.machine import enter_network_namespace
from bench.rows import Row, interval, row_at_most

MOST_SECONDS = 1.5
MOST_MB = 60.0
ADDRESS = "10.77.0.1"
GAP_S = 0.005
TIMEOUT_S = 20.0
_ECHO_REPLY = 0


def run(rounds: int) -> list[Row]:
    """Return both figures."""
    enter_network_namespace()
    seconds: list[float] = []
    megabytes: list[float] = []
    for _ in range(rounds):
        instance = Instance(["--ports", "0,1"], slots=2)
        begin = time.monotonic()
        instance.launch()
        try:
            seconds.append(_first_reply() - begin)
            instance.wait_ready()
            megabytes += [private_mb(pid) for pid in instance.worker_pids()]
        finally:
            instance.stop()
    return [
        row_at_most(
            "start.first_reply_s", statistics.median(seconds), "s", MOST_SECONDS, note=interval(seconds)
        ),
        row_at_most("worker.private_mb", max(megabytes), "MB", MOST_MB, note=interval(megabytes)),
    ]


def private_mb(pid: int) -> float:
    """Private_Clean and Private_Dirty of a process, in megabytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6


def _first_reply() -> float:
    """Send echo requests until one is answered; return when that was."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as echo:
        deadline = time.monotonic() + TIMEOUT_S
        sequence = 0
        while time.monotonic() < deadline:
            sequence += 1
            try:
                echo.sendto(_echo_request(sequence), (ADDRESS, 0))
            except OSError:  # no route to it yet
                time.sleep(GAP_S)
                continue
            if select.select([echo], [], [], GAP_S)[0] and _is_reply(echo.recv(2048)):
                return time.monotonic()
    raise TimeoutError(f"{ADDRESS} did not answer within {TIMEOUT_S:g} s")


def _echo_request(sequence: int) -> bytes:
    head = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, sequence & 0xFFFF)
    total = sum(struct.unpack("!4H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:2] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + head[4:]


def _is_reply(packet: bytes) -> bool:
    icmp = packet[(packet[0] & 15) * 4 :]
    return icmp[0] == _ECHO_REPLY and icmp[4:6] == struct.pack("!H", os.getpid() & 0xFFFF)
