# SPDX-License-Identifier: Apache-2.0
"""`bench kcp` through asyncio: over kernel UDP against the reference's loop, between two workers, and idle sessions.

Goodput is per core: octets for each second of processor time of both ends together, so that it does not matter who
else is on the machine, or how many cores there are. On kernel sockets the kernel's part is in it, for loopback runs in
the sender's calls. Between two workers that part is the driver's, which polls, and so has time to its name in which
there was nothing to do: there is a row without it and one with all of it. `mtu_9000` is both with datagrams of 8,900
octets.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.instance import Instance
from bench.kcp_ends import MTU_VARIABLE
from bench.machine import enter_network_namespace, pick_cores, wait_until
from bench.rows import Row, interval, row_at_least, row_at_most, row_skipped

ROOT = Path(__file__).resolve().parents[1]
PORT = 42100
WRITE_OCTETS = 65536
MTU = 1400
OCTETS = {
    "ours": 3000 * WRITE_OCTETS,
    "plain": 150 * WRITE_OCTETS,
    "reference": 400 * WRITE_OCTETS,
    "jumbo": 3000 * WRITE_OCTETS,
}
HALO = ("halo", "halo.driver", "halo.jumbo", "halo.jumbo.driver")
PEERS = {
    "reference": "reference's loop",
    "ours": "ours on kernel UDP",
    "plain": "ours on asyncio's datagrams",
    "jumbo": "ours on kernel UDP, 8,900 octets",
}
SESSIONS = 10_000
JUMBO_MTU, JUMBO_DATAGRAM = 9000, 8900
TIMEOUT_S = 120.0
TARGET_KERNEL, TARGET_HALO = 3.0, 2.0
TARGET_IDLE_PERCENT, TARGET_OCTETS = 3.0, 2048
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def run(rounds: int) -> list[Row]:
    """Return goodput per core of each way, and what idle sessions cost."""
    try:
        enter_network_namespace()
    except OSError as error:
        return [row_skipped("kcp.kernel_udp.ratio_reference", str(error))]
    rates: dict[str, list[float]] = {kind: [] for kind in (*OCTETS, *HALO)}
    for _ in range(rounds):
        for kind in OCTETS:
            rates[kind].append(measure_kernel(kind))
        for kind, jumbo in (("halo", False), ("halo.jumbo", True)):
            rate, with_driver = measure_halo(jumbo=jumbo)
            rates[kind].append(rate)
            rates[f"{kind}.driver"].append(with_driver)
    return [*_rows(rates), *measure_idle()]


def _rows(rates: dict[str, list[float]]) -> list[Row]:
    def row(metric: str, kind: str, against: str, least: float | None = None) -> Row:
        ratios = [ours / theirs for ours, theirs in zip(rates[kind], rates[against], strict=True)]
        ratio, peer_value = statistics.median(ratios), statistics.median(rates[against]) / 1e6
        peer = f"{PEERS[against]}, MB/s per core"
        told = (
            f"ratio {interval(ratios)}; ours {interval([rate / 1e6 for rate in rates[kind]])} MB/s per core"
        )
        if least is None:
            return Row(metric=metric, value=ratio, unit="", peer=peer, peer_value=peer_value, note=told)
        return row_at_least(metric, ratio, "", least, peer=peer, peer_value=peer_value, note=told)

    return [
        row("kcp.kernel_udp.ratio_reference", "ours", "reference", TARGET_KERNEL),
        row("kcp.kernel_udp.plain.ratio_reference", "plain", "reference"),
        row("kcp.halo_udp.ratio_kernel_udp", "halo", "ours", TARGET_HALO),
        row("kcp.halo_udp.with_driver.ratio_kernel_udp", "halo.driver", "ours"),
        row("kcp.halo_udp.mtu_9000.ratio_kernel_udp", "halo.jumbo", "jumbo"),
        row("kcp.halo_udp.mtu_9000.with_driver.ratio_kernel_udp", "halo.jumbo.driver", "jumbo"),
        row("kcp.halo_udp.ratio_plain", "halo", "plain"),
        row("kcp.halo_udp.ratio_reference", "halo", "reference"),
    ]


def measure_kernel(kind: str) -> float:
    """Return octets per second of processor time of both ends, each a process on a core of its own."""
    with _end(kind, "receive", OCTETS[kind]) as receiver, _end(kind, "send", OCTETS[kind]) as sender:
        try:
            outcomes = [each.communicate(timeout=TIMEOUT_S)[0] for each in (sender, receiver)]
        finally:
            sender.kill()
            receiver.kill()
    return OCTETS[kind] / sum(int(each.split()[0]) for each in outcomes) * 1e9


def _environment(*, jumbo: bool) -> dict[str, str]:
    """What tells the ends how long their datagrams may be."""
    return {MTU_VARIABLE: str(JUMBO_DATAGRAM if jumbo else MTU)}


@contextmanager
def _end(kind: str, what: str, count: int) -> Iterator[subprocess.Popen[str]]:
    core = pick_cores(2)[what == "send"]
    name = "ours" if kind == "jumbo" else kind
    words = [sys.executable, "-m", "bench.kcp_ends", name, what, str(PORT), str(count)]
    with subprocess.Popen(
        ["taskset", "-c", str(core), *words],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **_environment(jumbo=kind == "jumbo")},
    ) as process:
        try:
            assert process.stdout is not None
            if what == "receive" and process.stdout.readline() != "bound\n":
                raise RuntimeError(f"the receiver of {kind} did not start")
            yield process
        finally:
            process.kill()


def measure_halo(*, jumbo: bool) -> tuple[float, float]:
    """Return octets per second of processor time of both workers, and of both and the driver."""
    driver_core, worker_core = pick_cores(2)
    app = f"{Path(__file__).with_name('kcp_app.py')}:app"
    arguments = ["--ports", "0,1", "--address", "0=10.77.0.1/24", "--address", "1=10.77.1.1/24"]
    arguments += ["--vdev", "net_null0,no-rx=1", "--vdev", "net_null1,no-rx=1"]
    arguments += ["--driver-cores", str(driver_core), "--cores", f"{worker_core},{worker_core}", "--app", app]
    arguments += ["--mtu", str(JUMBO_MTU)] if jumbo else []
    with tempfile.TemporaryDirectory(prefix="halo-mp.bench.") as folder:
        outcome = Path(folder)
        outcome.chmod(0o777)  # workers are nobody
        os.environ.update(_environment(jumbo=jumbo))
        os.environ["HALO_BENCH_KCP"] = folder
        os.environ["HALO_BENCH_KCP_OCTETS"] = str(OCTETS["ours"])
        with Instance(arguments, slots=2) as instance:
            wait_until((outcome / "begin").exists, TIMEOUT_S, "the start of a transfer between workers")
            before = _processor_ns(instance.driver_pid())
            wait_until(
                lambda: (outcome / "send").exists() and (outcome / "receive").exists(),
                TIMEOUT_S,
                "the end of a transfer between workers",
            )
            driver_ns = _processor_ns(instance.driver_pid()) - before
        spent = [json.loads((outcome / name).read_text()) for name in ("send", "receive")]
    spent_ns = sum(each["cpu_ns"] for each in spent)
    return OCTETS["ours"] / spent_ns * 1e9, OCTETS["ours"] / (spent_ns + driver_ns) * 1e9


def _processor_ns(pid: int) -> int:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) * _TICK_NS


def measure_idle() -> list[Row]:
    """Ten thousand sessions of a server; what their clients cost is not looked at."""
    with _end("idle", "receive", SESSIONS) as server, _end("idle", "send", SESSIONS):
        cpu_ns, ns, octets = (int(word) for word in server.communicate(timeout=TIMEOUT_S)[0].split())
    note = f"{SESSIONS} sessions at one endpoint; their clients ask each 10 s whether it lives"
    largest = "of a session, in the core; the largest"
    return [
        row_at_most("kcp.idle.percent", 100 * cpu_ns / ns, "%", TARGET_IDLE_PERCENT, note=note),
        row_at_most("kcp.idle.octets", octets, "octets", TARGET_OCTETS, note=largest),
    ]
