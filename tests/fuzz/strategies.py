# SPDX-License-Identifier: Apache-2.0
"""Frames that are almost right: valid ones, cut, extended, with octets changed, and with checksums mended.

Random octets never get past the first check; a mended checksum is what lets a lie reach the code behind it.
"""

from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from halo_mp.wire import arp, ethernet, icmpv4
from halo_mp.wire.arp import ArpPacket
from halo_mp.wire.checksum import internet_checksum
from halo_mp.wire.ethernet import EthernetFrame, VlanTag
from halo_mp.wire.icmpv4 import Icmpv4Message
from halo_mp.wire.ipv4 import Ipv4Packet, parse_address
from halo_mp.wire.udp import UdpDatagram

T = TypeVar("T")

OUR_MAC = bytes.fromhex("020000000001")
OUR_ADDRESS = parse_address("192.0.2.1")
PEER_MAC = bytes.fromhex("02000000000a")
PEER_ADDRESS = parse_address("192.0.2.2")

_OPTIONS = [bytes.fromhex(text) for text in (
    "", "01", "00", "07 0b 04 00000000 00000000", "44 0c 05 00 00000000 00000000", "44 0c 05 01 00000000 00000000",
    "44 0c 05 03 c0000201 00000000", "83 07 04 c0000202", "89 07 04 c0000202", "94 04 0000", "5e 02",
)]  # fmt: skip


def mostly(usual: T, other: SearchStrategy[T]) -> SearchStrategy[T]:
    """The usual value in nine of ten draws: a frame has many fields, and one strange one is enough."""
    return st.integers(0, 9).flatmap(lambda number: other if number == 9 else st.just(usual))


macs = st.sampled_from(
    [OUR_MAC, PEER_MAC, ethernet.BROADCAST, bytes(6), bytes.fromhex("01005e000001")]
) | st.binary(min_size=6, max_size=6)
addresses = st.sampled_from(
    [parse_address(text) for text in (
        "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.255", "192.0.2.0", "255.255.255.255", "224.0.0.1", "0.0.0.0",
        "127.0.0.1", "198.51.100.1", "198.51.100.7", "10.0.0.1",
    )]
) | st.integers(0, 0xFFFFFFFF)  # fmt: skip
tags = st.lists(
    st.builds(
        VlanTag,
        st.sampled_from([0, 1, 10, 4095]),
        st.integers(0, 7),
        st.booleans(),
        st.sampled_from(sorted(ethernet.TPIDS)),
    ),
    max_size=2,
).map(tuple)
payloads = st.binary(max_size=64)

arps = st.builds(
    ArpPacket,
    operation=st.sampled_from([arp.REQUEST, arp.REPLY, 3, 0]),
    sender_mac=macs,
    sender_address=addresses,
    target_mac=macs,
    target_address=addresses,
)
messages = st.builds(
    Icmpv4Message,
    mostly(icmpv4.ECHO_REQUEST, st.sampled_from(sorted(icmpv4.ERRORS)) | st.integers(0, 255)),
    mostly(0, st.integers(0, 255)),
    st.integers(0, 0xFFFFFFFF),
    payloads,
)
datagrams = st.builds(UdpDatagram, st.integers(0, 65535), st.integers(0, 65535), payloads, st.booleans())
options = st.lists(st.sampled_from(_OPTIONS), max_size=3).map(lambda parts: b"".join(parts)[:40])


@st.composite
def packets(draw: st.DrawFn) -> Ipv4Packet:
    """IPv4 with ICMP, UDP or anything in it; most of them to us and from the peer."""
    src, dst = draw(mostly(PEER_ADDRESS, addresses)), draw(mostly(OUR_ADDRESS, addresses))
    protocol = draw(st.sampled_from([1, 1, 6, 17, 0, 255]))
    if protocol == 1:
        payload = draw(messages).emit()
    elif protocol == 17:
        payload = draw(datagrams).emit(src=src, dst=dst)
    else:
        payload = draw(payloads)
    return Ipv4Packet(
        src=src,
        dst=dst,
        protocol=protocol,
        payload=payload,
        ttl=draw(st.integers(0, 255)),
        tos=draw(st.integers(0, 255)),
        identification=draw(st.integers(0, 65535)),
        flags=draw(mostly(0, st.integers(0, 7))),
        fragment_offset_octets=draw(mostly(0, st.sampled_from([8, 65528]))),
        options=draw(options),
    )


@st.composite
def frames(draw: st.DrawFn) -> EthernetFrame:
    """Ethernet with ARP, IPv4 or anything in it; most of them to us and untagged."""
    ethertype = draw(st.sampled_from([0x0806, 0x0800, 0x0800, 0x86DD]))
    inner = packets().map(Ipv4Packet.emit) if ethertype == 0x0800 else arps.map(ArpPacket.emit)
    return EthernetFrame(
        draw(mostly(OUR_MAC, macs)),
        draw(mostly(PEER_MAC, macs)),
        ethertype,
        draw(inner) + draw(st.just(b"") | st.binary(max_size=20)),
        draw(mostly((), tags)),
    )


@st.composite
def spoiled(draw: st.DrawFn, of: SearchStrategy[bytes]) -> bytes:
    """Octets with a few changes, cut or extended, or as they are."""
    octets = bytearray(draw(of))
    for _ in range(draw(st.integers(0, 3))):
        if octets:
            at = draw(st.integers(0, len(octets) - 1))
            octets[at] = draw(
                st.sampled_from([0, 1, 4, 5, 0x45, 0x4F, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
            )
    keep = draw(st.just(len(octets)) | st.integers(0, len(octets)))
    return bytes(octets[:keep]) + draw(st.just(b"") | st.binary(max_size=8))


def mend_ipv4(octets: bytes) -> bytes:
    """The packet with the header checksum, and the ICMP checksum, that its octets ask for."""
    mended = bytearray(octets)
    header_octets = (mended[0] & 0xF) * 4 if mended else 0
    if not 20 <= header_octets <= len(mended):
        return octets
    mended[10:12] = bytes(2)
    mended[10:12] = internet_checksum(mended[:header_octets]).to_bytes(2, "big")
    end = int.from_bytes(mended[2:4], "big")
    if mended[9] == 1 and header_octets + 4 <= end <= len(mended):
        mended[header_octets + 2 : header_octets + 4] = bytes(2)
        checksum = internet_checksum(mended[header_octets:end])
        mended[header_octets + 2 : header_octets + 4] = checksum.to_bytes(2, "big")
    return bytes(mended)


def mend_frame(octets: bytes) -> bytes:
    """The frame with its IPv4 packet mended, where it has one behind the header without tags."""
    if octets[12:14] != b"\x08\x00":
        return octets
    return octets[:14] + mend_ipv4(octets[14:])


any_octets = st.binary(max_size=120)
wire_packets = spoiled(packets().map(Ipv4Packet.emit))
ipv4_octets = any_octets | wire_packets | wire_packets.map(mend_ipv4)
arp_octets = any_octets | spoiled(arps.map(ArpPacket.emit))
icmp_octets = any_octets | spoiled(messages.map(Icmpv4Message.emit))
udp_octets = any_octets | spoiled(datagrams.map(lambda datagram: datagram.emit(src=1, dst=2)))
option_octets = st.binary(max_size=40) | spoiled(options).map(lambda octets: octets[:40])
wire_frames = spoiled(frames().map(EthernetFrame.emit))
frame_octets = any_octets | wire_frames | wire_frames.map(mend_frame)
