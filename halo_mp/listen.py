# SPDX-License-Identifier: Apache-2.0
"""Where to listen, as people write it: `127.0.0.1:9464`, `[::1]:9464` or `:9464`."""

from __future__ import annotations

from halo_mp.errors import UsageError


def listen_address(flag: str, text: str, example: str, *, least_port: int = 0) -> tuple[str, int]:
    """Return host and port that `flag` was given. Raises UsageError, which shows the example."""
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and least_port <= int(port) <= 65535):
        _, _, number = example.rpartition(":")
        raise UsageError(f"{flag} {text}: write an address and a port, as {example} or [::1]:{number}.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def in_url(host: str) -> str:
    """Return a host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host
