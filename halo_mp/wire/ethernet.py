# SPDX-License-Identifier: Apache-2.0
"""Ethernet II frames (IEEE 802.3 clause 3.2.6) with up to two tags (802.1Q clause 9).

Recognised tags: TPID 0x8100 (C-tag) and 0x88a8 (S-tag), one or two of them; behind the second, another TPID
is an ethertype like any other, which nobody here takes. The frame check sequence never reaches us.

Refused: `runt`, shorter than 14 octets; `vlan_truncated`, a tag without its ethertype. An 802.3 length (below
0x600) is passed on in ``ethertype``: it is no error here, and no protocol above answers to it.

The payload is a view of the caller's octets and may end in padding.
"""

import re
import struct
from dataclasses import dataclass
from typing import Final

from halo_mp.wire.octets import Octets, WireError, require_mac, require_width, view, writable
from halo_mp.wire.reasons import RUNT, VLAN_TRUNCATED

HEADER_OCTETS: Final = 14
TAG_OCTETS: Final = 4
MAX_TAGS: Final = 2
MINIMUM_FRAME_OCTETS: Final = 60  # without the frame check sequence
ETHERTYPE_IPV4: Final = 0x0800
ETHERTYPE_ARP: Final = 0x0806
TPID_C_TAG: Final = 0x8100
TPID_S_TAG: Final = 0x88A8
TPIDS: Final = frozenset((TPID_C_TAG, TPID_S_TAG))
BROADCAST: Final = b"\xff" * 6
ZERO_MAC: Final = bytes(6)

_MAX_HEADER_OCTETS = HEADER_OCTETS + MAX_TAGS * TAG_OCTETS
_TYPE_AT = 12
_U16 = struct.Struct("!H")
_TWO_U16 = struct.Struct("!HH")
_MAC_TEXT = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}")


@dataclass(frozen=True, slots=True)
class VlanTag:
    """One 802.1Q tag. ``vid`` 0 is a priority tag, 4095 is reserved: what to do with them is policy."""

    vid: int
    priority: int = 0
    drop_eligible: bool = False
    tpid: int = TPID_C_TAG

    def __post_init__(self) -> None:
        require_width("vid", self.vid, 12)
        require_width("priority", self.priority, 3)
        if self.tpid not in TPIDS:
            raise ValueError(f"{self.tpid:#06x} is not a TPID of 802.1Q")

    @property
    def control(self) -> int:
        """The tag control information: priority, drop eligible, VLAN identifier."""
        return self.priority << 13 | self.drop_eligible << 12 | self.vid


@dataclass(frozen=True, slots=True)
class EthernetFrame:
    """A frame; ``tags`` from the outermost in, ``ethertype`` the one behind the last tag."""

    dst: bytes
    src: bytes
    ethertype: int
    payload: Octets
    tags: tuple[VlanTag, ...] = ()

    def __post_init__(self) -> None:
        require_mac("dst", self.dst)
        require_mac("src", self.src)
        require_width("ethertype", self.ethertype, 16)
        if len(self.tags) > MAX_TAGS:
            raise ValueError(f"{len(self.tags)} tags, at most {MAX_TAGS} are recognised")
        if self.ethertype in TPIDS and len(self.tags) < MAX_TAGS:
            raise ValueError(f"ethertype {self.ethertype:#06x} would be read back as a tag: use tags")

    @property
    def size_octets(self) -> int:
        return HEADER_OCTETS + TAG_OCTETS * len(self.tags) + len(self.payload)

    def emit_into(self, buffer: bytearray | memoryview) -> int:
        """Write the frame, without padding, to the start of ``buffer``; return its size in octets."""
        out = writable(buffer, self.size_octets)
        out[0:6] = self.dst
        out[6:12] = self.src
        at = _TYPE_AT
        for tag in self.tags:
            _TWO_U16.pack_into(out, at, tag.tpid, tag.control)
            at += TAG_OCTETS
        _U16.pack_into(out, at, self.ethertype)
        out[at + 2 :] = view(self.payload)
        return len(out)

    def emit(self) -> bytes:
        """The frame as octets, without padding."""
        buffer = bytearray(self.size_octets)
        self.emit_into(buffer)
        return bytes(buffer)


def check(octets: Octets) -> str | None:
    """What is wrong with the frame: `runt`, `vlan_truncated`, or None."""
    return _check(bytes(view(octets)[:_MAX_HEADER_OCTETS]))


def _check(header: bytes) -> str | None:
    if len(header) < HEADER_OCTETS:
        return RUNT
    at = _TYPE_AT
    for _ in range(MAX_TAGS):
        if _U16.unpack_from(header, at)[0] not in TPIDS:
            return None
        at += TAG_OCTETS
        if len(header) < at + 2:
            return VLAN_TRUNCATED
    return None


def parse(octets: Octets) -> EthernetFrame:
    """The frame; WireError when `check` objects. The payload is a view of ``octets``."""
    frame = view(octets)
    header = bytes(frame[:_MAX_HEADER_OCTETS])
    if reason := _check(header):
        raise WireError(reason)
    tags: list[VlanTag] = []
    at = _TYPE_AT
    (ethertype,) = _U16.unpack_from(header, at)
    while ethertype in TPIDS and len(tags) < MAX_TAGS:
        control, following = _TWO_U16.unpack_from(header, at + 2)
        tags.append(VlanTag(control & 0xFFF, control >> 13, bool(control & 0x1000), ethertype))
        at += TAG_OCTETS
        ethertype = following
    return EthernetFrame(header[:6], header[6:12], ethertype, frame[at + 2 :], tuple(tags))


def pad(frame: bytes) -> bytes:
    """The frame with zeros up to Ethernet's minimum, so that no old buffer content goes out behind it."""
    return frame.ljust(MINIMUM_FRAME_OCTETS, b"\0")


def is_multicast(mac: bytes) -> bool:
    """Whether the group bit is set; the broadcast address is a multicast address too."""
    return bool(mac[0] & 1)


def is_broadcast(mac: bytes) -> bool:
    return mac == BROADCAST


def is_unicast(mac: bytes) -> bool:
    """Whether one station can have this address: neither a group nor all zeros."""
    return not mac[0] & 1 and mac != ZERO_MAC


def multicast_mac(address: int) -> bytes:
    """The group MAC of an IPv4 multicast address: its low 23 bits behind 01:00:5e (RFC 1112 section 6.4)."""
    return b"\x01\x00\x5e" + (address & 0x7FFFFF).to_bytes(3, "big")


def format_mac(mac: bytes) -> str:
    """``02:00:00:00:00:01``."""
    require_mac("mac", mac)
    return mac.hex(":")


def parse_mac(text: str) -> bytes:
    """Six two-digit hexadecimal numbers with colons between; ValueError for anything else."""
    if not _MAC_TEXT.fullmatch(text):
        raise ValueError(f"{text!r} is not a MAC address such as 02:00:00:00:00:01")
    return bytes.fromhex(text.replace(":", ""))
