# SPDX-License-Identifier: Apache-2.0
"""Answers to ICMP echo requests that the fast path did not finish: RFC 792, RFC 1122 sections 3.2.1.8 and
3.2.2.6.

The reply comes from the address that was pinged and keeps type of service, identifier, sequence number, data
and the options where they stand. Record route and timestamp get our entry, so that the requester sees the
whole round trip.

Refused: `icmp_broadcast_echo` (to a broadcast or multicast address: an amplifier), `ipv4_options` (malformed,
or a record with no room for a whole entry), `icmp_unhandled` (a request of another code than 0).

The reply's data is a view of the request's octets.
"""

from typing import Final

from halo_mp.stack.option_records import record
from halo_mp.stack.reasons import ICMP_BROADCAST_ECHO, ICMP_UNHANDLED
from halo_mp.wire import icmpv4
from halo_mp.wire.icmpv4 import Icmpv4Message
from halo_mp.wire.ipv4 import PROTOCOL_ICMP, Ipv4Packet
from halo_mp.wire.octets import WireError

REPLY_TTL: Final = 64


def answer(
    request: Icmpv4Message, packet: Ipv4Packet, *, to_group: bool, identification: int, now: float
) -> Ipv4Packet:
    """The reply to an echo request for us, which came in ``packet``; WireError when there is none.

    ``to_group`` says that the destination is a broadcast or multicast address; ``identification`` is the
    reply's.
    """
    if request.code != 0:
        raise WireError(ICMP_UNHANDLED)
    if to_group:
        raise WireError(ICMP_BROADCAST_ECHO)
    reply = Icmpv4Message(icmpv4.ECHO_REPLY, 0, request.rest, request.payload)
    return Ipv4Packet(
        src=packet.dst,
        dst=packet.src,
        protocol=PROTOCOL_ICMP,
        payload=reply.emit(),
        ttl=REPLY_TTL,
        tos=packet.tos,
        identification=identification,
        options=record(packet.options, packet.dst, now),
    )
