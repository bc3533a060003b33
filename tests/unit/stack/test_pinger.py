# SPDX-License-Identifier: Apache-2.0
"""Echo requests of ours: when they are sent, and what becomes of each."""

from typing import Any

import pytest

from halo_mp.stack.outputs import EchoReply, IcmpError
from halo_mp.stack.pinger import REMEMBERED, Pinger, PingFailure, PingReply, PingSettings, PingTimeout
from halo_mp.wire import icmpv4, ipv4
from halo_mp.wire.ipv4 import Ipv4Packet
from tests.unit.stack.harness import ADDRESS, NOW, OTHER, PEER

IDENTIFIER = 5 << 10 | 7


def pinger(**settings: Any) -> Pinger:
    return Pinger(PingSettings(**{"dst": PEER, "src": ADDRESS, **settings}), IDENTIFIER)


def reply_to(packet: Ipv4Packet, *, src: int = PEER, data: bytes | None = None) -> EchoReply:
    message = icmpv4.parse(packet.payload)
    payload = bytes(message.payload) if data is None else data
    return EchoReply(src, ADDRESS, message.identifier, message.sequence, 61, payload)


def error_about(packet: Ipv4Packet, *, type_: int = 3, code: int = 1) -> IcmpError:
    about = icmpv4.quoted(icmpv4.Icmpv4Message(type_, code, 0, packet.emit()))
    return IcmpError(OTHER, type_, code, 0, about)


def send(made: Pinger, now: float = NOW) -> Ipv4Packet:
    [packet] = made.poll(now)
    return packet


def test_request_has_what_was_asked_for() -> None:
    made = pinger(size_octets=300, df=True, ttl=9, tos=0xB8)
    assert made.next_deadline() == 0.0
    packet = send(made)
    assert (packet.src, packet.dst, packet.protocol, packet.ttl, packet.tos) == (ADDRESS, PEER, 1, 9, 0xB8)
    assert packet.flags == ipv4.FLAG_DONT_FRAGMENT
    message = icmpv4.parse(packet.payload)
    assert (message.type, message.code, message.identifier, message.sequence) == (8, 0, IDENTIFIER, 0)
    assert len(message.payload) == 300
    assert pinger().poll(NOW)[0].flags == 0


def test_reply_gives_the_round_trip_time_and_ends_the_request() -> None:
    made = pinger(count=1)
    made.receive(reply_to(send(made)), NOW + 0.25)
    assert list(made.outcomes) == [PingReply(0, PEER, 0.25, 61)]
    assert made.is_finished
    assert made.next_deadline() is None
    assert made.poll(NOW + 100) == []


def test_requests_keep_their_interval_whatever_is_answered() -> None:
    made = pinger(count=3, interval_s=0.5, timeout_s=5.0)
    for number in range(3):
        at = NOW + number / 2
        packet = send(made, at)
        assert made.poll(at + 0.49) == []
        if number != 1:
            made.receive(reply_to(packet), at + 0.49)
    assert [outcome.number for outcome in made.outcomes if isinstance(outcome, PingReply)] == [0, 2]
    assert made.poll(NOW + 1.5) == [], "there were three"


def test_timeout_ends_the_request_at_its_time() -> None:
    made = pinger(count=2, timeout_s=2.5)
    send(made)
    send(made, NOW + 1)
    assert made.next_deadline() == NOW + 2.5
    made.poll(NOW + 2.4)
    assert not made.outcomes
    made.poll(NOW + 2.5)
    assert list(made.outcomes) == [PingTimeout(0)]
    made.poll(NOW + 3.5)
    assert list(made.outcomes) == [PingTimeout(0), PingTimeout(1)]
    assert made.is_finished


def test_duplicate_and_late_replies_say_so() -> None:
    made = pinger(timeout_s=1.0)
    first = send(made)
    made.receive(reply_to(first), NOW + 0.1)
    made.receive(reply_to(first), NOW + 0.2)
    second = send(made, NOW + 1)
    made.poll(NOW + 2)
    made.outcomes.remove(PingTimeout(1))
    made.receive(reply_to(second), NOW + 3)
    made.receive(reply_to(second), NOW + 4)
    assert [(out.number, out.duplicate, out.late) for out in made.outcomes if isinstance(out, PingReply)] == [
        (0, False, False),
        (0, True, False),
        (1, False, True),
        (1, True, False),
    ]


def test_reply_of_others_or_with_other_data_is_nobodys() -> None:
    made = pinger()
    packet = send(made)
    made.receive(reply_to(packet, src=OTHER), NOW)
    made.receive(reply_to(packet, data=b"other"), NOW)
    made.receive(EchoReply(PEER, ADDRESS, IDENTIFIER, 9, 64, reply_to(packet).payload), NOW)
    assert made.foreign == 3
    assert not made.outcomes


def test_group_is_answered_by_its_members() -> None:
    made = pinger(dst=ipv4.parse_address("224.0.0.1"), count=1)
    packet = send(made)
    for src in (PEER, OTHER):
        made.receive(reply_to(packet, src=src), NOW)
    replies = [(out.src, out.duplicate) for out in made.outcomes if isinstance(out, PingReply)]
    assert replies == [(PEER, False), (OTHER, True)]


def test_error_about_a_request_ends_it() -> None:
    made = pinger(count=1)
    error = error_about(send(made), type_=11, code=0)
    made.fail(error, NOW + 0.5)
    assert list(made.outcomes) == [PingFailure(0, error, 0.5)]
    assert made.is_finished
    made.fail(error, NOW + 0.5)
    assert len(made.outcomes) == 1


def test_error_about_something_else_is_ignored() -> None:
    made = pinger()
    packet = send(made)
    strangers = Pinger(PingSettings(dst=PEER, src=ADDRESS), IDENTIFIER + 1)
    made.fail(error_about(send(strangers)), NOW)
    made.fail(error_about(send(pinger(dst=OTHER))), NOW)
    assert not made.outcomes
    made.fail(error_about(packet), NOW)
    assert len(made.outcomes) == 1


def test_host_that_pauses_is_not_made_to_send_a_burst() -> None:
    made = pinger(count=None, interval_s=1.0)
    send(made)
    assert [len(made.poll(NOW + 100)) for _ in range(3)] == [1, 0, 0]
    assert made.next_deadline() == NOW + 101


def test_sequence_numbers_wrap_and_memory_is_bounded() -> None:
    made = pinger(count=None, interval_s=0.001, timeout_s=0.5)
    for number in range(70000):
        packet = send(made, NOW + number / 500)
        if number >= 65536:
            assert icmpv4.parse(packet.payload).sequence == number - 65536
    made.receive(reply_to(packet), NOW + 140.1)
    assert made.outcomes[-1] == PingReply(69999, PEER, pytest.approx(0.102), 61)
    assert len(made) <= REMEMBERED + 251, "those of the last half second, and some that have ended"


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0},
        {"interval_s": 0.0},
        {"timeout_s": -1.0},
        {"size_octets": -1},
        {"size_octets": 65508},
        {"ttl": 0},
        {"ttl": 256},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PingSettings(dst=PEER, **wrong)
