# SPDX-License-Identifier: Apache-2.0
"""Apply another configuration to an instance that runs, and take it back unless a host still answers afterwards.

    python examples/reconfigure.py router.toml --reach 10.77.0.2

So nobody is locked out by a change of addresses or routes. The instance applies it whole or not at all, while packets
flow; its host is pinged from its own stack.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from halo_mp.control.client import Client, ControlError


def parse_arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="a configuration; routes files are not sent along")
    parser.add_argument("--reach", metavar="ADDRESS", required=True, help="who has to answer")
    parser.add_argument("--name", default="default", help="of the instance (default: %(default)s)")
    return parser.parse_args()


def is_reached(client: Client, address: str) -> bool:
    """Tell whether a host answers one of five pings."""
    outcomes = client.ping(address, count=5, interval_s=0.2)
    return any(outcome.outcome == "reply" for outcome in outcomes)


def reconfigure(client: Client, file: Path, address: str) -> int:
    """Do it, and return the exit code. Raises ControlError."""
    candidate = client.config.stage(file.read_text(), file=file.name)
    applied = client.config.apply(candidate)
    if not applied.count:
        print("nothing changes")
        return 0
    print("\n".join(applied.changes))
    if is_reached(client, address):
        print(f"{address} answers")
        return 0
    client.config.rollback()
    print(f"{address} does not answer: all of it was taken back")
    return 1


def main() -> int:
    """Return 0 when the instance is as the file says, 1 when it is as it was before."""
    options = parse_arguments()
    try:
        with Client(options.name) as client:
            return reconfigure(client, options.file, options.reach)
    except (ControlError, OSError) as error:
        print(f"reconfigure: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
