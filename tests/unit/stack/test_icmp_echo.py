# SPDX-License-Identifier: Apache-2.0
"""Echo replies and the options in them."""

import dataclasses
import random

import pytest

from halo_mp.stack import icmp_echo
from halo_mp.stack.option_records import record
from halo_mp.wire import WireError, icmpv4
from halo_mp.wire.icmpv4 import Icmpv4Message
from halo_mp.wire.ipv4 import Ipv4Packet, parse_address
from tests.unit.stack.checklist import meets
from tests.unit.stack.harness import ADDRESS, NOW, PEER

OWN = ADDRESS.to_bytes(4, "big")
OTHER = parse_address("198.51.100.9").to_bytes(4, "big")
ECHO = Icmpv4Message(icmpv4.ECHO_REQUEST, 0, 0x12345678, b"data!")
REQUEST = Ipv4Packet(
    src=PEER, dst=ADDRESS, protocol=1, payload=ECHO.emit(), ttl=3, tos=0xB8, identification=7, flags=2
)
# Milliseconds of the monotonic clock, marked as not since midnight.
STAMP = (0x80000000 | int(NOW * 1000)).to_bytes(4, "big")


def answer(packet: Ipv4Packet, *, to_group: bool = False) -> Ipv4Packet:
    request = icmpv4.parse(packet.payload)
    return icmp_echo.answer(request, packet, to_group=to_group, identification=99, now=NOW)


def refused(packet: Ipv4Packet, *, to_group: bool = False) -> str:
    with pytest.raises(WireError) as caught:
        answer(packet, to_group=to_group)
    return caught.value.reason


def with_options(text: str) -> Ipv4Packet:
    octets = bytes.fromhex(text)
    return dataclasses.replace(REQUEST, options=octets + bytes(-len(octets) % 4))


def options_of_reply(text: str) -> bytes:
    return answer(with_options(text)).options[: len(bytes.fromhex(text))]


@meets("echo.identical", "echo.tos", "echo.source")
def test_request_reply_swaps_addresses_and_keeps_tos_id_sequence_and_data() -> None:
    reply = answer(REQUEST)
    assert reply == Ipv4Packet(
        src=ADDRESS,
        dst=PEER,
        protocol=1,
        payload=Icmpv4Message(icmpv4.ECHO_REPLY, 0, ECHO.rest, ECHO.payload).emit(),
        ttl=64,
        tos=0xB8,
        identification=99,
    )
    message = icmpv4.parse(reply.payload)
    assert (message.identifier, message.sequence) == (0x1234, 0x5678)


@meets("echo.odd")
@pytest.mark.parametrize("length", [0, 1, 2, 3, 55, 1471, 1472, 65507])
def test_request_of_even_and_odd_length_is_answered_with_a_right_checksum(length: int) -> None:
    data = random.Random(length).randbytes(length)
    echo = dataclasses.replace(ECHO, payload=data)
    reply = icmpv4.parse(answer(dataclasses.replace(REQUEST, payload=echo.emit())).payload)
    assert (reply.type, reply.payload) == (icmpv4.ECHO_REPLY, data)


@meets("echo.broadcast")
def test_request_to_broadcast_or_multicast_is_ignored() -> None:
    assert refused(REQUEST, to_group=True) == "icmp_broadcast_echo"


def test_request_of_another_code_is_not_answered() -> None:
    message = dataclasses.replace(ECHO, code=1)
    assert refused(dataclasses.replace(REQUEST, payload=message.emit())) == "icmp_unhandled"


def test_request_with_wrong_checksum_or_truncated_is_refused() -> None:
    octets = bytearray(ECHO.emit())
    octets[9] ^= 1
    assert refused(dataclasses.replace(REQUEST, payload=bytes(octets))) == "icmp_checksum"
    assert refused(dataclasses.replace(REQUEST, payload=octets[:7])) == "icmp_truncated"


def test_options_unknown_and_no_operation_are_kept_where_they_stand() -> None:
    text = "01 5e 04 abcd 01 94 04 0000"
    assert options_of_reply(text) == bytes.fromhex(text)


@meets("options.records")
def test_record_route_gets_our_address() -> None:
    assert options_of_reply("01 07 0b 04 00000000 00000000") == b"\x01\x07\x0b\x08" + OWN + bytes(4)


def test_record_route_keeps_who_was_before() -> None:
    text = "07 0b 08" + OTHER.hex() + "00000000"
    assert options_of_reply(text) == b"\x07\x0b\x0c" + OTHER + OWN


def test_record_route_full_is_kept_as_it_is() -> None:
    text = "07 07 08" + OTHER.hex()
    assert options_of_reply(text) == bytes.fromhex(text)


@meets("options.records")
def test_timestamp_only_gets_our_time() -> None:
    assert options_of_reply("44 08 05 00 00000000") == b"\x44\x08\x09\x00" + STAMP


def test_timestamp_with_address_gets_both() -> None:
    text = "44 0c 05 01 00000000 00000000"
    assert options_of_reply(text) == b"\x44\x0c\x0d\x01" + OWN + STAMP


def test_timestamp_prespecified_for_us_gets_our_time() -> None:
    text = "44 14 05 03" + OWN.hex() + "00000000" + OTHER.hex() + "00000000"
    expected = b"\x44\x14\x0d\x03" + OWN + STAMP + OTHER + bytes(4)
    assert options_of_reply(text) == expected


def test_timestamp_prespecified_for_somebody_else_is_kept_as_it_is() -> None:
    text = "44 0c 05 03" + OTHER.hex() + "00000000"
    assert options_of_reply(text) == bytes.fromhex(text)


def test_timestamp_full_counts_the_overflow() -> None:
    text = "44 08 09 20 11223344"
    assert options_of_reply(text) == bytes.fromhex("44 08 09 30 11223344")


def test_timestamp_full_with_full_overflow_is_refused() -> None:
    assert refused(with_options("44 08 09 f0 11223344")) == "ipv4_options"


def test_timestamp_with_room_for_half_an_entry_is_refused() -> None:
    assert refused(with_options("44 08 05 01 00000000")) == "ipv4_options"


def test_timestamp_wraps_with_the_clock_and_keeps_its_mark() -> None:
    options = bytes.fromhex("44 08 05 00 00000000")
    late = record(options, ADDRESS, (0x80000000 + 5) / 1000)
    assert late[4:8] == b"\x80\0\0\x05"


@pytest.mark.parametrize("text", ["07", "0700", "0701", "0709 04 00000000", "07 07 03 00000000", "44 03 05"])
def test_malformed_options_are_refused(text: str) -> None:
    assert refused(with_options(text)) == "ipv4_options"


def test_every_kind_with_lengths_0_1_2_40_ends() -> None:
    """Either an answer or a named refusal, for each."""
    outcomes = {"answered": 0, "ipv4_options": 0}
    for kind in range(256):
        for length in (0, 1, 2, 40):
            packet = dataclasses.replace(REQUEST, options=bytes([kind, length]).ljust(40, b"\x01"))
            try:
                reply = answer(packet)
            except WireError as error:
                outcomes[error.reason] += 1
            else:
                outcomes["answered"] += 1
                assert len(reply.options) == 40
    # Kind 0 ends the list. Behind kind 1, the length is a kind: 0 and 1 are good, 2 and 40 have the length 1. Of the
    # others, 0 and 1 are no lengths, and neither 2 nor 40 fits a route, a timestamp or a router alert.
    assert outcomes == {"answered": 4 + 2 + 249 * 2, "ipv4_options": 2 + 254 * 2 + 5 * 2}
