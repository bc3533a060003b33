# SPDX-License-Identifier: Apache-2.0
"""A router between two links, with a host on each, a gateway on one, and a network behind that."""

import dataclasses
import random
from typing import Any

from halo_mp.stack.interface import Address, Interface
from halo_mp.stack.neighbor_settings import NeighborSettings
from halo_mp.stack.outputs import Drop, Output, Transmit
from halo_mp.stack.route import ConnectedRoutes, Lookup, Route, RouteKind
from halo_mp.stack.router import Router
from halo_mp.wire import ethernet, icmpv4, ipv4
from halo_mp.wire.ethernet import EthernetFrame, VlanTag
from halo_mp.wire.icmpv4 import Icmpv4Message
from halo_mp.wire.ipv4 import Ipv4Packet, parse_address
from halo_mp.wire.udp import UdpDatagram
from tests.unit.stack.harness import ADDRESS, MAC, NOW, PEER, PEER_MAC, of_type

WAN_MAC = bytes.fromhex("020000000002")
WAN_ADDRESS = parse_address("198.51.100.1")
HOST = parse_address("198.51.100.7")  # on the WAN
HOST_MAC = bytes.fromhex("02000000000c")
GATEWAY = parse_address("198.51.100.254")
GATEWAY_MAC = bytes.fromhex("02000000000d")
FAR = parse_address("10.9.8.7")
NOWHERE = parse_address("172.16.0.1")
LAN = Interface(port=0, mac=MAC, addresses=(Address(ADDRESS, 24),))
WAN = Interface(port=1, mac=WAN_MAC, addresses=(Address(WAN_ADDRESS, 24),))
VIA_GATEWAY = Route(RouteKind.GATEWAY, 1, 0, GATEWAY)


class Routes:
    """Prefixes over those of interfaces; the longest wins."""

    def __init__(self, connected: Lookup, prefixes: dict[str, Route]) -> None:
        self.connected = connected
        self.prefixes = [
            (parse_address(text.split("/")[0]), int(text.split("/")[1]), route)
            for text, route in prefixes.items()
        ]
        self.prefixes.sort(key=lambda prefix: -prefix[1])
        self.asked: list[Ipv4Packet] = []

    def __call__(self, dst: int, packet: Ipv4Packet) -> Route:
        self.asked.append(packet)
        route = self.connected(dst, packet)
        if route.kind is not RouteKind.NONE:
            return route
        matching = (route for net, length, route in self.prefixes if (net ^ dst) >> (32 - length) == 0)
        return next(matching, Route(RouteKind.NONE))


def router(*interfaces: Interface, routes: dict[str, Route] | None = None, **settings: Any) -> Router:
    """A router that has announced itself and knows its neighbors: the peer, the host and the gateway."""
    made = quiet_router(*interfaces, routes=routes, **settings)
    made.set_static(0, PEER, PEER_MAC, NOW)
    if made.neighbors(1) is not None:
        made.set_static(1, HOST, HOST_MAC, NOW)
        made.set_static(1, GATEWAY, GATEWAY_MAC, NOW)
    return made


def quiet_router(*interfaces: Interface, routes: dict[str, Route] | None = None, **settings: Any) -> Router:
    """A router that has announced itself and knows nobody."""
    chosen = interfaces or (LAN, WAN)
    known = {"10.0.0.0/8": VIA_GATEWAY} if routes is None else routes
    made = Router(
        rng=random.Random(3),
        settings=NeighborSettings(reachable_spread=0.0),
        **{"mirrored": False, "lookup": Routes(ConnectedRoutes(chosen), known), **settings},
    )
    made.set_interfaces(chosen, NOW - 10)
    made.poll(NOW - 5)
    return made


def changed(interface: Interface, **fields: Any) -> Interface:
    return dataclasses.replace(interface, **fields)


def datagram(*, src: int = PEER, dst: int = HOST, data: bytes = b"data", **fields: Any) -> Ipv4Packet:
    """A UDP datagram from the LAN to the WAN."""
    payload = UdpDatagram(7, 9, data).emit(src=src, dst=dst)
    return Ipv4Packet(**{"src": src, "dst": dst, "protocol": 17, "payload": payload, **fields})


def framed(packet: Ipv4Packet | bytes, *, dst: bytes = MAC, src: bytes = PEER_MAC, vlan: int = 0) -> bytes:
    octets = packet if isinstance(packet, bytes) else packet.emit()
    tags = (VlanTag(vlan),) if vlan else ()
    return ethernet.pad(EthernetFrame(dst, src, ethernet.ETHERTYPE_IPV4, octets, tags).emit())


def packets_in(outputs: list[Output]) -> list[tuple[int, bytes, Ipv4Packet]]:
    """The IPv4 packets that are sent: port, destination MAC, packet."""
    found = []
    for out in of_type(Transmit, outputs):
        frame = ethernet.parse(out.frame)
        if frame.ethertype == ethernet.ETHERTYPE_IPV4:
            packet = ipv4.parse(frame.payload)
            found.append((out.port, frame.dst, dataclasses.replace(packet, payload=bytes(packet.payload))))
    return found


def forwarded(made: Router, packet: Ipv4Packet, now: float = NOW) -> tuple[int, bytes, Ipv4Packet]:
    """Where the packet from the LAN goes, and as what; nothing else may happen."""
    outputs = made.receive(0, framed(packet), now)
    [sent] = packets_in(outputs)
    assert len(outputs) == 1
    return sent


def dropped(made: Router, packet: Ipv4Packet | bytes, **frame: Any) -> str:
    """Why the packet from the LAN is dropped, without another word."""
    octets = framed(packet, **frame)
    before = made.counters.copy()
    [drop] = made.receive(0, octets, NOW)
    assert drop == Drop(0, (made.counters - before).popitem()[0], octets)
    return drop.reason


def told(made: Router, packet: Ipv4Packet, now: float = NOW) -> tuple[str, Icmpv4Message]:
    """Why the packet from the LAN is dropped, and what its sender is told."""
    drop, *rest = made.receive(0, framed(packet), now)
    assert isinstance(drop, Drop)
    [(port, mac, error)] = packets_in(rest)
    assert (port, mac, error.dst, error.protocol) == (0, PEER_MAC, packet.src, 1)
    return drop.reason, icmpv4.parse(error.payload)
