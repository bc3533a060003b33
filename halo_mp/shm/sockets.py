# SPDX-License-Identifier: Apache-2.0
"""The sockets of all workers in the tables region, so that each worker knows whom to hand a datagram to.

Two blocks, as of interfaces (`halo_mp.shm.tables`): the supervisor fills the one that is not active, when no worker can
still be reading it, and switches.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, Final

from halo_mp.shm.layout import ffi, lib
from halo_mp.shm.region import Region

MAX_SOCKETS: Final[int] = lib.HALO_MAX_SOCKETS

_ENTRY: Final = struct.Struct("=IIHHBBBx")


class SocketFlag(IntFlag):
    """See enum halo_socket_flag."""

    NONE = 0
    SHARED = lib.HALO_SOCKET_SHARED


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Socket:
    """What a worker listens to. An address of 0 is any of ours; without a peer both of its fields are 0."""

    protocol: int
    port: int
    address: int = 0
    peer_port: int = 0
    peer: int = 0
    slot: int = 0
    flags: SocketFlag = SocketFlag.NONE

    def conflicts(self, other: Socket) -> bool:
        """Whether the two cannot be open at once, as bind(2) has it."""
        if self.protocol != other.protocol or self.port != other.port:
            return False
        if self.address and other.address and self.address != other.address:
            return False
        return not self.flags & other.flags & SocketFlag.SHARED


def fill_sockets(tables: Any, sockets: Iterable[Socket]) -> None:
    """Fill the inactive block and switch to it, but for the epoch. Raises ValueError when there are too many."""
    packed = (
        _ENTRY.pack(each.address, each.peer, each.port, each.peer_port, each.protocol, each.slot, each.flags)
        for each in sockets
    )
    # Those that share a place take their flows by this order: it must not depend on who came when.
    entries = b"".join(sorted(packed))
    count = len(entries) // _ENTRY.size
    if count > MAX_SOCKETS:
        raise ValueError(f"{count} sockets; the tables have room for {MAX_SOCKETS}")
    inactive = 1 - (tables.active_sockets & 1)
    block = tables.sockets[inactive]
    block.count = count
    ffi.memmove(block.entry, entries, len(entries))
    tables.active_sockets = inactive
    tables.socket_generation += 1


def read_sockets(region: Region) -> list[Socket]:
    """Return the sockets of the active block. For the one writer, or who can bear a switch meanwhile."""
    tables = region.pointer
    block = tables.sockets[tables.active_sockets & 1]
    count = min(block.count, MAX_SOCKETS)
    octets = bytes(ffi.buffer(block.entry, count * _ENTRY.size))
    return [
        Socket(
            protocol=protocol,
            port=port,
            address=address,
            peer_port=peer_port,
            peer=peer,
            slot=slot,
            flags=SocketFlag(flags & SocketFlag.SHARED),
        )
        for address, peer, port, peer_port, protocol, slot, flags in _ENTRY.iter_unpack(octets)
    ]
