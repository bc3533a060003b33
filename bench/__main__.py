# SPDX-License-Identifier: Apache-2.0
"""`python -m bench NAME... [--json FILE]`. A figure that misses its target is printed, and is no failure."""

from __future__ import annotations

import argparse
import platform
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from bench import (
    capture,
    faults,
    forward,
    hook_chain,
    hooks,
    idle,
    io,
    kcp,
    kcp_loss,
    kcp_net,
    ping,
    ring,
    start,
    stats,
    subscribers,
    tx,
    udp,
    worker,
)
from bench.rows import Row, as_json, as_table

BENCHMARKS: dict[str, tuple[Callable[[int], list[Row]], str]] = {
    "ring": (ring.run, "descriptors per second through a bare ring between two pinned processes"),
    "worker": (worker.run, "nanoseconds per frame in a worker alone, without driver and second core"),
    "stages": (worker.run_stages, "cycles per frame in each stage of the worker's fast path"),
    "capture": (capture.run, "what a filter that lets nothing through costs a worker that forwards, alone"),
    "chain": (
        hook_chain.run,
        "what a hook costs in a worker alone: native ones, and one of Python's that is parked for",
    ),
    "io": (io.run, "frames per second, port to worker to port, against dpdk-testpmd macswap"),
    "forward": (
        forward.run,
        "frames per second of a router with 1 route, a million, 64 paths; against macswap",
    ),
    "hooks": (
        hooks.run,
        "frames per second past a hook in Python, in three forms; against none, dpkt, Scapy",
    ),
    "udp": (
        udp.run,
        "datagrams per second sent back, in three forms; against asyncio on a kernel socket",
    ),
    "tx": (tx.run, "frames per second that Python sends from a template, and whether a pace is kept"),
    "kcp": (
        kcp.run,
        "segments per second of the KCP core in memory, against the reference's C; and what kcp-net measures",
    ),
    "kcp-net": (
        kcp_net.run,
        "goodput per core of KCP's streams on kernel sockets, against the reference, and between workers",
    ),
    "kcp-loss": (
        kcp_loss.run,
        "KCP's goodput and latency by loss, simulated; against the reference's core",
    ),
    "stats": (stats.run, "processor time of who reads all statistics, and of the dashboard"),
    "subscribers": (
        subscribers.run,
        "what fifty subscribers, of which one never reads, take from a router",
    ),
    "idle": (idle.run, "processor time of an idle instance"),
    "ping": (ping.run, "round trip time over TAP, against dpdk-testpmd icmpecho"),
    "start": (start.run, "time from exec to the first echo reply, and the memory of a worker"),
    "faults": (faults.run, "time without service when something dies, and kills that nobody needed"),
}


def main() -> int:
    """Run the named benchmarks and print a table, or JSON."""
    names = "\n".join(f"  {name:8}{text}" for name, (_, text) in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=f"{__doc__}\n\nbenchmarks:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure; default: all")
    parser.add_argument("--json", metavar="FILE", help="write JSON instead of a table; - is standard output")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds (default: 7)")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that instances, testpmd and hugepages are cleaned up
    rows = [row for name in options.names or BENCHMARKS for row in BENCHMARKS[name][0](options.rounds)]
    if options.json is None:
        print(
            f"{platform.node()}, {platform.release()}, Python {platform.python_version()}\n\n{as_table(rows)}"
        )
    elif options.json == "-":
        print(as_json(rows))
    else:
        Path(options.json).write_text(as_json(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
