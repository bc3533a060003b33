# SPDX-License-Identifier: Apache-2.0
"""Whatever happens to a small neighbor table: every packet ends once, bounds hold, nobody is asked too often.

The seed is in the name of the test.
"""

import random
from collections import Counter
from collections.abc import Iterable

import pytest

from halo_mp.stack.interface import Address, Interface
from halo_mp.stack.neighbor import NeighborTable
from halo_mp.stack.neighbor_cache import NeighborState
from halo_mp.stack.neighbor_settings import NeighborSettings
from halo_mp.stack.neighbor_states import REQUEST_INTERVAL_S
from halo_mp.stack.outputs import Deliver, Drop, Forgotten, Learned, NeighborOutput, Transmit
from halo_mp.wire import arp, ethernet
from halo_mp.wire.arp import ArpPacket
from halo_mp.wire.ipv4 import parse_address
from tests.fuzz.strategies import OUR_ADDRESS, OUR_MAC

STEPS = 3000
PAUSES = (0.0,) * 30 + (0.25, 0.5, 1.0, 5.0, 40.0)
HOSTS = [parse_address(f"192.0.2.{host}") for host in range(2, 22)]
STATIONS = [bytes((2, 0, 0, 0, 0, last)) for last in range(10, 14)]
INTERFACE = Interface(port=0, mac=OUR_MAC, addresses=(Address(OUR_ADDRESS, 24),))
SMALL = NeighborSettings(
    capacity=8, pending_capacity=3, held_per_neighbor=2, held_in_all=4, stale_s=20.0, failed_s=2.0
)
UNRESOLVED = (NeighborState.INCOMPLETE, NeighborState.FAILED)


class WatchedTable:
    """A neighbor table, what happened to it, and what must hold after every step."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.table = NeighborTable(INTERFACE, rng=rng, settings=SMALL)
        self.now = 1000.0
        self.sent = 0
        self.ended: Counter[bytes] = Counter()
        self.known: set[int] = set()
        self.asked_at: dict[int, float] = {}
        self.absorb(self.table.start(self.now))
        self.wait(2.0)

    def absorb(self, outputs: Iterable[NeighborOutput]) -> None:
        for output in outputs:
            match output:
                case Deliver(packet=packet) | Drop(octets=packet):
                    self.ended[packet] += 1
                case Learned(address=address):
                    self.known.add(address)
                case Forgotten(address=address):
                    self.known.remove(address)
                case Transmit(frame=frame):
                    self.note_request(arp.parse(ethernet.parse(frame).payload))

    def note_request(self, packet: ArpPacket) -> None:
        target = packet.target_address
        if packet.operation == arp.REQUEST and target != OUR_ADDRESS:
            assert self.now - self.asked_at.get(target, 0.0) >= REQUEST_INTERVAL_S
            self.asked_at[target] = self.now

    def wait(self, pause: float) -> None:
        """Let time pass, polled at each deadline."""
        until = self.now + pause
        while (deadline := self.table.next_deadline()) is not None and deadline <= until:
            assert deadline >= self.now
            self.now = deadline
            self.absorb(self.table.poll(self.now))
        self.now = until

    def step(self) -> None:
        """Do something to somebody."""
        action = self.rng.choices(
            (self.resolve, self.hear, self.touch, self.adopt, self.remove, self.set_static),
            (40, 40, 10, 5, 2, 0.2),
        )[0]
        action(self.rng.choice(HOSTS), self.rng.choice(STATIONS))

    def resolve(self, address: int, _mac: bytes) -> None:
        self.sent += 1
        self.absorb(self.table.resolve(address, b"%d" % self.sent, self.now))

    def hear(self, address: int, mac: bytes) -> None:
        packet = ArpPacket(
            operation=self.rng.choice((arp.REQUEST, arp.REPLY)),
            sender_mac=mac,
            sender_address=address,
            target_mac=OUR_MAC,
            target_address=self.rng.choice((OUR_ADDRESS, HOSTS[0])),
        )
        self.absorb(self.table.receive(packet, mac, self.now))

    def touch(self, address: int, _mac: bytes) -> None:
        self.table.touch(address, self.now)

    def adopt(self, address: int, mac: bytes) -> None:
        self.absorb(self.table.adopt(address, mac, self.now))
        self.known.add(address)  # the host knows: it told the table

    def remove(self, address: int, _mac: bytes) -> None:
        self.absorb(self.table.remove(address))
        self.asked_at.pop(address, None)  # an operator may cause a second request at once

    def set_static(self, address: int, mac: bytes) -> None:
        self.absorb(self.table.set_static(address, mac, self.now))

    def assert_invariants(self) -> None:
        states = {neighbor.address: neighbor.state for neighbor in self.table}
        static = sum(state is NeighborState.STATIC for state in states.values())
        assert len(states) == len(self.table) <= SMALL.capacity + static
        assert len(self.table._deadlines) == len(states) - static
        assert self.table.held_count <= SMALL.held_in_all
        assert sum(self.ended.values()) + self.table.held_count == self.sent
        assert self.known == {address for address, state in states.items() if state not in UNRESOLVED}
        for neighbor in self.table:
            assert (neighbor.mac is None) == (neighbor.state in UNRESOLVED)


@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_keeps_the_bounds_and_ends_every_packet_once(seed: int) -> None:
    rng = random.Random(seed)
    watched = WatchedTable(rng)
    for _ in range(STEPS):
        watched.wait(rng.choice(PAUSES))
        watched.step()
        watched.assert_invariants()
    watched.wait(1000.0)
    watched.assert_invariants()
    assert watched.table.held_count == 0
    assert max(watched.ended.values()) == 1
    assert len(watched.ended) == watched.sent
    assert watched.table.next_deadline() is None
    assert all(neighbor.state is NeighborState.STATIC for neighbor in watched.table)
    assert set(watched.table.drops) == {"neighbor_hold_full", "neighbor_unresolved"}
    assert set(watched.table.events) >= {
        "neighbor_evicted", "neighbor_aged", "neighbor_unreachable", "neighbor_removed", "neighbor_moved",
        "neighbor_static_kept",
    }  # fmt: skip
