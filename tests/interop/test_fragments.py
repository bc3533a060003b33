# SPDX-License-Identifier: Apache-2.0
"""Fragments against the kernel: its pings of every size, and floods of fragments that complete nothing."""

from __future__ import annotations

import time

import pytest

from halo_mp.stack.fragmentation import fragment
from halo_mp.wire import ipv4
from tests.interop.conftest import Tap
from tests.support import frames
from tests.support.accounts import arrived, balanced
from tests.support.namespace import wait_until
from tests.support.pinger import Pinger

FLOOD = 10_000
BATCH = 50
"""Fragments that are under way at once: a TAP's queue holds 500 frames, and pings want some of it."""
LONGEST = 65507
ATTACKER = bytes.fromhex("020000000066")


def pieces(octets: int, mtu: int = 1500) -> int:
    """Fragments of an echo of so many octets."""
    return -(-(octets + 8) // ((mtu - 20) // 8 * 8))


@pytest.mark.parametrize("octets", [1473, 2952, 2953, 3000, 8000, LONGEST])
def test_ping_in_fragments_is_answered_in_fragments(tap: Tap, octets: int) -> None:
    before = tap.tally()
    sent = tap.namespace.pinged(tap.ours, size=octets)
    happened = tap.since(before)
    assert not happened.drops
    assert happened.worker["punted"] >= sent * pieces(octets)
    assert happened.worker["originated"] >= sent * pieces(octets)
    assert happened.driver["tx_sent"] == happened.worker["tx_frames"]
    tap.wait_for_buffers()


@pytest.mark.parametrize("mtu", [576, 600, 1280])
def test_ping_from_a_side_with_a_smaller_mtu_is_answered(tap: Tap, mtu: int) -> None:
    tap.namespace.run("ip", "link", "set", tap.interface, "mtu", str(mtu))
    try:
        before = tap.tally()
        sent = tap.namespace.pinged(tap.ours, size=8000, options=("-M", "want"))
        happened = tap.since(before)
    finally:
        tap.namespace.run("ip", "link", "set", tap.interface, "mtu", "1500")
    assert not happened.drops
    assert happened.worker["punted"] >= sent * pieces(8000, mtu)
    assert happened.worker["originated"] >= sent * pieces(8000)


def test_ping_in_fragments_is_answered_by_a_side_that_forgot_us(tap: Tap) -> None:
    tap.namespace.run("ip", "neigh", "flush", "dev", tap.interface)
    assert tap.namespace.pinged(tap.ours, size=LONGEST, count=2) == 2


def test_fragments_of_one_packet_in_any_order_and_twice_are_answered_once(tap: Tap) -> None:
    tap.pin()
    tap.namespace.pinged(tap.ours, size=3000, count=1)  # we know the kernel's side
    echo = frames.packet(src=tap.kernel, dst=tap.ours, payload=frames.echo_request(bytes(8000)))
    first, *others = (tap.frame(part.emit()) for part in fragment(ipv4.parse(echo), 1500))
    happened, heard = tap.send(*reversed(others), *others[1:], first)
    assert happened.drops == {"reassembly_duplicate": len(others) - 1}
    assert happened.worker["consumed"] == len(others) + 1
    replies = [frame.octets[14:] for frame in heard if frame.ethertype == frames.IPV4]
    assert len(replies) == pieces(8000)
    assert {ipv4.check(reply) for reply in replies} == {None}


def test_teardrop_and_ping_of_death_are_dropped_by_name(tap: Tap) -> None:
    tap.pin()

    def part(start: int, octets: int, flags: int = ipv4.FLAG_MORE_FRAGMENTS) -> bytes:
        packet = frames.packet(
            src="10.77.0.66", dst=tap.ours, payload=bytes(octets), flags=flags, offset_octets=start
        )
        return tap.frame(packet, src=ATTACKER)

    happened, heard = tap.send(part(0, 1480), part(1000, 480), part(65528, 64, flags=0))
    assert happened.drops == {"reassembly_overlap": 2, "reassembly_too_long": 1}
    counted = [happened.worker[name] for name in ("rx_frames", "consumed", "originated", "tx_frames")]
    assert counted == [3, 1, 1, 0], "the one that waited was consumed, and counts once more as it ends"
    assert heard == []
    tap.wait_for_buffers()


def test_flood_of_fragments_leaves_pings_of_8000_octets_answered(tap: Tap) -> None:
    """FragmentSmack: 10,000 fragments, a few of each packet, of which none is ever completed.

    The pauses leave Python's share of the worker's time alone: this is about the table of fragments.
    """
    tap.pin()
    tap.namespace.pinged(tap.ours, size=8000, count=1)
    whole = frames.packet(src="10.77.0.66", dst=tap.ours, payload=bytes(8000), protocol=ipv4.PROTOCOL_UDP)
    before = tap.tally()
    with Pinger(tap.namespace, options=("-s", "8000")) as pinger:
        pinger.wait_for_more(5)
        for sent in range(0, FLOOD, BATCH):
            began = time.monotonic()
            for number in range(sent, sent + BATCH):
                packet = changed_identification(whole, number // 3)
                start = number % 3 * 16
                part = packet[:20] + bytes(8)
                part = frames.changed(part, 2, len(part).to_bytes(2, "big"))
                part = frames.changed(part, 6, (0x2000 | start // 8).to_bytes(2, "big"))
                tap.station.send(tap.frame(frames.mended(part), src=ATTACKER))
            wait_until(lambda: arrived(tap.instance, before) >= sent + BATCH, what="the flood")  # noqa: B023
            time.sleep(2 * (time.monotonic() - began))
        during = len(pinger.answered)
        pinger.wait_for_more(5)
    happened = tap.since(before)
    requests = max(pinger.answered)
    assert during > 10, "there were pings during the flood"
    assert len(pinger.lost) <= requests * 0.05, f"{pinger.lost} of {requests}"
    ended = happened.drops["reassembly_full"]
    assert FLOOD - 1024 <= ended <= FLOOD, happened.drops
    assert set(happened.drops) == {"reassembly_full"}
    [slot] = balanced(tap.instance)
    assert slot["worker"]["drops"]["stack_error"] == 0
    tap.wait_for_buffers()


def changed_identification(packet: bytes, number: int) -> bytes:
    """Return the packet with another identification; its checksum is wrong then."""
    return frames.changed(packet, 4, (number & 0xFFFF).to_bytes(2, "big"))
