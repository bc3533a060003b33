# SPDX-License-Identifier: Apache-2.0
"""Print the frames of a pcap file, decoded by halo_mp.wire, and by which name the stack would drop the wrong ones.

Reads the classic format, as `tcpdump -w` writes it, with Ethernet frames.
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from halo_mp.wire import WireError, arp, ethernet, icmpv4, ipv4, udp

MAGICS = {
    magic.to_bytes(4, order): (order, scale)
    for order in ("big", "little")
    for magic, scale in ((0xA1B2C3D4, 1e6), (0xA1B23C4D, 1e9))
}
ETHERNET = 1


def frames(octets: bytes) -> Iterator[tuple[float, bytes]]:
    """Yield (seconds, frame) for each record. Raises ValueError when that is no such file."""
    order, scale = MAGICS.get(octets[:4], ("", 0.0))
    if not order or len(octets) < 24:
        raise ValueError("that is no pcap file of the classic format (pcapng: editcap -F pcap old new)")
    mark = "<" if order == "little" else ">"
    if struct.unpack_from(f"{mark}I", octets, 20)[0] & 0xFFFF != ETHERNET:
        raise ValueError("its frames are not Ethernet")
    at = 24
    while at + 16 <= len(octets):
        seconds, fraction, captured, _ = struct.unpack_from(f"{mark}IIII", octets, at)
        yield seconds + fraction / scale, octets[at + 16 : at + 16 + captured]
        at += 16 + captured


def decode(octets: bytes) -> str:
    """Return a frame as one line. Raises WireError with the name of the drop."""
    frame = ethernet.parse(octets)
    tags = "".join(f" vlan {tag.vid}" for tag in frame.tags)
    head = f"{frame.src.hex(':')} > {frame.dst.hex(':')}{tags}"
    if frame.ethertype == ethernet.ETHERTYPE_ARP:
        return f"{head} {decode_arp(arp.parse(frame.payload))}"
    if frame.ethertype == ethernet.ETHERTYPE_IPV4:
        return f"{head} {decode_ipv4(ipv4.parse(frame.payload))}"
    return f"{head} ethertype {frame.ethertype:#06x}, {len(frame.payload)} octets"


def decode_arp(packet: arp.ArpPacket) -> str:
    """Return an ARP packet in words."""
    sender, target = ipv4.format_address(packet.sender_address), ipv4.format_address(packet.target_address)
    if packet.operation == arp.REQUEST:
        return f"ARP who has {target}, tell {sender}"
    return f"ARP {sender} is at {packet.sender_mac.hex(':')}"


def decode_ipv4(packet: ipv4.Ipv4Packet) -> str:
    """Return an IPv4 packet in words, with what it carries."""
    head = f"{ipv4.format_address(packet.src)} > {ipv4.format_address(packet.dst)} ttl {packet.ttl}"
    if packet.is_fragment:
        return f"{head} fragment at {packet.fragment_offset_octets}"
    if packet.protocol == ipv4.PROTOCOL_ICMP:
        message = icmpv4.parse(packet.payload)
        return f"{head} ICMP type {message.type} code {message.code}, {len(message.payload)} octets"
    if packet.protocol == ipv4.PROTOCOL_UDP:
        datagram = udp.parse(packet.payload, src=packet.src, dst=packet.dst)
        return f"{head} UDP {datagram.src_port} > {datagram.dst_port}, {len(datagram.payload)} octets"
    return f"{head} protocol {packet.protocol}, {len(packet.payload)} octets"


def main() -> int:
    """Print a line for each frame. Returns 1 when some of them are wrong, 2 when the file is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    wrong = 0
    try:
        for seconds, octets in frames(parser.parse_args().file.read_bytes()):
            try:
                print(f"{seconds:.6f} {decode(octets)}")
            except WireError as error:
                wrong += 1
                print(f"{seconds:.6f} {len(octets)} octets, dropped: {error.reason}")
    except (OSError, ValueError) as error:
        sys.stderr.write(f"decode: {error}\n")
        return 2
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
