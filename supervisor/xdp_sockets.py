# SPDX-License-Identifier: Apache-2.0
"""The AF_XDP sockets of ports that are lost.

net_af_xdp of DPDK 22.11 closes its first socket of a device only when its UMEM is given up, which a wrong count of
references prevents, and forgets those of further queues. Once in the life of a process nobody would notice; a device
that comes and goes would run it out of descriptors. Here they are known by the port for which they were opened.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

AF_XDP = 44


class XdpSockets:
    """Which descriptors of this process are whose."""

    def __init__(self) -> None:
        self._of: dict[int, set[int]] = {}

    @contextmanager
    def of(self, port: int) -> Iterator[None]:
        """What is opened inside belongs to that port, also when opening it fails."""
        before = xdp_sockets()
        try:
            yield
        finally:
            self._of[port] = xdp_sockets() - before

    def close(self, port: int) -> None:
        """Close what is still open of a port that was closed."""
        left = self._of.pop(port, set())
        for descriptor in left & xdp_sockets() if left else ():
            os.close(descriptor)


def xdp_sockets() -> set[int]:
    """Return the descriptors of this process that are AF_XDP sockets."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # no socket, or it was the descriptor of this very directory
            if os.readlink(entry).startswith("socket:") and _family(int(entry.name)) == AF_XDP:
                found.add(int(entry.name))
    return found


def _family(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as duplicate:
        return int(duplicate.family)
