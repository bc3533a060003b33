# SPDX-License-Identifier: Apache-2.0
"""The names of drop counters that wire formats can give; the native side uses the same names.

A name is an identifier for ever: dashboards and alarms are built on it.
"""

from typing import Final

RUNT: Final = "runt"  # shorter than an Ethernet header
VLAN_TRUNCATED: Final = "vlan_truncated"
ARP_MALFORMED: Final = "arp_malformed"
IPV4_TRUNCATED: Final = "ipv4_truncated"  # fewer octets than a header without options
IPV4_VERSION: Final = "ipv4_version"
IPV4_HEADER_LENGTH: Final = "ipv4_header_length"  # IHL < 5
IPV4_TOTAL_LENGTH: Final = "ipv4_total_length"  # less than the header, or more than the octets there are
IPV4_CHECKSUM: Final = "ipv4_checksum"
IPV4_OPTIONS: Final = "ipv4_options"  # malformed
IPV4_FRAGMENT: Final = "ipv4_fragment"  # empty, or in the middle and no multiple of 8 octets
ICMP_TRUNCATED: Final = "icmp_truncated"
ICMP_CHECKSUM: Final = "icmp_checksum"
UDP_TRUNCATED: Final = "udp_truncated"
UDP_LENGTH: Final = "udp_length"
UDP_CHECKSUM: Final = "udp_checksum"
