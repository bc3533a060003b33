# SPDX-License-Identifier: Apache-2.0
"""Who has which MAC address: our stack asks for the kernel, for nobody, and defends what is ours."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from halo_mp.stack.neighbor_settings import NeighborSettings
from tests.interop.conftest import Tap, is_announcement, is_arp_reply, running_tap
from tests.support import frames
from tests.support.namespace import wait_until
from tests.support.station import Heard

SILENT, STRANGER = "10.77.0.99", "10.77.0.66"
STRANGER_MAC = bytes.fromhex("020000000066")
HELD = NeighborSettings().held_per_neighbor
"""Packets that wait for one neighbor."""


@pytest.fixture(scope="module")
def knowing_tap() -> Iterator[Tap]:
    """A TAP whose kernel knows our MAC address and never asks for it: our stack has to ask for the kernel's."""
    with running_tap() as tap:
        tap.pin()
        yield tap


def requests(heard: list[Heard]) -> list[Heard]:
    """The ARP requests of our stack, announcements left out."""
    asked = [frame for frame in heard if frame.ethertype == frames.ARP and not is_arp_reply(frame)]
    return [frame for frame in asked if not is_announcement(frame)]


def with_option(src: str, tap: Tap) -> bytes:
    """An echo request that C leaves to Python, which answers by way of the neighbor table."""
    return frames.packet(src=src, dst=tap.ours, payload=frames.echo_request(), options=b"\1")


def test_unknown_kernel_is_asked_for_once(knowing_tap: Tap) -> None:
    tap = knowing_tap
    tap.station.heard()
    tap.namespace.pinged(tap.ours, count=5, options=("-R",))
    [asked] = requests(tap.station.heard())
    body = frames.arp_packet(1, sender_mac=tap.mac, sender=tap.ours, target=tap.kernel)
    wanted = frames.frame(dst=frames.BROADCAST, src=tap.mac, ethertype=frames.ARP, payload=body)
    assert asked.octets == wanted.ljust(60, b"\0")


def test_silent_neighbor_costs_three_requests_and_what_waits(knowing_tap: Tap) -> None:
    tap = knowing_tap
    before = tap.tally()
    _, heard = tap.send(*[tap.frame(with_option(SILENT, tap))] * (HELD + 4))
    assert tap.since(before).drops == {"neighbor_hold_full": 4}
    wait_until(lambda: tap.since(before).drops["neighbor_unresolved"] == HELD, what="the end of what waits")
    heard += tap.station.heard()
    targets = [asked.octets[38:42] for asked in requests(heard)]
    assert targets.count(IPv4Address(SILENT).packed) == 3
    assert not [frame for frame in heard if frame.ethertype == frames.IPV4]
    # For a while it is not asked for again.
    happened, heard = tap.send(tap.frame(with_option(SILENT, tap)))
    assert happened.drops == {"neighbor_unresolved": 1}
    assert IPv4Address(SILENT).packed not in [asked.octets[38:42] for asked in requests(heard)]


def test_claim_of_our_address_is_defended_once(knowing_tap: Tap) -> None:
    """RFC 5227 section 2.4, case c: once in ten seconds, and the address is kept."""
    tap = knowing_tap
    claim = frames.announcement(mac=STRANGER_MAC, address=tap.ours)
    ours = frames.announcement(mac=tap.mac, address=tap.ours)
    for defences in ([ours], [], []):
        happened, heard = tap.send(claim)
        assert [frame.octets for frame in heard if is_announcement(frame)] == defences
        assert not happened.drops
    [event] = tap.instance.wait_for("address.conflict")
    assert (event["address"], event["mac"], event["abandoned"]) == (tap.ours, STRANGER_MAC.hex(":"), False)
    tap.namespace.pinged(tap.ours)


def test_neighbor_that_moved_is_believed(knowing_tap: Tap) -> None:
    """RFC 826: who is known may change its MAC address; fail-over depends on it."""
    tap = knowing_tap
    for mac in (STRANGER_MAC, STRANGER_MAC[:5] + b"\x67"):
        asks = frames.arp_packet(1, sender_mac=mac, sender=STRANGER, target=tap.ours)
        _, heard = tap.send(tap.frame(asks, ethertype=frames.ARP, src=mac, dst=frames.BROADCAST))
        assert [frame.dst for frame in heard if is_arp_reply(frame)] == [mac]
        _, heard = tap.send(tap.frame(with_option(STRANGER, tap), src=mac))
        assert [frame.dst for frame in heard if frame.ethertype == frames.IPV4] == [mac]


def test_reply_that_nobody_asked_for_teaches_nothing(knowing_tap: Tap) -> None:
    tap = knowing_tap
    unasked, mac = "10.77.0.88", bytes.fromhex("020000000088")
    gratuitous = frames.announcement(mac=mac, address=unasked)
    to_others = frames.arp_packet(2, sender_mac=mac, sender=unasked, target_mac=STRANGER_MAC, target=STRANGER)
    happened, heard = tap.send(gratuitous, tap.frame(to_others, ethertype=frames.ARP, dst=frames.BROADCAST))
    assert not happened.drops
    _, heard = tap.send(tap.frame(with_option(unasked, tap), src=mac))
    assert IPv4Address(unasked).packed in [asked.octets[38:42] for asked in requests(heard)], (
        "so it is asked for"
    )


def test_flood_of_senders_leaves_the_others_alone(knowing_tap: Tap) -> None:
    tap = knowing_tap
    before = tap.tally()
    flood = []
    for last in range(100, 250):
        for mac in (last.to_bytes(6, "big"), (last << 8 | 0xA0).to_bytes(6, "big")):
            asks = frames.arp_packet(1, sender_mac=b"\2" + mac[1:], sender=f"10.77.0.{last}", target=tap.ours)
            flood.append(tap.frame(asks, ethertype=frames.ARP, src=b"\2" + mac[1:], dst=frames.BROADCAST))
    happened, heard = tap.send(*flood * 5)
    assert len([frame for frame in heard if is_arp_reply(frame)]) == len(flood) * 5
    assert not happened.drops
    tap.namespace.pinged(tap.ours, options=("-R",))
    tap.wait_for_buffers()
    assert tap.since(before).worker["held"] == 0
