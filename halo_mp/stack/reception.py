# SPDX-License-Identifier: Apache-2.0
"""Checks of a received frame that need no more than the frame: RFC 1122 sections 2.3.1 and 3.3.6, RFC 1812 section
5.3.13. No state.
"""

from halo_mp.stack.arrival import Arrival, Refusal
from halo_mp.stack.neighbor import NeighborTable
from halo_mp.stack.reasons import ETHERNET_SOURCE, IPV4_SOURCE_ROUTE, NOT_FOR_US, VLAN_UNKNOWN
from halo_mp.wire import ethernet, icmpv4, ipv4, ipv4_options
from halo_mp.wire.octets import WireError


def arrival_of(
    table: NeighborTable, frame: ethernet.EthernetFrame, octets: bytes, *, handed: bool
) -> Arrival:
    """The IPv4 packet in a frame, with what an error about it needs; WireError when it is none."""
    packet = ipv4.parse(frame.payload)
    return Arrival(
        table,
        octets,
        packet,
        frame.payload[: packet.size_octets],
        to_stations=ethernet.is_multicast(frame.dst),
        handed=handed,
        whole=True,
    )


def vlan_of(tags: tuple[ethernet.VlanTag, ...]) -> int:
    """The VLAN that a frame belongs to, 0 for none; WireError for tags that nobody takes."""
    if not tags:
        return 0
    if len(tags) > 1 or tags[0].tpid != ethernet.TPID_C_TAG:
        raise WireError(VLAN_UNKNOWN)
    return tags[0].vid


def check_stations(frame: ethernet.EthernetFrame, own_mac: bytes, *, handed: bool) -> None:
    """WireError unless the frame is for us or a group, and from another station, or made by another worker."""
    if frame.dst != own_mac and not ethernet.is_multicast(frame.dst):
        raise WireError(NOT_FOR_US)
    if not ethernet.is_unicast(frame.src) or (frame.src == own_mac and not handed):
        raise WireError(ETHERNET_SOURCE)


def check_options(options: bytes) -> None:
    """OptionError when an option is malformed, Refusal when one is a source route."""
    if not options:
        return
    if any(option.kind in ipv4_options.SOURCE_ROUTES for option in ipv4_options.parse(options)):
        raise Refusal(IPV4_SOURCE_ROUTE, icmpv4.UNREACHABLE, icmpv4.SOURCE_ROUTE_FAILED)


def refusal_of(error: WireError) -> Refusal | None:
    """What the sender is to be told, if anything: bad options too (RFC 1812 section 5.2.7.1)."""
    if isinstance(error, ipv4_options.OptionError):
        return Refusal(error.reason, icmpv4.PARAMETER_PROBLEM, 0, error.pointer << 24)
    return error if isinstance(error, Refusal) else None
