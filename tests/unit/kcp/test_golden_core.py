# SPDX-License-Identifier: Apache-2.0
"""The core takes the golden octets, and sends them when it is in that state."""

from typing import Any

import pytest

from halo_mp._native import lib
from halo_mp.kcp.core import Session, Verdict
from tests.unit.kcp import golden
from tests.unit.kcp.golden import Segment

FORMATS = {"classic": 0, "halo": 1}
CHECKS = {"off": 0, "zero": 1, "crc32": 2, "xxh3": 3}
CHECKED = [row for row in golden.SEGMENTS if row.check != "off"]
BY_NAME = {row.name: row for row in golden.SEGMENTS}
MESSAGES = [row for row in golden.SEGMENTS if row.cmd == golden.PUSH and row.frg == 0]
ACKS = [row for row in golden.SEGMENTS if row.cmd == golden.ACK]
by_name: Any = {"ids": lambda row: row.name}


class Fields:
    """The reference's settings, with a format, a check and a receive window, and no congestion control to wait for."""

    def __init__(self, row: Segment, receive_window: int) -> None:
        self.row, self.receive_window = row, receive_window

    def emit(self, pointer: Any) -> None:
        pointer.format = FORMATS[self.row.format]
        pointer.check = CHECKS[self.row.check]
        pointer.congestion = 0
        pointer.receive_window = self.receive_window
        pointer.most_fragments = min(255, self.receive_window)


def session(row: Segment, *, send_next: int, receive_next: int, receive_window: int = 128) -> Session:
    made = Session(Fields(row, receive_window), row.conv)
    assert lib.halo_kcp_start(made.pointer, send_next % 2**32, receive_next % 2**32) == 0
    return made


@pytest.mark.parametrize("row", MESSAGES, **by_name)
def test_message_is_sent_in_the_golden_octets(row: Segment) -> None:
    sender = session(row, send_next=row.sn, receive_next=row.una, receive_window=row.wnd)
    sender.send(row.payload)
    assert sender.poll(row.ts) == [row.octets]


@pytest.mark.parametrize("row", MESSAGES, **by_name)
def test_message_is_read_from_the_golden_octets(row: Segment) -> None:
    receiver = session(row, send_next=row.una, receive_next=row.sn)
    assert receiver.input(row.octets, 5) == Verdict.TAKEN
    assert receiver.receive() == row.payload


@pytest.mark.parametrize("row", ACKS, **by_name)
def test_acknowledgement_is_sent_in_the_golden_octets(row: Segment) -> None:
    """A PUSH of that number and time comes; what it carries is read, so that the window is whole again."""
    push = next(other for other in MESSAGES if (other.format, other.check) == (row.format, row.check))
    header = bytearray(push.octets)
    at = 8 if row.format == "classic" else 12  # ts, and sn behind it
    header[at : at + 8] = row.ts.to_bytes(4, "little") + row.sn.to_bytes(4, "little")
    receiver = session(row, send_next=push.una, receive_next=row.sn, receive_window=row.wnd)
    assert receiver.input(bytes(header), row.ts) == Verdict.TAKEN
    assert receiver.receive() == push.payload
    assert receiver.poll(row.ts) == [row.octets]


@pytest.mark.parametrize("row", ACKS, **by_name)
def test_golden_acknowledgement_is_taken(row: Segment) -> None:
    sender = session(row, send_next=row.sn, receive_next=0)
    sender.send(b"abc")
    assert len(sender.poll(row.ts)) == 1
    assert sender.waiting == 1
    assert sender.input(row.octets, row.ts + 1) == Verdict.TAKEN
    assert sender.waiting == 0
    assert sender.info()["remote_window"] == row.wnd


def test_window_is_told_in_the_golden_octets() -> None:
    ask, tell = BY_NAME["halo WASK"], BY_NAME["halo WINS"]
    asked = session(tell, send_next=8, receive_next=tell.una, receive_window=tell.wnd)
    assert asked.poll(0) == []
    assert asked.input(ask.octets, 1) == Verdict.TAKEN
    assert asked.poll(100) == [tell.octets]


@pytest.mark.parametrize("name", ["halo WASK", "halo WASK with XXH3"])
def test_window_is_asked_for_in_the_golden_octets(name: str) -> None:
    """After 7 s in which the peer has told a window of 0."""
    ask = BY_NAME[name]
    asking = session(ask, send_next=8, receive_next=ask.una, receive_window=ask.wnd)
    closed = bytearray(ask.octets)
    closed[8] = golden.WINS
    closed[10:12] = bytes(2)
    asking.poll(0)
    assert asking.input(bytes(closed), 1) == Verdict.TAKEN
    sent = [octets for now in range(100, 8000, 100) for octets in asking.poll(now)]
    assert sent == [ask.octets]


def test_first_of_255_fragments_is_taken() -> None:
    row = BY_NAME["halo PUSH, more fragments follow"]
    receiver = session(row, send_next=row.una, receive_next=row.sn, receive_window=255)
    assert receiver.input(row.octets, 1) == Verdict.TAKEN
    assert receiver.receive() is None
    assert receiver.info()["unread"] == 1
    assert receiver.info()["remote_window"] == 0


@pytest.mark.parametrize("row", CHECKED, **by_name)
def test_wrong_check_drops_all_and_acknowledges_nothing(row: Segment) -> None:
    """Also where there is no payload, and with a good segment in front of it."""
    first_octet = 28 if row.format == "halo" else 24
    for bit in range(32):
        receiver = session(row, send_next=row.una, receive_next=row.sn)
        wrong = bytearray(row.octets)
        wrong[first_octet + bit // 8] ^= 1 << bit % 8
        before = receiver.info()
        assert receiver.input(row.octets + bytes(wrong), 1) == Verdict.BAD_CHECK
        assert receiver.info() == before
        assert [octets for now in (1, 101, 201) for octets in receiver.poll(now)] == []


@pytest.mark.parametrize("row", [row for row in CHECKED if row.payload and row.check != "zero"], **by_name)
def test_payload_with_one_bit_wrong_is_refused(row: Segment) -> None:
    receiver = session(row, send_next=row.una, receive_next=row.sn)
    for bit in range(8 * len(row.payload)):
        wrong = bytearray(row.octets)
        wrong[-1 - bit // 8] ^= 1 << bit % 8
        assert receiver.input(bytes(wrong), 1) == Verdict.BAD_CHECK
    assert receiver.counters()["check_errors"] == 8 * len(row.payload)
    assert receiver.input(row.octets, 1) == Verdict.TAKEN


@pytest.mark.parametrize("row", golden.SEGMENTS, **by_name)
def test_golden_octets_truncated_at_every_length_are_refused(row: Segment) -> None:
    receiver = session(row, send_next=row.una, receive_next=row.sn)
    for length in range(len(row.octets)):
        assert receiver.input(row.octets[:length], 1) in (Verdict.BAD_CONV, Verdict.BAD_LENGTH)
    assert receiver.info()["held"] == receiver.info()["unread"] == 0
