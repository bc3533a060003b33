# SPDX-License-Identifier: Apache-2.0
"""What net_af_xdp leaves open of a device that is gone: AF_XDP sockets and BPF objects.

DPDK 22.11 gives up the UMEM of a device, and with it a socket, when a count of references says so, which it gets wrong;
it forgets the sockets of all queues but the first; and libxdp keeps a map. Once in the life of a process nobody would
notice, but a device that comes and goes would run it out of descriptors.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

AF_XDP = 44


class XdpDescriptors:
    """Which of this process's descriptors were opened for which port."""

    def __init__(self) -> None:
        self._of: dict[int, set[int]] = {}

    @contextmanager
    def of(self, port: int) -> Iterator[None]:
        """What is opened inside belongs to that port, also when opening it fails.

        Raises OSError and MemoryError when the descriptors can not be listed, before or behind what is inside.
        """
        before = xdp_descriptors()
        try:
            yield
        finally:
            # What an attempt to close it has left is still that port's.
            self._of[port] = xdp_descriptors() - (before - self._of.get(port, set()))

    def close(self, port: int) -> None:
        """Close what is still open of a port that was closed: nobody is left to use it.

        Raises as `of` does, and may be repeated then.
        """
        left = self._of.get(port)
        for descriptor in left & xdp_descriptors() if left else ():
            os.close(descriptor)
        self._of.pop(port, None)


def xdp_descriptors() -> set[int]:
    """Return the descriptors of this process that are AF_XDP sockets or BPF objects."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of this very directory is gone by now
            if _is_xdp(int(entry.name), os.readlink(entry)):
                found.add(int(entry.name))
    return found


def _is_xdp(descriptor: int, link: str) -> bool:
    if link.startswith("socket:"):
        return _family(descriptor) == AF_XDP
    return link.startswith("anon_inode:bpf")


def _family(descriptor: int) -> int:
    # The wrong family and type for most, but else this would ask for an address, which XDP sockets refuse to have.
    own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=descriptor)
    try:
        return own.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
    finally:
        own.detach()
