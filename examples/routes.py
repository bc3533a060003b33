# SPDX-License-Identifier: Apache-2.0
"""List, add and delete routes of an instance that runs, through its control socket.

    python examples/routes.py list --within 10.0.0.0/8
    python examples/routes.py add 10.0.0.0/8 10.77.0.2 10.77.1.2*2
    python examples/routes.py delete 10.0.0.0/8
    python examples/routes.py where 10.1.2.3

A hop is ADDRESS[@PORT[.VLAN]][*WEIGHT], or blackhole, unreachable or prohibit alone.
"""

from __future__ import annotations

import argparse
import sys

from halo_mp.control.client import Client, ControlError


def parse_arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="default", help="of the instance (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="print the routes, one in a line")
    listing.add_argument("--within", metavar="PREFIX", help="only those in this prefix")
    listing.add_argument("--static", action="store_true", help="only those that somebody asked for")
    for name in ("add", "replace"):
        adding = commands.add_parser(name, help=f"{name} a route")
        adding.add_argument("prefix")
        adding.add_argument("hops", metavar="hop", nargs="+")
    commands.add_parser("delete", help="take a route away").add_argument("prefix")
    commands.add_parser("where", help="print the route of an address").add_argument("address")
    return parser.parse_args()


def run(client: Client, options: argparse.Namespace) -> int:
    """Do it. Raises ControlError."""
    match options.command:
        case "list":
            for route in client.routes.iterate(options.within):
                if route.origin == "static" or not options.static:
                    print(f"{route.prefix:18} {route.origin:9} {' '.join(route.hops)}")
        case "add":
            client.routes.add(options.prefix, options.hops)
        case "replace":
            client.routes.replace(options.prefix, options.hops)
        case "delete":
            client.routes.delete(options.prefix)
        case "where":
            found = client.routes.lookup(options.address)
            print(f"{found.route.prefix} {found.hop}" if found else "no route")
            return 0 if found else 1
    return 0


def main() -> int:
    """Return 0, or 1 with a sentence on standard error."""
    options = parse_arguments()
    try:
        with Client(options.name) as client:
            return run(client, options)
    except ControlError as error:
        print(f"routes: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
