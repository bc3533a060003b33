# SPDX-License-Identifier: Apache-2.0
"""A router between links that come and go: no frame raises, each ends exactly once, and none that waits is lost.

The seed is in the name of the test.
"""

import dataclasses
import random
from collections import Counter
from typing import Any

import pytest

from halo_mp.stack.icmp_errors import IcmpErrorSettings
from halo_mp.stack.interface import Address, Interface
from halo_mp.stack.neighbor_settings import NeighborSettings
from halo_mp.stack.outputs import Drop, Hand, Output, Received, Transmit
from halo_mp.stack.reassembly_settings import ReassemblySettings
from halo_mp.stack.route import ConnectedRoutes, Route, RouteKind
from halo_mp.stack.router import Router
from halo_mp.wire import arp, ethernet, ipv4
from halo_mp.wire.arp import ArpPacket
from halo_mp.wire.ethernet import EthernetFrame
from halo_mp.wire.icmpv4 import Icmpv4Message
from halo_mp.wire.ipv4 import Ipv4Packet, parse_address
from halo_mp.wire.udp import UdpDatagram
from tests.fuzz.strategies import OUR_ADDRESS, OUR_MAC, PEER_ADDRESS, PEER_MAC, mend_frame
from tests.unit.stack.lab import Routes

LAN = Interface(port=0, mac=OUR_MAC, addresses=(Address(OUR_ADDRESS, 24),), redirects=True, proxy_arp=True)
WAN = Interface(
    port=1,
    mac=bytes.fromhex("020000000002"),
    addresses=(Address(parse_address("198.51.100.1"), 24), Address(parse_address("203.0.113.1"), 28)),
    mtu=120,
    directed_broadcast=True,
)
NARROW = Interface(port=2, mac=bytes.fromhex("020000000003"), mtu=68)  # unnumbered
STATIONS = [bytes((2, 0, 0, 0, 0, last)) for last in range(10, 13)]
HOSTS = [parse_address(f"198.51.100.{host}") for host in range(2, 12)]
ROUTES = {
    "10.0.0.0/8": Route(RouteKind.GATEWAY, 1, 0, HOSTS[0]),
    "10.1.0.0/16": Route(RouteKind.GATEWAY, 2, 0, parse_address("172.31.0.1")),
    "10.2.0.0/16": Route(RouteKind.GATEWAY, 0, 0, parse_address("192.0.2.254")),
    "10.3.0.0/16": Route(RouteKind.BLACKHOLE),
    "10.4.0.0/16": Route(RouteKind.UNREACHABLE),
    "10.5.0.0/16": Route(RouteKind.PROHIBIT),
    "10.6.0.0/16": Route(RouteKind.GATEWAY, 9, 0, HOSTS[0]),
    "10.7.0.0/16": Route(RouteKind.LOCAL),
}
FAR = [parse_address(f"10.{net}.0.9") for net in range(9)]
SETS = ((LAN, WAN, NARROW), (LAN, WAN), (LAN,), (LAN, dataclasses.replace(WAN, up=False), NARROW))
SMALL = NeighborSettings(capacity=12, pending_capacity=5, held_per_neighbor=3, held_in_all=8, failed_s=1.0)
PAUSES = (0.0,) * 20 + (0.01, 0.25, 1.0, 5.0)
EXPECTED = {
    "ipv4_ttl", "ipv4_no_route", "ipv4_blackhole", "ipv4_unreachable", "ipv4_prohibited", "ipv4_too_big",
    "ipv4_link_local", "ipv4_martian", "ipv4_options", "ipv4_source_route", "interface_down", "interface_removed",
    "neighbor_unresolved", "neighbor_hold_full", "no_interface", "no_listener", "l2_multicast",
    "reassembly_timeout",
}  # fmt: skip


def owner(protocol: int, address: int, port: int, peer: int, peer_port: int) -> int | None:
    return {9: 0, 10: 4}.get(port)


class Watched:
    """A router, what happened to each tagged datagram, and what must hold after every step."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 1000.0
        self.sent = 0
        self.ended: Counter[bytes] = Counter()
        self.counted: Counter[str] = Counter()
        self.router = Router(
            rng=self.rng,
            lookup=Routes(ConnectedRoutes((LAN, WAN, NARROW)), ROUTES),
            owner_of=owner,
            settings=SMALL,
            reassembly=ReassemblySettings(timeout_s=1.0, datagrams=4),
            errors=IcmpErrorSettings(rate=1000.0, burst=1000),
        )
        self.router.set_peers([4])
        self.use(SETS[0])

    def use(self, interfaces: tuple[Interface, ...]) -> None:
        homes = {2: 4} if self.rng.random() < 0.3 else {}
        self.absorb(self.router.set_interfaces(interfaces, self.now, homes=homes))

    def absorb(self, outputs: list[Output]) -> None:
        for out in outputs:
            match out:
                case Drop(_, reason, octets):
                    self.counted[reason] += 1
                    self.end(octets)
                case Received(_, _, packet):
                    self.ended[bytes(packet.payload[8:20])] += 1
                case Transmit():
                    self.check(out)
        assert self.counted == self.router.counters

    def end(self, octets: bytes) -> None:
        """A tagged datagram, as a packet or in its frame, has ended. Quotes in errors do not count."""
        for at in (0, ethernet.HEADER_OCTETS):
            if octets[at : at + 1] and ipv4.check(octets[at:]) is None:
                packet = ipv4.parse(octets[at:])
                if packet.protocol == ipv4.PROTOCOL_UDP and packet.payload[8:12] == b"tag:":
                    self.ended[bytes(packet.payload[8:20])] += 1

    def check(self, out: Transmit) -> None:
        frame = ethernet.parse(out.frame)
        assert frame.src in (LAN.mac, WAN.mac, NARROW.mac)
        if frame.ethertype == ethernet.ETHERTYPE_IPV4:
            packet = ipv4.parse(frame.payload)
            mtu = {0: LAN, 1: WAN, 2: NARROW}[out.port].mtu
            assert packet.size_octets <= mtu
            assert packet.ttl > 0
            self.end(packet.emit())

    def receive(self, port: int, octets: bytes, *, handed: bool = False) -> list[Output]:
        buffer = bytearray(octets)
        before = self.router.counters.copy()
        outputs = self.router.receive(port, memoryview(buffer), self.now, handed=handed)
        buffer[:] = b"\xa5" * len(buffer)
        hands = [out for out in outputs if isinstance(out, Hand)]
        own = [out for out in outputs if isinstance(out, Drop) and out.octets == octets]
        if hands:
            assert len(outputs) == 1
            assert not handed
            assert self.router.counters == before
        assert len(own) <= 1
        self.absorb(outputs)
        return outputs

    def send_tagged(self) -> None:
        """A datagram that must end exactly once, somewhere."""
        rng, tag = self.rng, b"tag:%08d" % self.sent
        dst = rng.choice(
            (*HOSTS, *FAR, parse_address("203.0.113.9"), parse_address("192.0.2.99"), OUR_ADDRESS)
        )
        self.sent += 1
        packet = Ipv4Packet(
            src=rng.choice(
                (PEER_ADDRESS, PEER_ADDRESS, FAR[1], parse_address("169.254.1.1"), HOSTS[3], 0x7F000001)
            ),
            dst=dst,
            protocol=17,
            payload=UdpDatagram(
                7, rng.choice((8, 9, 10)), tag + bytes(rng.choice((0, 0, 100))), has_checksum=False
            ).emit(src=0, dst=0),
            ttl=rng.choice((0, 1, 2, 64, 64, 64)),
            flags=rng.choice((0, 0, 0, ipv4.FLAG_DONT_FRAGMENT)),
            options=rng.choice(
                (b"", b"", b"", b"\x94\4\0\0", b"\7\7\4" + bytes(5), b"\7\0\0\0", b"\x83\3\4\0")
            ),
        )
        frame = ethernet.pad(EthernetFrame(OUR_MAC, PEER_MAC, 0x0800, packet.emit()).emit())
        outputs = self.receive(0, frame)
        if outputs and isinstance(outputs[0], Hand):
            self.receive(0, frame, handed=True)

    def send_spoiled(self) -> None:
        rng = self.rng
        quote = Ipv4Packet(src=OUR_ADDRESS, dst=FAR[0], protocol=17, payload=bytes(8)).emit()
        packet = Ipv4Packet(
            src=rng.choice((PEER_ADDRESS, *HOSTS[:2])),
            dst=rng.choice((OUR_ADDRESS, WAN.address, 0xFFFFFFFF, *HOSTS[:2], *FAR[:2])),
            protocol=rng.choice((1, 1, 6, 17)),
            payload=Icmpv4Message(
                rng.choice((0, 3, 5, 8, 11)), 0, 7, quote + bytes(rng.randrange(200))
            ).emit(),
            flags=rng.choice((0, 0, 0, 1, 2)),
            fragment_offset_octets=rng.choice((0, 0, 0, 8)),
        )
        octets = bytearray(EthernetFrame(OUR_MAC, PEER_MAC, 0x0800, packet.emit()).emit())
        for _ in range(rng.choice((0, 0, 1, 2))):
            octets[rng.randrange(min(60, len(octets)))] = rng.randrange(256)
        frame = mend_frame(bytes(octets))
        self.receive(rng.choice((0, 0, 0, 1, 2)), frame[: rng.choice((len(frame), len(frame), 40))])

    def hear(self) -> None:
        rng, sender = self.rng, self.rng.choice((*HOSTS, PEER_ADDRESS, parse_address("172.31.0.1")))
        packet = ArpPacket(
            operation=rng.choice((arp.REQUEST, arp.REPLY)),
            sender_mac=rng.choice(STATIONS),
            sender_address=sender,
            target_mac=WAN.mac,
            target_address=rng.choice((WAN.address, OUR_ADDRESS, HOSTS[1])),
        )
        frame = EthernetFrame(ethernet.BROADCAST, packet.sender_mac, 0x0806, packet.emit()).emit()
        self.receive(rng.choice((0, 1, 1, 2)), frame, handed=True)

    def step(self) -> None:
        rng, router = self.rng, self.router
        self.now += rng.choice(PAUSES)
        self.absorb(router.poll(self.now))
        action = rng.choices(("tagged", "spoiled", "hear", "use", "neighbor"), (50, 20, 20, 1, 5))[0]
        port, host = rng.choice(((1, rng.choice(HOSTS)), (2, parse_address("172.31.0.1")), (0, PEER_ADDRESS)))
        calls: tuple[Any, ...] = (
            lambda: router.adopt(port, host, rng.choice(STATIONS), self.now),
            lambda: router.forget(port, host, self.now),
            lambda: router.touch(port, host, self.now),
            lambda: router.watch(port, host, self.now),
            lambda: router.unwatch(port, host, self.now),
            lambda: router.remove_neighbor(port, host, self.now),
        )
        match action:
            case "tagged":
                self.send_tagged()
            case "spoiled":
                self.send_spoiled()
            case "hear":
                self.hear()
            case "use":
                self.use(rng.choice(SETS))
            case _:
                self.absorb(rng.choices(calls, (6, 1, 2, 1, 1, 1))[0]())


@pytest.mark.parametrize("seed", range(3))
def test_every_datagram_ends_exactly_once(seed: int) -> None:
    watched = Watched(seed)
    for _ in range(5000):
        watched.step()
    watched.use(())
    tags = [b"tag:%08d" % number for number in range(watched.sent)]
    assert [(tag, watched.ended[tag]) for tag in tags if watched.ended[tag] != 1] == []
    assert set(watched.counted) >= EXPECTED
