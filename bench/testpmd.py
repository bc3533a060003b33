# SPDX-License-Identifier: Apache-2.0
"""dpdk-testpmd, the peer: the same virtual devices and pages, one forwarding core."""

from __future__ import annotations

import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence

from bench.machine import pick_cores

PROGRAM = "dpdk-testpmd"
MEMORY_MB = 512
_RATE = re.compile(r"Tx-pps:\s+(\d+)")


def is_there() -> bool:
    """Whether the machine has testpmd."""
    return shutil.which(PROGRAM) is not None


def command(vdevs: Sequence[str], *, mode: str, burst: int, huge: bool, period_s: int = 1) -> list[str]:
    """Return the command line: main lcore on our second core, forwarding on our first."""
    forwarding, main = pick_cores(2)
    memory = ["--in-memory"] if huge else ["--no-huge", "-m", str(MEMORY_MB)]
    return [
        PROGRAM,
        *("--lcores", f"0@{main},1@{forwarding}", "--main-lcore", "0", *memory, "--no-pci", "--no-telemetry"),
        *(f"--vdev={device}" for device in vdevs),
        *("--", f"--forward-mode={mode}", f"--burst={burst}", "--nb-cores=1", "--total-num-mbufs=8192"),
        f"--stats-period={period_s}",
    ]


def tx_rate(vdevs: Sequence[str], *, mode: str, burst: int, huge: bool, seconds: int) -> float:
    """Run it and return the median of the frames per second that it prints, its first second left out."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command(vdevs, mode=mode, burst=burst, huge=huge),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            time.sleep(seconds + 2)
        finally:
            stop(process)
        output.seek(0)
        text = output.read()
    rates = [int(rate) for rate in _RATE.findall(text) if int(rate) > 0]
    if len(rates) < 2:
        raise RuntimeError(f"{PROGRAM} printed no rates:\n{text}")
    return float(statistics.median(rates[1:]))


def stop(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End it as Ctrl-C does."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
