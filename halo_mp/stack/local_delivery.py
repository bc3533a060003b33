# SPDX-License-Identifier: Apache-2.0
"""Packets for us, by whichever interface they came: RFC 1122 sections 3.2.1 and 3.2.2, RFC 1812 section 5.2.3.

Echo requests are answered. Echo replies and ICMP errors go to who waits for them. What is for a socket goes to the
worker that holds it, and what nobody wants is dropped by its name and told to its sender: 3/3 for UDP, 3/2 for
protocols that nobody speaks. Fragments wait for each other.

Which worker waits for an echo reply is in its identifier: the slot stands in the upper 6 bits.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Final

from halo_mp.stack import icmp_echo
from halo_mp.stack.arrival import Arrival, HandOver, Refusal
from halo_mp.stack.fragmentation import fragment
from halo_mp.stack.icmp_errors import IcmpErrors, Subject
from halo_mp.stack.identification import Identifications
from halo_mp.stack.links import Links
from halo_mp.stack.outputs import EchoReply, HandMade, IcmpError, NeighborOutput, Received
from halo_mp.stack.partial_datagram import Fragment
from halo_mp.stack.reasons import (
    ADDRESS_TENTATIVE,
    ICMP_UNHANDLED,
    NO_LISTENER,
    ORIGINATE_TOO_LONG,
    REASSEMBLY_TIMEOUT,
)
from halo_mp.stack.reassembly import Expiry, Reassembler
from halo_mp.stack.reassembly_settings import ReassemblySettings
from halo_mp.stack.sending import Sender
from halo_mp.wire import icmpv4, udp
from halo_mp.wire.ethernet import ETHERTYPE_IPV4
from halo_mp.wire.icmpv4 import Icmpv4Message, QuotedPacket
from halo_mp.wire.ipv4 import PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP, Ipv4Packet
from halo_mp.wire.octets import Octets, WireError, view

IDENTIFIERS_PER_SLOT: Final = 1024

_TOLD: Final = frozenset((icmpv4.UNREACHABLE, icmpv4.TIME_EXCEEDED, icmpv4.PARAMETER_PROBLEM))

# Protocol, our address and port, the peer's address and port: the slot whose worker has a socket for that.
OwnerOf = Callable[[int, int, int, int, int], int | None]


class LocalDelivery:
    """Delivers to the listeners of this worker, which are none but by ``owner_of`` and ``echo_identifiers``."""

    def __init__(
        self,
        links: Links,
        sender: Sender,
        errors: IcmpErrors,
        identifications: Identifications,
        *,
        slot: int,
        reassembly: ReassemblySettings | None,
        owner_of: OwnerOf | None,
        drops: Counter[str],
    ) -> None:
        self.echo_identifiers: set[int] = set()
        self.peers: frozenset[int] = frozenset()  # slots that frames may be handed to
        self._slot = slot
        self._links = links
        self._sender = sender
        self._errors = errors
        self._identifications = identifications
        self._owner_of = owner_of
        self._reassembler = Reassembler(reassembly, drops=drops)

    def receive(self, arrival: Arrival, now: float, *, to_group: bool) -> list[NeighborOutput]:
        """Act on a packet for us, or a group that we belong to."""
        packet = arrival.packet
        if not to_group and packet.dst in self._links.addresses and not self._links.is_usable(packet.dst):
            raise WireError(ADDRESS_TENTATIVE)
        if not packet.is_fragment:
            return self.deliver(arrival, now, to_group=to_group)
        fragment = Fragment(packet, *arrival.table.interface.key, arrival.octets)
        result = self._reassembler.receive(fragment, now)
        if result.packet is None:
            return [*result.drops]
        arrival.packet = result.packet
        arrival.quote = result.packet.emit()
        arrival.whole = False
        return self.deliver(arrival, now, to_group=to_group)

    def deliver(self, arrival: Arrival, now: float, *, to_group: bool = False) -> list[NeighborOutput]:
        """Act on a whole packet."""
        packet = arrival.packet
        if packet.protocol == PROTOCOL_ICMP:
            return self._receive_icmp(arrival, now, to_group=to_group)
        if packet.protocol == PROTOCOL_UDP:
            udp.parse(packet.payload, src=packet.src, dst=packet.dst)
        src_port, dst_port = _ports(packet.protocol, packet.payload)
        owner = self._owner(packet.protocol, packet.dst, dst_port, packet.src, src_port)
        if owner == self._slot:
            return [Received(*arrival.table.interface.key, packet)]
        if owner in self.peers and not arrival.handed:
            if arrival.whole:
                raise HandOver(owner)
            return self._hand_made(owner, arrival)
        closed = packet.protocol == PROTOCOL_UDP
        code = icmpv4.PORT_UNREACHABLE if closed else icmpv4.PROTOCOL_UNREACHABLE
        raise Refusal(NO_LISTENER, icmpv4.UNREACHABLE, code)

    def poll(self, now: float) -> list[NeighborOutput]:
        """End the fragments whose time is over."""
        return [out for expiry in self._reassembler.poll(now) for out in self._expire(expiry, now)]

    def next_deadline(self) -> float | None:
        return self._reassembler.next_deadline()

    def is_awaited(self, packet: Ipv4Packet) -> bool:
        """Whether somebody can want to know that a packet of ours did not get through."""
        if packet.protocol != PROTOCOL_ICMP:
            return True
        message = view(packet.payload)
        return bool(message) and message[0] == icmpv4.ECHO_REQUEST

    def _hand_made(self, slot: int, arrival: Arrival) -> list[NeighborOutput]:
        """A packet that came in no one frame, for a socket of another worker: in as many as it takes."""
        packet, interface = arrival.packet, arrival.table.interface
        if packet.size_octets > interface.mtu and not packet.identification:
            identification = self._identifications.take(packet.src, packet.dst, packet.protocol)
            packet = dataclasses.replace(packet, identification=identification)
        parts = fragment(dataclasses.replace(packet, flags=0), interface.mtu)
        frames = (
            interface.frame(dst=interface.mac, ethertype=ETHERTYPE_IPV4, payload=part.emit())
            for part in parts
        )
        return [HandMade(slot, interface.port, frame) for frame in frames]

    def _owner(self, protocol: int, address: int, port: int, peer: int, peer_port: int) -> int | None:
        return None if self._owner_of is None else self._owner_of(protocol, address, port, peer, peer_port)

    def _receive_icmp(self, arrival: Arrival, now: float, *, to_group: bool) -> list[NeighborOutput]:
        message = icmpv4.parse(arrival.packet.payload)
        if message.type == icmpv4.ECHO_REQUEST:
            return self._answer(message, arrival, now, to_group=to_group)
        if message.type == icmpv4.ECHO_REPLY and not to_group:
            return self._take_reply(message, arrival)
        if message.type in _TOLD and not to_group:
            return self._take_error(message, arrival)
        raise WireError(ICMP_UNHANDLED)

    def _answer(
        self, request: Icmpv4Message, arrival: Arrival, now: float, *, to_group: bool
    ) -> list[NeighborOutput]:
        packet = arrival.packet
        identification = self._identifications.take(packet.dst, packet.src, PROTOCOL_ICMP)
        reply = icmp_echo.answer(request, packet, to_group=to_group, identification=identification, now=now)
        if reply.dst in self._links.addresses:
            return self.deliver(Arrival(arrival.table, b"", reply, b""), now)
        try:
            way = self._sender.own_way(reply, arrival.table)
            self._sender.check_home(way, may_hand=arrival.may_hand)
            return self._sender.send(reply, way, ORIGINATE_TOO_LONG, now)
        except Refusal as refusal:  # the requester hears nothing of a reply that cannot reach it
            raise WireError(refusal.reason) from None

    def _take_reply(self, message: Icmpv4Message, arrival: Arrival) -> list[NeighborOutput]:
        self._check_awaited(message.identifier, arrival)
        packet = arrival.packet
        return [
            EchoReply(
                packet.src,
                packet.dst,
                message.identifier,
                message.sequence,
                packet.ttl,
                bytes(message.payload),
            )
        ]

    def _take_error(self, message: Icmpv4Message, arrival: Arrival) -> list[NeighborOutput]:
        """RFC 1122 section 3.2.2: to who sent the packet that it is about, which must be one of ours."""
        about = icmpv4.quoted(message)
        if about.src not in self._links.addresses:
            raise WireError(ICMP_UNHANDLED)
        self._check_concerned(about, arrival)
        return [IcmpError(arrival.packet.src, message.type, message.code, message.rest, about)]

    def _check_concerned(self, about: QuotedPacket, arrival: Arrival) -> None:
        if about.protocol == PROTOCOL_ICMP:
            if about.payload[0] != icmpv4.ECHO_REQUEST:
                raise WireError(ICMP_UNHANDLED)
            self._check_awaited(int.from_bytes(about.payload[4:6], "big"), arrival)
            return
        src_port, dst_port = _ports(about.protocol, about.payload)
        owner = self._owner(about.protocol, about.src, src_port, about.dst, dst_port)
        if owner in self.peers and arrival.may_hand:
            raise HandOver(owner)
        if owner != self._slot:
            raise WireError(ICMP_UNHANDLED)

    def _check_awaited(self, identifier: int, arrival: Arrival) -> None:
        """HandOver when another worker waits for this echo; WireError when nobody does."""
        if identifier in self.echo_identifiers:
            return
        slot = identifier // IDENTIFIERS_PER_SLOT
        if arrival.may_hand and slot in self.peers:
            raise HandOver(slot)
        raise WireError(ICMP_UNHANDLED)

    def _expire(self, expiry: Expiry, now: float) -> list[NeighborOutput]:
        """Who sent the fragments hears of it if the first one came (RFC 792)."""
        if expiry.first is None:
            return [*expiry.drops]
        packet = expiry.first.packet
        refusal = Refusal(REASSEMBLY_TIMEOUT, icmpv4.TIME_EXCEEDED, icmpv4.IN_REASSEMBLY)
        near = self._links.tables.get((expiry.first.port, expiry.first.vlan))
        subject = Subject(packet, packet.emit(), near)
        return [*expiry.drops, *self._errors.tell(refusal, subject, now)]


def _ports(protocol: int, payload: Octets) -> tuple[int, int]:
    """Source and destination port, 0 where there are none."""
    octets = bytes(view(payload)[:4])
    if protocol not in (PROTOCOL_TCP, PROTOCOL_UDP) or len(octets) < 4:
        return 0, 0
    return int.from_bytes(octets[:2], "big"), int.from_bytes(octets[2:], "big")
