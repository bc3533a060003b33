# SPDX-License-Identifier: Apache-2.0
"""What joins fast path and stack, with a fast path that is real and a driver that is the test."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from halo_mp.shm.fib import Target, TargetKind
from halo_mp.shm.layout import IdlePolicy
from halo_mp.shm.tables import Interface
from halo_mp.wire import arp, ethernet
from halo_mp.wire.ipv4 import PROTOCOL_UDP, Ipv4Packet, parse_address
from halo_mp.workers.host import StackHost
from halo_mp.workers.settings import Privileges, Settings
from tests.unit.workers.rig import OTHER_SLOT, SLOT, Rig, rig

MAC, PEER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("02cc00000009")
OWN, PEER, GATEWAY, FAR = map(parse_address, ("10.0.0.1", "10.0.0.9", "10.0.0.254", "192.0.2.1"))
LINK = Interface(port=0, mac=MAC, mtu=1500, addresses=((OWN, 24),), home_slot=SLOT)
SETTINGS = Settings(
    slot=SLOT,
    idle=IdlePolicy.POLL,
    spin_ns=0,
    debug_log=False,
    privileges=Privileges("keep", None),
    macswap=(),
    twins=(),
    orphan_timeout_s=1.0,
    slots=frozenset({SLOT, OTHER_SLOT}),
    icmp_rate=1,
)


@pytest.fixture
def made(instance: str) -> Iterator[Rig]:
    with rig(instance, {0: LINK}) as started:
        started.give_spares(40)
        started.route(OWN & 0xFFFFFF00, 24, started.routes.new_target(Target(TargetKind.CONNECTED, 0)))
        started.route(OWN, 32, started.routes.new_target(Target(TargetKind.LOCAL, 0)))
        yield started


@pytest.fixture
def told() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def host(made: Rig, told: list[dict[str, Any]]) -> Iterator[StackHost]:
    loop = asyncio.new_event_loop()
    host = StackHost(made.fastpath, loop, SETTINGS, told.append)
    yield host
    host.stop()
    loop.close()


def asked_for(made: Rig) -> list[int]:
    """Return whom the worker has asked for since the last look."""
    frames = [ethernet.parse(octets) for _, _, octets in made.sent()]
    packets = [arp.parse(each.payload) for each in frames if each.ethertype == ethernet.ETHERTYPE_ARP]
    return [each.target_address for each in packets if each.sender_address != each.target_address]


def test_gateways_are_watched_by_whoever_is_home(made: Rig, host: StackHost) -> None:
    theirs = {0: dataclasses.replace(LINK, home_slot=OTHER_SLOT)}
    host.set_interfaces(theirs)
    host.watch([(0, 0, GATEWAY)])
    assert asked_for(made) == []
    for _ in range(2):
        made.set_interfaces({0: LINK})
        host.set_interfaces({0: LINK})
        assert asked_for(made) == [GATEWAY]
        made.set_interfaces({0: dataclasses.replace(LINK, mtu=1400)})
        host.set_interfaces({0: dataclasses.replace(LINK, mtu=1400)})
        assert asked_for(made) == [], "it is watched already"
        made.set_interfaces(theirs)
        host.set_interfaces(theirs)
        assert asked_for(made) == []


def test_errors_above_the_rate_are_in_the_shared_counter(made: Rig, host: StackHost) -> None:
    host.set_interfaces({0: LINK})
    host.set_static([(0, 0, PEER, PEER_MAC)])
    made.sent()
    packet = Ipv4Packet(src=PEER, dst=FAR, protocol=PROTOCOL_UDP, payload=bytes(26))
    frame = ethernet.EthernetFrame(MAC, PEER_MAC, ethernet.ETHERTYPE_IPV4, packet.emit()).emit()
    for _ in range(4):
        made.deliver(frame)
        host.handle_punts()
    assert made.slot.worker.icmp_suppressed == 3
    assert len([octets for _, _, octets in made.sent() if octets[23:24] == b"\1"]) == 1
