# SPDX-License-Identifier: Apache-2.0
"""Hooks as Python sees them: what is parked, what becomes of it, frames that are put in. C tests have the rest."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from halo_mp.app import Stage
from halo_mp.shm.fib import Target, TargetKind
from halo_mp.shm.layout import DROP_NAMES, ffi, lib
from halo_mp.shm.load import HookState
from halo_mp.shm.tables import Interface
from halo_mp.wire import arp, ethernet
from halo_mp.wire.ipv4 import PROTOCOL_UDP, Ipv4Packet, parse, parse_address
from halo_mp.workers.fastpath import NeighborState, PollReason
from halo_mp.workers.fastpath_hooks import (
    MAX_HOOKS,
    FastPathHooks,
    HookPolicy,
)
from halo_mp.workers.host import StackHost
from tests.unit.workers.rig import SLOT, Rig, rig
from tests.unit.workers.test_host import SETTINGS

INSIDE, OUTSIDE = 0, 1
OWN = parse_address("10.0.0.1"), parse_address("10.1.0.1")
MACS = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
HOST, OTHER, UNKNOWN = map(parse_address, ("10.1.0.9", "10.1.0.10", "10.1.0.77"))
HOST_MAC, OTHER_MAC = bytes.fromhex("02cc00000009"), bytes.fromhex("02cc0000000a")
INTERFACES = {
    number: Interface(port=number, mac=MACS[number], mtu=1500, addresses=((OWN[number], 24),), home_slot=SLOT)
    for number in (INSIDE, OUTSIDE)
}
TRANSMIT, RELEASE = lib.HALO_ACTION_TRANSMIT, lib.HALO_ACTION_RELEASE


@pytest.fixture
def made(instance: str) -> Iterator[Rig]:
    with rig(instance, INTERFACES) as started:
        started.route(HOST & 0xFFFFFF00, 24, started.routes.new_target(Target(TargetKind.CONNECTED, OUTSIDE)))
        for address, mac in ((HOST, HOST_MAC), (OTHER, OTHER_MAC)):
            started.fastpath.set_neighbor(OUTSIDE, address, mac, NeighborState.REACHABLE)
        started.give_spares(20)
        yield started


@pytest.fixture
def hooks(made: Rig) -> FastPathHooks:
    return FastPathHooks(made.fastpath)


def frame(dst: int = HOST, src: str = "10.0.0.2") -> bytes:
    packet = Ipv4Packet(src=parse_address(src), dst=dst, protocol=PROTOCOL_UDP, payload=bytes(26))
    return ethernet.EthernetFrame(MACS[0], HOST_MAC, ethernet.ETHERTYPE_IPV4, packet.emit()).emit()


def judged(made: Rig, hooks: FastPathHooks, judge: Callable[[Any], None]) -> list[tuple[int, int, bytes]]:
    """Deliver a frame, let `judge` have the packet, and return what was sent."""
    reasons = made.deliver(frame())
    assert reasons & PollReason.HOOK
    parked = hooks.parked()
    assert parked.length == 1
    judge(parked.packets[0])
    assert not made.fastpath.poll(0) & PollReason.HOOK
    return made.sent()


def test_parked_burst_goes_on_as_python_says(made: Rig, hooks: FastPathHooks) -> None:
    number = hooks.add("say", Stage.FORWARD)
    [(action, port, octets)] = judged(made, hooks, lambda packet: None)
    assert (action, port, octets[:6]) == (TRANSMIT, 1, HOST_MAC)

    def redirect(packet: Any) -> None:
        assert (packet.dst[0], packet.tx_interface, packet.ttl) == (HOST, OUTSIDE, 64)
        packet.dst[0] = OTHER

    [(action, port, octets)] = judged(made, hooks, redirect)
    sent = parse(octets[14:])
    assert (action, octets[:6], sent.dst, sent.ttl) == (TRANSMIT, OTHER_MAC, OTHER, 63)

    def drop(packet: Any) -> None:
        packet.verdict = lib.HALO_VERDICT_DROP

    [(action, _, _)] = judged(made, hooks, drop)
    counters = made.slot.hook[number]
    assert action == RELEASE
    assert ffi.string(counters.name) == b"say"
    assert (counters.calls, counters.packets, counters.rewritten, counters.dropped) == (3, 3, 1, 1)
    assert counters.busy_ns > 0


def test_hook_that_fails_is_counted_and_put_in_quarantine(made: Rig, hooks: FastPathHooks) -> None:
    number = hooks.add("fails", Stage.INGRESS, on_error=HookPolicy.DROP)

    def fail(packet: Any) -> None:
        packet.verdict = lib.HALO_VERDICT_ERROR

    [(action, _, _)] = judged(made, hooks, fail)
    hooks.count_errors(number, 4)
    assert (action, made.slot.hook[number].errors) == (RELEASE, 5)
    hooks.quarantine(number, HookPolicy.PASS)
    assert not made.deliver(frame()) & PollReason.HOOK
    assert made.slot.hook[number].state == HookState.QUARANTINED
    assert [action for action, _, _ in made.sent()] == [TRANSMIT]


def test_hook_becomes_native_and_python_again(made: Rig, hooks: FastPathHooks) -> None:
    @ffi.callback("int64_t(struct halo_packet *, int64_t, uint8_t *)")
    def drop_all(packets: Any, count: int, pool: Any) -> int:
        assert pool == made.pool
        for i in range(count):
            packets[i].verdict = lib.HALO_VERDICT_DROP
        return 0

    number = hooks.add("swap", Stage.EGRESS)
    hooks.set_function(number, int(ffi.cast("uintptr_t", drop_all)))
    assert not made.deliver(frame()) & PollReason.HOOK
    assert [action for action, _, _ in made.sent()] == [RELEASE]
    hooks.set_function(number, 0)
    assert [action for action, _, _ in judged(made, hooks, lambda packet: None)] == [TRANSMIT]


def test_hooks_that_can_not_be_are_refused(hooks: FastPathHooks) -> None:
    with pytest.raises(OSError, match="hooks of the fast path"):
        hooks.add("late", Stage.TX)
    with pytest.raises(OSError, match="hooks") as refused:
        hooks.remove(3)
    assert refused.value.errno == errno.ENOENT
    for _ in range(MAX_HOOKS):
        hooks.add("ä" * 60, Stage.INGRESS)
    with pytest.raises(OSError, match="hooks") as refused:
        hooks.add("one too many", Stage.INGRESS)
    assert refused.value.errno == errno.ENOSPC


def test_frames_are_put_in(made: Rig, hooks: FastPathHooks) -> None:
    hooks.add("look", Stage.EGRESS, ports=1 << 1)
    assert hooks.inject(Stage.EGRESS, 1, frame())
    assert made.fastpath.poll(0) & PollReason.HOOK
    assert hooks.parked().packets[0].injected
    made.fastpath.poll(0)
    assert [(port, octets) for _, port, octets in made.sent()] == [(1, frame())]
    assert hooks.inject(Stage.TX, 1, bytearray(frame()))
    assert [(port, octets) for _, port, octets in made.sent()] == [(1, frame())]
    assert not hooks.inject(Stage.TX, 1, bytes(4000))
    with pytest.raises(OSError, match="hooks of the fast path"):
        hooks.inject(Stage.TX, 99, frame())
    counters = made.slot.worker
    assert (counters.injected, counters.originated, counters.rx_frames) == (2, 3, 0)


def test_packet_of_ours_to_an_unknown_neighbor_waits_for_it(made: Rig, hooks: FastPathHooks) -> None:
    loop = asyncio.new_event_loop()
    host = StackHost(made.fastpath, loop, SETTINGS, lambda message: None)
    host.set_interfaces(made.fastpath.interfaces())
    made.sent()  # announcements
    ours = frame(UNKNOWN, "10.0.0.1")  # from our own address: received, it would be a forgery
    assert hooks.inject(Stage.FORWARD, 0, ours)
    assert made.fastpath.poll(0) & PollReason.PUNTS
    host.handle_punts()
    asked = [arp.parse(octets[14:]) for action, _, octets in made.sent() if action == TRANSMIT]
    assert [request.target_address for request in asked] == [UNKNOWN]
    answer = arp.ArpPacket(
        operation=arp.REPLY,
        sender_mac=OTHER_MAC,
        sender_address=UNKNOWN,
        target_mac=MACS[1],
        target_address=OWN[1],
    )
    reply = ethernet.EthernetFrame(MACS[1], OTHER_MAC, ethernet.ETHERTYPE_ARP, answer.emit()).emit()
    assert made.deliver(reply, port=1) & PollReason.PUNTS
    host.handle_punts()
    sent = [octets for action, _, octets in made.sent() if action == TRANSMIT]
    host.stop()
    loop.close()
    assert [octets[:6] for octets in sent] == [OTHER_MAC]
    packet = parse(sent[0][14:])
    assert (packet.dst, packet.ttl, bytes(packet.payload)) == (UNKNOWN, 63, bytes(26))
    assert hooks.inject(Stage.FORWARD, 0, ours)  # known now
    made.fastpath.poll(0)
    assert [parse(octets[14:]).ttl for action, _, octets in made.sent() if action == TRANSMIT] == [63]


@pytest.mark.parametrize(
    ("place", "octets", "reason"),
    [
        (12, b"\x88\xb5", "ethertype_unknown"),
        (14, b"\x65", "ipv4_version"),
        (12, b"\x81\x00", "ethertype_unknown"),
    ],
)
def test_packet_of_ours_that_a_hook_has_made_another_is_a_drop_with_a_name(
    made: Rig, hooks: FastPathHooks, place: int, octets: bytes, reason: str
) -> None:
    loop = asyncio.new_event_loop()
    host = StackHost(made.fastpath, loop, SETTINGS, lambda message: None)
    host.set_interfaces(made.fastpath.interfaces())
    hooks.add("another", Stage.FORWARD)
    assert hooks.inject(Stage.FORWARD, 0, frame(HOST, "10.0.0.1"))
    assert made.fastpath.poll(0) & PollReason.HOOK
    packet = hooks.parked().packets[0]
    ffi.memmove(made.pool + packet.offset + place, octets, len(octets))
    packet.verdict = lib.HALO_VERDICT_PUNT
    made.fastpath.poll(0)
    host.handle_punts()
    host.stop()
    loop.close()
    drops = dict(zip(DROP_NAMES, made.slot.worker.drops, strict=False))
    assert (drops["stack_error"], drops[reason]) == (0, 1)


def test_packets_are_parsed_and_settled_without_a_worker() -> None:
    octets = frame()
    pool = ffi.new("uint8_t[]", 2240)
    geometry = ffi.new("struct halo_pool_geometry *")
    geometry.size_octets = geometry.stride_octets = 2240
    ffi.memmove(pool + 192, octets, len(octets))
    packet, shadow = ffi.new("struct halo_packet *"), ffi.new("struct halo_shadow *")
    settled = ffi.new("struct halo_settled *")
    packet.offset, packet.length = 192, len(octets)
    lib.halo_packets_parse(pool, geometry, packet, 1, 5)
    assert (packet.verdict, packet.dst[0], packet.timestamp_ns) == (lib.HALO_VERDICT_NONE, HOST, 5)
    lib.halo_packets_remember(pool, packet, 1, shadow)
    packet.ttl, packet.l3_offset = 9, 4000
    lib.halo_packets_settle(pool, geometry, packet, 1, shadow, HookPolicy.PASS, settled)
    assert (packet.ttl, packet.l3_offset, settled.rewritten) == (9, 14, 1)
    assert parse(bytes(ffi.buffer(pool + 192 + 14, len(octets) - 14))).ttl == 9
    ffi.buffer(pool + 192 + 14, 20)[16:20] = OTHER.to_bytes(4, "big")
    lib.halo_packets_update_checksums(pool, geometry, packet, 1)
    lib.halo_packets_settle(pool, geometry, packet, 1, shadow, HookPolicy.PASS, settled)
    assert (packet.verdict, packet.dst[0]) == (lib.HALO_VERDICT_NONE, OTHER)
