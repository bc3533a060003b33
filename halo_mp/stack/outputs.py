# SPDX-License-Identifier: Apache-2.0
"""What the stack tells its host to do: small frozen values, each naming its port and VLAN.

``vlan`` is 0 on the untagged interface of a port. Addresses are `int` in host order. All octets are the
receiver's.
"""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send this frame, tag and padding included, out of the port."""

    port: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class Deliver:
    """A neighbor table's answer: this packet may go to the neighbor with this MAC address now."""

    port: int
    vlan: int
    packet: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class Drop:
    """The end of a received frame, perhaps after it has waited, or of an IPv4 packet of ours, whose octets these
    are; counted by reason.
    """

    port: int
    reason: str
    octets: bytes


@dataclass(frozen=True, slots=True)
class Learned:
    """The neighbor was heard at this MAC address: new, changed, or confirmed again (for tables elsewhere)."""

    port: int
    vlan: int
    address: int
    mac: bytes


class Loss(StrEnum):
    """Why a neighbor that had been learned is not in the table any more."""

    AGED = "aged"
    UNREACHABLE = "unreachable"
    EVICTED = "evicted"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The neighbor is not to be used any more: the next packet to it has to ask the stack."""

    port: int
    vlan: int
    address: int
    loss: Loss


@dataclass(frozen=True, slots=True)
class AddressReady:
    """The interface's address is ours: it may be answered for and sent from."""

    port: int
    vlan: int
    address: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another station uses the interface's address; ``abandoned`` says that we ceased to (or never began)."""

    port: int
    vlan: int
    address: int
    mac: bytes
    abandoned: bool


Output = Transmit | Drop | Learned | Forgotten | AddressReady | Conflict
NeighborOutput = Output | Deliver
