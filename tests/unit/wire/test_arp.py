# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from halo_mp.wire import arp
from halo_mp.wire.arp import ArpPacket
from tests.unit.stack.checklist import meets
from tests.unit.wire.harness import emit_into_poison, reason_of

OCTETS = bytes.fromhex("0001 0800 06 04 0001 02000000000a c0000202 000000000000 c0000201")
VALUE = ArpPacket(
    operation=arp.REQUEST,
    sender_mac=bytes.fromhex("02000000000a"),
    sender_address=0xC0000202,
    target_mac=bytes(6),
    target_address=0xC0000201,
)


def test_parse_known_octets() -> None:
    assert arp.check(OCTETS) is None
    assert arp.parse(OCTETS) == VALUE
    assert arp.parse(memoryview(bytearray(OCTETS))) == VALUE


def test_emit_known_value() -> None:
    assert VALUE.emit() == OCTETS
    assert emit_into_poison(VALUE.size_octets, VALUE.emit_into) == OCTETS


def test_parse_ethernet_padding_is_ignored() -> None:
    assert arp.parse(OCTETS + b"\xa5" * 18) == VALUE


def test_truncated_at_every_length() -> None:
    for length in range(len(OCTETS)):
        assert arp.check(OCTETS[:length]) == "arp_malformed", length
        assert reason_of(arp.parse, OCTETS[:length]) == "arp_malformed"


@meets("arp.fields")
def test_check_any_other_hrd_pro_hln_pln_is_malformed() -> None:
    for bit in range(6 * 8):
        octets = bytearray(OCTETS)
        octets[bit // 8] ^= 1 << bit % 8
        assert arp.check(octets) == "arp_malformed", bit
        assert reason_of(arp.parse, octets) == "arp_malformed", bit


@pytest.mark.parametrize("operation", [0, 2, 3, 4, 8, 9, 0xFFFF])
def test_parse_every_operation(operation: int) -> None:
    octets = OCTETS[:6] + operation.to_bytes(2, "big") + OCTETS[8:]
    assert arp.parse(octets) == dataclasses.replace(VALUE, operation=operation)
    assert arp.parse(octets).emit() == octets


def test_construct_impossible_values_is_refused() -> None:
    for wrong in (
        {"operation": 0x10000},
        {"sender_mac": bytes(5)},
        {"target_mac": bytes(7)},
        {"sender_address": 1 << 32},
        {"target_address": -1},
    ):
        with pytest.raises(ValueError, match=r"."):
            dataclasses.replace(VALUE, **wrong)


def test_emit_into_small_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="27 octets, 28 are needed"):
        VALUE.emit_into(bytearray(27))
