# SPDX-License-Identifier: Apache-2.0
"""UDP datagrams over IPv4: RFC 768, RFC 1122 section 4.1.3.4.

Refused: `udp_truncated` (fewer than 8 octets), `udp_length` (the length field below 8 or beyond the octets
there are), `udp_checksum`. A checksum field of 0 means that the sender computed none, and is accepted; a
computed checksum of 0 is sent as 0xffff. Octets behind the length field's end are ignored.

The payload is a view of the caller's octets.
"""

import struct
from dataclasses import dataclass
from typing import Final

from halo_mp.wire.checksum import internet_checksum, pseudo_header_sum
from halo_mp.wire.ipv4 import PROTOCOL_UDP
from halo_mp.wire.octets import Octets, WireError, require_width, view, writable
from halo_mp.wire.reasons import UDP_CHECKSUM, UDP_LENGTH, UDP_TRUNCATED

HEADER_OCTETS: Final = 8

_HEADER = struct.Struct("!HHHH")
_CHECKSUM_AT = 6


@dataclass(frozen=True, slots=True)
class UdpDatagram:
    """A datagram; ``has_checksum`` is False where the sender computed none."""

    src_port: int
    dst_port: int
    payload: Octets
    has_checksum: bool = True

    def __post_init__(self) -> None:
        require_width("src_port", self.src_port, 16)
        require_width("dst_port", self.dst_port, 16)
        require_width("length", self.size_octets, 16)

    @property
    def size_octets(self) -> int:
        """RFC 768's length."""
        return HEADER_OCTETS + len(self.payload)

    def emit_into(self, buffer: bytearray | memoryview, *, src: int, dst: int) -> int:
        """Write the datagram as sent from ``src`` to ``dst``, to the start of ``buffer``; return its size."""
        out = writable(buffer, self.size_octets)
        _HEADER.pack_into(out, 0, self.src_port, self.dst_port, len(out), 0)
        out[HEADER_OCTETS:] = view(self.payload)
        if self.has_checksum:
            checksum = _checksum(out, src=src, dst=dst) or 0xFFFF
            out[_CHECKSUM_AT : _CHECKSUM_AT + 2] = checksum.to_bytes(2, "big")
        return len(out)

    def emit(self, *, src: int, dst: int) -> bytes:
        buffer = bytearray(self.size_octets)
        self.emit_into(buffer, src=src, dst=dst)
        return bytes(buffer)


def _checksum(datagram: memoryview, *, src: int, dst: int) -> int:
    pseudo = pseudo_header_sum(src=src, dst=dst, protocol=PROTOCOL_UDP, length_octets=len(datagram))
    return internet_checksum(datagram, pseudo)


def check(octets: Octets, *, src: int, dst: int) -> str | None:
    """What is wrong with the datagram that came from address ``src`` to ``dst``, or None."""
    datagram = view(octets)
    return _check(datagram, bytes(datagram[:HEADER_OCTETS]), src=src, dst=dst)


def _check(datagram: memoryview, header: bytes, *, src: int, dst: int) -> str | None:
    if len(header) < HEADER_OCTETS:
        return UDP_TRUNCATED
    _, _, length, checksum = _HEADER.unpack(header)
    if not HEADER_OCTETS <= length <= len(datagram):
        return UDP_LENGTH
    if checksum and _checksum(datagram[:length], src=src, dst=dst):
        return UDP_CHECKSUM
    return None


def parse(octets: Octets, *, src: int, dst: int) -> UdpDatagram:
    """The datagram; WireError when `check` objects. The payload is a view of ``octets``."""
    datagram = view(octets)
    header = bytes(datagram[:HEADER_OCTETS])
    if reason := _check(datagram, header, src=src, dst=dst):
        raise WireError(reason)
    src_port, dst_port, length, checksum = _HEADER.unpack(header)
    return UdpDatagram(src_port, dst_port, datagram[HEADER_OCTETS:length], checksum != 0)
