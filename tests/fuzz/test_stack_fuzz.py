# SPDX-License-Identifier: Apache-2.0
"""Whatever is received: the stack does not raise, every Drop is counted once, and what it sends is well-formed.

Examples are derived from the test itself, so that a run is repeatable; the falsifying frames are printed.
"""

import contextlib
import random
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halo_mp.stack.interface import Address, Interface
from halo_mp.stack.neighbor import NeighborTable
from halo_mp.stack.neighbor_settings import NeighborSettings
from halo_mp.stack.outputs import Drop, Output, Transmit
from halo_mp.stack.router import Router
from halo_mp.wire import WireError, arp, ethernet, ipv4
from halo_mp.wire.arp import ArpPacket
from halo_mp.wire.ipv4 import parse_address
from tests.fuzz import strategies
from tests.fuzz.strategies import OUR_ADDRESS, OUR_MAC
from tests.unit.stack.harness import probed

FIRST = Interface(port=0, mac=OUR_MAC, addresses=(Address(OUR_ADDRESS, 24),))
SECOND = Interface(port=0, vlan=10, mac=OUR_MAC, addresses=(Address(parse_address("198.51.100.1"), 24),))
SMALL = NeighborSettings(
    capacity=6, pending_capacity=3, held_per_neighbor=2, held_in_all=4, stale_s=20.0, failed_s=2.0
)
START = 1000.0

bounded = settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
pauses = st.sampled_from([0.0, 0.25, 1.0, 5.0, 40.0])


def assert_well_formed(output: Transmit) -> None:
    frame = ethernet.parse(output.frame)
    assert output.port == 0
    assert len(output.frame) >= ethernet.MINIMUM_FRAME_OCTETS
    assert frame.src == OUR_MAC
    assert [tag.vid for tag in frame.tags] in ([], [10])
    if frame.ethertype == ethernet.ETHERTYPE_ARP:
        packet = arp.parse(frame.payload)
        assert packet.sender_mac == OUR_MAC
        # Only requests go to everybody.
        assert ethernet.is_unicast(frame.dst) or packet.operation == arp.REQUEST
    else:
        assert frame.ethertype == ethernet.ETHERTYPE_IPV4
        assert ipv4.check(frame.payload) is None
        assert ethernet.is_unicast(frame.dst)


@bounded
@given(st.lists(st.tuples(pauses, strategies.frame_octets), max_size=6), st.booleans())
def test_receive_any_frames(events: list[tuple[float, bytes]], probe: bool) -> None:
    stack = Router(rng=random.Random(1), settings=SMALL)
    now = START
    interfaces = [probed(each) if probe else each for each in (FIRST, SECOND)]
    outputs: list[Output] = stack.set_interfaces(interfaces, now)
    for pause, octets in events:
        now += pause
        outputs += stack.poll(now)
        buffer = bytearray(octets)
        outputs += stack.receive(0, memoryview(buffer), now)
        buffer[:] = b"\xa5" * len(buffer)
    drops = Counter(output.reason for output in outputs if isinstance(output, Drop))
    assert drops == stack.counters
    for output in outputs:
        if isinstance(output, Transmit):
            assert_well_formed(output)


@bounded
@given(strategies.arps, strategies.macs)
def test_neighbor_table_caches_no_impossible_neighbor(packet: ArpPacket, source: bytes) -> None:
    table = NeighborTable(FIRST, rng=random.Random(1), settings=SMALL)
    table.start(START)
    with contextlib.suppress(WireError):
        table.receive(packet, source, START)
    for neighbor in table:
        assert neighbor.mac is not None
        assert ethernet.is_unicast(neighbor.mac)
        assert FIRST.contains(neighbor.address)
        assert FIRST.is_neighbor(neighbor.address)
