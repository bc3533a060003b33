# SPDX-License-Identifier: Apache-2.0
"""Thousands of frames that are almost right: none raises, each ends as it is counted, and every reason is met.

Cheaper than a search, so it goes further; the seed is in the name of the test.
"""

import dataclasses
import random
from collections import Counter

import pytest

from halo_mp.stack.fragmentation import fragment
from halo_mp.stack.interface import Address, Interface
from halo_mp.stack.neighbor_settings import NeighborSettings
from halo_mp.stack.outputs import Drop, Learned, Output, Transmit
from halo_mp.stack.reassembly_settings import ReassemblySettings
from halo_mp.stack.router import Router
from halo_mp.wire import arp, ethernet, icmpv4, ipv4
from halo_mp.wire.arp import ArpPacket
from halo_mp.wire.ethernet import EthernetFrame, VlanTag
from halo_mp.wire.icmpv4 import Icmpv4Message
from halo_mp.wire.ipv4 import Ipv4Packet, parse_address
from halo_mp.wire.udp import UdpDatagram
from tests.fuzz.strategies import OUR_ADDRESS, OUR_MAC, PEER_ADDRESS, PEER_MAC, mend_frame
from tests.fuzz.test_stack_fuzz import assert_well_formed

FRAMES = 7000
TAGGED = Interface(port=0, vlan=10, mac=OUR_MAC, addresses=(Address(parse_address("198.51.100.1"), 24),))
UNTAGGED = Interface(port=0, mac=OUR_MAC, addresses=(Address(OUR_ADDRESS, 24),))
INTERESTING = (0, 1, 2, 3, 4, 5, 7, 0x44, 0x45, 0x46, 0x4F, 0x7F, 0x80, 0x83, 0xC0, 0xFE, 0xFF)
EXPECTED = {
    "runt", "vlan_truncated", "vlan_unknown", "no_interface", "ethertype_unknown", "not_for_us", "l2_multicast",
    "ethernet_source", "arp_malformed", "arp_refused", "ipv4_truncated", "ipv4_version", "ipv4_header_length",
    "ipv4_total_length", "ipv4_checksum", "ipv4_options", "ipv4_fragment", "ipv4_martian", "ipv4_not_local",
    "ipv4_no_route", "icmp_truncated", "icmp_checksum", "icmp_broadcast_echo", "icmp_unhandled", "udp_truncated",
    "udp_length", "udp_checksum", "no_listener", "reassembly_duplicate", "reassembly_overlap",
    "reassembly_fragments", "reassembly_full", "reassembly_timeout",
}  # fmt: skip


def seeds() -> list[bytes]:
    """One good frame of each kind."""
    echo = Icmpv4Message(icmpv4.ECHO_REQUEST, 0, 1, bytes(20)).emit()
    ping = Ipv4Packet(src=PEER_ADDRESS, dst=OUR_ADDRESS, protocol=1, payload=echo)
    route = bytes.fromhex("07 0b 04 00000000 00000000 44 0c 05 01 00000000 00000000 00")
    datagram = UdpDatagram(9, 9, b"data").emit(src=PEER_ADDRESS, dst=OUR_ADDRESS)
    request = ArpPacket(
        operation=arp.REQUEST,
        sender_mac=PEER_MAC,
        sender_address=PEER_ADDRESS,
        target_mac=bytes(6),
        target_address=OUR_ADDRESS,
    )
    payloads = [
        (0x0806, request.emit()),
        (0x0800, ping.emit()),
        (
            0x0800,
            Ipv4Packet(src=PEER_ADDRESS, dst=OUR_ADDRESS, protocol=1, payload=echo, options=route).emit(),
        ),
        (0x0800, Ipv4Packet(src=PEER_ADDRESS, dst=OUR_ADDRESS, protocol=17, payload=datagram).emit()),
        (0x0800, Ipv4Packet(src=PEER_ADDRESS, dst=0xFFFFFFFF, protocol=1, payload=echo).emit()),
        (0x0800, Ipv4Packet(src=PEER_ADDRESS, dst=OUR_ADDRESS, protocol=17, payload=datagram[:5]).emit()),
        (0x0800, Ipv4Packet(src=PEER_ADDRESS, dst=OUR_ADDRESS, protocol=1, payload=echo[:5]).emit()),
    ]
    payloads += [(0x0800, part.emit()) for part in fragment(dataclasses.replace(ping, identification=5), 28)]
    tag = (VlanTag(10),)
    plain = [EthernetFrame(OUR_MAC, PEER_MAC, ethertype, octets) for ethertype, octets in payloads]
    tagged = [EthernetFrame(OUR_MAC, PEER_MAC, ethertype, octets, tag) for ethertype, octets in payloads[:2]]
    return [frame.emit() for frame in plain + tagged]


def spoil(rng: random.Random, good: bytes) -> bytes:
    octets = bytearray(good)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        at = rng.randrange(min(len(octets), 60))
        octets[at] = rng.choice(INTERESTING) if rng.random() < 0.7 else rng.randrange(256)
    spoiled = bytes(octets)
    if rng.random() < 0.7:
        spoiled = mend_frame(spoiled)
    return spoiled[: rng.randrange(len(spoiled))] if rng.random() < 0.1 else spoiled


def receive_and_check(stack: Router, port: int, octets: bytes, now: float) -> list[Output]:
    """Whatever comes in at a time goes out as counted, and at most one Drop is the frame's own."""
    before = stack.counters.copy()
    outputs = stack.receive(port, octets, now)
    drops = [output for output in outputs if isinstance(output, Drop)]
    assert Counter(drop.reason for drop in drops) == stack.counters - before
    assert sum(drop.octets == octets for drop in drops) <= 1
    for output in outputs:
        if isinstance(output, Transmit):
            assert_well_formed(output)
    return outputs


@pytest.mark.parametrize("seed", [1, 2])
def test_receive_flood_of_spoiled_frames(seed: int) -> None:
    rng = random.Random(seed)
    stack = Router(
        rng=rng,
        settings=NeighborSettings(capacity=50, pending_capacity=20),
        reassembly=ReassemblySettings(timeout_s=1.0, datagrams=8, fragments=3),
        forwarding=False,
    )
    now = 1000.0
    stack.set_interfaces((UNTAGGED, TAGGED), now)
    good = seeds()
    outputs: list[Output] = []
    for _ in range(FRAMES):
        now += rng.random() * 0.01
        outputs += receive_and_check(stack, rng.choice((0,) * 30 + (1,)), spoil(rng, rng.choice(good)), now)
        if rng.random() < 0.02:
            outputs += stack.poll(now)
    assert set(stack.counters) >= EXPECTED
    sent = [ethernet.parse(output.frame) for output in outputs if isinstance(output, Transmit)]
    replies = [frame for frame in sent if frame.ethertype == ethernet.ETHERTYPE_IPV4]
    assert len(replies) > 500
    assert any(ipv4.parse(frame.payload).options for frame in replies)
    assert len(sent) - len(replies) > 200
    assert any(isinstance(output, Learned) for output in outputs)
