# SPDX-License-Identifier: Apache-2.0
"""Cutting a packet and putting it together gives it back; whatever fragments come, books and bounds are kept."""

import dataclasses
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halo_mp.stack.fragmentation import fragment
from halo_mp.stack.partial_datagram import OVERHEAD_OCTETS, Fragment
from halo_mp.stack.reassembly import Reassembler
from halo_mp.stack.reassembly_settings import ReassemblySettings
from halo_mp.wire import ipv4
from halo_mp.wire.ipv4 import Ipv4Packet
from tests.fuzz import strategies

NOW = 1000.0
SMALL = ReassemblySettings(timeout_s=10.0, datagrams=3, octets=20 * OVERHEAD_OCTETS, fragments=5)

bounded = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
whole_packets = st.builds(
    Ipv4Packet,
    src=st.just(1),
    dst=st.just(2),
    protocol=st.integers(0, 255),
    payload=st.binary(min_size=49, max_size=3000),
    ttl=st.integers(0, 255),
    tos=st.integers(0, 255).map(lambda tos: tos & 0xFC),
    identification=st.integers(0, 65535),
    options=strategies.options.filter(lambda options: len(options) % 4 == 0),
)


@st.composite
def parts_of_one(draw: st.DrawFn) -> tuple[Ipv4Packet, list[Ipv4Packet]]:
    """A packet and its fragments, some of them cut again by a narrower link, in any order."""
    packet = draw(whole_packets)
    mtu = draw(st.integers(68, packet.size_octets - 1).filter(lambda mtu: mtu < packet.size_octets))
    parts = fragment(packet, mtu)
    narrower = draw(st.integers(68, 1500))
    parts = [
        piece for part in parts for piece in (fragment(part, narrower) if draw(st.booleans()) else [part])
    ]
    return packet, draw(st.permutations(parts))


@bounded
@given(parts_of_one())
def test_fragments_in_any_order_give_the_packet_back(case: tuple[Ipv4Packet, list[Ipv4Packet]]) -> None:
    packet, parts = case
    reassembler = Reassembler(ReassemblySettings(fragments=1000, octets=1 << 24))
    received = [ipv4.parse(part.emit()) for part in parts]
    *before, last = (reassembler.receive(Fragment(part, 0, 0, b""), NOW) for part in received)
    assert all(result.packet is None and not result.drops for result in before)
    assert last.packet is not None
    assert last.packet.emit() == packet.emit()
    assert (len(reassembler), reassembler.octets, reassembler.next_deadline()) == (0, 0, None)


arrivals = st.builds(
    Ipv4Packet,
    src=st.just(1),
    dst=st.just(2),
    protocol=st.just(17),
    payload=st.integers(0, 33).map(lambda octets: bytes(range(octets))),
    identification=st.integers(0, 4),
    flags=st.integers(0, 7),
    fragment_offset_octets=st.integers(0, 6).map(lambda units: units * 8) | st.sampled_from([65512, 65528]),
    options=st.sampled_from([b"", b"\x01" * 40]),
).filter(lambda packet: packet.is_fragment)


@bounded
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.0, 1.0, 6.0]), arrivals), max_size=60))
def test_any_fragments_keep_books_and_bounds(events: list[tuple[float, Ipv4Packet]]) -> None:
    reassembler = Reassembler(SMALL)
    now, ended, used = NOW, Counter[str](), 0
    for number, (pause, packet) in enumerate(events):
        now += pause
        for expiry in reassembler.poll(now):
            ended.update(drop.reason for drop in expiry.drops)
        fragment_ = Fragment(packet, 0, 0, number.to_bytes(4, "big"))
        kept = reassembler.octets
        result = reassembler.receive(fragment_, now)
        ended.update(drop.reason for drop in result.drops)
        if result.packet is not None:
            assert ipv4.check(result.packet.emit()) is None
            assert not result.packet.is_fragment
            used += (kept - reassembler.octets) // fragment_.charge_octets + 1
        assert len(reassembler) <= SMALL.datagrams
        assert reassembler.octets <= SMALL.octets
    for expiry in reassembler.poll(now + SMALL.timeout_s + 1):
        ended.update(drop.reason for drop in expiry.drops)
    assert ended == reassembler.drops
    assert ended.total() + used == len(events), "each fragment ends once"
    assert (len(reassembler), reassembler.octets, reassembler.next_deadline()) == (0, 0, None)


@bounded
@given(strategies.packets(), st.integers(68, 1500))
def test_fragments_of_any_packet_fit_and_carry_its_payload(packet: Ipv4Packet, mtu: int) -> None:
    packet = dataclasses.replace(packet, flags=packet.flags & ~ipv4.FLAG_DONT_FRAGMENT, options=b"")
    if packet.fragment_offset_octets + packet.size_octets > ipv4.MAX_PACKET_OCTETS:
        return
    parts = fragment(packet, mtu)
    assert all(part.size_octets <= mtu for part in parts)
    assert b"".join(part.payload for part in parts) == packet.payload
    assert all(part.flags & ipv4.FLAG_MORE_FRAGMENTS for part in parts[:-1])
    assert parts[-1].flags == packet.flags
