# SPDX-License-Identifier: Apache-2.0
"""The ARP packets that an interface sends, and whom it believes: RFC 826, RFC 5227 section 1.1. No state."""

from halo_mp.stack.interface import Interface
from halo_mp.stack.outputs import Transmit
from halo_mp.wire import arp, ethernet, ipv4


def probe(interface: Interface, address: int) -> Transmit:
    """Ask whether somebody has our address, without claiming it."""
    return request(interface, address, sender=ipv4.UNSPECIFIED, dst=ethernet.BROADCAST)


def announcement(interface: Interface, address: int) -> Transmit:
    """Tell everybody that the address is ours."""
    return request(interface, address, sender=address, dst=ethernet.BROADCAST)


def request(interface: Interface, address: int, *, sender: int, dst: bytes) -> Transmit:
    """Ask who has ``address``, as ``sender``: everybody, or the one station that had it last."""
    packet = arp.ArpPacket(
        operation=arp.REQUEST,
        sender_mac=interface.mac,
        sender_address=sender,
        target_mac=ethernet.ZERO_MAC,
        target_address=address,
    )
    return _transmit(interface, packet, dst)


def reply(interface: Interface, to: arp.ArpPacket) -> Transmit:
    """Answer a request, for our address or as proxy for another's, by unicast and with the fields swapped."""
    packet = arp.ArpPacket(
        operation=arp.REPLY,
        sender_mac=interface.mac,
        sender_address=to.target_address,
        target_mac=to.sender_mac,
        target_address=to.sender_address,
    )
    return _transmit(interface, packet, to.sender_mac)


def _transmit(interface: Interface, packet: arp.ArpPacket, dst: bytes) -> Transmit:
    frame = interface.frame(dst=dst, ethertype=ethernet.ETHERTYPE_ARP, payload=packet.emit())
    return Transmit(interface.port, frame)


def is_refused(interface: Interface, packet: arp.ArpPacket) -> bool:
    """Whether nobody can have sent this: not from one station, from no host's address, or of another
    operation.

    The other operations of the registry (reverse and inverse ARP) were never asked for here.
    """
    if packet.operation not in (arp.REQUEST, arp.REPLY) or not _is_station(interface, packet.sender_mac):
        return True
    if packet.sender_address == ipv4.UNSPECIFIED or interface.is_local(packet.sender_address):
        return False
    return not interface.is_neighbor(packet.sender_address)


def is_plausible(interface: Interface, address: int, mac: bytes) -> bool:
    """Whether a neighbor can have this pair of addresses."""
    return _is_station(interface, mac) and interface.is_neighbor(address)


def _is_station(interface: Interface, mac: bytes) -> bool:
    """Our own MAC address is none: as a neighbor's, it would send our packets back to us."""
    return ethernet.is_unicast(mac) and mac != interface.mac
