# SPDX-License-Identifier: Apache-2.0
"""Frames as octets, good ones and ones that lie. Addresses are texts, MAC addresses octets."""

from __future__ import annotations

from halo_mp.wire import arp, ethernet, icmpv4, ipv4, udp
from halo_mp.wire.checksum import internet_checksum

BROADCAST = ethernet.BROADCAST
IPV4, ARP = ethernet.ETHERTYPE_IPV4, ethernet.ETHERTYPE_ARP
_CHECKSUM_AT = 10


def frame(*, dst: bytes, src: bytes, payload: bytes, ethertype: int = IPV4, tags: bytes = b"") -> bytes:
    """Return a frame without padding; `tags` stand as they are behind the source."""
    return dst + src + tags + ethertype.to_bytes(2, "big") + payload


def tag(vid: int, *, priority: int = 0, tpid: int = ethernet.TPID_C_TAG) -> bytes:
    """Return the four octets of an 802.1Q tag."""
    return tpid.to_bytes(2, "big") + ethernet.VlanTag(vid, priority).control.to_bytes(2, "big")


def packet(
    *,
    src: str,
    dst: str,
    payload: bytes,
    protocol: int = ipv4.PROTOCOL_ICMP,
    ttl: int = 64,
    tos: int = 0,
    flags: int = 0,
    offset_octets: int = 0,
    options: bytes = b"",
) -> bytes:
    """Return an IPv4 packet with the right lengths and checksum."""
    value = ipv4.Ipv4Packet(
        src=ipv4.parse_address(src),
        dst=ipv4.parse_address(dst),
        protocol=protocol,
        payload=payload,
        ttl=ttl,
        tos=tos,
        identification=0x4D50,
        flags=flags,
        fragment_offset_octets=offset_octets,
        options=options,
    )
    return value.emit()


def echo_request(data: bytes = b"halo-mp, odd!", *, code: int = 0, sequence: int = 1) -> bytes:
    """Return an ICMP echo request."""
    return icmp(icmpv4.ECHO_REQUEST, code, 0x4D500000 | sequence, data)


def icmp(kind: int, code: int = 0, rest: int = 0, data: bytes = b"") -> bytes:
    """Return an ICMP message with its checksum."""
    return icmpv4.Icmpv4Message(kind, code, rest, data).emit()


def datagram(*, src: str, dst: str, dst_port: int, data: bytes = b"halo", has_checksum: bool = True) -> bytes:
    """Return a UDP datagram."""
    value = udp.UdpDatagram(40000, dst_port, data, has_checksum)
    return value.emit(src=ipv4.parse_address(src), dst=ipv4.parse_address(dst))


def arp_packet(
    operation: int,
    *,
    sender_mac: bytes,
    sender: str,
    target: str,
    target_mac: bytes = ethernet.ZERO_MAC,
) -> bytes:
    """Return the 28 octets of an ARP packet."""
    value = arp.ArpPacket(
        operation=operation,
        sender_mac=sender_mac,
        sender_address=ipv4.parse_address(sender),
        target_mac=target_mac,
        target_address=ipv4.parse_address(target),
    )
    return value.emit()


def changed(octets: bytes, at: int, new: bytes) -> bytes:
    """Return the octets with some of them replaced, checksums as they were."""
    return octets[:at] + new + octets[at + len(new) :]


def mended(packet_octets: bytes) -> bytes:
    """Return an IPv4 packet with a right header checksum, whatever else its header says."""
    header_octets = min(max((packet_octets[0] & 15) * 4, 20), len(packet_octets))
    cleared = changed(packet_octets, _CHECKSUM_AT, bytes(2))
    checksum = internet_checksum(cleared[:header_octets])
    return changed(cleared, _CHECKSUM_AT, checksum.to_bytes(2, "big"))


def announcement(*, mac: bytes, address: str) -> bytes:
    """Return the frame by which RFC 5227 announces an address, padded to Ethernet's minimum."""
    body = arp_packet(arp.REQUEST, sender_mac=mac, sender=address, target=address)
    return frame(dst=BROADCAST, src=mac, ethertype=ARP, payload=body).ljust(60, b"\0")
