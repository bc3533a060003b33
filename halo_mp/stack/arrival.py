# SPDX-License-Identifier: Apache-2.0
"""A received packet on its way through the router, and the two other ways out than an answer. Values only."""

from dataclasses import dataclass

from halo_mp.stack.neighbor import NeighborTable
from halo_mp.wire.ipv4 import Ipv4Packet
from halo_mp.wire.octets import Octets, WireError


@dataclass(slots=True)
class Arrival:
    """An IPv4 packet, and how it came. ``quote`` is what an error quotes: the packet as it was received.

    ``to_stations`` says that the frame was for a group of them, ``handed`` that another worker gave it to us,
    ``whole`` that ``octets`` are the frame in which all of the packet came.
    """

    table: NeighborTable
    octets: bytes
    packet: Ipv4Packet
    quote: Octets
    to_stations: bool = False
    handed: bool = False
    whole: bool = False

    @property
    def may_hand(self) -> bool:
        """Whether the frame may be given to another worker as it came."""
        return self.whole and not self.handed


class Refusal(WireError):  # noqa: N818 - it says whose error it is: the sender's, who is told
    """A drop that the sender is told of by an ICMP error, unless no error may be sent (RFC 1812 section 4.3.2.7).

    ``rest`` is the second word of the message.
    """

    def __init__(self, reason: str, type_: int, code: int, rest: int = 0) -> None:
        super().__init__(reason)
        self.type = type_
        self.code = code
        self.rest = rest


class HandOver(Exception):  # noqa: N818 - no error, but a way out
    """The frame has to go to the worker of another slot."""

    def __init__(self, slot: int) -> None:
        super().__init__(slot)
        self.slot = slot
