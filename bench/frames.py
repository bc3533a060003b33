# SPDX-License-Identifier: Apache-2.0
"""Frames to measure with: UDP in IPv4 in Ethernet, and the pcap file that net_pcap reads."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from halo_mp.wire import ethernet, ipv4, udp

_SRC_MAC, _DST_MAC = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")
_PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
_HEADERS_OCTETS = 14 + 20 + 8


def udp_frame(number: int, octets: int, *, ttl: int = 64) -> bytes:
    """Return frame `number`, `octets` long, with addresses and ports that depend on its number."""
    src, dst = ipv4.parse_address("10.0.0.2"), ipv4.parse_address("10.0.1.0") + number % 256
    payload = bytes(octets - _HEADERS_OCTETS)
    datagram = udp.UdpDatagram(1024 + number, 2000, payload).emit(src=src, dst=dst)
    packet = ipv4.Ipv4Packet(src=src, dst=dst, protocol=ipv4.PROTOCOL_UDP, ttl=ttl, payload=datagram).emit()
    return ethernet.EthernetFrame(_DST_MAC, _SRC_MAC, ethernet.ETHERTYPE_IPV4, packet).emit()


def write_pcap_to(path: Path, destinations: Sequence[int], *, octets: int, dst_mac: str) -> None:
    """Write a frame to each of these addresses, all to one MAC address, from as many source ports."""
    src = ipv4.parse_address("10.0.0.2")
    dst_octets = bytes.fromhex(dst_mac.replace(":", ""))
    payload = bytes(octets - _HEADERS_OCTETS)
    with path.open("wb") as file:
        file.write(_PCAP_HEADER)
        for number, dst in enumerate(destinations):
            datagram = udp.UdpDatagram(1024 + number % 60000, 2000, payload).emit(src=src, dst=dst)
            packet = ipv4.Ipv4Packet(src=src, dst=dst, protocol=ipv4.PROTOCOL_UDP, payload=datagram).emit()
            frame = ethernet.EthernetFrame(dst_octets, _SRC_MAC, ethernet.ETHERTYPE_IPV4, packet).emit()
            file.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)


def write_pcap(path: Path, *, octets: int, count: int) -> None:
    """Write `count` different frames."""
    records = (udp_frame(number, octets) for number in range(count))
    path.write_bytes(_PCAP_HEADER + b"".join(struct.pack("<IIII", 0, 0, len(f), len(f)) + f for f in records))
