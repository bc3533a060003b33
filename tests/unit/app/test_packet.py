# SPDX-License-Identifier: Apache-2.0
"""Packets as hooks see them, without a worker: the same C parses and settles them."""

from __future__ import annotations

from typing import Any

import pytest

from halo_mp.app import Packet, Verdict, address, format_address, reason
from halo_mp.wire import ethernet, ipv4, udp
from tests.support import frames

DST, SRC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
TCP = 6


def ip_frame(payload: bytes, protocol: int = ipv4.PROTOCOL_UDP, **more: Any) -> bytes:
    octets = frames.packet(src="10.0.0.2", dst="10.0.1.9", payload=payload, protocol=protocol, **more)
    return frames.frame(dst=DST, src=SRC, payload=octets)


def udp_frame(data: bytes = b"halo-mp!" * 4) -> bytes:
    datagram = udp.UdpDatagram(4000, 53, data).emit(src=address("10.0.0.2"), dst=address("10.0.1.9"))
    return ip_frame(datagram)


def assert_sound(frame: bytes) -> udp.UdpDatagram:
    """The checksums of a frame are right; return its datagram."""
    assert ipv4.check(frame[14:]) is None
    packet = ipv4.parse(frame[14:])
    assert udp.check(packet.payload, src=packet.src, dst=packet.dst) is None
    return udp.parse(packet.payload, src=packet.src, dst=packet.dst)


def test_fields_are_those_of_the_frame() -> None:
    packet = Packet.from_octets(udp_frame(), port=3)
    assert (packet.port, packet.length, packet.ethertype, packet.vlan) == (3, 74, 0x0800, 0)
    assert (packet.ipv4.src, packet.ipv4.dst) == (address("10.0.0.2"), address("10.0.1.9"))
    assert (packet.ipv4.ttl, packet.ipv4.protocol, packet.ipv4.length, packet.ipv4.version) == (64, 17, 60, 4)
    assert (packet.udp.sport, packet.udp.dport) == (4000, 53)
    assert (packet.l3_offset, packet.l4_offset) == (14, 34)
    assert bytes(packet.octets) == udp_frame()
    assert "10.0.0.2:4000 to 10.0.1.9:53, protocol 17" in repr(packet)


def test_ports_belong_to_their_protocol() -> None:
    tcp = Packet.from_octets(ip_frame((1234).to_bytes(2, "big") + (23).to_bytes(2, "big") + bytes(16), TCP))
    assert (tcp.tcp.sport, tcp.tcp.dport) == (1234, 23)
    assert (tcp.udp.sport, tcp.udp.dport) == (0, 0)
    datagram = Packet.from_octets(udp_frame())
    assert (datagram.tcp.sport, datagram.tcp.dport) == (0, 0)


def test_icmp_has_its_type_and_fragments_have_none() -> None:
    echo = Packet.from_octets(ip_frame(frames.icmp(8, 0), ipv4.PROTOCOL_ICMP))
    assert (echo.icmp.type, echo.icmp.code, echo.udp.dport) == (8, 0, 0)
    later = ip_frame(b"\x08\x01" + bytes(30), ipv4.PROTOCOL_ICMP, offset_octets=64)
    assert (Packet.from_octets(later).icmp.type, Packet.from_octets(later).icmp.code) == (0, 0)


def test_frame_that_is_no_ip_has_no_fields() -> None:
    frame = frames.frame(dst=DST, src=SRC, payload=bytes(28), ethertype=ethernet.ETHERTYPE_ARP)
    packet = Packet.from_octets(frame)
    assert packet.ethertype == 0x0806
    assert (packet.ipv4.version, packet.ipv4.src, packet.udp.dport) == (0, 0, 0)
    assert "ethertype 0x0806" in repr(packet)


def test_rewritten_fields_are_in_the_frame_with_checksums() -> None:
    packet = Packet.from_octets(udp_frame())
    packet.ipv4.dst = address("10.9.9.9")
    packet.ipv4.ttl -= 1
    packet.udp.dport = 5353
    settled = packet.settle()
    assert settled.verdict is Verdict.PASS
    datagram = assert_sound(settled.frame)
    parsed = ipv4.parse(settled.frame[14:])
    assert (format_address(parsed.dst), parsed.ttl, datagram.dst_port) == ("10.9.9.9", 63, 5353)


def test_ports_of_another_protocol_change_nothing() -> None:
    packet = Packet.from_octets(udp_frame())
    packet.tcp.dport = 80
    assert packet.settle().frame == udp_frame()


def test_what_is_not_to_be_written_is_put_back() -> None:
    packet = Packet.from_octets(udp_frame())
    packet.ipv4.protocol = TCP
    assert packet.settle().frame == udp_frame()
    assert packet.ipv4.protocol == 17


def test_octets_are_written_in_place() -> None:
    packet = Packet.from_octets(udp_frame())
    packet.octets[0:6] = b"\x02\x00\x00\x00\x00\x77"
    assert packet.settle().frame[:6] == b"\x02\x00\x00\x00\x00\x77"


def test_verdicts_and_reasons() -> None:
    packet = Packet.from_octets(udp_frame())
    assert packet.settle(Verdict.DROP).reason == "hook_drop"
    packet = Packet.from_octets(udp_frame())
    packet.reason = reason("ipv4_no_route")
    assert packet.settle(Verdict.DROP).reason == "ipv4_no_route"
    packet = Packet.from_octets(udp_frame())
    packet.tx_port = 7
    assert (packet.settle(Verdict.TRANSMIT).verdict, packet.tx_port) == (Verdict.TRANSMIT, 7)


def test_frame_that_reaches_no_hook_is_refused() -> None:
    with pytest.raises(ValueError, match="a worker drops it as ipv4_checksum"):
        Packet.from_octets(frames.changed(udp_frame(), 24, b"\x00\x00"))
    with pytest.raises(ValueError, match="a buffer holds 2048"):
        Packet.from_octets(bytes(3000))


def test_names_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="'because' is no drop reason"):
        reason("because")
    for text in ("10.0.0", "10.0.0.256", "10.0.0.010", "a.b.c.d", ""):
        with pytest.raises(ValueError, match="is not an IPv4 address"):
            address(text)
    with pytest.raises(AttributeError):
        _ = Packet.from_octets(udp_frame()).ipv4.source  # type: ignore[attr-defined]
    with pytest.raises(OverflowError):
        Packet.from_octets(udp_frame()).udp.dport = 70_000
