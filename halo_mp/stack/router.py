# SPDX-License-Identifier: Apache-2.0
"""The Python stack of one worker, from its entry: a whole router, made for what the fast path does not finish.
RFC 1122 sections 2.3, 3.2 and 3.3, RFC 1812 sections 4.2, 4.3, 5.2 and 5.3.

It gets the frames that the fast path punts and makes the whole decision again: ARP, packets for us, packets to
be forwarded that need an error, an option, fragments or a neighbor that is not known. Each received frame ends
in exactly one way: consumed, in one Drop, or in one Hand. A packet that waits, as a fragment or for a neighbor, is
consumed; when it waits in vain, it ends in a Drop later. The fragment that completes a packet ends as the packet
does.

The parts: `links` (interfaces and own addresses), `neighbor` (who is where on a link), `local_delivery`,
`forwarding`, `sending`, `icmp_errors`. Refused, besides what the wire formats refuse: see
`halo_mp.stack.reasons`. Never raises on any octets.

A VLAN is an interface of its own. Priority-tagged frames (VLAN 0) belong to the untagged one. Frames with two
tags, an S-tag or VLAN 4095 belong to nobody, so that a frame cannot hop from one VLAN to another inside a
second tag.

Source routes are refused, as RFC 7126 section 4.3 advises against RFC 1812's default, and told by 3/5.

A received frame is copied once, before it is looked at: whoever may still write to its buffer changes no
decision, and the buffer can go back at once. Outputs own their octets.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from halo_mp.stack.arrival import Arrival, HandOver, Refusal
from halo_mp.stack.forwarding import Forwarder
from halo_mp.stack.icmp_errors import IcmpErrors, IcmpErrorSettings, Subject
from halo_mp.stack.identification import Identifications
from halo_mp.stack.interface import Interface
from halo_mp.stack.links import Links
from halo_mp.stack.local_delivery import LocalDelivery, OwnerOf
from halo_mp.stack.neighbor import NeighborTable
from halo_mp.stack.neighbor_settings import NeighborSettings
from halo_mp.stack.outputs import (
    Deliver,
    Drop,
    Hand,
    IcmpError,
    NeighborOutput,
    Output,
    Transmit,
    Undelivered,
)
from halo_mp.stack.reasons import (
    ADDRESS_TENTATIVE,
    ETHERTYPE_UNKNOWN,
    INTERFACE_DOWN,
    IPV4_MARTIAN,
    L2_MULTICAST,
    NEIGHBOR_UNRESOLVED,
    NO_INTERFACE,
    ORIGINATE_TOO_LONG,
    VLAN_UNKNOWN,
)
from halo_mp.stack.reassembly_settings import ReassemblySettings
from halo_mp.stack.reception import arrival_of, check_options, check_stations, refusal_of, vlan_of
from halo_mp.stack.route import Lookup, RouteKind
from halo_mp.stack.sending import Sender
from halo_mp.wire import arp, ethernet, icmpv4, ipv4
from halo_mp.wire.icmpv4 import Icmpv4Message
from halo_mp.wire.ipv4 import Ipv4Packet
from halo_mp.wire.octets import Octets, WireError

_PROXIED: Final = (RouteKind.CONNECTED, RouteKind.GATEWAY, RouteKind.LOCAL)


class Router:
    """All interfaces of one worker. ``counters`` counts drops by reason, ``events`` the rest worth knowing.

    ``lookup`` says where destinations are; without one, only what an interface has on its link is found.
    ``forwarding`` off makes a host. ``slot`` is this worker's own, and ``owner_of`` says whose a socket is.
    ``router_id`` is what unnumbered interfaces speak as: by default the first own address.
    ``shared_ports`` are ports whose addresses another worker announces and defends; here they are only used.
    ``mirrored`` says whether the fast path keeps a copy of the neighbors.
    """

    def __init__(
        self,
        *,
        rng: random.Random,
        slot: int = 0,
        lookup: Lookup | None = None,
        owner_of: OwnerOf | None = None,
        forwarding: bool = True,
        router_id: int = 0,
        settings: NeighborSettings | None = None,
        reassembly: ReassemblySettings | None = None,
        errors: IcmpErrorSettings | None = None,
        shared_ports: Collection[int] = (),
        mirrored: bool = True,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self._rng = rng
        self._settings = settings
        self._shared_ports = frozenset(shared_ports)
        self._mirrored = mirrored
        self._identifications = Identifications(rng)
        self._links = Links(self._make_table, lookup=lookup, router_id=router_id)
        self._sender = Sender(self._links)
        self._errors = IcmpErrors(
            self._links,
            self._sender,
            self._identifications,
            errors or IcmpErrorSettings(),
            events=self.events,
        )
        self._forwarder = Forwarder(self._links, self._sender, self._errors, enabled=forwarding)
        self._local = LocalDelivery(
            self._links,
            self._sender,
            self._errors,
            self._identifications,
            slot=slot,
            reassembly=reassembly,
            owner_of=owner_of,
            drops=self.counters,
        )

    # What the host sets

    def set_interfaces(
        self, interfaces: Iterable[Interface], now: float, *, homes: Mapping[int, int | None] | None = None
    ) -> list[Output]:
        """Use these interfaces from now on. What is unchanged goes on undisturbed; what is gone drops what it
        holds; addresses that are new are announced. ValueError when two are of one port and VLAN.

        ``homes`` has the slot of the worker that keeps a port's neighbors, for each port of which that is not
        this one; None where nobody does, and only static neighbors are known.
        """
        return self._finished(self._links.update(interfaces, homes or {}, now), now)

    def set_peers(self, slots: Collection[int]) -> None:
        """Frames for sockets and echo identifiers of these slots may be handed to them."""
        self._local.peers = frozenset(slots)

    def listen_to_echo(self, identifier: int) -> None:
        """Report the replies to echo requests with this identifier, and errors about them."""
        self._local.echo_identifiers.add(identifier)

    def ignore_echo(self, identifier: int) -> None:
        """Nobody waits for these replies any more."""
        self._local.echo_identifiers.discard(identifier)

    def announce(self, port: int, now: float) -> list[Output]:
        """Announce the addresses of a port once more, after its link was away."""
        tables = [table for table in self._links if table.interface.port == port]
        return self._finished([out for table in tables for out in table.announce(now)], now)

    # Time

    def poll(self, now: float) -> list[Output]:
        """Do what is due."""
        outputs = [out for table in self._links for out in table.poll(now)]
        return self._finished(outputs + self._local.poll(now), now)

    def next_deadline(self) -> float | None:
        """When to call `poll` next; None when nothing is waited for."""
        deadlines = [table.next_deadline() for table in self._links]
        deadlines.append(self._local.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # Frames and packets

    def receive(self, port: int, frame: Octets, now: float, *, handed: bool = False) -> list[Output]:
        """Act on a punted frame, which another worker may have handed to us. Any octets are good."""
        octets = bytes(frame)
        arrival: Arrival | None = None
        try:
            parsed = ethernet.parse(octets)
            table = self._table_of(port, parsed, handed=handed)
            if parsed.ethertype == ethernet.ETHERTYPE_IPV4:
                arrival = arrival_of(table, parsed, octets, handed=handed)
                return self._finished(self._receive_ipv4(arrival, now), now)
            if parsed.ethertype == ethernet.ETHERTYPE_ARP:
                return self._finished(self._receive_arp(table, parsed, now, handed=handed), now)
            return [self._drop(port, ETHERTYPE_UNKNOWN, octets)]
        except HandOver as hand:
            return [Hand(hand.slot)]
        except WireError as error:
            return self._refuse(port, octets, error, arrival, now)

    def send(self, packet: Ipv4Packet, now: float) -> list[Output]:
        """Send a packet of ours to wherever its destination is; it gets an identification, and a source if it has
        none. An IcmpError says, besides the Drop, why it cannot be sent.
        """
        try:
            return self._finished(self._originate(packet, now), now)
        except WireError as error:
            octets = packet.emit()
            outputs: list[Output] = [self._drop(0, error.reason, octets)]
            if isinstance(error, Refusal) and self._local.is_awaited(packet):
                outputs += _own_error(octets, error)
            return outputs

    def source_for(self, packet: Ipv4Packet) -> int:
        """The address that `send` would give a packet that has none; 0 when it would refuse to send it."""
        if packet.dst in self._links.addresses:
            return packet.dst
        try:
            table, next_hop = self._sender.own_way(packet, None)
        except WireError:
            return 0
        return self._links.addresses.source(table.interface, next_hop)

    def send_ipv4(
        self, port: int, packet: bytes, next_hop: int, now: float, *, vlan: int = 0
    ) -> list[Output]:
        """Send an IPv4 packet to ``next_hop`` on the link of an interface: now, or when it is resolved."""
        table = self._links.tables.get((port, vlan))
        if table is None:
            return [self._drop(port, NO_INTERFACE, packet)]
        way = table, next_hop
        try:
            if len(packet) <= table.interface.mtu:
                return self._finished(self._sender.transmit(packet, way, now), now)
            sent = self._sender.send(ipv4.parse(packet), way, ORIGINATE_TOO_LONG, now)
            return self._finished(sent, now)
        except WireError as error:
            return [self._drop(port, error.reason, packet)]

    # Neighbors

    def neighbors(self, port: int, vlan: int = 0) -> NeighborTable | None:
        """The neighbor table of an interface, to look at. What changes it goes through the router."""
        return self._links.tables.get((port, vlan))

    def adopt(self, port: int, address: int, mac: bytes, now: float, *, vlan: int = 0) -> list[Output]:
        """Take over a neighbor that another worker has learned; packets that wait for it go out."""
        table = self.neighbors(port, vlan)
        return [] if table is None else self._finished(table.adopt(address, mac, now), now)

    def forget(self, port: int, address: int, now: float, *, vlan: int = 0) -> list[Output]:
        """Take over that another worker has forgotten a neighbor."""
        table = self.neighbors(port, vlan)
        return [] if table is None else self._finished(table.forget(address), now)

    def touch(self, port: int, address: int, now: float, *, vlan: int = 0) -> list[Output]:
        """Note that the fast path has sent to a neighbor, so that it stays fresh."""
        table = self.neighbors(port, vlan)
        return [] if table is None else self._finished(table.touch(address, now), now)

    def watch(self, port: int, address: int, now: float, *, vlan: int = 0) -> list[Output]:
        """Keep a gateway known without traffic, and report when it comes (NeighborUp) and goes (Forgotten)."""
        table = self.neighbors(port, vlan)
        return [] if table is None else self._finished(table.watch(address, now), now)

    def unwatch(self, port: int, address: int, now: float, *, vlan: int = 0) -> list[Output]:
        """Let a gateway age as all others do."""
        table = self.neighbors(port, vlan)
        return [] if table is None else self._finished(table.unwatch(address, now), now)

    def set_static(self, port: int, address: int, mac: bytes, now: float, *, vlan: int = 0) -> list[Output]:
        """Configure a neighbor; ValueError for an impossible one or an interface that is not there."""
        table = self.neighbors(port, vlan)
        if table is None:
            raise ValueError(f"port {port}, VLAN {vlan} has no interface")
        return self._finished(table.set_static(address, mac, now), now)

    def remove_neighbor(self, port: int, address: int, now: float, *, vlan: int = 0) -> list[Output]:
        """Forget a neighbor, a static one too."""
        table = self.neighbors(port, vlan)
        return [] if table is None else self._finished(table.remove(address), now)

    # Reception

    def _make_table(self, interface: Interface) -> NeighborTable:
        return NeighborTable(
            interface,
            rng=self._rng,
            settings=self._settings,
            shared=interface.port in self._shared_ports,
            foreign=interface.port in self._links.homes,
            mirrored=self._mirrored,
            proxied=self._is_proxied,
            drops=self.counters,
            events=self.events,
        )

    def _table_of(self, port: int, frame: ethernet.EthernetFrame, *, handed: bool) -> NeighborTable:
        """The interface that the frame is for, and whether it may have got here."""
        if port not in self._links.ports:
            raise WireError(NO_INTERFACE)
        table = self._links.tables.get((port, vlan_of(frame.tags)))
        if table is None:
            raise WireError(VLAN_UNKNOWN if frame.tags else NO_INTERFACE)
        if not table.interface.up:
            raise WireError(INTERFACE_DOWN)
        check_stations(frame, table.interface.mac, handed=handed)
        return table

    def _receive_arp(
        self, table: NeighborTable, frame: ethernet.EthernetFrame, now: float, *, handed: bool
    ) -> list[NeighborOutput]:
        if table.foreign and not handed:
            home = self._links.homes[table.interface.port]
            raise WireError(NEIGHBOR_UNRESOLVED) if home is None else HandOver(home)
        return table.receive(arp.parse(frame.payload), frame.src, now)

    def _receive_ipv4(self, arrival: Arrival, now: float) -> list[NeighborOutput]:
        packet = arrival.packet
        to_group = arrival.table.interface.is_broadcast(packet.dst) or ipv4.is_multicast(packet.dst)
        is_local = to_group or packet.dst in self._links.addresses
        self._check_addresses(packet, is_local=is_local, handed=arrival.handed)
        if arrival.to_stations and not to_group:
            raise WireError(L2_MULTICAST)
        if is_local:
            check_options(packet.options)
            return self._local.receive(arrival, now, to_group=to_group)
        route = self._forwarder.route(arrival)
        check_options(packet.options)
        if route.kind is RouteKind.LOCAL:
            return self._local.receive(arrival, now, to_group=False)
        return self._forwarder.forward(arrival, route, now)

    def _check_addresses(self, packet: Ipv4Packet, *, is_local: bool, handed: bool) -> None:
        """RFC 1122 section 3.2.1.3, RFC 1812 sections 5.3.7 and 4.2.2.11."""
        if not self._links.is_host(packet.src) or (packet.src in self._links.addresses and not handed):
            raise WireError(IPV4_MARTIAN)
        if not is_local and not ipv4.is_unicast(packet.dst):
            raise WireError(IPV4_MARTIAN)

    def _is_proxied(self, interface: Interface, target: int) -> bool:
        """RFC 1027: whether a station on this link reaches the target through us, by another interface."""
        if not (self._forwarder.enabled and interface.forward and self._links.is_host(target)):
            return False
        if interface.contains(target) and not interface.proxy_arp_subnet:
            return False
        route = self._links.lookup(
            target, Ipv4Packet(src=interface.address, dst=target, protocol=0, payload=b"")
        )
        out = self._links.tables.get(route.key)
        leads_there = route.kind in _PROXIED and out is not None and out.interface.up
        return leads_there and route.key != interface.key

    # The ways out

    def _originate(self, packet: Ipv4Packet, now: float) -> list[NeighborOutput]:
        addresses = self._links.addresses
        owner = addresses.owner(packet.dst)
        if owner is not None:
            looped = dataclasses.replace(packet, src=packet.src or packet.dst)
            octets = looped.emit()
            return self._local.deliver(Arrival(self._links.tables[owner], octets, looped, octets), now)
        way = self._sender.own_way(packet, None)
        self._sender.check_home(way, may_hand=False)
        src = packet.src or addresses.source(way[0].interface, way[1])
        if not self._links.is_usable(src):
            raise WireError(ADDRESS_TENTATIVE)
        identification = self._identifications.take(src, packet.dst, packet.protocol)
        sent = dataclasses.replace(packet, src=src, identification=identification)
        return self._sender.send(sent, way, ORIGINATE_TOO_LONG, now)

    def _refuse(
        self, port: int, octets: bytes, error: WireError, arrival: Arrival | None, now: float
    ) -> list[Output]:
        """Drop the frame, and tell its sender where that is due."""
        refusal = refusal_of(error)
        told: list[NeighborOutput] = []
        if arrival is not None and refusal is not None:
            subject = Subject(arrival.packet, arrival.quote, arrival.table, arrival.to_stations)
            try:
                told = self._errors.tell(refusal, subject, now, may_hand=arrival.may_hand)
            except HandOver as hand:
                return [Hand(hand.slot)]
        return [self._drop(port, error.reason, octets), *self._finished(told, now)]

    def _finished(self, outputs: list[NeighborOutput], now: float) -> list[Output]:
        """The outputs with each Deliver as the frame that it becomes, and each Undelivered told to who sent it."""
        finished: list[Output] = []
        for out in outputs:
            if isinstance(out, Deliver):
                finished.append(self._frame(out))
            elif isinstance(out, Undelivered):
                finished += self._tell_undelivered(out.packet, now)
            else:
                finished.append(out)
        return finished

    def _frame(self, out: Deliver) -> Transmit:
        interface = self._links.tables[out.port, out.vlan].interface
        frame = interface.frame(dst=out.mac, ethertype=ethernet.ETHERTYPE_IPV4, payload=out.packet)
        return Transmit(out.port, frame)

    def _tell_undelivered(self, octets: bytes, now: float) -> list[Output]:
        try:
            packet = ipv4.parse(octets)
        except WireError:  # of our own making, and no IPv4: there is nobody to tell
            return []
        refusal = Refusal(NEIGHBOR_UNRESOLVED, icmpv4.UNREACHABLE, icmpv4.HOST_UNREACHABLE)
        if packet.src not in self._links.addresses:
            return self._finished(self._errors.tell(refusal, Subject(packet, octets), now), now)
        return _own_error(octets, refusal) if self._local.is_awaited(packet) else []

    def _drop(self, port: int, reason: str, octets: bytes) -> Drop:
        self.counters[reason] += 1
        return Drop(port, reason, octets)


def _own_error(octets: bytes, refusal: Refusal) -> list[Output]:
    """Why a packet of ours was not sent, as if a router had said so."""
    message = Icmpv4Message(refusal.type, refusal.code, refusal.rest, octets[: icmpv4.QUOTE_OCTETS])
    try:
        about = icmpv4.quoted(message)
    except WireError:  # too short for anybody to know it again
        return []
    return [IcmpError(0, refusal.type, refusal.code, refusal.rest, about)]
