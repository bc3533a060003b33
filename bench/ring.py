# SPDX-License-Identifier: Apache-2.0
"""`bench ring`: a bare descriptor ring, one way, between two processes pinned to two cores."""

from __future__ import annotations

import mmap
import os
import statistics
import subprocess
import sys

from bench.machine import pick_cores
from bench.rows import Row, interval, row_at_least

ENTRIES = 16384
DESCRIPTORS = 300_000_000
TIMEOUT_S = 60.0
TARGET_PER_S = 150e6
INDEX_OCTETS = 256
DESCRIPTOR_OCTETS = 8


def run(rounds: int) -> list[Row]:
    """Return descriptors per second with bursts of 64 and of 32."""
    rows = []
    for burst, metric in ((64, "ring.descriptors_per_s"), (32, "ring.burst32.descriptors_per_s")):
        rates = [measure(burst) for _ in range(rounds)]
        rows.append(row_at_least(metric, statistics.median(rates), "1/s", TARGET_PER_S, note=interval(rates)))
    return rows


def measure(burst: int) -> float:
    """Run one pair of processes; return descriptors per second as the consumer saw them."""
    cores = pick_cores(2)
    fd = os.memfd_create("halo-mp.bench.ring")
    try:
        os.posix_fallocate(fd, 0, INDEX_OCTETS + ENTRIES * DESCRIPTOR_OCTETS)
        ends = [
            _spawn(side, fd, burst, core) for side, core in zip(("consume", "produce"), cores, strict=True)
        ]
        outputs = [end.communicate(timeout=TIMEOUT_S * 2)[0] for end in ends]
    finally:
        os.close(fd)
    elapsed_ns, total = (int(word) for word in outputs[0].split())
    expected = sum_of_offsets(DESCRIPTORS)
    if total != expected:
        raise RuntimeError(f"descriptors were lost or changed: they add up to {total}, not {expected}")
    return DESCRIPTORS / elapsed_ns * 1e9


def sum_of_offsets(count: int) -> int:
    """What the offsets 0 .. count - 1 add up to; none of them exceeds 32 bits."""
    return count * (count - 1) // 2


def _spawn(side: str, fd: int, burst: int, core: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.ring", side, str(fd), str(burst), str(core)]
    return subprocess.Popen(command, pass_fds=(fd,), stdout=subprocess.PIPE, text=True)


def _end(side: str, fd: int, burst: int, core: int) -> None:
    """One end of the ring, in a process of its own."""
    from halo_mp._native import ffi, lib

    os.sched_setaffinity(0, {core})
    memory = mmap.mmap(
        fd, INDEX_OCTETS + ENTRIES * DESCRIPTOR_OCTETS, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE
    )
    base = ffi.from_buffer(memory)
    index = ffi.cast("struct halo_ring_index *", base)
    entry = ffi.cast("struct halo_descriptor *", base + INDEX_OCTETS)
    timeout_ns = int(TIMEOUT_S * 1e9)
    total = ffi.new("uint64_t *")
    if side == "produce":
        elapsed = lib.halo_bench_produce(index, entry, ENTRIES, burst, DESCRIPTORS, timeout_ns)
    else:
        elapsed = lib.halo_bench_consume(index, entry, ENTRIES, burst, DESCRIPTORS, timeout_ns, total)
    if elapsed < 0:
        raise OSError(-elapsed, os.strerror(-elapsed))
    print(elapsed, total[0])


if __name__ == "__main__":
    _end(sys.argv[1], *(int(word) for word in sys.argv[2:5]))
