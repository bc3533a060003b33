# SPDX-License-Identifier: Apache-2.0
"""A frame in one line, for people."""

from __future__ import annotations

import time
from ipaddress import IPv4Address

_VLAN, _ARP, _IPV4 = 0x8100, 0x0806, 0x0800
_ETHERTYPES = {_ARP: "ARP", _IPV4: "IPv4", 0x86DD: "IPv6", _VLAN: "VLAN", 0x88CC: "LLDP"}
_PROTOCOLS = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 47: "GRE", 50: "ESP", 89: "OSPF"}
_ICMP = {0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request", 11: "time exceeded"}
_FRAGMENT = 0x1FFF
_MORE = 0x2000


def show_time(time_ns: int) -> str:
    """Return the time of day in nanoseconds."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest:09}"


def describe(octets: bytes) -> str:
    """Say what a frame is; it may be cut off anywhere."""
    if len(octets) < 14:
        return f"{len(octets)} octets"
    ethertype, at, tags = int.from_bytes(octets[12:14], "big"), 14, ""
    while ethertype == _VLAN and len(octets) >= at + 4:
        tags += f"VLAN {int.from_bytes(octets[at : at + 2], 'big') & 0xFFF} "
        ethertype, at = int.from_bytes(octets[at + 2 : at + 4], "big"), at + 4
    body = octets[at:]
    if ethertype == _IPV4 and len(body) >= 20:
        return tags + _ipv4(body)
    if ethertype == _ARP and len(body) >= 28:
        return tags + _arp(body)
    stations = f"{octets[6:12].hex(':')} > {octets[:6].hex(':')}"
    return f"{tags}{_ETHERTYPES.get(ethertype, f'EtherType 0x{ethertype:04x}')} {stations}"


def _arp(body: bytes) -> str:
    sender, target = IPv4Address(body[14:18]), IPv4Address(body[24:28])
    if body[7] == 1:
        return f"ARP who has {target}? tell {sender}"
    return f"ARP {sender} is at {body[8:14].hex(':')}"


def _ipv4(packet: bytes) -> str:
    src, dst = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    fragment = int.from_bytes(packet[6:8], "big")
    protocol = _PROTOCOLS.get(packet[9], f"protocol {packet[9]}")
    rest = f"TTL {packet[8]}"
    if fragment & (_FRAGMENT | _MORE):
        rest += f" fragment at {(fragment & _FRAGMENT) * 8}"
    payload = packet[4 * (packet[0] & 15) :]
    if fragment & _FRAGMENT:
        return f"{protocol} {src} > {dst} {rest}"
    if packet[9] in (6, 17) and len(payload) >= 4:
        ports = int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")
        return f"{protocol} {src}:{ports[0]} > {dst}:{ports[1]} {rest}"
    if packet[9] == 1 and payload:
        return f"ICMP {_ICMP.get(payload[0], f'type {payload[0]}')} {src} > {dst} {rest}"
    return f"{protocol} {src} > {dst} {rest}"
