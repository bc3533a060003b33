# SPDX-License-Identifier: Apache-2.0
"""dpdk-testpmd, the peer: the same virtual devices and pages, one forwarding core."""

from __future__ import annotations

import re
import shutil
import signal
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.machine import pick_cores, wait_until

PROGRAM = "dpdk-testpmd"
MEMORY_MB = 512
MBUFS = 8192
START_TIMEOUT_S = 20.0
_RATE = re.compile(r"Tx-pps:\s+(\d+)")


def is_there() -> bool:
    """Whether the machine has testpmd."""
    return shutil.which(PROGRAM) is not None


def command(
    vdevs: Sequence[str], *, mode: str, burst: int, huge: bool, mbufs: int = MBUFS, period_s: int = 1
) -> list[str]:
    """Return the command line: main lcore on our second core, forwarding on our first."""
    forwarding, main = pick_cores(2)
    memory = ["--in-memory"] if huge else ["--no-huge", "-m", str(MEMORY_MB)]
    return [
        PROGRAM,
        *("--lcores", f"0@{main},1@{forwarding}", "--main-lcore", "0", *memory, "--no-pci", "--no-telemetry"),
        *(f"--vdev={device}" for device in vdevs),
        *("--", f"--forward-mode={mode}", f"--burst={burst}", "--nb-cores=1", f"--total-num-mbufs={mbufs}"),
        f"--stats-period={period_s}",
    ]


def tx_rate(
    vdevs: Sequence[str], *, mode: str, burst: int, huge: bool, mbufs: int = MBUFS, periods: int = 3
) -> float:
    """Run it and return the median of the frames per second that it prints, its first period left out."""
    with tempfile.NamedTemporaryFile("w") as output:
        process = subprocess.Popen(
            command(vdevs, mode=mode, burst=burst, huge=huge, mbufs=mbufs),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        path = Path(output.name)
        try:
            wait_until(
                lambda: len(_rates(path)) > periods, START_TIMEOUT_S + 2 * periods, f"{PROGRAM}'s rates"
            )
        finally:
            stop(process)
        return float(statistics.median(_rates(path)[1 : periods + 1]))


def _rates(path: Path) -> list[int]:
    """Return the rates that are not 0: one port only sends."""
    text = path.read_text(errors="replace")
    return [int(rate) for rate in _RATE.findall(text) if int(rate) > 0]


def stop(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End it as Ctrl-C does."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
