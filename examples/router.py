# SPDX-License-Identifier: Apache-2.0
"""A router with two ports, a VLAN, static routes, and a default route over two gateways, as a program.

examples/router.toml is the same as a file. A program has the better of a file where something is to be computed: here
the flags are made from two dictionaries. Needs root, or a network namespace of one's own; Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import os
import sys

ADDRESSES = {
    "0": ["10.77.0.1/24"],
    "0.100": ["10.77.100.1/24"],
    "1": ["10.77.1.1/24", "10.78.1.1/31"],
}
ROUTES = {
    "default": ["10.77.0.2*2", "10.77.1.2"],  # two thirds of the flows to the first
    "192.168.0.0/16": ["10.77.100.2"],
    "192.0.2.0/24": ["blackhole"],
}


def flags(name: str) -> list[str]:
    """Return the flags of the router."""
    found = ["--name", name, "--ports", "0,1"]
    for interface, addresses in ADDRESSES.items():
        for address in addresses:
            found += ["--address", f"{interface}={address}"]
    for prefix, hops in ROUTES.items():
        found += ["--route", f"{prefix}={','.join(hops)}"]
    return found


def main() -> None:
    """Become the supervisor of the router."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="router", help="of the instance (default: %(default)s)")
    options, more = parser.parse_known_args()  # other flags go on to the supervisor
    program = [sys.executable, "-m", "halo_mp.supervisor"]
    os.execv(sys.executable, [*program, *flags(options.name), *more])


if __name__ == "__main__":
    main()
