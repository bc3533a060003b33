# SPDX-License-Identifier: Apache-2.0
"""What is dropped: each frame raises exactly its own counter, and the stack says nothing, or sends the error that is
due.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from halo_mp.wire import icmpv4, ipv4
from tests.interop.conftest import Tap
from tests.support import frames
from tests.support.accounts import Tally
from tests.support.frames import changed, datagram, echo_request, icmp, mended, packet, tag
from tests.support.station import Heard

KERNEL, OURS = "10.77.0.2", "10.77.0.1"
STRANGER = bytes.fromhex("020000000099")
OURSELVES = b"ours: "  # stands for our stack's MAC address, which only the instance knows
GROUP = bytes.fromhex("030000000001")
LLDP, SPANNING_TREE = bytes.fromhex("0180c200000e"), bytes.fromhex("0180c2000000")
TCP, EXPERIMENT = 6, 253


class Case(NamedTuple):
    """A frame that is dropped: what it is, the counter that it raises, and how it is made."""

    name: str
    reason: str
    make: Callable[[Tap], bytes]


def ip(reason: str, name: str, octets: bytes, *, dst: bytes | None = None, src: bytes | None = None) -> Case:
    """A case of an IPv4 packet in a good frame; or from a station, or to one, that makes the case."""
    return Case(
        name, reason, lambda tap: tap.frame(octets, dst=dst, src=tap.mac if src is OURSELVES else src)
    )


def ether(reason: str, name: str, ethertype: int, payload: bytes, *, dst: bytes | None = None) -> Case:
    """A case of another EtherType."""
    return Case(name, reason, lambda tap: tap.frame(payload, ethertype=ethertype, dst=dst))


def tagged(reason: str, name: str, tags: bytes) -> Case:
    """A case of an echo request behind tags."""
    return Case(name, reason, lambda tap: tap.frame(ECHO, tags=tags))


def arp(reason: str, name: str, edit: Callable[[bytes], bytes]) -> Case:
    """A case of an ARP request of the kernel's side for our address, edited."""

    def make(tap: Tap) -> bytes:
        body = frames.arp_packet(1, sender_mac=tap.station.mac, sender=KERNEL, target=OURS)
        return tap.frame(edit(body), ethertype=frames.ARP, dst=frames.BROADCAST)

    return Case(name, reason, make)


def echo(reason: str, name: str, *, src: str = KERNEL, dst: str = OURS, options: bytes = b"") -> Case:
    """A case of an echo request with other addresses or with options."""
    return ip(reason, name, packet(src=src, dst=dst, payload=echo_request(), options=options))


def to_us(payload: bytes, *, protocol: int = ipv4.PROTOCOL_ICMP, **fields: int) -> bytes:
    """A packet from the kernel's side to us."""
    return packet(src=KERNEL, dst=OURS, payload=payload, protocol=protocol, **fields)  # type: ignore[arg-type]


def udp(payload: bytes) -> bytes:
    """A packet with what may be a datagram."""
    return to_us(payload, protocol=ipv4.PROTOCOL_UDP)


ECHO = to_us(echo_request())
UDP = datagram(src=KERNEL, dst=OURS, dst_port=9)
QUOTE = packet(src=OURS, dst=KERNEL, payload=UDP, protocol=ipv4.PROTOCOL_UDP)

ETHERNET = [
    tagged("vlan_unknown", "tagged for a VLAN that nobody has", tag(5)),
    tagged("vlan_unknown", "tagged for the reserved VLAN", tag(4095)),
    tagged("vlan_unknown", "two tags", tag(5) + tag(6)),
    tagged("ethertype_unknown", "hop from no VLAN to another", tag(0) + tag(5)),
    tagged("ethertype_unknown", "an S-tag", tag(5, tpid=0x88A8)),
    Case("tag without a type behind it", "vlan_truncated", lambda tap: tap.frame(b"", tags=tag(0))[:16]),
    ether("ethertype_unknown", "IPv6", 0x86DD, b"\x60" + bytes(39)),
    ether("ethertype_unknown", "IPv6 to a group", 0x86DD, b"\x60" + bytes(39), dst=b"\x33\x33\0\0\0\1"),
    ether("ethertype_unknown", "LLDP", 0x88CC, bytes(46), dst=LLDP),
    ether(
        "ethertype_unknown",
        "spanning tree, with a length",
        38,
        b"\x42\x42\x03" + bytes(43),
        dst=SPANNING_TREE,
    ),
    ether("ethertype_unknown", "loopback test", 0x9000, bytes(46)),
    ether("ethertype_unknown", "nothing but an Ethernet header", 0x1234, b""),
    ip("not_for_us", "to another station", ECHO, dst=STRANGER),
    ip("ethernet_source", "from our own MAC address", ECHO, src=OURSELVES),
    ip("ethernet_source", "from a group of stations", ECHO, src=GROUP),
    ip("ethernet_source", "from no station", ECHO, src=bytes(6)),
    ip("l2_multicast", "datagram to one host, to all stations", udp(UDP), dst=frames.BROADCAST),
    ip("icmp_broadcast_echo", "echo to one host, to all stations", ECHO, dst=frames.BROADCAST),
    echo("l2_multicast", "to a group of hosts", dst="224.0.0.1"),
]

ARP = [
    arp("arp_malformed", "other hardware", lambda body: changed(body, 0, b"\0\6")),
    arp("arp_malformed", "other protocol", lambda body: changed(body, 2, b"\x08\x01")),
    arp("arp_malformed", "other length of MAC addresses", lambda body: changed(body, 4, b"\x08")),
    arp("arp_malformed", "other length of addresses", lambda body: changed(body, 5, b"\x10")),
    arp("arp_malformed", "truncated", lambda body: body[:27]),
    arp("arp_malformed", "empty", lambda body: b""),
    arp("arp_refused", "reverse request", lambda body: changed(body, 6, b"\0\3")),
    arp("arp_refused", "operation 0", lambda body: changed(body, 6, b"\0\0")),
    arp("arp_refused", "from a group of stations", lambda body: changed(body, 8, GROUP)),
    arp("arp_refused", "from no station", lambda body: changed(body, 8, bytes(6))),
    arp("arp_refused", "from the broadcast address", lambda body: changed(body, 14, b"\x0a\x4d\0\xff")),
    arp("arp_refused", "from a group of hosts", lambda body: changed(body, 14, b"\xe0\0\0\1")),
    Case(
        "request from our own MAC address",
        "ethernet_source",
        lambda tap: tap.frame(
            frames.arp_packet(1, sender_mac=tap.mac, sender=KERNEL, target=OURS),
            ethertype=frames.ARP,
            src=tap.mac,
            dst=frames.BROADCAST,
        ),
    ),
]

IPV4 = [
    ip("ipv4_truncated", "shorter than a header", ECHO[:19]),
    ip("ipv4_truncated", "empty", b""),
    ip("ipv4_version", "version 6", mended(changed(ECHO, 0, b"\x65"))),
    ip("ipv4_version", "version 0", mended(changed(ECHO, 0, b"\x05"))),
    ip("ipv4_header_length", "IHL 4", mended(changed(ECHO, 0, b"\x44"))),
    ip("ipv4_header_length", "IHL 0", mended(changed(ECHO, 0, b"\x40"))),
    ip("ipv4_total_length", "IHL beyond the total length", mended(changed(ECHO, 0, b"\x4f"))),
    ip("ipv4_total_length", "total length 0", mended(changed(ECHO, 2, b"\0\0"))),
    ip("ipv4_total_length", "total length below the header's", mended(changed(ECHO, 2, b"\0\x13"))),
    ip(
        "ipv4_total_length",
        "one octet more than there are",
        mended(changed(ECHO, 3, bytes((len(ECHO) + 1,)))),
    ),
    ip("ipv4_total_length", "total length 65535", mended(changed(ECHO, 2, b"\xff\xff"))),
    ip("ipv4_checksum", "wrong header checksum", changed(ECHO, 10, b"\x12\x34")),
    ip("ipv4_checksum", "TTL changed on the way", changed(ECHO, 8, b"\x3f")),
    ip("ipv4_fragment", "first fragment, no multiple of 8", to_us(bytes(23), flags=ipv4.FLAG_MORE_FRAGMENTS)),
    ip("ipv4_fragment", "empty first fragment", to_us(b"", flags=ipv4.FLAG_MORE_FRAGMENTS)),
    ip("ipv4_fragment", "empty last fragment", to_us(b"", offset_octets=1480)),
    ip("reassembly_too_long", "fragment beyond 65535", to_us(bytes(64), offset_octets=65528)),
    echo("ipv4_martian", "from nobody", src="0.0.0.0"),
    echo("ipv4_martian", "from 0/8", src="0.1.2.3"),
    echo("ipv4_martian", "from loopback", src="127.0.0.1"),
    echo("ipv4_martian", "from a group", src="224.0.0.1"),
    echo("ipv4_martian", "from 240/4", src="240.0.0.1"),
    echo("ipv4_martian", "from everybody", src="255.255.255.255"),
    echo("ipv4_martian", "from the subnet's broadcast address", src="10.77.0.255"),
    echo("ipv4_martian", "from the subnet's own name", src="10.77.0.0"),
    echo("ipv4_martian", "to nobody", dst="0.0.0.0"),
    echo("ipv4_martian", "from us to us", src=OURS),
    echo("ipv4_martian", "from us to all", src=OURS, dst="10.77.0.255"),
    echo("ipv4_no_route", "to a host elsewhere", dst="192.0.2.1"),
    echo("ipv4_martian", "to loopback", dst="127.0.0.1"),
    echo("ipv4_options", "option without an end", options=b"\x07\x03\x04\x44"),
    echo("ipv4_options", "option of length 0", options=b"\x07\0\x04\0"),
    echo("ipv4_options", "option of length 1", options=b"\x07\1\x04\0"),
    echo("ipv4_options", "option beyond the header", options=b"\x07\x28\x04\0"),
    echo("ipv4_source_route", "loose source route", options=b"\x83\x07\x04\x0a\x4d\0\x63\0"),
    echo("ipv4_source_route", "strict source route, exhausted", options=b"\x89\x07\x08\x0a\x4d\0\x63\0"),
    echo("ipv4_options", "record route, pointer in its header", options=b"\x07\x07\x03\0\0\0\0\0"),
    echo("ipv4_options", "record route, pointer between entries", options=b"\x07\x07\x05\0\0\0\0\0"),
    echo("ipv4_options", "record route twice", options=b"\x07\x07\x04\0\0\0\0\x07\x07\x04\0\0\0\0\0\0"),
    echo("ipv4_options", "timestamp of an unknown kind", options=b"\x44\x08\x05\x02\0\0\0\0"),
    echo("ipv4_options", "timestamp whose count is full", options=b"\x44\x08\x09\xf0\0\0\0\0"),
    ip("no_listener", "protocol that nobody speaks", to_us(bytes(8), protocol=EXPERIMENT)),
    ip("no_listener", "TCP", to_us(b"\x9c\x40\0\x50" + bytes(8) + b"\x50\2\0\0\0\0\0\0", protocol=TCP)),
    ip("no_listener", "TCP, cut off", to_us(b"\x9c", protocol=TCP)),
]

ICMP = [
    ip("icmp_truncated", "shorter than its header", to_us(echo_request()[:7])),
    ip("icmp_truncated", "empty", to_us(b"")),
    ip("icmp_checksum", "wrong checksum", to_us(changed(echo_request(), 2, b"\x12\x34"))),
    ip("icmp_checksum", "data changed on the way", to_us(changed(echo_request(), 20, b"\xff"))),
    echo("icmp_broadcast_echo", "to the subnet", dst="10.77.0.255"),
    echo("icmp_broadcast_echo", "to everybody", dst="255.255.255.255"),
    echo("icmp_broadcast_echo", "to the subnet, with an option", dst="10.77.0.255", options=b"\1"),
    ip("icmp_unhandled", "echo of another code", to_us(echo_request(code=1))),
    ip("icmp_unhandled", "reply that nobody asked for", to_us(icmp(0))),
    ip("icmp_unhandled", "timestamp request", to_us(icmp(13, data=bytes(12)))),
    ip("icmp_unhandled", "address mask request", to_us(icmp(17, data=bytes(4)))),
    ip("icmp_unhandled", "unknown type", to_us(icmp(255))),
    ip("icmp_unhandled", "redirect", to_us(icmp(5, 1, 0x0A4D0063, QUOTE[:28]))),
    ip("icmp_unhandled", "source quench", to_us(icmp(4, data=QUOTE[:28]))),
    ip("icmp_unhandled", "fragmentation needed, MTU 68", to_us(icmp(3, 4, 68, QUOTE[:28]))),
    ip("icmp_truncated", "redirect that quotes too little", to_us(icmp(5, 1, 0x0A4D0063, QUOTE[:27]))),
    ip("icmp_truncated", "unreachable that quotes nothing", to_us(icmp(3, 3))),
]

UDP_CASES = [
    ip("udp_truncated", "shorter than its header", udp(UDP[:7])),
    ip("udp_truncated", "empty", udp(b"")),
    ip("udp_length", "length below the header's", udp(changed(UDP, 4, b"\0\7"))),
    ip("udp_length", "length beyond the packet", udp(changed(UDP, 4, b"\0\x0d"))),
    ip("udp_checksum", "wrong checksum", udp(changed(UDP, 6, b"\x12\x34"))),
    ip("udp_checksum", "data changed on the way", udp(changed(UDP, 8, b"\xff"))),
    ip("no_listener", "no checksum", udp(datagram(src=KERNEL, dst=OURS, dst_port=9, has_checksum=False))),
    ip(
        "no_listener",
        "echo to echo",
        udp(changed(datagram(src=KERNEL, dst=OURS, dst_port=7), 0, b"\0\7\0\7\0\x0c\0\0")),
    ),
]

CASES = [*ETHERNET, *ARP, *IPV4, *ICMP, *UDP_CASES]
"""Left out is `runt`: no kernel sends fewer than 14 octets."""


TOLD = {
    "ipv4_no_route": icmpv4.UNREACHABLE,
    "ipv4_options": icmpv4.PARAMETER_PROBLEM,
    "ipv4_source_route": icmpv4.UNREACHABLE,
    "no_listener": icmpv4.UNREACHABLE,
}
"""The drops that their sender hears of."""


def name_of(case: Case) -> str:
    """A readable id."""
    return f"{case.reason}-{case.name}".replace(" ", "_")


@pytest.fixture(autouse=True)
def _quiet(tap: Tap) -> Iterator[None]:
    """Kernel and stack know each other and ask for nothing meanwhile; the kernel gets an answer afterwards."""
    tap.introduce()
    yield
    tap.namespace.pinged(tap.ours, count=1)


def dropped(happened: Tally) -> tuple[dict[str, int], int, int]:
    """Return the drops, and how many frames the stack sent: echo replies, and what it made itself."""
    return dict(happened.drops), happened.worker["tx_frames"], happened.worker["originated"]


def errors_in(heard: list[Heard]) -> list[int]:
    """Return the ICMP types of the packets; ARP requests may be among the frames."""
    packets = [ipv4.parse(frame.octets[14:]) for frame in heard if frame.ethertype == frames.IPV4]
    assert all(packet.protocol == ipv4.PROTOCOL_ICMP for packet in packets)
    return [packet.payload[0] for packet in packets]


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_running_gets_a_bad_frame_and_counts_it(tap: Tap, case: Case) -> None:
    happened, heard = tap.send(case.make(tap))
    drops, sent, originated = dropped(happened)
    assert drops == {case.reason: 1}
    assert errors_in(heard) == ([TOLD[case.reason]] if case.reason in TOLD else [])
    # What goes out now and then besides is the question whether the kernel is still there.
    assert (case.reason in TOLD) <= sent == originated <= 2
    assert happened.driver["released"] == 1


def test_running_gets_all_bad_frames_at_once(tap: Tap) -> None:
    happened, heard = tap.send(*[case.make(tap) for case in CASES] * 10)
    wanted = Counter(case.reason for case in CASES * 10)
    drops, sent, originated = dropped(happened)
    assert drops == wanted
    # The errors, as many as the rate allows.
    assert sent == originated
    assert 0 < len(errors_in(heard)) <= sum(wanted[reason] for reason in TOLD)
    assert set(errors_in(heard)) <= set(TOLD.values())
    tap.wait_for_buffers()


def test_running_gets_every_protocol(tap: Tap) -> None:
    others = [number for number in range(256) if number not in (ipv4.PROTOCOL_ICMP, ipv4.PROTOCOL_UDP)]
    happened, heard = tap.send(*[tap.frame(to_us(bytes(8), protocol=number)) for number in others])
    drops, sent, originated = dropped(happened)
    assert drops == {"no_listener": len(others)}
    assert sent == originated
    assert len(errors_in(heard)) <= len(others)
    assert set(errors_in(heard)) == {icmpv4.UNREACHABLE}


def test_running_gets_a_packet_truncated_everywhere(tap: Tap) -> None:
    whole = tap.frame(ECHO)
    happened, heard = tap.send(*[whole[:octets] for octets in range(14, len(whole))])
    assert dropped(happened) == ({"ipv4_truncated": 20, "ipv4_total_length": len(ECHO) - 20}, 0, 0)
    assert heard == []
