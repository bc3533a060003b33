# SPDX-License-Identifier: Apache-2.0
"""Whatever the octets: control packets are parsed or refused, FEC gives what it was given, and no more is raised.

The core's own are in native/tests/kcp_fuzz_test.c, under the sanitizers, and against the reference in tests/unit/kcp.
"""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halo_mp.kcp import control
from halo_mp.kcp.control import ControlKind, ControlPacket
from halo_mp.kcp.fec import OVERHEAD, FecDecoder, FecEncoder, FecSettings
from halo_mp.wire.octets import WireError
from tests.unit.kcp import golden

bounded = settings(
    max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
packets = st.builds(
    ControlPacket, st.sampled_from(list(ControlKind)), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)
)
changes = st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=3)
SMALL = FecSettings(data=3, parity=2, size_octets=64)


def changed(octets: bytes, at: list[tuple[int, int]]) -> bytes:
    out = bytearray(octets)
    for place, octet in at:
        if place < len(out):
            out[place] = octet
    return bytes(out)


def test_control_packets_are_the_golden_ones() -> None:
    for row in golden.CONTROL_PACKETS:
        packet = control.parse(row.octets)
        assert packet.kind.name.lower() == row.kind
        assert packet.conv == row.random_half << 32 | row.session_id
        assert packet.event == row.event
        assert packet.emit() == row.octets


@bounded
@given(packets, changes, st.integers(0, 24))
def test_control_parse_refuses_or_round_trips(
    packet: ControlPacket, at: list[tuple[int, int]], length: int
) -> None:
    octets = changed((packet.emit() + bytes(4))[: length if length < 18 else 20], at)
    refused: str | None = None
    try:
        assert control.parse(octets).emit() == octets
    except WireError as error:
        refused = error.reason
    assert control.check(octets) == refused


@bounded
@given(st.lists(st.tuples(st.binary(max_size=50), changes, st.integers(0, 3)), max_size=20))
def test_fec_carries_only_what_it_was_given(sent: list[tuple[bytes, list[tuple[int, int]], int]]) -> None:
    """Datagrams are changed, lost and repeated. None raises, and what a lie makes is no longer than a datagram."""
    encoder, decoder = FecEncoder(SMALL), FecDecoder(SMALL)
    given_in = got = 0
    for message, at, copies in sent:
        for datagram in encoder.encode(message):
            for _ in range(copies):
                given_in += 1
                carried = decoder.decode(changed(datagram, at))
                got += len(carried)
                assert all(len(octets) <= SMALL.size_octets - OVERHEAD for octets in carried)
    counters = decoder.counters
    assert counters.data + counters.parity + counters.errors >= given_in
    assert got == counters.data + counters.recovered


@bounded
@given(st.binary(max_size=80))
def test_fec_takes_any_octets(octets: bytes) -> None:
    decoder = FecDecoder(SMALL)
    for carried in decoder.decode(octets):
        assert carried in octets
