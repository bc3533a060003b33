# SPDX-License-Identifier: Apache-2.0
"""Fragmentation of IPv4 packets: RFC 791 sections 2.3 and 3.2.

Every fragment but the last carries a multiple of 8 octets, as many as fit. Options go with all fragments when
their copied flag says so, else with the first one alone. A fragment can be cut again: its offset is where the
parts begin, and the more-fragments flag of the whole stays with its last part.

Refused with ValueError: a packet that must not be fragmented (DF), a link that carries too little. Malformed
options raise WireError.

The payloads of fragments are views of the packet's.
"""

import dataclasses

from halo_mp.wire import ipv4, ipv4_options
from halo_mp.wire.ipv4 import Ipv4Packet
from halo_mp.wire.octets import view

UNIT_OCTETS = 8
_COPIED = 0x80
_WORD_OCTETS = 4


def fragment(packet: Ipv4Packet, mtu: int) -> list[Ipv4Packet]:
    """The packet in parts of at most ``mtu`` octets, in order; itself when it is no longer than that."""
    if packet.size_octets <= mtu:
        return [packet]
    if packet.flags & ipv4.FLAG_DONT_FRAGMENT:
        raise ValueError(f"{packet.size_octets} octets with DF do not fit into an MTU of {mtu}")
    payload = view(packet.payload)
    later_options = copied_options(packet.options)
    at, options = 0, packet.options
    fragments = []
    while at < len(payload):
        part = payload[at : at + _room_octets(mtu, options)]
        is_last = at + len(part) == len(payload)
        fragments.append(
            dataclasses.replace(
                packet,
                payload=part,
                options=options,
                flags=packet.flags if is_last else packet.flags | ipv4.FLAG_MORE_FRAGMENTS,
                fragment_offset_octets=packet.fragment_offset_octets + at,
            )
        )
        at, options = at + len(part), later_options
    return fragments


def copied_options(options: bytes) -> bytes:
    """The options that belong into every fragment, without gaps; padding is for who emits them."""
    return b"".join(option.octets for option in ipv4_options.walk(options) if option.kind & _COPIED)


def _room_octets(mtu: int, options: bytes) -> int:
    """How much payload fits behind a header with these options."""
    header_octets = ipv4.HEADER_OCTETS + -(-len(options) // _WORD_OCTETS) * _WORD_OCTETS
    room = (mtu - header_octets) // UNIT_OCTETS * UNIT_OCTETS
    if room < UNIT_OCTETS:
        raise ValueError(f"an MTU of {mtu} has no room behind a header of {header_octets} octets")
    return room
