# SPDX-License-Identifier: Apache-2.0
"""halo's control packets, 20 octets beside KCP's own: they open, end and keep a session. No RFC; the format is halo's.

    octets  0 to 3    magic of the kind         all big-endian
            4 to 7    session id                the low half of the conv, chosen by the server
            8 to 11   conv                      its high half, random
           12 to 15   event
           16 to 19   magic of the kind again, another one

    SYN    client to server: I want a session. Both halves are 0, the event is CLIENT_CONNECT_KEY.
    EST    server to client: these two halves are yours. The event is that of the SYN.
    FIN    either: the session has ended; the event is the reason (`EndReason`).
    PING   client to server, and back as it came.

Refused: `kcp_control_length` (not 20 octets), `kcp_control_magic` (one of the two is none, or they are of two kinds).
A KCP header has 24 octets or more, so 20 octets can be nothing else. Nothing in a control packet is authenticated: who
gets one compares its sender's address and its conv with what is known, and moves no session for it.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from halo_mp.wire.octets import Octets, WireError, require_width, view, writable

CONTROL_OCTETS: Final = 20

CONTROL_LENGTH: Final = "kcp_control_length"
CONTROL_MAGIC: Final = "kcp_control_magic"

CLIENT_CONNECT_KEY: Final = 1234567890
"""The event of a SYN."""
EDITOR_CONNECT_KEY: Final = 987654321

_FIELDS = struct.Struct("!5I")


class ControlKind(IntEnum):
    """Which control packet; the value is its first magic."""

    SYN = 0x000000FF
    EST = 0x00000145
    FIN = 0x00000194
    PING = 0x00000227


_TAIL: Final = {
    ControlKind.SYN: 0xFFFFFFFF,
    ControlKind.EST: 0x14514545,
    ControlKind.FIN: 0x19419494,
    ControlKind.PING: 0x22722727,
}
_KIND: Final = {(int(kind), tail): kind for kind, tail in _TAIL.items()}


class EndReason(IntEnum):
    """Why a session ended: the event of a FIN. Numbers and names are halo's."""

    TIMEOUT = 0
    CLIENT_CLOSE = 1
    CLIENT_REBIND_FAIL = 2
    CLIENT_SHUTDOWN = 3
    SERVER_RELOGIN = 4
    SERVER_KICK = 5
    SERVER_SHUTDOWN = 6
    NOT_FOUND_SESSION = 7
    LOGIN_UNFINISHED = 8
    PACKET_FREQ_TOO_HIGH = 9
    PING_TIMEOUT = 10
    TRANSFER_FAILED = 11
    SERVER_KILL_CLIENT = 12
    CHECK_MOVE_SPEED = 13
    ACCOUNT_PASSWORD_CHANGE = 14
    SECURITY_KICK = 15
    LUA_SHELL_TIMEOUT = 16
    SDK_FAIL_KICK = 17
    PACKET_COST_TIME = 18
    PACKET_UNION_FREQ = 19
    WAIT_SEND_MAX = 20


def reason_name(event: int) -> str:
    """A word for the event of a FIN; one that halo does not know stays a number."""
    return EndReason(event).name.lower() if event in _REASONS else str(event)


_REASONS: Final = frozenset(map(int, EndReason))


@dataclass(frozen=True, slots=True)
class ControlPacket:
    """A control packet; ``conv`` has 64 bits, as in a KCP header: the session id is its low half."""

    kind: ControlKind
    conv: int
    event: int

    def __post_init__(self) -> None:
        require_width("conv", self.conv, 64)
        require_width("event", self.event, 32)

    @property
    def size_octets(self) -> int:
        return CONTROL_OCTETS

    @property
    def session_id(self) -> int:
        """The low half of the conv."""
        return self.conv & 0xFFFFFFFF

    def emit_into(self, buffer: bytearray | memoryview) -> int:
        """Write the packet to the start of ``buffer``; return its size in octets."""
        out = writable(buffer, CONTROL_OCTETS)
        _FIELDS.pack_into(out, 0, self.kind, self.session_id, self.conv >> 32, self.event, _TAIL[self.kind])
        return CONTROL_OCTETS

    def emit(self) -> bytes:
        buffer = bytearray(CONTROL_OCTETS)
        self.emit_into(buffer)
        return bytes(buffer)


def check(octets: Octets) -> str | None:
    """What is wrong with a control packet, or None."""
    packet = view(octets)
    if len(packet) != CONTROL_OCTETS:
        return CONTROL_LENGTH
    head, _, _, _, tail = _FIELDS.unpack(packet)
    return None if (head, tail) in _KIND else CONTROL_MAGIC


def parse(octets: Octets) -> ControlPacket:
    """The packet; WireError when `check` objects."""
    if reason := check(octets):
        raise WireError(reason)
    head, low, high, event, tail = _FIELDS.unpack(view(octets))
    return ControlPacket(_KIND[head, tail], high << 32 | low, event)
