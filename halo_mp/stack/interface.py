# SPDX-License-Identifier: Apache-2.0
"""An IPv4 interface: one address on one port or one VLAN of it. Values and arithmetic, no state.

Broadcast rules: RFC 919 and 922 (all ones), RFC 1122 section 3.3.6 (all zeros is the obsolete form and taken
as one), RFC 3021 (a /31 has two hosts and no broadcast). A /32 has no neighbors by prefix; routes may name
them.
"""

from dataclasses import dataclass

from halo_mp.wire import ethernet, ipv4
from halo_mp.wire.octets import Octets, require_mac, require_width

MINIMUM_MTU = 68  # RFC 791: every link carries a packet of 68 octets
_ALL_ONES = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """``vlan`` 0 is untagged; ``address`` 0 means none yet: such an interface neither answers nor asks."""

    port: int
    mac: bytes
    address: int
    prefix_length: int
    vlan: int = 0
    mtu: int = 1500

    def __post_init__(self) -> None:
        require_mac("mac", self.mac)
        if not ethernet.is_unicast(self.mac):
            raise ValueError(f"{ethernet.format_mac(self.mac)} is not the address of one station")
        if not 0 <= self.vlan <= 4094:
            raise ValueError(f"vlan is {self.vlan}, not within 0 to 4094")
        if not 0 <= self.prefix_length <= 32:
            raise ValueError(f"prefix_length is {self.prefix_length}, not within 0 to 32")
        if not MINIMUM_MTU <= self.mtu <= ipv4.MAX_PACKET_OCTETS:
            raise ValueError(f"mtu is {self.mtu}, not within {MINIMUM_MTU} to {ipv4.MAX_PACKET_OCTETS}")
        require_width("address", self.address, 32)
        if self.address and (not ipv4.is_unicast(self.address) or self.is_broadcast(self.address)):
            raise ValueError(f"{self} is not the address of a host")

    def __str__(self) -> str:
        return f"{ipv4.format_address(self.address)}/{self.prefix_length}"

    @property
    def key(self) -> tuple[int, int]:
        """Port and VLAN: what tells one interface from another."""
        return self.port, self.vlan

    @property
    def netmask(self) -> int:
        return _ALL_ONES << (32 - self.prefix_length) & _ALL_ONES

    @property
    def network(self) -> int:
        return self.address & self.netmask

    @property
    def broadcast(self) -> int | None:
        """The subnet's broadcast address; None for /31 and /32, which have none."""
        return None if self.prefix_length >= 31 else self.network | ~self.netmask & _ALL_ONES

    def contains(self, address: int) -> bool:
        """Whether ``address`` is in the interface's subnet, so on the link itself."""
        return bool(self.address) and (address ^ self.address) & self.netmask == 0

    def is_local(self, address: int) -> bool:
        """Whether ``address`` is the interface's own."""
        return bool(self.address) and address == self.address

    def is_broadcast(self, address: int) -> bool:
        """The limited broadcast address, or the subnet's in either form. x.x.x.255 inside a /16 is a host."""
        if address == ipv4.LIMITED_BROADCAST:
            return True
        return self.broadcast is not None and bool(self.address) and address in (self.broadcast, self.network)

    def is_neighbor(self, address: int) -> bool:
        """Whether another host can have ``address`` and be reached here, by prefix or by route."""
        return ipv4.is_unicast(address) and not self.is_local(address) and not self.is_broadcast(address)

    def frame(self, *, dst: bytes, ethertype: int, payload: Octets) -> bytes:
        """A frame from this interface, tagged for its VLAN and padded with zeros to Ethernet's minimum."""
        tags = (ethernet.VlanTag(self.vlan),) if self.vlan else ()
        return ethernet.pad(ethernet.EthernetFrame(dst, self.mac, ethertype, payload, tags).emit())
