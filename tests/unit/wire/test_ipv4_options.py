# SPDX-License-Identifier: Apache-2.0
import random

import pytest

from halo_mp.wire import ipv4_options
from halo_mp.wire.ipv4_options import Option
from tests.unit.wire.harness import reason_of

RECORD_ROUTE = bytes.fromhex("07 0b 04 00000000 00000000")
TIMESTAMP = bytes.fromhex("44 0c 05 00 00000000 00000000")
TIMESTAMP_ADDRESS = bytes.fromhex("44 0c 05 01 00000000 00000000")
TIMESTAMP_PRESPECIFIED = bytes.fromhex("44 0c 05 03 c0000201 00000000")
LOOSE = bytes.fromhex("83 07 04 c0000201")
STRICT = bytes.fromhex("89 07 04 c0000201")
ROUTER_ALERT = bytes.fromhex("94 04 0000")
SECURITY = bytes.fromhex("82 0b 0000000000000000 00")


@pytest.mark.parametrize(
    "octets",
    [RECORD_ROUTE, TIMESTAMP, TIMESTAMP_ADDRESS, TIMESTAMP_PRESPECIFIED, LOOSE, STRICT, ROUTER_ALERT, SECURITY],
)  # fmt: skip
def test_parse_known_option_behind_and_before_others(octets: bytes) -> None:
    found = ipv4_options.parse(b"\x01" + octets + b"\x01\x00" + b"\xff" * 3)
    assert found == (Option(octets[0], 1, octets),)
    assert ipv4_options.check(octets) is None


@pytest.mark.parametrize("octets", [RECORD_ROUTE, TIMESTAMP, LOOSE, STRICT, ROUTER_ALERT, SECURITY])
def test_truncated_at_every_length(octets: bytes) -> None:
    for length in range(1, len(octets)):
        assert ipv4_options.check(octets[:length]) == "ipv4_options", length
        reason = reason_of(ipv4_options.parse, octets[:length])
        assert reason == "ipv4_options"


@pytest.mark.parametrize("length", [0, 1, 41, 255])
def test_length_that_lies_is_refused_for_every_kind(length: int) -> None:
    for kind in range(2, 256):
        octets = bytes([kind, length]).ljust(40, b"\x01")
        assert ipv4_options.check(octets) == "ipv4_options", kind


@pytest.mark.parametrize("length", [2, 40])
def test_unknown_kind_is_skipped_by_its_length(length: int) -> None:
    octets = bytes([0x5E, length]).ljust(40, b"\x01")
    assert [option.octets for option in ipv4_options.walk(octets)] == [octets[:length]]


def test_end_of_list_in_the_middle_hides_the_rest() -> None:
    assert ipv4_options.parse(b"\x01\x00" + LOOSE) == ()
    assert ipv4_options.parse(b"") == ()


@pytest.mark.parametrize("option", [RECORD_ROUTE, TIMESTAMP, LOOSE, STRICT])
def test_option_that_may_stand_once_stands_twice(option: bytes) -> None:
    assert ipv4_options.check(option) is None
    assert ipv4_options.check(option + option) == "ipv4_options"


@pytest.mark.parametrize("kind", [0x07, 0x83, 0x89])
def test_route_pointer_every_value(kind: int) -> None:
    for pointer in range(256):
        octets = bytes([kind, 11, pointer]) + bytes(8)
        good = pointer >= 4 and pointer % 4 == 0
        assert (ipv4_options.check(octets) is None) is good, pointer


@pytest.mark.parametrize("kind", [0x07, 0x83, 0x89])
def test_route_length_every_value(kind: int) -> None:
    for length in range(2, 41):
        octets = bytes([kind, length, 4]).ljust(length, b"\0")[:length]
        assert (ipv4_options.check(octets) is None) is (length % 4 == 3), length


def test_timestamp_pointer_every_value_and_flag() -> None:
    for flag in range(16):
        for pointer in range(256):
            octets = bytes([0x44, 12, pointer, 0xF0 | flag]) + bytes(8)
            step = {0: 4, 1: 8, 3: 8}.get(flag)
            good = step is not None and pointer >= 5 and (pointer - 5) % step == 0
            assert (ipv4_options.check(octets) is None) is good, (flag, pointer)


def test_timestamp_length_every_value() -> None:
    for length in range(2, 41):
        octets = bytes([0x44, length, 5, 0]).ljust(length, b"\0")[:length]
        assert (ipv4_options.check(octets) is None) is (length % 4 == 0), length


@pytest.mark.parametrize("length", [2, 3, 5, 8])
def test_router_alert_of_another_length(length: int) -> None:
    assert ipv4_options.check(bytes([0x94, length]).ljust(length, b"\0")) == "ipv4_options"


def test_walk_of_random_octets_ends_within_their_length() -> None:
    rng = random.Random(791)
    seen = 0
    for _ in range(3000):
        octets = bytes(rng.choices((1, 2, 3, 4, 5, 7, 11, 68, 148, 200), k=rng.randrange(41)))
        if ipv4_options.check(octets) is None:
            options = ipv4_options.parse(octets)
            seen += len(options)
            assert sum(len(option.octets) for option in options) <= len(octets)
    assert seen > 50
