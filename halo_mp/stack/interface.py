# SPDX-License-Identifier: Apache-2.0
"""An IPv4 interface: a port, or one VLAN of it, with any number of addresses. Values and arithmetic, no state.

Broadcast rules: RFC 919 and 922 (all ones), RFC 1122 section 3.3.6 (all zeros is the obsolete form and taken
as one), RFC 3021 (a /31 has two hosts and no broadcast). A /32 has no neighbors by prefix; routes may name
them. So may they on an interface without any address, which is called unnumbered (RFC 1812 section 2.2.7).
"""

from dataclasses import dataclass

from halo_mp.wire import ethernet, ipv4
from halo_mp.wire.octets import Octets, require_mac, require_width

MINIMUM_MTU = 68  # RFC 791: every link carries a packet of 68 octets
_ALL_ONES = 0xFFFFFFFF

Key = tuple[int, int]  # port and VLAN: what tells one interface from another


@dataclass(frozen=True, slots=True)
class Address:
    """An address of ours and the length of its subnet's prefix.

    ``probe`` asks for RFC 5227's probing before it is used, and that it is given up when another station has
    it: right for an address that came from a server. One that was configured is announced and kept.
    """

    address: int
    prefix_length: int
    probe: bool = False

    def __post_init__(self) -> None:
        require_width("address", self.address, 32)
        if not 0 <= self.prefix_length <= 32:
            raise ValueError(f"prefix_length is {self.prefix_length}, not within 0 to 32")
        if not ipv4.is_unicast(self.address) or self.is_broadcast(self.address):
            raise ValueError(f"{self} is not the address of a host")

    def __str__(self) -> str:
        return f"{ipv4.format_address(self.address)}/{self.prefix_length}"

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
        """Whether ``address`` is in the subnet."""
        return (address ^ self.address) & self.netmask == 0

    def is_broadcast(self, address: int) -> bool:
        """The subnet's broadcast address in either form. x.x.x.255 inside a /16 is a host."""
        return self.broadcast is not None and address in (self.broadcast, self.network)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """``vlan`` 0 is untagged; the first of ``addresses`` is the primary one.

    ``up``: frames are received and sent. ``forward``: packets that come in here may go on.
    ``directed_broadcast``: those to its subnets' broadcast addresses too (RFC 2644: off by default).
    ``redirects``: stations are told of better gateways on their own link (RFC 1812 section 5.2.7.2).
    ``proxy_arp``: requests for stations behind other interfaces are answered (RFC 1027);
    ``proxy_arp_subnet``: for such in the interface's own subnets as well.
    """

    port: int
    mac: bytes
    addresses: tuple[Address, ...] = ()
    vlan: int = 0
    mtu: int = 1500
    up: bool = True
    forward: bool = True
    directed_broadcast: bool = False
    redirects: bool = False
    proxy_arp: bool = False
    proxy_arp_subnet: bool = False

    def __post_init__(self) -> None:
        require_mac("mac", self.mac)
        if not ethernet.is_unicast(self.mac):
            raise ValueError(f"{ethernet.format_mac(self.mac)} is not the address of one station")
        if not 0 <= self.vlan <= 4094:
            raise ValueError(f"vlan is {self.vlan}, not within 0 to 4094")
        if not MINIMUM_MTU <= self.mtu <= ipv4.MAX_PACKET_OCTETS:
            raise ValueError(f"mtu is {self.mtu}, not within {MINIMUM_MTU} to {ipv4.MAX_PACKET_OCTETS}")
        if len({each.address for each in self.addresses}) != len(self.addresses):
            raise ValueError(f"port {self.port}, VLAN {self.vlan} has an address twice")
        for each in self.addresses:
            if self.is_broadcast(each.address):
                raise ValueError(f"{each} is a broadcast address of another prefix of its interface")

    def __str__(self) -> str:
        return ", ".join(map(str, self.addresses)) or "unnumbered"

    @property
    def key(self) -> Key:
        """Port and VLAN: what tells one interface from another."""
        return self.port, self.vlan

    @property
    def address(self) -> int:
        """The primary address; 0 where there is none."""
        return self.addresses[0].address if self.addresses else 0

    def contains(self, address: int) -> bool:
        """Whether ``address`` is in one of the interface's subnets, so on the link itself."""
        return any(each.contains(address) for each in self.addresses)

    def is_local(self, address: int) -> bool:
        """Whether ``address`` is one of the interface's own."""
        return any(each.address == address for each in self.addresses)

    def is_broadcast(self, address: int) -> bool:
        """The limited broadcast address, or one of the subnets' in either form."""
        return address == ipv4.LIMITED_BROADCAST or any(each.is_broadcast(address) for each in self.addresses)

    def is_neighbor(self, address: int) -> bool:
        """Whether another host can have ``address`` and be reached here, by prefix or by route."""
        return ipv4.is_unicast(address) and not self.is_local(address) and not self.is_broadcast(address)

    def frame(self, *, dst: bytes, ethertype: int, payload: Octets) -> bytes:
        """A frame from this interface, tagged for its VLAN and padded with zeros to Ethernet's minimum."""
        tags = (ethernet.VlanTag(self.vlan),) if self.vlan else ()
        return ethernet.pad(ethernet.EthernetFrame(dst, self.mac, ethertype, payload, tags).emit())
