# SPDX-License-Identifier: Apache-2.0
"""The ICMP errors that we send: about what, from which address, with which quote, and how many. RFC 792, RFC
1122 section 3.2.2, RFC 1812 sections 4.3.2 and 5.2.7.

Never about an ICMP error, a packet for a group of hosts or in a frame for a group of stations, a fragment
other than the first, or a packet from what no single host can be (RFC 1812 section 4.3.2.7).

The source is an address of the interface that the error leaves by (section 4.3.2.4): the one that the packet was
sent to, if it is among them, else as `OwnAddresses.source` chooses.

One token bucket for the whole worker, not one for each interface: what it protects, the worker's time and the
hosts that strangers may name as sources, does not get more with interfaces.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from halo_mp.stack.arrival import Refusal
from halo_mp.stack.identification import Identifications
from halo_mp.stack.links import Links
from halo_mp.stack.neighbor import NeighborTable
from halo_mp.stack.outputs import NeighborOutput
from halo_mp.stack.reasons import ORIGINATE_TOO_LONG
from halo_mp.stack.sending import Sender, Way
from halo_mp.stack.token_bucket import TokenBucket
from halo_mp.wire import icmpv4
from halo_mp.wire.icmpv4 import Icmpv4Message
from halo_mp.wire.ipv4 import PROTOCOL_ICMP, Ipv4Packet
from halo_mp.wire.octets import Octets, WireError, view

ERROR_TTL: Final = 64
ERROR_TOS: Final = 0xC0  # precedence 6, internetwork control (RFC 1812 section 4.3.2.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class IcmpErrorSettings:
    """At most ``rate`` errors a second, and ``burst`` at once (RFC 1812 section 4.3.2.8)."""

    rate: float = 100.0
    burst: int = 50

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate is {self.rate}, not above 0")
        if self.burst < 1:
            raise ValueError(f"burst is {self.burst}, not at least 1")


@dataclass(frozen=True, slots=True)
class Subject:
    """What an error is about: a packet, its octets to quote, and the interface that it came in by, if known."""

    packet: Ipv4Packet
    quote: Octets
    near: NeighborTable | None = None
    to_stations: bool = False


class IcmpErrors:
    """Sends errors, within the limits. ``events["icmp_suppressed"]`` counts those above the rate,
    ``events["icmp_no_way"]`` those that no route leads back for, or that
    we have no address yet to send from.
    """

    def __init__(
        self,
        links: Links,
        sender: Sender,
        identifications: Identifications,
        settings: IcmpErrorSettings,
        *,
        events: Counter[str],
    ) -> None:
        self._links = links
        self._sender = sender
        self._identifications = identifications
        self._bucket = TokenBucket(settings.rate, settings.burst)
        self._events = events

    def may_be_told(self, subject: Subject) -> bool:
        """Whether an error about the packet is allowed."""
        packet = subject.packet
        if subject.to_stations or packet.fragment_offset_octets:
            return False
        if not self._links.is_host(packet.src) or not self._links.is_host(packet.dst):
            return False
        return packet.protocol != PROTOCOL_ICMP or not _is_error(packet.payload)

    def tell(
        self, refusal: Refusal, subject: Subject, now: float, *, may_hand: bool = False
    ) -> list[NeighborOutput]:
        """Tell the packet's source why it was refused, if it may be told; HandOver when another worker has to."""
        if not self.may_be_told(subject):
            return []
        message = Icmpv4Message(
            refusal.type, refusal.code, refusal.rest, view(subject.quote)[: icmpv4.QUOTE_OCTETS]
        )
        try:
            way = self._sender.own_way(_shell(subject.packet), subject.near)
            self._sender.check_home(way, may_hand=may_hand)
        except WireError:
            self._events["icmp_no_way"] += 1  # the packet is counted, and no error was made
            return []
        src = self._source(subject, way)
        if not self._links.may_speak_as(src):
            self._events["icmp_no_way"] += 1
            return []
        if not self._bucket.take(now):
            self._events["icmp_suppressed"] += 1
            return []
        return self._sender.send(self._packet(message, src, subject.packet.src), way, ORIGINATE_TOO_LONG, now)

    def _source(self, subject: Subject, way: Way) -> int:
        interface, asked = way[0].interface, subject.packet.dst
        return asked if interface.is_local(asked) else self._links.addresses.source(interface, way[1])

    def _packet(self, message: Icmpv4Message, src: int, dst: int) -> Ipv4Packet:
        return Ipv4Packet(
            src=src,
            dst=dst,
            protocol=PROTOCOL_ICMP,
            payload=message.emit(),
            ttl=ERROR_TTL,
            tos=ERROR_TOS,
            identification=self._identifications.take(src, dst, PROTOCOL_ICMP),
        )


def _shell(about: Ipv4Packet) -> Ipv4Packet:
    """What the error looks like to a route, which may choose by addresses and protocol."""
    return Ipv4Packet(src=about.dst, dst=about.src, protocol=PROTOCOL_ICMP, payload=b"")


def _is_error(message: Octets) -> bool:
    """Of a message too short for a type nobody knows what it is, so it is taken for one."""
    octets = view(message)
    return not octets or octets[0] in icmpv4.ERRORS
