# SPDX-License-Identifier: Apache-2.0
"""`bench kcp`: the core in memory, against the reference's C (PyPI `kcp`), both driven by the same compiled loop; then
what is above it, `bench.kcp_net`.

The reference asks malloc for each segment, and glibc would give a whole window's memory back to the kernel and fetch it
again each time: half of its speed, and no property of its own. So malloc is told to keep it, for both.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import kcp_net
from bench.machine import pick_cores
from bench.rows import Row, interval, row_at_least, row_skipped

ROOT = Path(__file__).resolve().parents[1]
MESSAGES = 1_000_000
LENGTH_OCTETS = 1376
WINDOW = 1024
INTERVAL_MS = 10
SEED = 20261123
TARGET_RATIO = 1.0
TIMEOUT_S = 300.0
CONV = 1
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_TOP_PAD_": str(64 << 20)}


@dataclass(frozen=True, slots=True)
class Load:
    """What is written, and how much of it is lost: one datagram in `loss`, 0 for none."""

    metric: str
    length: int
    loss: int
    messages: int


LOADS = (
    Load("kcp.core", LENGTH_OCTETS, 0, MESSAGES),
    Load("kcp.core.small", 100, 0, MESSAGES),
    Load("kcp.core.loss", LENGTH_OCTETS, 20, MESSAGES // 4),
)


def run(rounds: int) -> list[Row]:
    """Return segments per second and ratios, in alternating rounds."""
    if not _has_reference():
        return [
            row_skipped("kcp.core.ratio_reference", "PyPI's kcp is not installed; `make tools` installs it")
        ]
    with tempfile.TemporaryDirectory(prefix="halo-mp.bench.") as folder:
        driver = compile_driver(Path(folder))
        rows = [row for load in LOADS for row in compare(driver, load, rounds)]
    return [*rows, *kcp_net.run(rounds)]


def compare(driver: Path, load: Load, rounds: int) -> list[Row]:
    """Measure the reference and ours in turn, ours without and with a copy of each datagram."""
    rates: dict[str, list[float]] = {"reference": [], "ours": [], "copy": []}
    for _ in range(rounds):
        for kind, values in rates.items():
            values.append(measure(driver, kind, load))
    rows = []
    for kind, name in (("ours", "ratio_reference"), ("copy", "copied.ratio_reference")):
        ratios = [ours / theirs for ours, theirs in zip(rates[kind], rates["reference"], strict=True)]
        rows.append(
            row_at_least(
                f"{load.metric}.{name}",
                statistics.median(ratios),
                "",
                TARGET_RATIO,
                peer="reference, segments/s",
                peer_value=statistics.median(rates["reference"]),
                note=f"{load.length} octets, {_loss(load)}; ours {interval(rates[kind])} segments/s",
            )
        )
    return rows


def _loss(load: Load) -> str:
    return f"one datagram in {load.loss} lost" if load.loss else "nothing lost"


def _has_reference() -> bool:
    from tests.support.kcp_reference import library

    try:
        library()
    except ModuleNotFoundError:
        return False
    return True


def compile_driver(folder: Path) -> Path:
    """Compile the loop; return the shared object."""
    out = folder / "kcp_core.so"
    command = ["cc", "-std=gnu11", "-O2", "-shared", "-fPIC", f"-I{ROOT / 'native' / 'include'}"]
    subprocess.run([*command, "-o", str(out), str(ROOT / "bench" / "kcp_core.c")], check=True)
    return out


def measure(driver: Path, kind: str, load: Load) -> float:
    """Run it in a process of its own, on one core; return segments per second."""
    core = pick_cores(1)[0]
    command = [sys.executable, "-m", "bench.kcp", str(driver), kind]
    numbers = [str(number) for number in (load.length, load.loss, load.messages, core)]
    done = subprocess.run(
        [*command, *numbers],
        check=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=ROOT,
        env={**os.environ, **KEEP_MEMORY},
    )
    elapsed_ns, bad = (int(word) for word in done.stdout.split())
    if bad:
        raise RuntimeError(f"{kind}: {bad} messages did not arrive as they were written")
    return load.messages / elapsed_ns * 1e9


_DRIVER = """
struct run {
    uint64_t messages;
    uint32_t length, window, interval_ms, loss, seed, bad;
    uint64_t elapsed_ns;
};
struct functions { void *function[6]; };
struct way { void *functions; struct run *run; void *to; int lossy; };
int bench_reference_output(const char *octets, int length, void *kcp, void *user);
void bench_reference(void *functions, void *writer, void *reader, struct run *run);
void bench_ours(void *functions, void *writer, void *reader, void *output, struct run *run);
"""


def _end(driver_path: str, kind: str, length: int, loss: int, messages: int) -> None:
    """One measurement, in a process of its own."""
    from cffi import FFI

    ffi = FFI()
    ffi.cdef(_DRIVER)
    driver = ffi.dlopen(driver_path)
    run = ffi.new("struct run *", [messages, length, WINDOW, INTERVAL_MS, loss, SEED, 0, 0])
    if kind == "reference":
        _run_reference(ffi, driver, run)
    else:
        _run_ours(ffi, driver, run, by_reference=kind == "ours")
    print(run.elapsed_ns, run.bad)


def _run_reference(ffi: Any, driver: Any, run: Any) -> None:
    from tests.support import kcp_reference

    library = kcp_reference.ffi.dlopen(kcp_reference.library())
    names = ("ikcp_send", "ikcp_recv", "ikcp_input", "ikcp_update", "ikcp_waitsnd")
    address = kcp_reference.ffi.cast
    functions = ffi.new(
        "struct functions *", [[_pointer(kcp_reference.ffi, ffi, getattr(library, name)) for name in names]]
    )
    ends, ways = [], []
    for _ in range(2):
        end = library.ikcp_create(CONV, kcp_reference.ffi.NULL)
        library.ikcp_setmtu(end, 1400)
        library.ikcp_wndsize(end, WINDOW, WINDOW)
        library.ikcp_nodelay(end, 1, INTERVAL_MS, 2, 1)
        end.dead_link = 1000
        ends.append(end)
    output = int(ffi.cast("uintptr_t", ffi.addressof(driver, "bench_reference_output")))
    for side in (0, 1):
        to = ffi.cast("void *", int(address("uintptr_t", ends[1 - side])))
        way = ffi.new("struct way *", [functions, run, to, side == 0])
        ways.append(way)
        ends[side].user = address("void *", int(ffi.cast("uintptr_t", way)))
        library.ikcp_setoutput(ends[side], address("int (*)(const char *, int, ikcpcb *, void *)", output))
    writer, reader = (ffi.cast("void *", int(address("uintptr_t", end))) for end in ends)
    driver.bench_reference(functions, writer, reader, run)


def _run_ours(ffi: Any, driver: Any, run: Any, *, by_reference: bool) -> None:
    from halo_mp._native import ffi as native
    from halo_mp._native import lib

    settings = native.new("struct halo_kcp_settings *")
    lib.halo_kcp_settings_default(settings)
    settings.send_window = settings.receive_window = WINDOW
    settings.nodelay, settings.interval_ms, settings.resend = 1, INTERVAL_MS, 2
    settings.congestion, settings.dead_link = lib.HALO_KCP_CONGESTION_NONE, 1000
    names = ("send", "receive", "input", "poll", "waiting", "output_clear")
    functions = ffi.new(
        "struct functions *",
        [[_pointer(native, ffi, native.addressof(lib, f"halo_kcp_{name}")) for name in names]],
    )
    output = native.new("struct halo_kcp_output *")
    output.by_reference = by_reference
    ends = [lib.halo_kcp_create(CONV, settings) for _ in range(2)]
    writer, reader, out = (_pointer(native, ffi, pointer) for pointer in (*ends, output))
    driver.bench_ours(functions, writer, reader, out, run)


def _pointer(theirs: Any, ours: Any, value: Any) -> Any:
    """A pointer of another FFI."""
    return ours.cast("void *", int(theirs.cast("uintptr_t", value)))


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[6])})
    _end(sys.argv[1], sys.argv[2], *(int(word) for word in sys.argv[3:6]))
