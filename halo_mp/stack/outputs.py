# SPDX-License-Identifier: Apache-2.0
"""What the stack tells its host to do: small frozen values, each naming its port and VLAN.

``vlan`` is 0 on the untagged interface of a port. Addresses are `int` in host order. All octets are the
receiver's.
"""

from dataclasses import dataclass
from enum import StrEnum

from halo_mp.wire.icmpv4 import QuotedPacket
from halo_mp.wire.ipv4 import Ipv4Packet


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send this frame, tag and padding included, out of the port."""

    port: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class Drop:
    """The end of a received frame, perhaps after it has waited, or of an IPv4 packet of ours, whose octets these
    are; counted by reason.
    """

    port: int
    reason: str
    octets: bytes


@dataclass(frozen=True, slots=True)
class Hand:
    """Give the received frame, as it came, to the worker of another slot; nothing else was done with it."""

    slot: int


@dataclass(frozen=True, slots=True)
class HandMade:
    """Give a frame of our own making to the worker of another slot, as if it had come in by the port."""

    slot: int
    port: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """A whole packet for a socket of this worker (see `halo_mp.stack.local_delivery`)."""

    port: int
    vlan: int
    packet: Ipv4Packet


@dataclass(frozen=True, slots=True)
class EchoReply:
    """The answer to an echo request of ours, whose identifier this worker listens to."""

    src: int
    dst: int
    identifier: int
    sequence: int
    ttl: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class IcmpError:
    """``src`` says that our packet ``about`` could not be delivered (RFC 792); it is 0 where the stack itself
    found out, before the packet left. ``rest`` is the second word of the message, such as the next-hop MTU.
    """

    src: int
    type: int
    code: int
    rest: int
    about: QuotedPacket


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
class NeighborUp:
    """A neighbor that is watched answers: for the first time, or again."""

    port: int
    vlan: int
    address: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class Used:
    """A neighbor that another worker keeps was sent to; not more often than each ``used_s``."""

    port: int
    vlan: int
    address: int


class Usability(StrEnum):
    """What the fast path may do with a neighbor."""

    REACHABLE = "reachable"  # send
    STALE = "stale"  # send, and tell the stack of the first time
    REPORT = "report"  # send, and tell the stack of it now and then: another worker keeps this neighbor
    INCOMPLETE = "incomplete"  # leave the packet to the stack, within the bound of what may wait
    FAILED = "failed"  # drop; the stack tells the sender
    GONE = "gone"  # not known any more: leave the packet to the stack


@dataclass(frozen=True, slots=True)
class NeighborUpdate:
    """The fast path's copy of a neighbor is to be this now. ``mac`` is None where there is none to send to."""

    port: int
    vlan: int
    address: int
    mac: bytes | None
    usability: Usability


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


Output = (
    Transmit
    | Drop
    | Hand
    | HandMade
    | Received
    | EchoReply
    | IcmpError
    | Learned
    | Forgotten
    | NeighborUp
    | Used
    | NeighborUpdate
    | AddressReady
    | Conflict
)


# Between a neighbor table and the router; the host never sees them.


@dataclass(frozen=True, slots=True)
class Deliver:
    """This packet may go to the neighbor with this MAC address now."""

    port: int
    vlan: int
    packet: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class Undelivered:
    """The neighbor did not answer, and the packet was dropped: who sent it hears of that (RFC 1812 section
    5.2.7.1).
    """

    packet: bytes


NeighborOutput = Output | Deliver | Undelivered
