# SPDX-License-Identifier: Apache-2.0
"""What a router has to do, by requirement: RFC 791, 792, 826, 1122, 1191, 1812, 5227; and old faults that must not
come back. `@meets("...")` stands before the tests of each, and test_checklist.py finds those that have none.

Choosing among equal paths is the tables' work and tested there.
"""

from collections.abc import Callable
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., None])

REQUIREMENTS = {
    "echo.identical": "Echo: addresses swapped; identifier, sequence number and data identical",
    "echo.sizes": "Echo of any size up to the reassembly limit",
    "echo.odd": "Echo with an odd number of octets has a right checksum",
    "echo.broadcast": "Echo to a broadcast address is ignored",
    "echo.tos": "The reply keeps the type of service",
    "echo.source": "The reply comes from the address that was pinged",
    "receive.lengths": "Frame length >= total length >= header length, else a silent, counted drop",
    "receive.version": "Version 4 and IHL >= 5, else a silent, counted drop",
    "receive.checksum": "A wrong header checksum is a silent, counted drop",
    "receive.padding": "Ethernet padding behind the packet is ignored",
    "ttl.local": "Delivered locally whatever the TTL is",
    "ttl.forward": "Forwarded with a TTL that is lower by one",
    "ttl.exceeded": "A TTL that would be 0 ends in an error 11/0",
    "ttl.checksum": "The incremental checksum is right for all values",
    "error.quote": "Errors quote the header and as much as fits into 576 octets",
    "error.original": "The quote is what the sender sent",
    "error.source": "The source is an address of the interface that the error leaves by",
    "error.ttl": "Errors have a TTL of 64 and precedence 6",
    "error.errors": "Never an error about an ICMP error",
    "error.groups": "Never an error about a broadcast or multicast, on the link or in IP",
    "error.fragments": "Never an error about a fragment other than the first",
    "error.sources": "Never an error to 0, loopback, multicast or broadcast",
    "error.rate": "Errors are limited, and those that were suppressed are counted",
    "error.no-route": "3/0 where there is no route",
    "error.host": "3/1 when the neighbor did not answer, and not before",
    "error.protocol": "3/2 for a protocol that nobody speaks",
    "error.port": "3/3 for a closed port",
    "error.too-big": "3/4 with the next link's MTU",
    "error.prohibited": "3/13 where a route says so",
    "error.options": "12/0 for a bad option, with where it is",
    "error.redirect": "5/1 only on one and the same interface, to a source on its link",
    "fragment.offsets": "Fragments begin at multiples of 8 octets",
    "fragment.options": "Only options that ask for it are copied to all fragments",
    "fragment.flags": "More-fragments is set on all but the last, and kept when a fragment is cut again",
    "reassembly.bounds": "Reassembly ends after its time, and has bounds",
    "reassembly.overlap": "Fragments that overlap are rejected",
    "reassembly.timeout": "11/1 at the time-out, only if the first fragment is there",
    "options.unknown": "Unknown options are forwarded unchanged",
    "options.source-route": "Source routes are dropped",
    "options.records": "Record route and timestamp are filled in",
    "forward.longest": "The longest prefix wins",
    "forward.default": "0.0.0.0/0 leads everywhere else",
    "forward.martians": "Martian sources and destinations are dropped",
    "forward.l2-group": "What comes in a frame for a group is never forwarded",
    "forward.directed-broadcast": "Directed broadcasts are forwarded only where that is on",
    "forward.limited-broadcast": "255.255.255.255 is local only",
    "forward.31-32": "/31 and /32 links work",
    "forward.255": "x.x.x.255 inside a /16 is a host",
    "forward.link-local": "169.254.0.0/16 is not forwarded (RFC 3927)",
    "arp.fields": "Hardware, protocol and lengths are checked",
    "arp.merge": "Known senders are updated; unknown ones are learned only if we are the target",
    "arp.reply": "Replies are unicast, with the fields swapped",
    "arp.senders": "Group MAC addresses, and addresses of no host, are never learned",
    "arp.mismatch": "A sender that is not the frame's source is counted",
    "arp.throttle": "At most one request a second for each destination",
    "arp.hold": "At least the latest packet is held, and sent on the reply",
    "arp.failure": "After three requests: unreachable, queue dropped, sources told, not asked for a while",
    "arp.refresh": "Refreshed by unicast while in use, removed when silent",
    "arp.move": "Another MAC address in a reply is accepted",
    "arp.static": "Static entries are not touched",
    "arp.capacity": "The table has a bound, the least recently used go, and are counted",
    "acd.probe": "Three probes from 0, 1 to 2 s apart after 0 to 1 s, then 2 s",
    "acd.conflict": "A sender with our address, or a probe for it, is a conflict",
    "acd.announce": "Announced twice, 2 s apart",
    "acd.defend": "Defended once in 10 s",
    "acd.rate": "After 10 conflicts 60 s between tries",
    "acd.probes-answered": "Probes are answered, their senders not learned",
    "arp.proxy": "Proxy ARP only where it is on",
    "arp.once": "Of two workers on one port one answers",
    "arp.sync": "What one worker has learned another can use",
    "old.total-length": "A total length that lies neither crashes nor reads old octets",
    "old.last-route": "Taking away the last route of a prefix leaves no route, and no crash",
    "old.errors": "A limit for errors, and none about errors",
    "old.broadcast": "x.x.x.255 is no broadcast by itself, and directed ones of other prefixes are known",
    "old.udp-zero": "A UDP checksum of 0 is accepted, a computed 0 is sent as 0xffff",
    "old.arp-sweep": "A sweep asks nobody twice a second and fills no table",
    "old.loopback": "A packet to ourselves arrives at once",
}


def meets(*requirements: str) -> Callable[[Test], Test]:
    """Say which requirements a test is for."""
    unknown = set(requirements) - set(REQUIREMENTS)
    if unknown or not requirements:
        raise ValueError(f"no such requirement: {sorted(unknown)}")
    return lambda test: test
