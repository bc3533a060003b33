# SPDX-License-Identifier: Apache-2.0
"""What an ARP packet that is heard does: RFC 826's algorithm, and whom not to believe."""

import dataclasses

import pytest

from halo_mp.stack.interface import Address
from halo_mp.stack.neighbor_cache import Neighbor, NeighborState
from halo_mp.stack.outputs import Deliver, Forgotten, Learned
from halo_mp.wire import WireError, arp
from halo_mp.wire.ipv4 import parse_address
from tests.unit.stack.checklist import meets
from tests.unit.stack.harness import (
    ADDRESS,
    INTERFACE,
    MAC,
    NOW,
    OTHER,
    OTHER_MAC,
    PEER,
    PEER_MAC,
    hear,
    of_type,
    reply,
    request,
    spoken,
    table,
)

STALE = NeighborState.STALE
REACHABLE = NeighborState.REACHABLE


@meets("arp.merge")
def test_unknown_request_for_us_is_learned_and_answered() -> None:
    ours = table()
    outputs = hear(ours, request())
    assert of_type(Learned, outputs) == [Learned(0, 0, PEER, PEER_MAC)]
    assert ours.lookup(PEER) == Neighbor(PEER, PEER_MAC, STALE)
    assert len(spoken(outputs)) == 1
    assert len(outputs) == 2


@meets("arp.reply")
def test_reply_is_unicast_with_fields_swapped() -> None:
    [(dst, packet)] = spoken(hear(table(), request()))
    assert dst == PEER_MAC
    assert packet == arp.ArpPacket(
        operation=arp.REPLY,
        sender_mac=MAC,
        sender_address=ADDRESS,
        target_mac=PEER_MAC,
        target_address=PEER,
    )


@meets("arp.merge")
def test_unknown_request_for_somebody_else_learns_nothing_and_is_not_answered() -> None:
    ours = table()
    assert hear(ours, request(OTHER)) == []
    assert len(ours) == 0


def test_unknown_gratuitous_arp_learns_nothing() -> None:
    ours = table()
    assert hear(ours, request(PEER)) == []
    assert hear(ours, reply(target=PEER, target_mac=b"\xff" * 6)) == []
    assert len(ours) == 0


def test_unknown_reply_for_us_is_learned_and_not_answered() -> None:
    ours = table()
    assert hear(ours, reply()) == [Learned(0, 0, PEER, PEER_MAC)]
    assert ours.lookup(PEER) == Neighbor(PEER, PEER_MAC, REACHABLE)


@meets("arp.merge")
def test_known_sender_is_updated_whatever_the_target() -> None:
    ours = table()
    hear(ours, request())
    assert hear(ours, request(OTHER, mac=OTHER_MAC)) == [Learned(0, 0, PEER, OTHER_MAC)]
    assert ours.lookup(PEER) == Neighbor(PEER, OTHER_MAC, STALE)
    assert ours.events["neighbor_moved"] == 1


def test_known_sender_with_the_same_mac_is_not_reported_again() -> None:
    ours = table()
    hear(ours, reply())
    assert hear(ours, request(OTHER), NOW + 5) == []
    assert ours.lookup(PEER) == Neighbor(PEER, PEER_MAC, REACHABLE)


@meets("arp.move")
def test_mac_change_on_reply_is_accepted() -> None:
    ours = table()
    hear(ours, reply())
    assert hear(ours, reply(mac=OTHER_MAC)) == [Learned(0, 0, PEER, OTHER_MAC)]
    assert ours.lookup(PEER) == Neighbor(PEER, OTHER_MAC, REACHABLE)
    assert ours.events["neighbor_moved"] == 1


def test_reachable_gratuitous_change_makes_it_stale_so_that_use_verifies_it() -> None:
    ours = table()
    hear(ours, reply())
    hear(ours, request(PEER, mac=OTHER_MAC))
    assert ours.lookup(PEER) == Neighbor(PEER, OTHER_MAC, STALE)
    ours.resolve(PEER, b"packet", NOW)
    [(dst, packet)] = spoken(ours.poll(NOW + 5))
    assert (dst, packet.target_address) == (OTHER_MAC, PEER)


def test_reply_to_somebody_else_of_a_known_sender_is_no_confirmation() -> None:
    ours = table()
    hear(ours, request())
    hear(ours, reply(target=OTHER, target_mac=OTHER_MAC))
    assert ours.lookup(PEER) == Neighbor(PEER, PEER_MAC, STALE)


@pytest.mark.parametrize("target_mac", [b"\xff" * 6, OTHER_MAC])
def test_reply_to_everybody_with_our_address_is_no_confirmation(target_mac: bytes) -> None:
    ours = table()
    hear(ours, reply(target_mac=target_mac))
    assert ours.lookup(PEER) == Neighbor(PEER, PEER_MAC, STALE)


def test_confirmation_is_reported_at_most_once_a_second() -> None:
    ours = table()
    assert hear(ours, reply()) == [Learned(0, 0, PEER, PEER_MAC)]
    assert hear(ours, reply(), NOW + 0.9) == []
    assert hear(ours, reply(), NOW + 1.0) == [Learned(0, 0, PEER, PEER_MAC)]


@meets("arp.static")
def test_static_entry_is_untouched_by_request_and_reply() -> None:
    ours = table()
    assert ours.set_static(PEER, PEER_MAC, NOW) == [Learned(0, 0, PEER, PEER_MAC)]
    assert hear(ours, reply(mac=OTHER_MAC)) == []
    assert len(spoken(hear(ours, request(mac=OTHER_MAC)))) == 1
    assert ours.lookup(PEER) == Neighbor(PEER, PEER_MAC, NeighborState.STATIC)
    assert ours.events["neighbor_static_kept"] == 2
    assert hear(ours, reply()) == []
    assert ours.events["neighbor_static_kept"] == 2
    assert ours.next_deadline() is None
    assert ours.adopt(PEER, OTHER_MAC, NOW) == []
    assert ours.resolve(PEER, b"packet", NOW) == [Deliver(0, 0, b"packet", PEER_MAC)]


@meets("arp.static")
def test_static_over_learned_entry_never_ages() -> None:
    ours = table()
    hear(ours, reply(mac=OTHER_MAC))
    ours.set_static(PEER, PEER_MAC, NOW)
    assert ours.poll(NOW + 10_000) == []
    assert ours.lookup(PEER) == Neighbor(PEER, PEER_MAC, NeighborState.STATIC)


def test_static_while_unresolved_delivers_what_is_held() -> None:
    ours = table()
    ours.resolve(PEER, b"packet", NOW)
    outputs = ours.set_static(PEER, PEER_MAC, NOW)
    assert outputs == [Learned(0, 0, PEER, PEER_MAC), Deliver(0, 0, b"packet", PEER_MAC)]
    assert ours.held_count == 0


@pytest.mark.parametrize("mac", [b"\xff" * 6, bytes.fromhex("01005e000001"), bytes(6), MAC])
def test_static_impossible_is_refused(mac: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be a neighbor"):
        table().set_static(PEER, mac, NOW)


@meets("arp.senders")
@pytest.mark.parametrize(
    "mac", [b"\xff" * 6, bytes.fromhex("01005e000001"), bytes.fromhex("03000000000a"), bytes(6), MAC]
)
def test_sender_mac_of_no_station_is_never_cached_nor_answered(mac: bytes) -> None:
    ours = table()
    hear(ours, reply())
    for packet in (request(mac=mac), reply(mac=mac), request(mac=mac, sender=OTHER)):
        with pytest.raises(WireError, match=r"^arp_refused$"):
            ours.receive(packet, PEER_MAC, NOW)
    assert list(ours) == [Neighbor(PEER, PEER_MAC, REACHABLE)]


@meets("arp.senders")
@pytest.mark.parametrize(
    "sender", ["255.255.255.255", "192.0.2.255", "192.0.2.0", "224.0.0.5", "240.0.0.1", "127.0.0.1", "0.0.0.9"]
)  # fmt: skip
def test_sender_address_of_no_host_is_never_cached_nor_answered(sender: str) -> None:
    ours = table()
    with pytest.raises(WireError, match=r"^arp_refused$"):
        hear(ours, request(sender=parse_address(sender)))
    assert len(ours) == 0


@meets("acd.probes-answered")
def test_probe_for_our_address_is_answered_but_not_cached() -> None:
    ours = table()
    [(dst, packet)] = spoken(hear(ours, request(sender=0)))
    assert (dst, packet.sender_mac, packet.sender_address) == (PEER_MAC, MAC, ADDRESS)
    assert (packet.target_mac, packet.target_address) == (PEER_MAC, 0)
    assert len(ours) == 0
    assert ours.events["address_conflict"] == 0


def test_stranger_from_another_subnet_is_answered_but_not_cached() -> None:
    ours = table()
    assert len(spoken(hear(ours, request(sender=parse_address("198.51.100.7"))))) == 1
    assert len(ours) == 0


def test_neighbor_of_another_subnet_that_was_asked_for_is_learned() -> None:
    ours = table()
    far = parse_address("198.51.100.7")
    ours.resolve(far, b"packet", NOW)
    outputs = hear(ours, reply(sender=far))
    assert outputs == [Learned(0, 0, far, PEER_MAC), Deliver(0, 0, b"packet", PEER_MAC)]


@meets("arp.mismatch")
def test_sender_mac_other_than_frame_source_is_counted_and_believed() -> None:
    ours = table()
    outputs = ours.receive(reply(), OTHER_MAC, NOW)
    assert ours.events["arp_source_mismatch"] == 1
    assert outputs == [Learned(0, 0, PEER, PEER_MAC)]
    hear(ours, reply())
    assert ours.events["arp_source_mismatch"] == 1


@pytest.mark.parametrize("operation", [0, 3, 4, 8, 9, 0xFFFF])
def test_other_operations_are_refused_even_from_known_senders(operation: int) -> None:
    ours = table()
    hear(ours, reply())
    packet = dataclasses.replace(reply(mac=OTHER_MAC), operation=operation)
    with pytest.raises(WireError, match=r"^arp_refused$"):
        hear(ours, packet)
    assert ours.lookup(PEER) == Neighbor(PEER, PEER_MAC, REACHABLE)


def test_host_route_interface_learns_no_strangers() -> None:
    ours = table(dataclasses.replace(INTERFACE, addresses=(Address(ADDRESS, 32),)))
    assert len(spoken(hear(ours, request()))) == 1
    assert len(ours) == 0


@meets("arp.sync")
def test_adopt_learns_as_reachable_and_reports_nothing() -> None:
    ours = table()
    assert ours.adopt(PEER, PEER_MAC, NOW) == []
    assert ours.lookup(PEER) == Neighbor(PEER, PEER_MAC, REACHABLE)
    assert ours.adopt(PEER, OTHER_MAC, NOW) == []
    assert ours.lookup(PEER) == Neighbor(PEER, OTHER_MAC, REACHABLE)


def test_adopt_while_unresolved_delivers_what_is_held() -> None:
    ours = table()
    ours.resolve(PEER, b"one", NOW)
    ours.resolve(PEER, b"two", NOW)
    outputs = ours.adopt(PEER, PEER_MAC, NOW)
    assert outputs == [Deliver(0, 0, b"one", PEER_MAC), Deliver(0, 0, b"two", PEER_MAC)]
    assert ours.held_count == 0


def test_adopt_impossible_is_refused_and_counted() -> None:
    ours = table()
    for address, mac in ((PEER, b"\xff" * 6), (ADDRESS, PEER_MAC), (0, PEER_MAC), (PEER, MAC)):
        assert ours.adopt(address, mac, NOW) == []
    assert len(ours) == 0
    assert ours.events["neighbor_adopt_refused"] == 4


def test_remove_reports_forgotten_and_the_next_packet_asks_anew() -> None:
    ours = table()
    hear(ours, reply())
    [forgotten] = of_type(Forgotten, ours.remove(PEER))
    assert (forgotten.address, forgotten.loss) == (PEER, "removed")
    assert ours.next_deadline() is None
    assert ours.remove(PEER) == []
    assert len(spoken(ours.resolve(PEER, b"packet", NOW + 1))) == 1
