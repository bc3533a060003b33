# SPDX-License-Identifier: Apache-2.0
"""Start an instance with two TAP ports, ping each, print round trip times and counters, and stop it.

A program starts an instance as a person does, by its command line, and knows from standard output that it is up. Needs
root, or a network namespace of one's own: `tools/enter-namespace .venv/bin/python examples/ping_report.py`.
"""

from __future__ import annotations

import argparse
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from halo_mp.shm.counters import read_worker_counters
from halo_mp.shm.layout import RegionKind
from halo_mp.shm.region import Region, region_name
from halo_mp.shm.tables import Interface, read_interfaces
from halo_mp.wire.ipv4 import format_address

RTT = re.compile(r"time=([\d.]+) ms")


@contextmanager
def instance(name: str) -> Iterator[None]:
    """Run an instance for the length of the block; what it logs goes to our standard error."""
    command = [sys.executable, "-m", "halo_mp.supervisor", "--ports", "0,1", "--name", name]
    process = subprocess.Popen([*command, "--log-level", "warning"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        if "is up" not in process.stdout.readline():
            # It has said why on standard error. The exit codes are documented, so ours is the same.
            sys.exit(process.wait())
        yield
    finally:
        process.send_signal(signal.SIGINT)  # an ordered stop, as Ctrl-C; nothing stays behind
        process.communicate()


def interfaces(name: str) -> dict[int, Interface]:
    """Return the interfaces of the stack as the workers see them."""
    region = Region.attach(region_name(name, "tables"), RegionKind.TABLES, writable=False)
    try:
        return read_interfaces(region)
    finally:
        region.close()


def echo_replies(name: str, slot: int) -> int:
    """Return how many echo requests the fast path of a slot has answered."""
    region = Region.attach(region_name(name, f"slot.{slot}"), RegionKind.SLOT, writable=False)
    try:
        return read_worker_counters(region)["counters"]["echo_replies"]
    finally:
        region.close()


def ping(address: str, count: int) -> list[float]:
    """Return the round trip times in milliseconds."""
    command = ["ping", "-n", "-c", str(count), "-i", "0.05", "-W", "2", address]
    return [
        float(time) for time in RTT.findall(subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout)
    ]


def main() -> int:
    """Print one line for each port. Returns 1 when a reply is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--count", type=int, default=10, help="echo requests for each port (default: %(default)s)"
    )
    parser.add_argument("--name", default="ping-report", help="of the instance (default: %(default)s)")
    options = parser.parse_args()
    missing = 0
    with instance(options.name):
        for interface in interfaces(options.name).values():
            address = format_address(interface.addresses[0][0])
            times = ping(address, options.count)
            answered = echo_replies(options.name, interface.port)  # by default slot n is fed by port n
            missing += options.count - len(times)
            spread = f"{min(times):.3f}/{statistics.median(times):.3f}/{max(times):.3f} ms" if times else "-"
            print(f"port {interface.port} {address} {interface.mac.hex(':')}:", end=" ")
            print(f"{len(times)} of {options.count} replies, min/median/max {spread}, counted {answered}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
