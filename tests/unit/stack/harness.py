# SPDX-License-Identifier: Apache-2.0
"""A link to play on: our interface, peers, ARP packets, and a clock that is a number."""

import dataclasses
import random
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from halo_mp.stack.interface import Address, Interface
from halo_mp.stack.neighbor import NeighborTable
from halo_mp.stack.neighbor_settings import NeighborSettings
from halo_mp.stack.outputs import NeighborOutput, Output, Transmit
from halo_mp.wire import arp, ethernet
from halo_mp.wire.arp import ArpPacket
from halo_mp.wire.ipv4 import parse_address

NOW = 1000.0
MAC = bytes.fromhex("020000000001")
ADDRESS = parse_address("192.0.2.1")
PEER = parse_address("192.0.2.2")
OTHER = parse_address("192.0.2.3")
PEER_MAC = bytes.fromhex("02000000000a")
OTHER_MAC = bytes.fromhex("02000000000b")
INTERFACE = Interface(port=0, mac=MAC, addresses=(Address(ADDRESS, 24),))

Value = TypeVar("Value")


class Machine(Protocol):
    """What a host drives by its deadline."""

    def poll(self, now: float) -> list[Any]: ...

    def next_deadline(self) -> float | None: ...


def table(interface: Interface = INTERFACE, *, seed: int = 1, **settings: Any) -> NeighborTable:
    """A started table whose address is ours and announced, with reachable times that do not vary."""
    made = fresh_table(interface, seed=seed, **settings)
    made.start(NOW - 10)
    made.poll(NOW - 5)
    assert all(made.is_usable(each.address) for each in interface.addresses)
    assert made.next_deadline() is None
    return made


def fresh_table(
    interface: Interface = INTERFACE,
    *,
    seed: int = 1,
    probe: bool = False,
    shared: bool = False,
    **settings: Any,
) -> NeighborTable:
    """A table before its start, which tells of no copies: test_neighbor_copies.py looks at those."""
    chosen = NeighborSettings(**{"reachable_spread": 0.0, **settings})
    return NeighborTable(
        probed(interface) if probe else interface,
        rng=random.Random(seed),
        settings=chosen,
        shared=shared,
        mirrored=False,
    )


def probed(interface: Interface) -> Interface:
    """The interface with addresses that are probed before they are used."""
    addresses = tuple(dataclasses.replace(each, probe=True) for each in interface.addresses)
    return dataclasses.replace(interface, addresses=addresses)


def request(target: int = ADDRESS, *, sender: int = PEER, mac: bytes = PEER_MAC) -> ArpPacket:
    return ArpPacket(
        operation=arp.REQUEST,
        sender_mac=mac,
        sender_address=sender,
        target_mac=bytes(6),
        target_address=target,
    )


def reply(
    sender: int = PEER, mac: bytes = PEER_MAC, *, target: int = ADDRESS, target_mac: bytes = MAC
) -> ArpPacket:
    return ArpPacket(
        operation=arp.REPLY,
        sender_mac=mac,
        sender_address=sender,
        target_mac=target_mac,
        target_address=target,
    )


def hear(receiver: NeighborTable, packet: ArpPacket, now: float = NOW) -> list[NeighborOutput]:
    """Receive in a frame from the packet's sender."""
    return receiver.receive(packet, packet.sender_mac, now)


def of_type(kind: type[Value], outputs: Iterable[object]) -> list[Value]:
    return [output for output in outputs if isinstance(output, kind)]


def spoken(outputs: Iterable[NeighborOutput | Output]) -> list[tuple[bytes, ArpPacket]]:
    """The ARP packets that are to be sent, each with the destination MAC of its frame."""
    frames = [ethernet.parse(output.frame) for output in of_type(Transmit, outputs)]
    assert all(frame.src == MAC for frame in frames)
    return [(frame.dst, arp.parse(frame.payload)) for frame in frames if frame.ethertype == 0x0806]


def run(machine: Machine, until: float) -> list[tuple[float, Any]]:
    """Poll at each deadline, as a host does, and note when each output came."""
    outputs: list[tuple[float, Any]] = []
    for _ in range(100_000):
        deadline = machine.next_deadline()
        if deadline is None or deadline > until:
            return outputs
        outputs += [(deadline, output) for output in machine.poll(deadline)]
    raise AssertionError("the deadline does not move")
