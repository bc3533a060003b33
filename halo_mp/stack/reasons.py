# SPDX-License-Identifier: Apache-2.0
"""The names of drop counters that the stack adds to the wire formats'; the native side uses the same."""

from typing import Final

NO_INTERFACE: Final = "no_interface"  # nothing is configured on the port
VLAN_UNKNOWN: Final = "vlan_unknown"  # no interface of the port has that VLAN; nobody takes two tags
ETHERTYPE_UNKNOWN: Final = "ethertype_unknown"
NOT_FOR_US: Final = "not_for_us"  # neither our MAC address nor a group
L2_MULTICAST: Final = "l2_multicast"  # to a group of stations, but to one host (RFC 1122 section 3.3.6)
ETHERNET_SOURCE: Final = "ethernet_source"  # from a group, or from our own MAC address: a loop or a forgery
ARP_REFUSED: Final = "arp_refused"  # neither request nor reply, or from a sender that nobody can be
IPV4_MARTIAN: Final = "ipv4_martian"  # an address that must not be seen on a wire
IPV4_NOT_LOCAL: Final = "ipv4_not_local"  # not ours, and not to be forwarded
IPV4_NO_ROUTE: Final = "ipv4_no_route"
IPV4_BLACKHOLE: Final = "ipv4_blackhole"  # the route says so, as the next two
IPV4_UNREACHABLE: Final = "ipv4_unreachable"
IPV4_PROHIBITED: Final = "ipv4_prohibited"
IPV4_TTL: Final = "ipv4_ttl"
IPV4_TOO_BIG: Final = "ipv4_too_big"  # for the next link, and not to be fragmented
IPV4_SOURCE_ROUTE: Final = "ipv4_source_route"  # refused by policy
IPV4_DIRECTED_BROADCAST: Final = "ipv4_directed_broadcast"  # to a subnet whose interface does not allow it
IPV4_LINK_LOCAL: Final = "ipv4_link_local"  # 169.254.0.0/16 is not forwarded (RFC 3927 section 2.7)
INTERFACE_DOWN: Final = "interface_down"
INTERFACE_REMOVED: Final = "interface_removed"  # while the packet waited there
REASSEMBLY_DUPLICATE: Final = "reassembly_duplicate"  # the very same fragment has come already
REASSEMBLY_OVERLAP: Final = (
    "reassembly_overlap"  # fragments that overlap, or disagree about the end (RFC 5722)
)
REASSEMBLY_FRAGMENTS: Final = "reassembly_fragments"  # of a datagram in more fragments than one may have
REASSEMBLY_TOO_LONG: Final = "reassembly_too_long"  # of a packet of more than 65,535 octets
REASSEMBLY_FULL: Final = "reassembly_full"  # made room for others
REASSEMBLY_TIMEOUT: Final = "reassembly_timeout"
ADDRESS_TENTATIVE: Final = "address_tentative"  # our address is not ours yet, or not any more (RFC 5227)
ICMP_BROADCAST_ECHO: Final = "icmp_broadcast_echo"
ICMP_UNHANDLED: Final = "icmp_unhandled"
NO_LISTENER: Final = "no_listener"
NEIGHBOR_HOLD_FULL: Final = "neighbor_hold_full"
NEIGHBOR_UNRESOLVED: Final = "neighbor_unresolved"
ORIGINATE_TOO_LONG: Final = (
    "originate_too_long"  # longer than the MTU of the interface, and not to be fragmented
)
