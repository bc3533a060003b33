# SPDX-License-Identifier: Apache-2.0
"""ICMP messages for IPv4: RFC 792, RFC 1191 (next-hop MTU), RFC 1812 section 4.3.2.3 (what is quoted).

Refused: `icmp_truncated` (fewer than 8 octets, or an error message that does not quote a whole IPv4 header
and 8 octets behind it), `icmp_checksum`. Types that are not known here parse: 4 octets behind the checksum
are ``rest``.

The payload is a view of the caller's octets; so is the payload of a quoted packet.
"""

import struct
from dataclasses import dataclass
from typing import Final

from halo_mp.wire import ipv4
from halo_mp.wire.checksum import internet_checksum
from halo_mp.wire.octets import Octets, WireError, require_width, view, writable
from halo_mp.wire.reasons import ICMP_CHECKSUM, ICMP_TRUNCATED

HEADER_OCTETS: Final = 8
ECHO_REPLY: Final = 0
UNREACHABLE: Final = 3
SOURCE_QUENCH: Final = 4
REDIRECT: Final = 5
ECHO_REQUEST: Final = 8
TIME_EXCEEDED: Final = 11
PARAMETER_PROBLEM: Final = 12
ERRORS: Final = frozenset((UNREACHABLE, SOURCE_QUENCH, REDIRECT, TIME_EXCEEDED, PARAMETER_PROBLEM))

NET_UNREACHABLE: Final = 0
HOST_UNREACHABLE: Final = 1
PROTOCOL_UNREACHABLE: Final = 2
PORT_UNREACHABLE: Final = 3
FRAGMENTATION_NEEDED: Final = 4
SOURCE_ROUTE_FAILED: Final = 5
ADMINISTRATIVELY_PROHIBITED: Final = 13
IN_TRANSIT: Final = 0  # codes of time exceeded
IN_REASSEMBLY: Final = 1
REDIRECT_HOST: Final = 1

# So much that the whole error fits the smallest reassembly buffer.
QUOTE_OCTETS: Final = 576 - ipv4.HEADER_OCTETS - HEADER_OCTETS
_QUOTED_PAYLOAD_OCTETS = 8

_HEADER = struct.Struct("!BBHI")
_QUOTED_FIELDS = struct.Struct("!2xH5xB2xII")
_CHECKSUM_AT = 2


@dataclass(frozen=True, slots=True)
class Icmpv4Message:
    """A message of any type; ``rest`` is the header's second word, whose parts the properties name."""

    type: int
    code: int
    rest: int
    payload: Octets

    def __post_init__(self) -> None:
        require_width("type", self.type, 8)
        require_width("code", self.code, 8)
        require_width("rest", self.rest, 32)

    @property
    def identifier(self) -> int:
        """Of an echo request or reply."""
        return self.rest >> 16

    @property
    def sequence(self) -> int:
        """Of an echo request or reply."""
        return self.rest & 0xFFFF

    @property
    def next_hop_mtu(self) -> int:
        """Of a fragmentation needed; 0 from routers older than RFC 1191."""
        return self.rest & 0xFFFF

    @property
    def pointer(self) -> int:
        """Of a parameter problem: the octet of the quoted header that was wrong."""
        return self.rest >> 24

    @property
    def size_octets(self) -> int:
        return HEADER_OCTETS + len(self.payload)

    def emit_into(self, buffer: bytearray | memoryview) -> int:
        """Write the message with its checksum to the start of ``buffer``; return its size in octets."""
        out = writable(buffer, self.size_octets)
        _HEADER.pack_into(out, 0, self.type, self.code, 0, self.rest)
        out[HEADER_OCTETS:] = view(self.payload)
        out[_CHECKSUM_AT : _CHECKSUM_AT + 2] = internet_checksum(out).to_bytes(2, "big")
        return len(out)

    def emit(self) -> bytes:
        buffer = bytearray(self.size_octets)
        self.emit_into(buffer)
        return bytes(buffer)


@dataclass(frozen=True, slots=True)
class QuotedPacket:
    """The start of a packet inside an error message: its whole header and at least 8 octets of payload.

    ``total_octets`` is the length that the packet had before it was cut.
    """

    src: int
    dst: int
    protocol: int
    total_octets: int
    header: bytes
    payload: memoryview


def check(octets: Octets) -> str | None:
    """`icmp_truncated`, `icmp_checksum`, or None."""
    message = view(octets)
    if len(message) < HEADER_OCTETS:
        return ICMP_TRUNCATED
    if internet_checksum(message):
        return ICMP_CHECKSUM
    if message[0] in ERRORS and not _quoted_header(message[HEADER_OCTETS:]):
        return ICMP_TRUNCATED
    return None


def _quoted_header(quote: memoryview) -> bytes:
    """The IPv4 header, with its options, at the start of a quote; nothing unless 8 octets follow it."""
    header = bytes(quote[: ipv4.MAX_HEADER_OCTETS])
    header_octets = (header[0] & 0xF) * 4 if header and header[0] >> 4 == 4 else 0
    if header_octets < ipv4.HEADER_OCTETS or len(quote) < header_octets + _QUOTED_PAYLOAD_OCTETS:
        return b""
    return header[:header_octets]


def parse(octets: Octets) -> Icmpv4Message:
    """The message; WireError when `check` objects. The payload is a view of ``octets``."""
    if reason := check(octets):
        raise WireError(reason)
    message = view(octets)
    type_, code, _, rest = _HEADER.unpack_from(message)
    return Icmpv4Message(type_, code, rest, message[HEADER_OCTETS:])


def quoted(message: Icmpv4Message) -> QuotedPacket:
    """The packet that an error message is about; WireError when it quotes too little.

    The checksums of the quoted packet are not verified: whoever acts on it decides (RFC 5508 section 4.2).
    """
    quote = view(message.payload)
    header = _quoted_header(quote)
    if not header:
        raise WireError(ICMP_TRUNCATED)
    total_octets, protocol, src, dst = _QUOTED_FIELDS.unpack_from(header)
    return QuotedPacket(src, dst, protocol, total_octets, header, quote[len(header) :])


def unreachable(code: int, about: Octets, *, next_hop_mtu: int = 0) -> Icmpv4Message:
    """Destination unreachable, about the packet whose octets are ``about``; the quote is a view of it."""
    require_width("next_hop_mtu", next_hop_mtu, 16)
    return Icmpv4Message(UNREACHABLE, code, next_hop_mtu, view(about)[:QUOTE_OCTETS])


def time_exceeded(code: int, about: Octets) -> Icmpv4Message:
    """Time exceeded: code 0 in transit, 1 in reassembly."""
    return Icmpv4Message(TIME_EXCEEDED, code, 0, view(about)[:QUOTE_OCTETS])


def parameter_problem(pointer: int, about: Octets) -> Icmpv4Message:
    """Parameter problem, code 0, at the octet ``pointer`` of the packet."""
    require_width("pointer", pointer, 8)
    return Icmpv4Message(PARAMETER_PROBLEM, 0, pointer << 24, view(about)[:QUOTE_OCTETS])


def redirect(gateway: int, about: Octets) -> Icmpv4Message:
    """Redirect for a host: its packets had better go to ``gateway``. Never for a network (RFC 1812 section 4.3.3.2)."""
    require_width("gateway", gateway, 32)
    return Icmpv4Message(REDIRECT, REDIRECT_HOST, gateway, view(about)[:QUOTE_OCTETS])
