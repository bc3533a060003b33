# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from halo_mp.wire import icmpv4
from halo_mp.wire.icmpv4 import Icmpv4Message
from halo_mp.wire.ipv4 import Ipv4Packet
from tests.unit.wire.harness import emit_into_poison, reason_of, reference_checksum

ECHO = bytes.fromhex("0800 f7dc 0001 0002 0020")  # the words add up to 0823
ECHO_VALUE = Icmpv4Message(icmpv4.ECHO_REQUEST, 0, 0x00010002, b"\0\x20")
QUOTED = Ipv4Packet(
    src=0x0A000001, dst=0x0A000002, protocol=17, payload=b"\1\2\3\4\5\6\7\x08more", options=b"\x01" * 4
)


def with_checksum(octets: bytes) -> bytes:
    summed = octets[:2] + bytes(2) + octets[4:]
    return octets[:2] + reference_checksum(summed).to_bytes(2, "big") + octets[4:]


def test_parse_known_octets() -> None:
    assert icmpv4.check(ECHO) is None
    message = icmpv4.parse(ECHO)
    assert message == ECHO_VALUE
    assert (message.identifier, message.sequence) == (1, 2)


def test_emit_known_value() -> None:
    assert ECHO_VALUE.emit() == ECHO
    assert emit_into_poison(ECHO_VALUE.size_octets, ECHO_VALUE.emit_into) == ECHO


@pytest.mark.parametrize("length", [0, 1, 2, 3, 55, 56, 1471, 1472])
def test_echo_of_even_and_odd_length_round_trips(length: int) -> None:
    message = dataclasses.replace(ECHO_VALUE, payload=b"\xff" * length)
    octets = emit_into_poison(message.size_octets, message.emit_into)
    assert reference_checksum(octets) == 0
    assert icmpv4.parse(octets) == message


def test_parse_does_not_copy_the_payload() -> None:
    octets = bytearray(ECHO)
    message = icmpv4.parse(memoryview(octets))
    octets[8] = 0x77
    assert message.payload == b"\x77\x20"


def test_truncated_at_every_length() -> None:
    for length in range(8):
        assert icmpv4.check(ECHO[:length]) == "icmp_truncated", length
        reason = reason_of(icmpv4.parse, ECHO[:length])
        assert reason == "icmp_truncated"
    for length in (8, 9):
        assert icmpv4.check(ECHO[:length]) == "icmp_checksum", length


@pytest.mark.parametrize("at", range(len(ECHO)))
def test_check_any_flipped_bit_breaks_the_checksum(at: int) -> None:
    octets = ECHO[:at] + bytes([ECHO[at] ^ 1]) + ECHO[at + 1 :]
    assert icmpv4.check(octets) == "icmp_checksum"
    assert reason_of(icmpv4.parse, octets) == "icmp_checksum"


def test_unreachable_with_mtu_round_trips_and_quotes() -> None:
    message = icmpv4.unreachable(icmpv4.FRAGMENTATION_NEEDED, QUOTED.emit(), next_hop_mtu=1400)
    parsed = icmpv4.parse(message.emit())
    assert parsed == message
    assert (parsed.type, parsed.code, parsed.next_hop_mtu) == (3, 4, 1400)
    quoted = icmpv4.quoted(parsed)
    assert (quoted.src, quoted.dst, quoted.protocol) == (QUOTED.src, QUOTED.dst, QUOTED.protocol)
    assert quoted.total_octets == QUOTED.size_octets
    assert quoted.header == QUOTED.emit()[:24]
    assert quoted.payload == QUOTED.payload


def test_time_exceeded_and_parameter_problem_fields() -> None:
    assert icmpv4.parse(icmpv4.time_exceeded(1, QUOTED.emit()).emit()).code == 1
    problem = icmpv4.parse(icmpv4.parameter_problem(20, QUOTED.emit()).emit())
    assert (problem.type, problem.code, problem.pointer) == (12, 0, 20)


def test_error_about_a_long_packet_fits_576_octets() -> None:
    about = dataclasses.replace(QUOTED, payload=bytes(1400)).emit()
    message = icmpv4.unreachable(icmpv4.PORT_UNREACHABLE, about)
    assert message.size_octets + 20 == 576
    assert icmpv4.quoted(message).total_octets == len(about)


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
def test_error_that_quotes_too_little_is_truncated_at_every_length(kind: int) -> None:
    quote = QUOTED.emit()
    for length in range(24 + 8):
        octets = Icmpv4Message(kind, 0, 0, quote[:length]).emit()
        assert icmpv4.check(octets) == "icmp_truncated", length
    assert icmpv4.check(Icmpv4Message(kind, 0, 0, quote[:32]).emit()) is None


@pytest.mark.parametrize("first", [0x65, 0x40, 0x44, 0x4F])
def test_quoted_header_that_lies_is_truncated(first: int) -> None:
    quote = bytes([first]) + QUOTED.emit()[1:]
    assert icmpv4.check(Icmpv4Message(3, 3, 0, quote).emit()) == "icmp_truncated"
    assert reason_of(icmpv4.quoted, Icmpv4Message(3, 3, 0, quote)) == "icmp_truncated"


@pytest.mark.parametrize("kind", [0, 8, 13, 17, 40, 255])
def test_other_types_need_no_quote(kind: int) -> None:
    octets = with_checksum(bytes([kind, 7, 0, 0, 1, 2, 3, 4]))
    assert icmpv4.parse(octets) == Icmpv4Message(kind, 7, 0x01020304, b"")


def test_construct_impossible_values_is_refused() -> None:
    for kind, code, rest in ((256, 0, 0), (0, -1, 0), (0, 0, 1 << 32)):
        with pytest.raises(ValueError, match="does not fit"):
            Icmpv4Message(kind, code, rest, b"")
    with pytest.raises(ValueError, match="next_hop_mtu"):
        icmpv4.unreachable(4, QUOTED.emit(), next_hop_mtu=1 << 16)
    with pytest.raises(ValueError, match="pointer"):
        icmpv4.parameter_problem(256, QUOTED.emit())


def test_emit_into_small_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="9 octets, 10 are needed"):
        ECHO_VALUE.emit_into(bytearray(9))
