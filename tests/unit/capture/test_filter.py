# SPDX-License-Identifier: Apache-2.0
"""Filters: libpcap's own interpreter is the oracle, and what the check lets through always ends."""

from __future__ import annotations

import platform
import struct
from typing import Any

import pytest
from cffi import FFI
from hypothesis import example, given, settings
from hypothesis import strategies as st

from halo_mp.capture.filter import LIBRARY, FilterError, compile_filter
from halo_mp.shm.capture_ring import check_steps
from halo_mp.shm.layout import ffi, lib
from tests.support import frames
from tests.support.frames import datagram, echo_request, packet, tag

_oracle = FFI()
_oracle.cdef(
    "unsigned int bpf_filter(const void *program, const uint8_t *packet, unsigned int wire, unsigned int here);"
)
_pcap: Any = _oracle.dlopen(LIBRARY)

MAC, OTHER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
UDP = packet(
    src="10.0.0.1", dst="10.0.0.2", payload=datagram(src="10.0.0.1", dst="10.0.0.2", dst_port=53), protocol=17
)
ECHO = packet(src="10.0.0.1", dst="10.0.0.2", payload=echo_request())
FRAMES = [
    frames.frame(dst=MAC, src=OTHER, payload=UDP),
    frames.frame(dst=MAC, src=OTHER, payload=ECHO),
    frames.frame(dst=MAC, src=OTHER, payload=UDP, tags=tag(100)),
    frames.frame(dst=MAC, src=OTHER, payload=b"\x60" + bytes(39), ethertype=0x86DD),
    frames.frame(dst=MAC, src=OTHER, payload=bytes(46), ethertype=frames.ARP),
]
EXPRESSIONS = [
    "udp port 53",
    "tcp port 80",
    "host 10.0.0.2",
    "net 10.0.0.0/8 and not icmp",
    "vlan 100 and udp",
    "arp or ip6",
    "icmp[icmptype] == icmp-echo",
    "ip[8] > 63",
    "len <= 60",
    "ether src 02:00:00:00:00:02",
    "portrange 50-60",
    "udp[4:2] / 2 > 3",
    "ip[2:2] % 7 = 3 or ip[0] << 2 = 276",
]


def run(steps: bytes, frame: bytes) -> int:
    """Return what a filter says; as machine code, where that is possible, it says the same."""
    program, octets = ffi.from_buffer("struct halo_filter_step[]", steps), ffi.from_buffer("uint8_t[]", frame)
    found = lib.halo_filter_run(program, len(steps) // 8, octets, len(frame))
    said = ffi.new("uint32_t *")
    if lib.halo_filter_run_translated(program, len(steps) // 8, octets, len(frame), said):
        assert said[0] == found
    return found


def run_oracle(steps: bytes, frame: bytes) -> int:
    return int(
        _pcap.bpf_filter(
            _oracle.from_buffer(steps), _oracle.from_buffer("uint8_t[]", frame), len(frame), len(frame)
        )
    )


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression_says_what_libpcap_says_of_each_cut_frame(expression: str) -> None:
    steps = compile_filter(expression)
    assert check_steps(steps) is None
    for frame in FRAMES:
        for length in range(len(frame) + 1):
            found = run(steps, frame[:length])
            assert found == run_oracle(steps, frame[:length])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="there is code for x86-64 only")
@pytest.mark.parametrize("expression", EXPRESSIONS[:6])
def test_usual_expression_becomes_machine_code(expression: str) -> None:
    steps, frame = compile_filter(expression), FRAMES[0].ljust(80, b"\0")
    program = ffi.from_buffer("struct halo_filter_step[]", steps)
    said = ffi.new("uint32_t *")
    octets = ffi.from_buffer("uint8_t[]", frame)
    assert lib.halo_filter_run_translated(program, len(steps) // 8, octets, len(frame), said)


def test_expressions_tell_frames_apart() -> None:
    udp = compile_filter("udp port 53")
    assert [bool(run(udp, frame)) for frame in FRAMES] == [True, False, False, False, False]


def test_expression_that_makes_no_sense_is_a_sentence() -> None:
    with pytest.raises(FilterError, match=r"'udp prt 53' makes no sense: .*pcap-filter"):
        compile_filter("udp prt 53")


def test_empty_expression_lets_everything_through() -> None:
    assert compile_filter(" ") == b""
    assert run(b"", FRAMES[0])


CODES = sorted(
    {step[0] for each in EXPRESSIONS for step in struct.iter_unpack("=HBBI", compile_filter(each))}
)
step = st.tuples(
    st.sampled_from(
        [*CODES, 0x06, 0x16, 0x05, 0x60, 0x61, 0x02, 0x03, 0x07, 0x87, 0x84, 0x3C, 0x9C, 0x6C, 0x7C, 0x1D]
    ),
    st.integers(0, 4),
    st.integers(0, 4),
    st.one_of(st.integers(0, 70), st.integers(0, 2**32 - 1)),
)


@settings(max_examples=1500, deadline=None)
@given(st.lists(step, min_size=1, max_size=24), st.binary(max_size=64))
@example([(0x06, 0, 0, 0)], b"")
def test_program_that_is_let_through_says_what_the_oracle_says(
    program: list[tuple[int, int, int, int]], frame: bytes
) -> None:
    octets = b"".join(struct.pack("=HBBI", *each) for each in [*program, (0x06, 0, 0, 7)])
    # Of the words of memory the oracle's start as anything.
    loads = {code for code, *_ in program} & {0x60, 0x61}
    # libpcap shifts by an operand modulo 32 where we say 0.
    shifts = {code for code, *_ in program} & {0x6C, 0x7C}
    if check_steps(octets) is None:
        found = run(octets, frame)
        if not loads and not shifts:
            assert found == run_oracle(octets, frame)


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("none", []),
        ("no return", [(0x28, 0, 0, 12)]),
        ("a code that there is not", [(0x1FF, 0, 0, 0), (0x06, 0, 0, 0)]),
        ("a jump behind the end", [(0x15, 0, 1, 0), (0x06, 0, 0, 0)]),
        ("a long jump behind the end", [(0x05, 0, 0, 2**32 - 1), (0x06, 0, 0, 0)]),
        ("memory that there is not", [(0x60, 0, 0, 16), (0x06, 0, 0, 0)]),
        ("a division by zero", [(0x34, 0, 0, 0), (0x06, 0, 0, 0)]),
        ("a shift by 32", [(0x64, 0, 0, 32), (0x06, 0, 0, 0)]),
        ("too many", [(0x06, 0, 0, 0)] * 4097),
    ],
)
def test_program_that_could_do_harm_is_refused(name: str, program: list[tuple[int, int, int, int]]) -> None:
    del name
    octets = b"".join(struct.pack("=HBBI", *each) for each in program)
    assert lib.halo_filter_check(ffi.from_buffer("struct halo_filter_step[]", octets), len(program)) != 0


def test_half_a_step_is_refused() -> None:
    assert check_steps(compile_filter("udp")[:-1]) is not None
