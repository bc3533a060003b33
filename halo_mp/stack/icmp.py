# SPDX-License-Identifier: Apache-2.0
"""Answers to ICMP echo requests that the fast path did not finish, and the errors that we send: RFC 792, RFC
1122 sections 3.2.1.8, 3.2.2 and 3.2.2.6.

The reply comes from the address that was pinged and keeps type of service, identifier, sequence number, data
and the options where they stand. Record route and timestamp get our entry, so that the requester sees the
whole round trip.

Refused: `icmp_broadcast_echo` (to a broadcast or multicast address: an amplifier), `ipv4_options` (malformed,
a source route, or a record with no room for a whole entry), `icmp_unhandled` (anything else than an echo
request of code 0: redirects too), and what `halo_mp.wire.icmpv4` refuses.

The reply's data is a view of the request's octets.
"""

from typing import Final

from halo_mp.stack.reasons import ICMP_BROADCAST_ECHO, ICMP_UNHANDLED
from halo_mp.wire import icmpv4, ipv4_options
from halo_mp.wire.ipv4 import PROTOCOL_ICMP, Ipv4Packet
from halo_mp.wire.octets import WireError, view
from halo_mp.wire.reasons import IPV4_OPTIONS

REPLY_TTL: Final = 64
ERROR_TOS: Final = 0xC0  # internetwork control: RFC 1812 section 4.3.2.5
REASSEMBLY: Final = 1  # the code of time exceeded

_POINTER_AT = 2  # within an option; the pointer itself counts from 1
_FLAG_AT = 3
_ADDRESS_OCTETS = 4
_MAX_OVERFLOW = 15
_NOT_SINCE_MIDNIGHT = 0x80000000


def answer(packet: Ipv4Packet, *, to_group: bool, identification: int, now: float) -> Ipv4Packet:
    """The reply to an ICMP packet for us; WireError with the drop reason when there is none.

    ``to_group`` says that the destination is a broadcast or multicast address; ``identification`` is the
    reply's.
    """
    message = icmpv4.parse(packet.payload)
    if message.type != icmpv4.ECHO_REQUEST or message.code != 0:
        raise WireError(ICMP_UNHANDLED)
    if to_group:
        raise WireError(ICMP_BROADCAST_ECHO)
    reply = icmpv4.Icmpv4Message(icmpv4.ECHO_REPLY, 0, message.rest, message.payload)
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


def reassembly_time_exceeded(first: Ipv4Packet, *, identification: int) -> Ipv4Packet | None:
    """The error about a packet of which only some fragments came, ``first`` among them; None about an error.

    Who calls sees to it that the packet was for us alone, and that errors are limited (RFC 1122 section 3.2.2).
    """
    payload = view(first.payload)
    if first.protocol == PROTOCOL_ICMP and payload and payload[0] in icmpv4.ERRORS:
        return None
    return Ipv4Packet(
        src=first.dst,
        dst=first.src,
        protocol=PROTOCOL_ICMP,
        payload=icmpv4.time_exceeded(REASSEMBLY, first.emit()).emit(),
        ttl=REPLY_TTL,
        tos=ERROR_TOS,
        identification=identification,
    )


def record(options: bytes, address: int, now: float) -> bytes:
    """``options`` with our ``address`` and the time recorded where asked for; WireError when refused."""
    recorded = bytearray(options)
    for option in ipv4_options.parse(options):
        if option.kind in ipv4_options.SOURCE_ROUTES:
            raise WireError(IPV4_OPTIONS)
        if option.kind == ipv4_options.RECORD_ROUTE:
            updated = _record_route(option.octets, address)
        elif option.kind == ipv4_options.TIMESTAMP:
            updated = _record_timestamp(option.octets, address, now)
        else:
            continue
        recorded[option.offset : option.offset + len(updated)] = updated
    return bytes(recorded)


def _record_route(option: bytes, address: int) -> bytes:
    """RFC 791: a full record is passed on as it is."""
    if option[_POINTER_AT] > len(option):
        return option
    return _put(option, address.to_bytes(_ADDRESS_OCTETS, "big"))


def _record_timestamp(option: bytes, address: int, now: float) -> bytes:
    """RFC 791: a full record counts who found no room; one whose count is full too is in error."""
    flag = option[_FLAG_AT] & 0xF
    own = address.to_bytes(_ADDRESS_OCTETS, "big")
    if option[_POINTER_AT] > len(option):
        return _count_overflow(option)
    if flag == ipv4_options.TIMESTAMP_ONLY:
        return _put(option, _timestamp(now))
    at = option[_POINTER_AT] - 1
    if flag == ipv4_options.TIMESTAMP_PRESPECIFIED and option[at : at + _ADDRESS_OCTETS] != own:
        return option
    return _put(option, own + _timestamp(now))


def _put(option: bytes, entry: bytes) -> bytes:
    at = option[_POINTER_AT] - 1
    if at + len(entry) > len(option):
        raise WireError(IPV4_OPTIONS)
    recorded = bytearray(option)
    recorded[at : at + len(entry)] = entry
    recorded[_POINTER_AT] += len(entry)
    return bytes(recorded)


def _count_overflow(option: bytes) -> bytes:
    if option[_FLAG_AT] >> 4 == _MAX_OVERFLOW:
        raise WireError(IPV4_OPTIONS)
    return option[:_FLAG_AT] + bytes((option[_FLAG_AT] + 0x10,)) + option[_FLAG_AT + 1 :]


def _timestamp(now: float) -> bytes:
    """Milliseconds of the monotonic clock. There is no midnight in it, which the high bit says (RFC 791)."""
    return (_NOT_SINCE_MIDNIGHT | int(now * 1000) & ~_NOT_SINCE_MIDNIGHT & 0xFFFFFFFF).to_bytes(4, "big")
