# SPDX-License-Identifier: Apache-2.0
"""A session from Python: golden octets both ways, what it raises, export and import."""

from __future__ import annotations

import errno
import os
import random
import struct
import zlib
from array import array

import pytest

from halo_mp._native import ffi, lib
from halo_mp.kcp.core import Session, Verdict
from tests.support.kcp_reference import Fields
from tests.unit.kcp import golden
from tests.unit.kcp.golden import Segment

FORMATS = {"classic": 0, "halo": 1}
CHECKS = {"off": 0, "zero": 1, "crc32": 2, "xxh3": 3}
WRAP = 2**32


def quick(**fields: int) -> Fields:
    """Settings that wait for nothing."""
    return Fields(**{"congestion": 0, "interval_ms": 10, "nodelay": 1, **fields})


def session(row: Segment, *, send_next: int, receive_next: int) -> Session:
    fields = quick(format=FORMATS[row.format], check=CHECKS[row.check], receive_window=row.wnd or 128)
    made = Session(fields, row.conv)
    assert lib.halo_kcp_start(made.pointer, send_next % WRAP, receive_next % WRAP) == 0
    return made


def push(row: Segment, sn: int) -> bytes:
    """A PUSH without payload, whose answer is the row's ACK."""
    conv = row.conv.to_bytes(8 if row.format == "halo" else 4, "little")
    check = {"off": b"", "xxh3": golden.XXH3_EMPTY.to_bytes(4, "little")}.get(row.check, bytes(4))
    words = b"".join(word.to_bytes(4, "little") for word in (row.ts, sn, 0, 0))
    return conv + bytes([golden.PUSH, 0]) + bytes(2) + words + check


# The one with a closed window and more fragments comes out of no single call.
EMITTED = [row for row in golden.SEGMENTS if row.frg == 0]


@pytest.mark.parametrize("row", EMITTED, ids=lambda row: row.name)
def test_session_emits_golden_octets(row: Segment) -> None:
    if row.cmd == golden.PUSH:
        made = session(row, send_next=row.sn, receive_next=row.una)
        made.send(row.payload)
        now = row.ts
    elif row.cmd == golden.ACK:
        made = session(row, send_next=0, receive_next=row.sn)
        assert made.input(push(row, row.sn), 0) == Verdict.TAKEN
        assert made.receive() == b""
        assert made.info()["receive_next"] == row.una
        now = 0
    else:
        made = session(row, send_next=0, receive_next=row.una)
        if row.cmd == golden.WASK:
            made.probe()
        else:
            wask = bytearray(row.octets)
            wask[8 if row.format == "halo" else 4] = golden.WASK
            assert made.input(bytes(wask), 0) == Verdict.TAKEN
        now = 0
    assert [octets.hex() for octets in made.poll(now)] == [row.octets.hex()]


@pytest.mark.parametrize("row", golden.SEGMENTS, ids=lambda row: row.name)
def test_session_takes_golden_octets(row: Segment) -> None:
    made = session(row, send_next=row.una, receive_next=row.sn)
    if row.cmd == golden.ACK:
        made = session(row, send_next=row.sn, receive_next=0)
        made.send(b"to be acknowledged")
        made.poll(row.ts % WRAP)
        assert made.waiting == 1
    assert made.input(row.octets, (row.ts + 30) % WRAP) == Verdict.TAKEN
    info = made.info()
    assert info["remote_window"] == row.wnd
    if row.cmd == golden.ACK:
        assert (made.waiting, info["srtt_ms"]) == (0, 30)
    if row.cmd == golden.PUSH:
        assert info["receive_next"] == (row.sn + 1) % WRAP
        assert made.receive() == (row.payload if row.frg == 0 else None)
    if row.cmd == golden.WASK:
        assert made.poll(0)[0][8 if row.format == "halo" else 4] == golden.WINS


@pytest.mark.parametrize(
    "row", [row for row in golden.SEGMENTS if row.check != "off"], ids=lambda row: row.name
)
def test_session_refuses_a_golden_segment_with_another_check(row: Segment) -> None:
    header = 28 if row.format == "halo" else 24
    for bit in range(32):
        octets = bytearray(row.octets)
        octets[header + bit // 8] ^= 1 << bit % 8
        made = session(row, send_next=row.una, receive_next=row.sn)
        before = made.info()
        assert made.input(bytes(octets), 0) == Verdict.BAD_CHECK
        assert made.info() == before
        assert made.poll(0) == []
        assert made.counters()["check_errors"] == 1


def test_errors_are_raised_by_their_numbers() -> None:
    made = Session(quick(mtu=124, most_fragments=2), 1)
    with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
        made.send(bytes(201))
    made.close()
    assert made.end == "closed"
    with pytest.raises(BrokenPipeError):
        made.send(b"x")
    assert made.receive() is None
    assert made.peek() is None
    assert made.next_deadline(0) is None
    assert made.input(bytes(24), 0) == Verdict.ENDED


def test_written_message_leaves_at_once_unless_told_otherwise() -> None:
    for write_delay, expected in ((0, 0), (1, 90)):
        made = Session(quick(write_delay=write_delay, interval_ms=100), 1)
        assert made.poll(1000) == []
        made.send(b"x")
        assert made.next_deadline(1010) == expected
        assert bool(made.poll(1010)) == (not write_delay)


def test_acknowledgement_leaves_at_once_when_told_so() -> None:
    row = next(row for row in golden.SEGMENTS if row.name == "classic PUSH")
    for ack_no_delay, expected in ((1, 0), (0, 90)):
        made = Session(quick(ack_no_delay=ack_no_delay, interval_ms=100), row.conv)
        lib.halo_kcp_start(made.pointer, row.una, row.sn)
        assert made.poll(1000) == []
        made.input(row.octets, 1010)
        assert made.next_deadline(1010) == expected
        assert bool(made.poll(1010)) == bool(ack_no_delay)


def test_exported_session_goes_on_and_changed_octets_are_refused() -> None:
    one, other = (Session(quick(format=1), 7) for _ in range(2))
    for number in range(50):
        one.send(bytes([number]) * 2000)
    for datagram in one.poll(0)[:9:2]:
        other.input(datagram, 0)
    blobs = one.export(), other.export()
    one, other = (Session.import_(blob) for blob in blobs)
    got = []
    for now in range(10, 20_000, 10):
        for datagram in one.poll(now):
            other.input(datagram, now)
        for datagram in other.poll(now):
            one.input(datagram, now)
        while (message := other.receive()) is not None:
            got.append(message)
        if len(got) == 50:
            break
    assert got == [bytes([number]) * 2000 for number in range(50)]
    rng = random.Random(20261123)
    for blob in blobs:
        for _ in range(500):
            changed = bytearray(blob)
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            with pytest.raises(ValueError, match="no exported KCP session"):
                Session.import_(bytes(changed))
        with pytest.raises(ValueError, match="no exported KCP session"):
            Session.import_(blob[:-1])
    with pytest.raises(ValueError, match="no exported KCP session"):
        Session.import_(b"")


PREFIX = struct.Struct("<IIQI")


def sealed(blob: bytes) -> bytes:
    """A changed state, with the length and the CRC-32 that it ought to have."""
    magic, version, _, _ = PREFIX.unpack_from(blob)
    body = blob[PREFIX.size :]
    return PREFIX.pack(magic, version, len(blob), zlib.crc32(body)) + body


def test_state_that_ends_in_a_hole_is_refused() -> None:
    """Nothing is held, and yet there is to be a gap: queues would be given back with it, and missed later."""
    one, other = (Session(quick(format=1), 7) for _ in range(2))
    for payload in (b"lost", b"held"):
        one.send(payload * 300)
    _, held = one.poll(0)
    other.input(held, 0)
    other.poll(0)
    assert other.info()["held"] == 1
    blob = other.export()
    segment = struct.pack("<II", 1201, 0) + b"held" * 300
    assert blob.endswith(bytes(4) + segment)
    assert Session.import_(sealed(blob)).info()["held"] == 1
    with pytest.raises(ValueError, match="no exported KCP session"):
        Session.import_(sealed(blob.removesuffix(segment) + bytes(4)))


def test_shut_window_is_asked_for_at_the_time_that_is_set() -> None:
    wins = struct.pack("<IBBHIIII", 7, golden.WINS, 0, 0, 0, 0, 0, 0)
    for probe_ms, expected in (
        (0, [7000, 17500, 33250]),
        (500, [500, 1250, 2375, 4062, 6592]),
        (1, [10, 20, 30, 40, 50]),
    ):
        made = Session(quick(probe_ms=probe_ms), 7)
        made.send(b"x")
        assert made.input(wins, 0) == Verdict.TAKEN
        asked, now = [], 0
        while now < 40_000:
            asked += [now for octets in made.poll(now) if octets[4] == golden.WASK]
            wait = made.next_deadline(now)
            assert wait is not None
            now += max(wait, 1)
        assert asked[: len(expected)] == expected
        assert len(asked) < 40


def test_octets_are_counted_whatever_they_are_a_view_of() -> None:
    words = memoryview(array("I", range(20)))
    one, other = (Session(quick(format=1), 7) for _ in range(2))
    assert one.send(words) == 80
    (datagram,) = one.poll(0)
    wide = memoryview(datagram).cast("I")
    assert other.input(wide, 0) == Verdict.TAKEN
    assert other.receive() == words.tobytes()


def test_struct_of_a_session_is_small() -> None:
    assert Session(quick(), 1).info()["octets"] < 1024


def test_constants_are_those_of_the_header() -> None:
    assert (Verdict.BAD_CONV, Verdict.BAD_CHECK) == (lib.HALO_KCP_BAD_CONV, lib.HALO_KCP_BAD_CHECK)
    assert ffi.sizeof("struct halo_kcp_peer") == 24
