# SPDX-License-Identifier: Apache-2.0
"""About what errors are sent, from where, how long and how many."""

import dataclasses

import pytest

from halo_mp.stack.icmp_errors import IcmpErrorSettings
from halo_mp.stack.interface import Address
from halo_mp.stack.outputs import Drop
from halo_mp.stack.route import Route, RouteKind
from halo_mp.stack.token_bucket import TokenBucket
from halo_mp.wire import ethernet, icmpv4, ipv4
from halo_mp.wire.icmpv4 import Icmpv4Message
from halo_mp.wire.ipv4 import parse_address
from tests.unit.stack.checklist import meets
from tests.unit.stack.harness import ADDRESS, NOW, PEER, PEER_MAC
from tests.unit.stack.lab import (
    LAN,
    NOWHERE,
    WAN,
    changed,
    datagram,
    dropped,
    framed,
    packets_in,
    quiet_router,
    router,
    told,
)


def icmp(type_: int, quote: bytes = datagram().emit()) -> bytes:
    return Icmpv4Message(type_, 0, 0, quote).emit()


@meets("error.quote", "error.ttl")
@pytest.mark.parametrize("octets", [0, 1, 400, 520, 521, 1400])
def test_error_quotes_as_much_as_fits_into_576_octets(octets: int) -> None:
    packet = datagram(dst=NOWHERE, data=bytes(range(250)) * 6, options=b"\1" * 8)
    packet = datagram(dst=NOWHERE, data=packet.emit()[:octets])
    [(_, _, error)] = packets_in(router().receive(0, framed(packet), NOW))
    message = icmpv4.parse(error.payload)
    assert message.payload == packet.emit()[:548]
    assert error.size_octets == min(20 + 8 + packet.size_octets, 576)
    assert (error.ttl, error.tos, error.flags) == (64, 0xC0, 0)


def test_padding_behind_the_packet_is_not_quoted() -> None:
    packet = dataclasses.replace(datagram(dst=NOWHERE), payload=b"8 octets", protocol=99)
    assert told(router(), packet)[1].payload == packet.emit()


@meets("error.errors", "old.errors")
@pytest.mark.parametrize("type_", sorted(icmpv4.ERRORS))
@pytest.mark.parametrize("dst", [NOWHERE, ADDRESS])
def test_error_is_never_about_an_error(type_: int, dst: int) -> None:
    packet = datagram(dst=dst, ttl=1, protocol=1, payload=icmp(type_))
    assert dropped(router(), packet) == ("ipv4_no_route" if dst == NOWHERE else "icmp_unhandled")


def test_error_may_be_about_a_question_and_is_not_about_what_nobody_can_tell() -> None:
    made = router()
    assert told(made, datagram(dst=NOWHERE, protocol=1, payload=icmp(8)))[1].code == 0
    assert dropped(made, datagram(dst=NOWHERE, protocol=1, payload=b"")) == "ipv4_no_route"


@meets("error.groups")
@pytest.mark.parametrize("dst", ["192.0.2.255", "192.0.2.0", "255.255.255.255", "224.0.0.1"])
def test_error_is_never_about_a_packet_for_a_group(dst: str) -> None:
    packet = datagram(dst=parse_address(dst))
    assert dropped(router(), packet, dst=ethernet.BROADCAST) == "no_listener"
    assert dropped(router(), packet) == "no_listener"
    bad = dataclasses.replace(packet, options=b"\7\0\0\0")
    assert dropped(router(), bad) == "ipv4_options"


@meets("error.groups")
def test_error_is_never_about_a_frame_for_a_group() -> None:
    packet = datagram(dst=ADDRESS, options=b"\7\0\0\0")
    assert dropped(router(), packet, dst=ethernet.BROADCAST) == "l2_multicast"


@meets("error.fragments")
@pytest.mark.parametrize("more", [0, ipv4.FLAG_MORE_FRAGMENTS])
def test_error_is_never_about_a_fragment_but_the_first(more: int) -> None:
    later = datagram(dst=NOWHERE, flags=more, fragment_offset_octets=8, data=bytes(28))
    assert dropped(router(), later) == "ipv4_no_route"
    first = dataclasses.replace(later, fragment_offset_octets=0)
    assert told(router(), first)[0] == "ipv4_no_route"


@meets("error.rate", "old.errors")
def test_errors_above_the_rate_are_suppressed_and_counted() -> None:
    made = router(errors=IcmpErrorSettings(rate=10.0, burst=5))
    frame = framed(datagram(dst=NOWHERE))
    at_once = [packets_in(made.receive(0, frame, NOW)) for _ in range(8)]
    assert [len(sent) for sent in at_once] == [1] * 5 + [0] * 3
    assert made.events["icmp_suppressed"] == 3
    assert made.counters["ipv4_no_route"] == 8, "the drops are counted all the same"
    second = [packets_in(made.receive(0, frame, NOW + tick / 50)) for tick in range(1, 51)]
    assert sum(map(len, second)) == 10
    assert made.events["icmp_suppressed"] == 3 + 40


def test_errors_of_all_kinds_share_the_rate() -> None:
    made = router(errors=IcmpErrorSettings(rate=1.0, burst=2))
    packets = (datagram(dst=NOWHERE), datagram(ttl=1), datagram(dst=ADDRESS))
    sent = [len(packets_in(made.receive(0, framed(packet), NOW))) for packet in packets]
    assert sent == [1, 1, 0]


def test_errors_that_are_forbidden_cost_no_token() -> None:
    made = router(errors=IcmpErrorSettings(rate=1.0, burst=1))
    for _ in range(5):
        made.receive(0, framed(datagram(dst=NOWHERE, protocol=1, payload=icmp(3))), NOW)
    assert told(made, datagram(dst=NOWHERE))[0] == "ipv4_no_route"
    assert made.events["icmp_suppressed"] == 0


def test_error_that_has_no_way_back_is_not_made() -> None:
    made = router(routes={})
    outputs = made.receive(0, framed(datagram(src=parse_address("10.1.1.1"))), NOW)
    assert len(packets_in(outputs)) == 1, "forwarding needs no way back"
    outputs = made.receive(0, framed(datagram(src=parse_address("10.1.1.1"), ttl=1)), NOW)
    assert [out.reason for out in outputs if isinstance(out, Drop)] == ["ipv4_ttl"]
    assert len(outputs) == 1
    assert made.events["icmp_no_way"] == 1


def test_error_never_comes_from_nobody_or_from_an_address_that_is_not_ours_yet() -> None:
    second = Address(parse_address("203.0.113.1"), 24, probe=True)
    made = quiet_router(changed(LAN, addresses=(second,)), WAN)
    made.adopt(0, PEER, PEER_MAC, NOW)
    src = parse_address("203.0.113.9")
    assert len(made.receive(0, framed(datagram(src=src, dst=NOWHERE)), NOW)) == 1
    nameless = quiet_router(
        changed(LAN, addresses=()), routes={"192.0.2.0/24": Route(RouteKind.CONNECTED, 0)}
    )
    nameless.adopt(0, PEER, PEER_MAC, NOW)
    assert len(nameless.receive(0, framed(datagram(dst=NOWHERE)), NOW)) == 1
    assert made.events["icmp_no_way"] == nameless.events["icmp_no_way"] == 1


def test_error_waits_for_its_neighbor_like_any_packet() -> None:
    made = quiet_router()
    drop, asked = made.receive(0, framed(datagram(dst=NOWHERE)), NOW)
    assert isinstance(drop, Drop)
    [(_, _, error)] = packets_in(made.adopt(0, PEER, bytes.fromhex("02000000000a"), NOW))
    assert icmpv4.parse(error.payload).code == 0
    assert asked is not None


def test_token_bucket_fills_to_its_burst_and_no_clock_turns_it_back() -> None:
    bucket = TokenBucket(10.0, 3)
    assert [bucket.take(NOW) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(NOW - 50)
    assert bucket.take(NOW + 0.1)
    assert not bucket.take(NOW + 0.1)
    assert [bucket.take(NOW + 100) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"burst": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        IcmpErrorSettings(**wrong)  # type: ignore[arg-type]
