# SPDX-License-Identifier: Apache-2.0
"""Whatever the octets: parse raises nothing but WireError, check agrees with it, and a value survives emit and parse.

Examples are derived from the test itself, so that a run is repeatable; the falsifying octets are printed.
"""

import functools
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, given, settings

from halo_mp.wire import WireError, arp, ethernet, icmpv4, ipv4, ipv4_options, udp
from halo_mp.wire.arp import ArpPacket
from halo_mp.wire.ethernet import EthernetFrame
from halo_mp.wire.icmpv4 import Icmpv4Message
from halo_mp.wire.ipv4 import Ipv4Packet
from halo_mp.wire.udp import UdpDatagram
from tests.fuzz import strategies

bounded = settings(
    max_examples=120, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
check_udp = functools.partial(udp.check, src=1, dst=2)
parse_udp = functools.partial(udp.parse, src=1, dst=2)


Value = TypeVar("Value")
Check = Callable[[memoryview], str | None]


def parse_checked(octets: bytes, check: Check, parse: Callable[[memoryview], Value]) -> Value | None:
    """The value, or None when it is refused for the reason that check gives."""
    buffer = memoryview(bytearray(octets))
    refused: str | None = None
    value: Value | None = None
    try:
        value = parse(buffer)
    except WireError as error:
        refused = error.reason
    assert check(buffer) == refused
    return value


def without(octets: bytes, checksum_at: int) -> bytes:
    """The octets without their checksum, of which 0 and 0xffff may both be right."""
    return octets[:checksum_at] + octets[checksum_at + 2 :]


@bounded
@given(strategies.frame_octets)
def test_ethernet_parse_refuses_or_round_trips(octets: bytes) -> None:
    frame = parse_checked(octets, ethernet.check, ethernet.parse)
    if frame is not None:
        assert frame.emit() == octets


@bounded
@given(strategies.arp_octets)
def test_arp_parse_refuses_or_round_trips(octets: bytes) -> None:
    packet = parse_checked(octets, arp.check, arp.parse)
    if packet is not None:
        assert packet.emit() == octets[:28]


@bounded
@given(strategies.ipv4_octets)
def test_ipv4_parse_refuses_or_round_trips(octets: bytes) -> None:
    packet = parse_checked(octets, ipv4.check, ipv4.parse)
    if packet is not None:
        assert ipv4.parse(packet.emit()) == packet
        assert without(packet.emit(), 10) == without(octets[: packet.size_octets], 10)


@bounded
@given(strategies.icmp_octets)
def test_icmpv4_parse_refuses_or_round_trips(octets: bytes) -> None:
    message = parse_checked(octets, icmpv4.check, icmpv4.parse)
    if message is not None:
        assert icmpv4.parse(message.emit()) == message
        assert without(message.emit(), 2) == without(octets, 2)
        if message.type in icmpv4.ERRORS:
            quoted = icmpv4.quoted(message)
            assert quoted.header + bytes(quoted.payload) == bytes(message.payload)


@bounded
@given(strategies.udp_octets)
def test_udp_parse_refuses_or_round_trips(octets: bytes) -> None:
    datagram = parse_checked(octets, check_udp, parse_udp)
    if datagram is not None:
        emitted = datagram.emit(src=1, dst=2)
        assert parse_udp(emitted) == datagram
        assert without(emitted, 6) == without(octets[: datagram.size_octets], 6)


@bounded
@given(strategies.option_octets)
def test_ipv4_options_walk_refuses_or_covers_the_octets(octets: bytes) -> None:
    options = parse_checked(octets, ipv4_options.check, ipv4_options.parse)
    if options is not None:
        covered = {
            at for option in options for at in range(option.offset, option.offset + len(option.octets))
        }
        assert sum(len(option.octets) for option in options) == len(covered)
        rest = [octet for at, octet in enumerate(octets) if at not in covered]
        end = rest.index(0) if 0 in rest else len(rest)
        assert all(octet == 1 for octet in rest[:end])


@bounded
@given(strategies.frames(), strategies.arps, strategies.packets(), strategies.messages, strategies.datagrams)
def test_constructed_values_survive_emit_and_parse(
    frame: EthernetFrame,
    arp_packet: ArpPacket,
    packet: Ipv4Packet,
    message: Icmpv4Message,
    datagram: UdpDatagram,
) -> None:
    assert ethernet.parse(frame.emit()) == frame
    assert arp.parse(arp_packet.emit()) == arp_packet
    again = ipv4.parse(packet.emit())
    assert again.emit() == packet.emit()
    assert parse_udp(datagram.emit(src=1, dst=2)) == datagram
    if message.type not in icmpv4.ERRORS:
        assert icmpv4.parse(message.emit()) == message
