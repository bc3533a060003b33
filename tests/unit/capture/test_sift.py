# SPDX-License-Identifier: Apache-2.0
"""What is asked of a whole burst first: it hides no packet that libpcap would let through, and shows few others."""

from __future__ import annotations

import platform
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halo_mp.capture.filter import compile_filter
from halo_mp.shm.capture_ring import check_steps
from halo_mp.shm.layout import ffi, lib
from tests.unit.capture.test_filter import EXPRESSIONS, FRAMES, run, run_oracle

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="there is code for x86-64 only")

USUAL = [
    "tcp",
    "udp",
    "udp port 53",
    "port 53",
    "tcp port 80 or udp port 53",
    "host 10.0.0.2",
    "src net 10.0.0.0/8 and not icmp",
    "icmp or arp",
    "ip[8] > 63",
    "len <= 60 and udp",
    "portrange 50-60",
    "icmp[icmptype] == icmp-echo",
    "udp[4:2] > 300",
    "ip6 and tcp port 22",
    "not host 10.0.0.9 and tcp[tcpflags] & tcp-syn != 0",
]
SPACING = 128


def sift(steps: bytes, frames: list[bytes]) -> list[int]:
    """Return for each frame whether it may be let through: 1 as a packet that was just parsed, plus 2 as any."""
    pool = b"".join(frame.ljust(SPACING, b"\xa5") for frame in frames).ljust(8192, b"\xa5")
    packets = ffi.new("struct halo_packet[]", len(frames))
    for i, frame in enumerate(frames):
        packets[i].offset, packets[i].length = i * SPACING, len(frame)
        packets[i].plain = len(frame) >= 34 and frame[12:15] == b"\x08\x00\x45"
    found = ffi.new("uint8_t[]", len(frames))
    program: Any = ffi.from_buffer("struct halo_filter_step[]", steps)
    octets = ffi.from_buffer("uint8_t[]", pool)
    assert lib.halo_filter_sift(program, len(steps) // 8, packets, len(frames), octets, len(pool), found) == 0
    return list(found)


def check(steps: bytes, frames: list[bytes]) -> list[int]:
    found = sift(steps, frames)
    for frame, bits in zip(frames, found, strict=True):
        if run_oracle(steps, frame):
            assert bits == 3, frame.hex()
    return found


plain = st.builds(
    lambda head, kind, tos, rest: head + b"\x08\x00\x45" + tos + rest[:8] + kind + rest[8:],
    st.sampled_from([b"\2" * 12, bytes(range(12))]),
    st.sampled_from([b"\x06", b"\x11", b"\x01", b"\x84", b"\x00", b"\xff"]),
    st.binary(min_size=1, max_size=1),
    st.one_of(
        st.binary(min_size=10, max_size=100),
        st.builds(
            lambda start, addresses, ports, rest: start + addresses + ports + rest,
            st.sampled_from([bytes(10), b"\0\x40" + bytes(8), b"\xff" * 10]),
            st.sampled_from([bytes.fromhex("0a0000010a000002"), bytes(8), b"\xff" * 8]),
            st.sampled_from(
                [b"\0\x35\0\x35", b"\0\x35\x10\0", b"\x10\0\0\x50", b"\0\x16\0\x16", b"\0\x3c\0\x32"]
            ),
            st.binary(max_size=60),
        ),
    ),
)
octets = st.one_of(plain, plain, st.binary(max_size=SPACING))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([*EXPRESSIONS, *USUAL]), st.lists(octets, min_size=1, max_size=24))
def test_expression_hides_nothing(expression: str, frames: list[bytes]) -> None:
    check(compile_filter(expression), frames)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(USUAL), st.lists(plain.map(lambda frame: frame.ljust(80, b"\0")), min_size=1, max_size=24)
)
def test_usual_expression_shows_nothing_else_of_usual_packets(expression: str, frames: list[bytes]) -> None:
    steps = compile_filter(expression)
    assert [bool(bits) for bits in check(steps, frames)] == [
        bool(run_oracle(steps, frame)) for frame in frames
    ]


@pytest.mark.parametrize("expression", [*EXPRESSIONS, *USUAL])
def test_frame_that_is_cut_is_not_hidden(expression: str) -> None:
    steps = compile_filter(expression)
    for frame in FRAMES:
        check(steps, [frame[:length] for length in range(len(frame) + 1)])


CODES = sorted(
    {step[0] for each in (*EXPRESSIONS, *USUAL) for step in struct.iter_unpack("=HBBI", compile_filter(each))}
)
OTHERS = [
    0x06,
    0x16,
    0x05,
    0x60,
    0x61,
    0x02,
    0x03,
    0x07,
    0x87,
    0x84,
    0x24,
    0x34,
    0x94,
    0xA4,
    0xAC,
    0x2C,
    0x3C,
    0x9C,
]
MORE = [
    0x01,
    0x00,
    0x80,
    0x81,
    0x6C,
    0x7C,
    0x1D,
    0x2D,
    0x3D,
    0x4D,
    0x0C,
    0x1C,
    0x4C,
    0x5C,
    0x54,
    0x44,
    0x64,
    0x74,
]
step = st.tuples(
    st.sampled_from([*CODES, *CODES, *OTHERS, *MORE]),
    st.integers(0, 4),
    st.integers(0, 4),
    st.one_of(st.integers(0, 70), st.sampled_from([12, 14, 20, 23, 26, 30]), st.integers(0, 2**32 - 1)),
)


@settings(max_examples=2500, deadline=None)
@given(st.lists(step, min_size=1, max_size=24), st.lists(octets, min_size=1, max_size=8))
def test_program_that_is_let_through_hides_nothing(
    program: list[tuple[int, int, int, int]], frames: list[bytes]
) -> None:
    steps = b"".join(struct.pack("=HBBI", *each) for each in [*program, (0x06, 0, 0, 7)])
    if check_steps(steps) is not None:
        return
    for frame, bits in zip(frames, sift(steps, frames), strict=True):
        if run(steps, frame):
            assert bits == 3


def test_program_that_asks_for_more_than_there_is_room_for_is_not_sifted() -> None:
    """Each comparison doubles what is known behind it."""
    program = [
        each
        for at in range(200)
        for each in (
            (0x30, 0, 0, 20 + at % 8),
            (0x05, 0, 0, 0),
            (0x15, 0, 1, at),
            (0x00, 0, 0, at),
            (0x07, 0, 0, 0),
        )
    ]
    steps = b"".join(struct.pack("=HBBI", *each) for each in [*program, (0x06, 0, 0, 7)])
    assert check_steps(steps) is None
    found = ffi.new("uint8_t[1]")
    packets = ffi.new("struct halo_packet[1]")
    octets = ffi.new("uint8_t[4096]")
    said = lib.halo_filter_sift(
        ffi.from_buffer("struct halo_filter_step[]", steps), len(steps) // 8, packets, 1, octets, 4096, found
    )
    assert said in (0, -95)


def test_packet_that_lies_nowhere_is_shown_and_not_read() -> None:
    steps, frame = compile_filter("tcp"), FRAMES[0].ljust(64, b"\0")
    pool = ffi.from_buffer("uint8_t[]", bytes(64) + frame)
    packets, found = ffi.new("struct halo_packet[]", 4), ffi.new("uint8_t[4]")
    for i, (offset, length) in enumerate(((64, 64), (2**32 - 1, 64), (120, 64), (64, 23))):
        packets[i].offset, packets[i].length = offset, length
    program = ffi.from_buffer("struct halo_filter_step[]", steps)
    assert lib.halo_filter_sift(program, len(steps) // 8, packets, 4, pool, 128, found) == 0
    assert [bits & 2 for bits in found] == [0, 2, 2, 2]
