# SPDX-License-Identifier: Apache-2.0
"""Address resolution packets for IPv4 over Ethernet: RFC 826.

Refused as `arp_malformed`: fewer than 28 octets, and any other hardware (1), protocol (0x0800) or address
length (6, 4). Octets behind the 28 are Ethernet padding and ignored. Every operation parses: what to do with
the ones that are neither request nor reply is the neighbor table's decision.

A value owns all its memory; nothing of the caller's octets is kept.
"""

import struct
from dataclasses import dataclass
from typing import Final

from halo_mp.wire.octets import Octets, WireError, require_mac, require_width, view, writable
from halo_mp.wire.reasons import ARP_MALFORMED

PACKET_OCTETS: Final = 28
REQUEST: Final = 1
REPLY: Final = 2

_FIXED = struct.pack("!HHBB", 1, 0x0800, 6, 4)  # hrd, pro, hln, pln
_FIELDS = struct.Struct("!H6sI6sI")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArpPacket:
    """RFC 826's fields: ar$op, ar$sha, ar$spa, ar$tha, ar$tpa."""

    operation: int
    sender_mac: bytes
    sender_address: int
    target_mac: bytes
    target_address: int

    def __post_init__(self) -> None:
        require_width("operation", self.operation, 16)
        require_mac("sender_mac", self.sender_mac)
        require_width("sender_address", self.sender_address, 32)
        require_mac("target_mac", self.target_mac)
        require_width("target_address", self.target_address, 32)

    @property
    def size_octets(self) -> int:
        return PACKET_OCTETS

    def emit_into(self, buffer: bytearray | memoryview) -> int:
        """Write the packet to the start of ``buffer``; return its size in octets."""
        out = writable(buffer, PACKET_OCTETS)
        out[: len(_FIXED)] = _FIXED
        _FIELDS.pack_into(
            out,
            len(_FIXED),
            self.operation,
            self.sender_mac,
            self.sender_address,
            self.target_mac,
            self.target_address,
        )
        return PACKET_OCTETS

    def emit(self) -> bytes:
        buffer = bytearray(PACKET_OCTETS)
        self.emit_into(buffer)
        return bytes(buffer)


def check(octets: Octets) -> str | None:
    """`arp_malformed`, or None."""
    return _check(bytes(view(octets)[:PACKET_OCTETS]))


def _check(packet: bytes) -> str | None:
    if len(packet) < PACKET_OCTETS or not packet.startswith(_FIXED):
        return ARP_MALFORMED
    return None


def parse(octets: Octets) -> ArpPacket:
    """The packet; WireError when `check` objects."""
    packet = bytes(view(octets)[:PACKET_OCTETS])
    if reason := _check(packet):
        raise WireError(reason)
    operation, sender_mac, sender_address, target_mac, target_address = _FIELDS.unpack_from(
        packet, len(_FIXED)
    )
    return ArpPacket(
        operation=operation,
        sender_mac=sender_mac,
        sender_address=sender_address,
        target_mac=target_mac,
        target_address=target_address,
    )
