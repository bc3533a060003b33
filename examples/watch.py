# SPDX-License-Identifier: Apache-2.0
"""Keep a copy of an instance's routes, by subscription, and print what becomes of it.

    python examples/watch.py --count 3

First subscribe, then list, then go by the notices: so nothing is missed. When the supervisor goes, its successor is
asked anew; packets flow meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from halo_mp.control.client import AsyncClient, ControlError, Notice, NotReachableError
from halo_mp.control.public import RouteInfo

PATIENCE_S = 10.0
"""For the next supervisor."""


def parse_arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="default", help="of the instance (default: %(default)s)")
    parser.add_argument("--count", type=int, help="end after so many notices")
    return parser.parse_args()


class Copy:
    """The routes of an instance, as far as it has told."""

    def __init__(self) -> None:
        self.routes: dict[str, RouteInfo] = {}
        self.notices = 0

    async def follow(self, client: AsyncClient, count: int | None) -> None:
        """Follow an instance until it goes, or `count` notices have come. Raises ControlError."""
        await client.subscribe("routes")
        await self.list(client)
        async for notice in client.notices():
            if notice.missed:
                await self.list(client)
            self.update(notice)
            self.notices += 1
            if self.notices == count:
                return

    async def list(self, client: AsyncClient) -> None:
        """Begin anew."""
        self.routes = {route.prefix: route for route in await client.routes.list()}
        print(f"{len(self.routes)} routes", flush=True)

    def update(self, notice: Notice) -> None:
        """Take over what has changed."""
        for route in notice.changed:
            if isinstance(route, RouteInfo):
                self.routes[route.prefix] = route
                print(f"{route.prefix} {' '.join(route.hops)}", flush=True)
        for prefix in notice.gone:
            self.routes.pop(prefix, None)
            print(f"{prefix} is gone", flush=True)


async def watch(name: str, count: int | None) -> None:
    """Follow one supervisor after the other. Raises ControlError when there is none for long."""
    copy, tries = Copy(), 0
    while copy.notices != count:
        try:
            async with AsyncClient(name) as client:
                tries = 0
                await copy.follow(client, count)
        except NotReachableError:
            tries += 1
            if tries > PATIENCE_S or not copy.routes:
                raise
            await asyncio.sleep(1.0)


def main() -> int:
    """Return 0, or 1 with a sentence on standard error."""
    options = parse_arguments()
    try:
        asyncio.run(watch(options.name, options.count))
    except ControlError as error:
        print(f"watch: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
