# SPDX-License-Identifier: Apache-2.0
"""IPv4 packets: RFC 791, with the checks of RFC 1812 section 5.2.2; and addresses as text.

Refused: `ipv4_truncated` (fewer than 20 octets), `ipv4_version`, `ipv4_header_length` (IHL below 5),
`ipv4_total_length` (less than the header, or more than the octets there are), `ipv4_checksum`. Octets behind
the total length are link padding and ignored. Options are kept as octets and not looked into:
`halo_mp.wire.ipv4_options` does that for who must. Fragments parse like any packet.

The payload is a view of the caller's octets; the options are copied.
"""

import struct
from dataclasses import dataclass
from typing import Final

from halo_mp.wire.checksum import internet_checksum
from halo_mp.wire.octets import Octets, WireError, require_width, view, writable
from halo_mp.wire.reasons import (
    IPV4_CHECKSUM,
    IPV4_HEADER_LENGTH,
    IPV4_TOTAL_LENGTH,
    IPV4_TRUNCATED,
    IPV4_VERSION,
)

HEADER_OCTETS: Final = 20
MAX_HEADER_OCTETS: Final = 60
MAX_OPTIONS_OCTETS: Final = 40
MAX_PACKET_OCTETS: Final = 65535
PROTOCOL_ICMP: Final = 1
PROTOCOL_TCP: Final = 6
PROTOCOL_UDP: Final = 17
FLAG_RESERVED: Final = 4
FLAG_DONT_FRAGMENT: Final = 2
FLAG_MORE_FRAGMENTS: Final = 1
UNSPECIFIED: Final = 0
LIMITED_BROADCAST: Final = 0xFFFFFFFF

_HEADER = struct.Struct("!BBHHHBBHII")
_CHECKSUM_AT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Ipv4Packet:
    """A packet, whole or fragment.

    ``flags`` are the three bits of RFC 791; ``fragment_offset_octets`` is a multiple of 8. ``options`` that
    do not fill their last 32-bit word are emitted with end-of-list octets behind them.
    """

    src: int
    dst: int
    protocol: int
    payload: Octets
    ttl: int = 64
    tos: int = 0
    identification: int = 0
    flags: int = 0
    fragment_offset_octets: int = 0
    options: bytes = b""

    def __post_init__(self) -> None:
        require_width("src", self.src, 32)
        require_width("dst", self.dst, 32)
        require_width("protocol", self.protocol, 8)
        require_width("ttl", self.ttl, 8)
        require_width("tos", self.tos, 8)
        require_width("identification", self.identification, 16)
        require_width("flags", self.flags, 3)
        require_width("fragment_offset_octets", self.fragment_offset_octets, 16)
        if self.fragment_offset_octets % 8:
            raise ValueError(f"fragment_offset_octets is {self.fragment_offset_octets}, not a multiple of 8")
        if len(self.options) > MAX_OPTIONS_OCTETS:
            raise ValueError(f"{len(self.options)} octets of options, at most {MAX_OPTIONS_OCTETS} fit")
        require_width("total length", self.size_octets, 16)

    @property
    def header_octets(self) -> int:
        return HEADER_OCTETS + (len(self.options) + 3 & ~3)

    @property
    def size_octets(self) -> int:
        """RFC 791's total length."""
        return self.header_octets + len(self.payload)

    @property
    def is_fragment(self) -> bool:
        """Whether this is a part of a larger packet: the first, a middle or the last one."""
        return bool(self.fragment_offset_octets or self.flags & FLAG_MORE_FRAGMENTS)

    def emit_into(self, buffer: bytearray | memoryview) -> int:
        """Write the packet with its lengths and checksum to the start of ``buffer``; return its size."""
        out = writable(buffer, self.size_octets)
        header_octets = self.header_octets
        _HEADER.pack_into(
            out,
            0,
            4 << 4 | header_octets // 4,
            self.tos,
            len(out),
            self.identification,
            self.flags << 13 | self.fragment_offset_octets // 8,
            self.ttl,
            self.protocol,
            0,
            self.src,
            self.dst,
        )
        out[HEADER_OCTETS:header_octets] = self.options.ljust(header_octets - HEADER_OCTETS, b"\0")
        checksum = internet_checksum(out[:header_octets])
        out[_CHECKSUM_AT : _CHECKSUM_AT + 2] = checksum.to_bytes(2, "big")
        out[header_octets:] = view(self.payload)
        return len(out)

    def emit(self) -> bytes:
        buffer = bytearray(self.size_octets)
        self.emit_into(buffer)
        return bytes(buffer)


def check(octets: Octets) -> str | None:
    """What is wrong with the header or with the length of the packet, or None."""
    packet = view(octets)
    return _check(bytes(packet[:MAX_HEADER_OCTETS]), len(packet))


def _check(header: bytes, available_octets: int) -> str | None:
    if len(header) < HEADER_OCTETS:
        return IPV4_TRUNCATED
    if header[0] >> 4 != 4:
        return IPV4_VERSION
    header_octets = (header[0] & 0xF) * 4
    if header_octets < HEADER_OCTETS:
        return IPV4_HEADER_LENGTH
    if not header_octets <= int.from_bytes(header[2:4], "big") <= available_octets:
        return IPV4_TOTAL_LENGTH
    if internet_checksum(header[:header_octets]):
        return IPV4_CHECKSUM
    return None


def parse(octets: Octets) -> Ipv4Packet:
    """The packet; WireError when `check` objects. The payload is a view of ``octets`` without the padding."""
    packet = view(octets)
    header = bytes(packet[:MAX_HEADER_OCTETS])
    if reason := _check(header, len(packet)):
        raise WireError(reason)
    first, tos, total_octets, identification, fragment, ttl, protocol, _, src, dst = _HEADER.unpack_from(
        header
    )
    header_octets = (first & 0xF) * 4
    return Ipv4Packet(
        src=src,
        dst=dst,
        protocol=protocol,
        payload=packet[header_octets:total_octets],
        ttl=ttl,
        tos=tos,
        identification=identification,
        flags=fragment >> 13,
        fragment_offset_octets=(fragment & 0x1FFF) * 8,
        options=header[HEADER_OCTETS:header_octets],
    )


def format_address(address: int) -> str:
    """Dotted decimal."""
    require_width("address", address, 32)
    return ".".join(str(octet) for octet in address.to_bytes(4, "big"))


def parse_address(text: str) -> int:
    """Exactly four decimal numbers up to 255 with dots between; ValueError for anything else.

    Leading zeros are refused: half of the world reads them as octal.
    """
    fields = text.split(".")
    if len(fields) != 4 or not all(_is_octet(field) for field in fields):
        raise ValueError(f"{text!r} is not an IPv4 address such as 192.0.2.1")
    return int.from_bytes(bytes(int(field) for field in fields), "big")


def _is_octet(text: str) -> bool:
    if not (text.isascii() and text.isdigit()) or len(text) > 3:
        return False
    return int(text) <= 255 and str(int(text)) == text


def is_multicast(address: int) -> bool:
    """224.0.0.0/4."""
    return address >> 28 == 0xE


def is_loopback(address: int) -> bool:
    """127.0.0.0/8."""
    return address >> 24 == 127


def is_link_local(address: int) -> bool:
    """169.254.0.0/16 (RFC 3927)."""
    return address >> 16 == 0xA9FE


def is_unicast(address: int) -> bool:
    """Whether a host can have it: not 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 or 240.0.0.0/4 (RFC 6890).

    A subnet's broadcast address looks like any other here: only the interface knows the prefix.
    """
    return 0 < address >> 24 < 0xE0 and not is_loopback(address)
