# SPDX-License-Identifier: Apache-2.0
"""Forward error correction: octets worked out by hand and taken from kcp-go, and all ways to lose what it covers."""

import itertools
import random
from collections.abc import Iterable

import pytest

from halo_mp.kcp.fec import MAX_SHARDS, OVERHEAD, FecDecoder, FecEncoder, FecSettings, is_fec

SMALL = FecSettings(data=2, parity=1)
# The greatest multiple of 13 that 32 bits hold: numbers of groups of 10 + 3 are below.
LIMIT_OF_13 = 4294967295 - 4294967295 % 13


def group(encoder: FecEncoder, messages: Iterable[bytes], now_ms: int = 0) -> list[bytes]:
    return [datagram for message in messages for datagram in encoder.encode(message, now_ms)]


def messages_of(count: int, seed: int = 1) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(rng.randint(1, 1400)) for _ in range(count)]


def test_number_behind_the_last_group_is_an_error() -> None:
    """What it carries goes on, as all data does; no group has such a number."""
    decoder = FecDecoder()
    shard = bytes.fromhex("f100 0300 2a")
    assert decoder.decode((LIMIT_OF_13 - 13).to_bytes(4, "little") + shard) == [b"\x2a"]
    assert decoder.counters.errors == 0
    assert decoder.decode(LIMIT_OF_13.to_bytes(4, "little") + shard) == [b"\x2a"]
    assert decoder.counters.errors == 1


def test_octets_are_counted_whatever_they_are_a_view_of() -> None:
    encoder, decoder = FecEncoder(), FecDecoder()
    (datagram,) = encoder.encode(memoryview(bytes(range(80))).cast("I"))
    assert decoder.decode(memoryview(datagram).cast("I")) == [bytes(range(80))]


def test_parity_is_what_the_polynomial_says() -> None:
    """2 + 1: the value at 2 is (2-1)/(0-1) = 3 times that at 0, and (2-0)/(1-0) = 2 times that at 1.

    Shards: 04 00 80 61 and 03 00 40 (then 0). 2 * 0x80 is 0x100, less 0x11d: 0x1d; 3 * 0x80 is 0x1d ^ 0x80 = 0x9d;
    2 * 0x40 = 0x80. So 3*4 ^ 2*3 = 0x0c ^ 0x06 = 0x0a; 0; 0x9d ^ 0x80 = 0x1d; 3 * 0x61 = 0xc2 ^ 0x61 = 0xa3.
    """
    assert group(FecEncoder(SMALL), [b"\x80\x61", b"\x40"]) == [
        bytes.fromhex("00000000 f100 0400 8061"),
        bytes.fromhex("01000000 f100 0300 40"),
        bytes.fromhex("02000000 f200 0a00 1da3"),
    ]


def test_octets_are_those_of_kcp_go() -> None:
    """Three messages through kcp-go 5.6.1's encoder for 3 + 2, told to begin with number 4294967290; then a fourth.

    4294967295 is a multiple of 5, so that the last group of all is 4294967290 to 4294967294, and 0 follows it.
    """
    encoder = FecEncoder(FecSettings(data=3, parity=2), first=4294967290)
    assert group(encoder, [b"halo", b"mp", bytes.fromhex("00ff807f01"), b""]) == [
        bytes.fromhex("faffffff f100 0600 68616c6f"),
        bytes.fromhex("fbffffff f100 0400 6d70"),
        bytes.fromhex("fcffffff f100 0700 00ff807f01"),
        bytes.fromhex("fdffffff f200 0500 05eeec1001"),
        bytes.fromhex("feffffff f200 1000 2d8a795006"),
        bytes.fromhex("00000000 f100 0200"),
    ]


@pytest.mark.parametrize("kept", list(itertools.combinations(range(7), 4)))
def test_any_four_of_seven_are_enough(kept: tuple[int, ...]) -> None:
    settings = FecSettings(data=4, parity=3)
    messages = messages_of(4)
    sent = group(FecEncoder(settings), messages)
    decoder = FecDecoder(settings)
    got = [message for place in kept for message in decoder.decode(sent[place])]
    assert sorted(got) == sorted(messages)
    lost = sum(place not in kept for place in range(4))
    counters = decoder.counters
    assert (counters.recovered, counters.whole, counters.errors) == (lost, lost == 0, 0)


def test_three_of_seven_give_only_what_they_carry() -> None:
    settings = FecSettings(data=4, parity=3)
    messages = messages_of(4)
    sent = group(FecEncoder(settings), messages)
    decoder = FecDecoder(settings)
    assert [decoder.decode(sent[place]) for place in (0, 4, 6)] == [[messages[0]], [], []]


def test_lost_data_comes_with_the_datagram_that_completes_the_group() -> None:
    messages = messages_of(2)
    sent = group(FecEncoder(SMALL), messages)
    decoder = FecDecoder(SMALL)
    assert decoder.decode(sent[2]) == []
    assert decoder.decode(sent[1]) == [messages[1], messages[0]]


def test_numbers_wrap_between_groups() -> None:
    settings = FecSettings(data=10, parity=3)
    encoder = FecEncoder(settings, first=LIMIT_OF_13 - 13)
    decoder = FecDecoder(settings)
    for seed, first in ((1, LIMIT_OF_13 - 13), (2, 0), (3, 13)):
        messages = messages_of(10, seed)
        sent = group(encoder, messages)
        assert int.from_bytes(sent[0][:4], "little") == first
        got = [message for datagram in sent[3:] for message in decoder.decode(datagram)]
        assert sorted(got) == sorted(messages)


def test_successor_begins_with_the_next_group() -> None:
    encoder = FecEncoder(SMALL)
    assert encoder.next_number == 0
    encoder.encode(b"one")
    assert encoder.next_number == 3
    encoder.encode(b"two")
    assert encoder.next_number == 3
    assert FecEncoder(SMALL, first=4).encode(b"a")[0][:4] == bytes([6, 0, 0, 0])
    assert FecEncoder(SMALL, first=2**32 - 1).encode(b"a")[0][:4] == bytes(4)


def test_parity_of_a_group_with_a_gap_is_left_out_with_its_numbers() -> None:
    encoder = FecEncoder(FecSettings(data=2, parity=1, gap_ms=100))
    assert len(encoder.encode(b"a", 2**32 - 50)) == 1
    assert len(encoder.encode(b"b", 49)) == 2  # 99 ms later: the clock has wrapped
    assert len(encoder.encode(b"c", 5000)) == 1
    assert len(encoder.encode(b"d", 5100)) == 1
    assert encoder.encode(b"e", 5200)[0][:4] == bytes([6, 0, 0, 0])
    counters = encoder.counters
    assert (counters.data, counters.parity, counters.skipped) == (5, 1, 1)


def test_duplicates_and_latecomers_are_counted_and_carry_on() -> None:
    messages = messages_of(2)
    sent = group(FecEncoder(SMALL), messages)
    decoder = FecDecoder(SMALL)
    assert decoder.decode(sent[0]) == [messages[0]]
    assert decoder.decode(sent[0]) == [messages[0]]  # KCP knows it by its number
    assert decoder.decode(sent[2]) == [messages[1]]
    assert decoder.decode(sent[1]) == [messages[1]]
    counters = decoder.counters
    assert (counters.repeated, counters.recovered, counters.late) == (1, 1, 1)


def test_number_that_lies_costs_one_group_at_most() -> None:
    settings = FecSettings(data=4, parity=2)
    encoder, decoder = FecEncoder(settings), FecDecoder(settings)
    decoder.decode(bytes.fromhex("00fffff0 f100 0300 41"))
    for seed in range(20):
        messages = messages_of(4, seed)
        sent = group(encoder, messages)
        got = [message for datagram in sent[2:] for message in decoder.decode(datagram)]
        assert sorted(got) == sorted(messages)


def test_groups_that_miss_too_many_are_given_up() -> None:
    settings = FecSettings(data=4, parity=2, groups=4)
    encoder, decoder = FecEncoder(settings), FecDecoder(settings)
    for _ in range(50):
        for datagram in group(encoder, messages_of(4))[:3]:
            assert len(decoder.decode(datagram)) == 1
    assert decoder.counters.incomplete == 46  # four are still open


def test_peer_with_other_shards_is_found_out() -> None:
    encoder, decoder = FecEncoder(FecSettings(data=5, parity=2)), FecDecoder(FecSettings(data=10, parity=3))
    for _ in range(4):
        for datagram in group(encoder, messages_of(5)):
            decoder.decode(datagram)
    assert decoder.shards == (5, 2)
    messages = messages_of(5, 9)
    got = [message for datagram in group(encoder, messages)[2:] for message in decoder.decode(datagram)]
    assert sorted(got) == sorted(messages)


def test_peer_with_other_shards_is_only_counted_when_told_so() -> None:
    encoder = FecEncoder(FecSettings(data=5, parity=2))
    decoder = FecDecoder(FecSettings(data=10, parity=3, tune=False))
    for _ in range(10):
        messages = messages_of(5)
        got = [message for datagram in group(encoder, messages) for message in decoder.decode(datagram)]
        assert set(got) >= set(messages)
    assert decoder.shards == (10, 3)
    assert decoder.counters.misplaced > 10


@pytest.mark.parametrize(
    "octets",
    [
        "",
        "00000000 f100 02",
        "00000000 f000 0200",
        "00000000 f300 0200",  # out of band, in later versions of kcp-go
        "00000000 f101 0200",
        "00000000 f100 0100",
        "00000000 f100 0000",
        "00000000 f100 0300",
        "00000000 f100 ffff 41",
    ],
)
def test_datagram_that_is_none_is_refused(octets: str) -> None:
    decoder = FecDecoder(SMALL)
    assert decoder.decode(bytes.fromhex(octets)) == []
    assert decoder.counters.errors == 1


def test_datagram_truncated_at_any_length_gives_nothing() -> None:
    datagram = FecEncoder(SMALL).encode(bytes(range(40)))[0]
    decoder = FecDecoder(SMALL)
    for length in range(len(datagram)):
        assert decoder.decode(datagram[:length]) == []
    assert decoder.counters.errors == len(datagram)


def test_too_long_is_refused_on_both_sides() -> None:
    settings = FecSettings(data=2, parity=1, size_octets=100)
    encoder = FecEncoder(settings)
    with pytest.raises(ValueError, match="93 octets and 8 of FEC"):
        encoder.encode(bytes(100 - OVERHEAD + 1))
    datagram = FecEncoder(SMALL).encode(bytes(100 - OVERHEAD + 1))[0]
    decoder = FecDecoder(settings)
    assert decoder.decode(datagram) == []
    assert decoder.counters.errors == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": 0},
        {"parity": 0},
        {"data": -1},
        {"data": MAX_SHARDS, "parity": 1},
        {"data": 2**32 + 10},
        {"size_octets": OVERHEAD - 1},
        {"size_octets": 65508},
        {"gap_ms": -1},
        {"groups": 0},
        {"groups": 65},
    ],
)
def test_settings_that_can_not_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="FEC of"):
        FecSettings(**wrong)


def test_fec_and_classic_kcp_are_told_apart() -> None:
    data, parity = FecEncoder(FecSettings(data=1, parity=1)).encode(bytes(24))
    assert is_fec(data)
    assert is_fec(parity)
    for command in (81, 82, 83, 84):
        for fragment in (0, 255):
            assert not is_fec(bytes([1, 2, 3, 4, command, fragment]) + bytes(18))
    assert not is_fec(b"")
