# SPDX-License-Identifier: Apache-2.0
"""Print what a running instance counts, straight from its shared memory: nobody is asked, nothing is disturbed.

Regions are attached read-only by name, so this has to run as the user that started the instance, or as root.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from halo_mp.errors import HaloError
from halo_mp.shm.counters import read_ports, read_slot
from halo_mp.shm.layout import RegionKind
from halo_mp.shm.region import DIRECTORY, Region, region_name

SLOT_COLUMNS = ("rx_frames", "tx_frames", "echo_replies", "punted", "consumed", "originated")
PORT_COLUMNS = ("rx_frames", "tx_frames", "rx_octets", "tx_octets", "rx_missed", "tx_errors")


def snapshot(instance: str) -> dict[str, Any]:
    """Return what the regions of an instance say. Raises HaloError when there is no such instance."""
    with_ports = Region.attach(region_name(instance, "ports"), RegionKind.PORTS, writable=False)
    slots = []
    try:
        ports = read_ports(with_ports)
        names = (path.name.rpartition(".")[2] for path in DIRECTORY.glob(f"halo-mp.{instance}.slot.*"))
        for number in sorted(int(name) for name in names if name.isdigit()):
            region = Region.attach(region_name(instance, f"slot.{number}"), RegionKind.SLOT, writable=False)
            try:
                slots.append(read_slot(region))
            finally:
                region.close()
    finally:
        with_ports.close()
    return {"instance": instance, **ports, "ports": list(ports["ports"].values()), "slots": slots}


def happened(slot: dict[str, Any]) -> dict[str, int]:
    """Return the drops of a slot that happened, the worker's and the driver's."""
    blocks = (slot["worker"]["drops"], slot["driver"]["drops"])
    return {name: count for drops in blocks for name, count in drops.items() if count}


def table(found: dict[str, Any]) -> str:
    """Return a snapshot as text in columns."""
    lines: list[list[object]] = [["port", "device", "state", "mode", *PORT_COLUMNS]]
    for port in found["ports"]:
        stats = (port["stats"][name] for name in PORT_COLUMNS)
        lines.append([port["port"], port["device"], port["state"], port["mode"], *stats])
    lines += [[], ["slot", "state", "worker", *SLOT_COLUMNS]]
    for slot in found["slots"]:
        counters = (slot["worker"]["counters"][name] for name in SLOT_COLUMNS)
        lines.append([slot["slot"], slot["state"], slot["worker_pid"], *counters])
    text = ["".join(str(cell).ljust(15) for cell in line).rstrip() for line in lines]
    drops = [f"slot {slot['slot']} dropped: {happened(slot)}" for slot in found["slots"] if happened(slot)]
    return "\n".join([*text, "", *drops] if drops else text)


def main() -> int:
    """Attach, read, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("instance", nargs="?", default="default", help="its --name (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="everything there is, instead of a table")
    options = parser.parse_args()
    try:
        found = snapshot(options.instance)
    except HaloError as error:
        sys.stderr.write(f"counters: {error}\n")
        return error.exit_code
    print(
        json.dumps(found, indent=2, default=lambda octets: octets.hex(":")) if options.json else table(found)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
