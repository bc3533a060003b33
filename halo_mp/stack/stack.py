# SPDX-License-Identifier: Apache-2.0
"""The Python stack of one worker: interfaces, a neighbor table for each, reassembly, and ICMP echo. RFC 1122
sections 2.3, 3.2 and 3.3.2.

It gets the frames that the fast path punts: ARP, IPv4 packets with options for us, fragments, ICMP, and what
is for a local listener (there is none yet: `no_listener`). Each received frame is either consumed or ends in
exactly one Drop. A fragment that waits for others is consumed; when they do not come, it ends in a Drop
later. The fragment that completes a packet ends as the packet does.

What is sent and longer than the MTU of its link leaves in fragments, unless it must not be fragmented.

Refused, besides what the wire formats refuse: see `halo_mp.stack.reasons`. Never raises on any octets.

A VLAN is an interface of its own. Priority-tagged frames (VLAN 0) belong to the untagged one. Frames with two
tags, an S-tag or VLAN 4095 belong to nobody, so that a frame cannot hop from one VLAN to another inside a
second tag.

A received frame is copied once, before it is looked at: whoever may still write to its buffer changes no
decision, and the buffer can go back at once. Outputs own their octets.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from halo_mp.stack import icmp
from halo_mp.stack.fragmentation import fragment
from halo_mp.stack.identification import Identifications
from halo_mp.stack.interface import Interface
from halo_mp.stack.neighbor import NeighborTable
from halo_mp.stack.neighbor_settings import NeighborSettings
from halo_mp.stack.outputs import Deliver, Drop, NeighborOutput, Output, Transmit
from halo_mp.stack.partial_datagram import Fragment
from halo_mp.stack.reasons import (
    ADDRESS_TENTATIVE,
    ETHERNET_SOURCE,
    ETHERTYPE_UNKNOWN,
    IPV4_MARTIAN,
    IPV4_NO_ROUTE,
    IPV4_NOT_LOCAL,
    L2_MULTICAST,
    NO_INTERFACE,
    NO_LISTENER,
    NOT_FOR_US,
    ORIGINATE_TOO_LONG,
    VLAN_UNKNOWN,
)
from halo_mp.stack.reassembly import Expiry, Reassembler
from halo_mp.stack.reassembly_settings import ReassemblySettings
from halo_mp.wire import arp, ethernet, ipv4, ipv4_options, udp
from halo_mp.wire.octets import Octets, WireError
from halo_mp.wire.reasons import IPV4_OPTIONS

ERROR_INTERVAL_S: Final = 1.0  # at most one ICMP error in this time, to whomever (RFC 1812 section 4.3.2.8)


@dataclass(frozen=True, slots=True)
class Hop:
    """Where a packet goes next: out of an interface, to a neighbor there."""

    port: int
    vlan: int
    next_hop: int


class Stack:
    """All interfaces of one worker. ``counters`` counts drops by reason, ``events`` the rest worth knowing.

    ``route`` says where a destination is that no interface has on its link; without one, or when it returns
    None, the packet is dropped as `ipv4_no_route`. ``probe`` asks for RFC 5227's probing before an address is
    used. ``shared_ports`` are ports whose addresses another worker announces and defends; here they are only
    used.
    """

    def __init__(
        self,
        interfaces: Iterable[Interface],
        *,
        rng: random.Random,
        settings: NeighborSettings | None = None,
        reassembly: ReassemblySettings | None = None,
        probe: bool = False,
        shared_ports: Collection[int] = (),
        route: Callable[[int], Hop | None] | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self._route = route
        self._identifications = Identifications(rng)
        self._reassembler = Reassembler(reassembly, drops=self.counters)
        self._errors_from = -math.inf  # when the next ICMP error may be sent
        self._tables: dict[tuple[int, int], NeighborTable] = {}
        for interface in interfaces:
            if interface.key in self._tables:
                raise ValueError(f"port {interface.port}, VLAN {interface.vlan} has two interfaces")
            self._tables[interface.key] = NeighborTable(
                interface,
                rng=rng,
                settings=settings,
                probe=probe,
                shared=interface.port in shared_ports,
                drops=self.counters,
                events=self.events,
            )
        self._ports = {port for port, _ in self._tables}
        self._owners = {
            table.interface.address: table for table in self._tables.values() if table.interface.address
        }

    def start(self, now: float) -> list[Output]:
        """Begin to use the interfaces' addresses."""
        return [out for table in self._tables.values() for out in self._framed(table.start(now))]

    def announce(self, port: int, now: float) -> list[Output]:
        """Announce the addresses of a port once more, after its link was away."""
        tables = [table for table in self._tables.values() if table.interface.port == port]
        return [out for table in tables for out in self._framed(table.announce(now))]

    def poll(self, now: float) -> list[Output]:
        """Do what is due."""
        outputs = [out for table in self._tables.values() for out in table.poll(now)]
        outputs += [out for expiry in self._reassembler.poll(now) for out in self._expire(expiry, now)]
        return self._framed(outputs)

    def next_deadline(self) -> float | None:
        """When to call `poll` next; None when nothing is waited for."""
        deadlines = [table.next_deadline() for table in self._tables.values()]
        deadlines.append(self._reassembler.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def neighbors(self, port: int, vlan: int = 0) -> NeighborTable | None:
        """The neighbor table of an interface, to look at. What changes it goes through the stack."""
        return self._tables.get((port, vlan))

    def receive(self, port: int, frame: Octets, now: float) -> list[Output]:
        """Act on a punted frame. Any octets are good."""
        octets = bytes(frame)
        try:
            parsed = ethernet.parse(octets)
            table = self._table_of(port, parsed)
            _check_stations(parsed, table.interface.mac)
            return self._framed(self._receive_frame(table, parsed, octets, now))
        except WireError as error:
            return [self._drop(port, error.reason, octets)]

    def send_ipv4(
        self, port: int, packet: bytes, next_hop: int, now: float, *, vlan: int = 0
    ) -> list[Output]:
        """Send an IPv4 packet to ``next_hop`` on the link of an interface: now, or when it is resolved."""
        table = self._tables.get((port, vlan))
        if table is None:
            return [self._drop(port, NO_INTERFACE, packet)]
        return self._framed(self._send(table, packet, next_hop, now))

    def adopt(self, port: int, address: int, mac: bytes, now: float, *, vlan: int = 0) -> list[Output]:
        """Take over a neighbor that another worker has learned; packets that wait for it go out."""
        table = self._tables.get((port, vlan))
        return [] if table is None else self._framed(table.adopt(address, mac, now))

    def touch(self, port: int, address: int, now: float, *, vlan: int = 0) -> None:
        """Note that the fast path has sent to a neighbor, so that it stays fresh."""
        table = self._tables.get((port, vlan))
        if table is not None:
            table.touch(address, now)

    def set_static(self, port: int, address: int, mac: bytes, now: float, *, vlan: int = 0) -> list[Output]:
        """Configure a neighbor; ValueError for an impossible one or an interface that is not there."""
        table = self._tables.get((port, vlan))
        if table is None:
            raise ValueError(f"port {port}, VLAN {vlan} has no interface")
        return self._framed(table.set_static(address, mac, now))

    def remove_neighbor(self, port: int, address: int, *, vlan: int = 0) -> list[Output]:
        """Forget a neighbor, a static one too."""
        table = self._tables.get((port, vlan))
        return [] if table is None else self._framed(table.remove(address))

    def _table_of(self, port: int, frame: ethernet.EthernetFrame) -> NeighborTable:
        if port not in self._ports:
            raise WireError(NO_INTERFACE)
        table = self._tables.get((port, _vlan_of(frame.tags)))
        if table is None:
            raise WireError(VLAN_UNKNOWN if frame.tags else NO_INTERFACE)
        return table

    def _receive_frame(
        self, table: NeighborTable, frame: ethernet.EthernetFrame, octets: bytes, now: float
    ) -> list[NeighborOutput]:
        if frame.ethertype == ethernet.ETHERTYPE_ARP:
            return table.receive(arp.parse(frame.payload), frame.src, now)
        if frame.ethertype == ethernet.ETHERTYPE_IPV4:
            return self._receive_ipv4(table, frame, octets, now)
        raise WireError(ETHERTYPE_UNKNOWN)

    def _receive_ipv4(
        self, table: NeighborTable, frame: ethernet.EthernetFrame, octets: bytes, now: float
    ) -> list[NeighborOutput]:
        packet = ipv4.parse(frame.payload)
        to_group = table.interface.is_broadcast(packet.dst) or ipv4.is_multicast(packet.dst)
        self._check_addresses(table.interface, packet, to_group)
        if ethernet.is_multicast(frame.dst) and not to_group:
            raise WireError(L2_MULTICAST)
        if not to_group and not self._owners[packet.dst].address_is_usable:
            raise WireError(ADDRESS_TENTATIVE)
        _check_options(packet.options)
        if not packet.is_fragment:
            return self._receive_whole(table, packet, to_group, now)
        result = self._reassembler.receive(Fragment(packet, *table.interface.key, octets), now)
        if result.packet is None:
            return [*result.drops]
        return self._receive_whole(table, result.packet, to_group, now)

    def _receive_whole(
        self, table: NeighborTable, packet: ipv4.Ipv4Packet, to_group: bool, now: float
    ) -> list[NeighborOutput]:
        if packet.protocol == ipv4.PROTOCOL_ICMP:
            return self._receive_icmp(table, packet, to_group, now)
        if packet.protocol == ipv4.PROTOCOL_UDP:
            udp.parse(packet.payload, src=packet.src, dst=packet.dst)
        raise WireError(NO_LISTENER)

    def _check_addresses(self, interface: Interface, packet: ipv4.Ipv4Packet, to_group: bool) -> None:
        """RFC 1122 section 3.2.1.3, RFC 1812 sections 5.3.7 and 4.2.2.11."""
        if not ipv4.is_unicast(packet.src) or interface.is_broadcast(packet.src):
            raise WireError(IPV4_MARTIAN)
        if packet.src in self._owners:
            raise WireError(IPV4_MARTIAN)
        if to_group or packet.dst in self._owners:
            return
        raise WireError(IPV4_NOT_LOCAL if ipv4.is_unicast(packet.dst) else IPV4_MARTIAN)

    def _receive_icmp(
        self, table: NeighborTable, packet: ipv4.Ipv4Packet, to_group: bool, now: float
    ) -> list[NeighborOutput]:
        identification = self._identifications.take(packet.dst, packet.src, ipv4.PROTOCOL_ICMP)
        reply = icmp.answer(packet, to_group=to_group, identification=identification, now=now)
        out, next_hop = self._hop_to(reply.dst, table)
        return self._send(out, reply.emit(), next_hop, now)

    def _expire(self, expiry: Expiry, now: float) -> list[NeighborOutput]:
        """Fragments whose time is over; who sent them hears of it if the first one came (RFC 792)."""
        if expiry.first is None:
            return [*expiry.drops]
        return [*expiry.drops, *self._report_expiry(expiry.first, now)]

    def _report_expiry(self, first: Fragment, now: float) -> list[NeighborOutput]:
        """RFC 1122 section 3.2.2: never about an error or to a group; not more often than errors may be sent."""
        table, packet = self._tables[first.port, first.vlan], first.packet
        identification = self._identifications.take(packet.dst, packet.src, ipv4.PROTOCOL_ICMP)
        error = icmp.reassembly_time_exceeded(packet, identification=identification)
        if error is None or packet.dst not in self._owners:
            return []
        if now < self._errors_from:
            self.events["icmp_error_limited"] += 1
            return []
        self._errors_from = now + ERROR_INTERVAL_S
        try:
            out, next_hop = self._hop_to(error.dst, table)
        except WireError as refused:
            return [self._drop(first.port, refused.reason, error.emit())]
        return self._send(out, error.emit(), next_hop, now)

    def _hop_to(self, dst: int, preferred: NeighborTable) -> tuple[NeighborTable, int]:
        """The preferred interface's link, else the one with the longest prefix, else where a route points."""
        if preferred.interface.contains(dst):
            return preferred, dst
        connected = [table for table in self._tables.values() if table.interface.contains(dst)]
        if connected:
            return max(connected, key=lambda table: table.interface.prefix_length), dst
        hop = self._route(dst) if self._route else None
        table = self._tables.get((hop.port, hop.vlan)) if hop else None
        if hop is None or table is None:
            raise WireError(IPV4_NO_ROUTE)
        return table, hop.next_hop

    def _send(self, table: NeighborTable, packet: bytes, next_hop: int, now: float) -> list[NeighborOutput]:
        if len(packet) <= table.interface.mtu:
            return self._send_one(table, packet, next_hop, now)
        try:
            parts = _fragments(packet, table.interface.mtu)
        except WireError as error:
            return [self._drop(table.interface.port, error.reason, packet)]
        return [out for part in parts for out in self._send_one(table, part, next_hop, now)]

    def _send_one(
        self, table: NeighborTable, packet: bytes, next_hop: int, now: float
    ) -> list[NeighborOutput]:
        interface = table.interface
        if interface.is_broadcast(next_hop):
            return [Deliver(*interface.key, packet, ethernet.BROADCAST)]
        if ipv4.is_multicast(next_hop):
            return [Deliver(*interface.key, packet, ethernet.multicast_mac(next_hop))]
        return table.resolve(next_hop, packet, now)

    def _framed(self, outputs: list[NeighborOutput]) -> list[Output]:
        """The outputs with each Deliver as the frame that it becomes, on the interface that it names."""
        return [self._frame(out) if isinstance(out, Deliver) else out for out in outputs]

    def _frame(self, out: Deliver) -> Transmit:
        interface = self._tables[out.port, out.vlan].interface
        frame = interface.frame(dst=out.mac, ethertype=ethernet.ETHERTYPE_IPV4, payload=out.packet)
        return Transmit(out.port, frame)

    def _drop(self, port: int, reason: str, octets: bytes) -> Drop:
        self.counters[reason] += 1
        return Drop(port, reason, octets)


def _vlan_of(tags: tuple[ethernet.VlanTag, ...]) -> int:
    if not tags:
        return 0
    if len(tags) > 1 or tags[0].tpid != ethernet.TPID_C_TAG:
        raise WireError(VLAN_UNKNOWN)
    return tags[0].vid


def _check_stations(frame: ethernet.EthernetFrame, own_mac: bytes) -> None:
    if frame.dst != own_mac and not ethernet.is_multicast(frame.dst):
        raise WireError(NOT_FOR_US)
    if not ethernet.is_unicast(frame.src) or frame.src == own_mac:
        raise WireError(ETHERNET_SOURCE)


def _fragments(packet: bytes, mtu: int) -> list[bytes]:
    whole = ipv4.parse(packet)
    if whole.flags & ipv4.FLAG_DONT_FRAGMENT:
        raise WireError(ORIGINATE_TOO_LONG)
    return [part.emit() for part in fragment(whole, mtu)]


def _check_options(options: bytes) -> None:
    if any(option.kind in ipv4_options.SOURCE_ROUTES for option in ipv4_options.parse(options)):
        raise WireError(IPV4_OPTIONS)
