# SPDX-License-Identifier: Apache-2.0
"""What the supervisor is asked for: neighbors and routes. It may be dead, or busy; then that is said."""

from __future__ import annotations

from pathlib import Path

from halo_mp.control.calls import ControlError
from halo_mp.control.client import Client
from halo_mp.control.public import SOCKET
from halo_mp.dashboard.feed import Asked, first

ROUTES = 1000  # shown at most
TIMEOUT_S = 3.0


def ask(directory: Path) -> Asked:
    """Ask the instance whose directory this is. Blocks for some seconds at most."""
    try:
        with Client(path=directory / SOCKET, timeout_s=TIMEOUT_S) as client:
            routes, more = first(client.routes.iterate(), ROUTES)
            return Asked(
                neighbors=tuple(client.neighbors.list()),
                routes=routes,
                more_routes=more,
            )
    except ControlError as error:
        return Asked(problem=f"The supervisor could not be asked: {error}")
