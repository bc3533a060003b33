# SPDX-License-Identifier: Apache-2.0
"""Addresses as asyncio has them, (host, port) or (host, port, flow, scope), and as `struct halo_kcp_peer` has them."""

from __future__ import annotations

import socket
import struct
from typing import Any, Final

Address = tuple[Any, ...]

PEER: Final = struct.Struct("=HHI16s")
"""family, port, scope, address"""
_IPV4: Final = 4
_IPV6: Final = 6
_KEPT: Final = 65536


class Peers(dict[Address, bytes]):
    """From addresses to the octets of their struct, made once for each. Raises ValueError for what is no address."""

    def __missing__(self, address: Address) -> bytes:
        if len(self) >= _KEPT:
            self.clear()
        packed = self[address] = pack(address)
        return packed


def pack(address: Address) -> bytes:
    """Return the octets of an address's struct. Raises ValueError when it is none."""
    host, port = str(address[0]), int(address[1])
    try:
        if ":" in host:
            scope = int(address[3]) if len(address) > 3 else 0
            return PEER.pack(_IPV6, port, scope, socket.inet_pton(socket.AF_INET6, host.partition("%")[0]))
        return PEER.pack(_IPV4, port, 0, socket.inet_pton(socket.AF_INET, host))
    except (OSError, struct.error):
        raise ValueError(f"{address!r} is no address: a host's IPv4 or IPv6 address and a port") from None


def unpack(octets: bytes) -> Address:
    """Return the address of a struct."""
    family, port, scope, address = PEER.unpack(octets)
    if family == _IPV6:
        return socket.inet_ntop(socket.AF_INET6, address), port, 0, scope
    return socket.inet_ntop(socket.AF_INET, address[:4]), port


def is_same(one: Address, other: Address) -> bool:
    """Whether two addresses are one; a flow label is no part of them."""
    return one[:2] == other[:2] and one[3:] == other[3:]
