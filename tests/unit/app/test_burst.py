# SPDX-License-Identifier: Apache-2.0
"""Bursts as columns: NumPy sees the records themselves, and frames by rows and columns."""

from __future__ import annotations

import numpy as np
import pytest

from halo_mp.app import Burst, Verdict, address
from halo_mp.wire import ipv4, udp
from tests.unit.app.test_packet import assert_sound, ip_frame, udp_frame

LONG = udp_frame(bytes(1000))


def burst() -> Burst:
    return Burst.from_octets([udp_frame(), LONG, ip_frame(bytes(20), protocol=6)])


def test_columns_are_views_of_the_records() -> None:
    made = burst()
    assert len(made) == 3
    assert made.length.tolist() == [74, 1042, 54]
    assert made.udp.dport.tolist() == [53, 53, 0]
    assert made.ipv4.protocol.tolist() == [17, 17, 6]
    assert made.ipv4.src.tolist() == [address("10.0.0.2")] * 3
    made.ipv4.ttl[0] = 9
    assert made.ipv4.ttl.tolist() == [9, 64, 64]
    assert not made.ipv4.ttl.flags.owndata
    assert made.ipv4.src.dtype == np.uint32


def test_fields_are_rewritten_by_mask_and_whole() -> None:
    made = burst()
    made.udp.dport[made.udp.dport == 53] = 5353
    made.ipv4.ttl -= 1
    made.ipv4.dst = address("10.9.9.9")
    first, second, third = made.settle()
    for each in (first, second):
        assert assert_sound(each.frame).dst_port == 5353
    for each in (first, second, third):
        packet = ipv4.parse(each.frame[14:])
        assert (packet.ttl, packet.dst) == (63, address("10.9.9.9"))


def test_verdicts_by_mask_and_number() -> None:
    made = burst()
    made.drop(made.length > 1000)
    made.transmit([2], port=5)
    assert [each.verdict for each in made.settle()] == [Verdict.PASS, Verdict.DROP, Verdict.TRANSMIT]
    made = burst()
    made.consume(made.ipv4.protocol == 6)
    made.punt(0)
    assert [each.verdict for each in made.settle()] == [Verdict.PUNT, Verdict.PASS, Verdict.CONSUME]
    made = burst()
    made.drop()
    assert {each.reason for each in made.settle()} == {"hook_drop"}


def test_octets_are_gathered() -> None:
    made = burst()
    assert made.octets[:, 12:14].tolist() == [[8, 0]] * 3
    assert int(made.octets[0, 23]) == 17
    assert made.octets[made.length > 60, [23, 14]].tolist() == [[17, 0x45]] * 2
    assert made.octets[1, 0:6].tobytes() == LONG[:6]
    per_row = made.l4_offset[:, None] + np.arange(2)
    assert made.octets[:, per_row].tolist() == [[0x0F, 0xA0], [0x0F, 0xA0], [0, 0]]


def test_octets_are_scattered_and_checksums_made_anew() -> None:
    made = burst()
    rows = made.udp.dport == 53
    made.octets[rows, 50:60] = 0x41
    made.update_checksums(rows)
    for each in made.settle()[:2]:
        assert assert_sound(each.frame).payload[8:18] == b"A" * 10


def test_octets_without_new_checksums_are_what_was_written() -> None:
    made = Burst.from_octets([udp_frame()])
    made.octets[0, 50:60] = 0x41
    [settled] = made.settle()
    packet = ipv4.parse(settled.frame[14:])
    assert udp.check(packet.payload, src=packet.src, dst=packet.dst) == "udp_checksum"


@pytest.mark.parametrize("place", [(slice(None), slice(0, 60)), (2, 54), (0, -1), (slice(None), [0, 60])])
def test_octet_behind_a_frame_is_refused(place: tuple[object, object]) -> None:
    with pytest.raises(IndexError, match=r"choose rows by burst\.length first"):
        _ = burst().octets[place]  # type: ignore[index]


def test_columns_without_an_end_are_refused() -> None:
    with pytest.raises(IndexError, match="say where the columns end"):
        _ = burst().octets[:, 4:]
    with pytest.raises(IndexError, match="name both"):
        _ = burst().octets[0]  # type: ignore[index]


def test_pool_and_offset_reach_a_frame_without_a_copy() -> None:
    made = burst()
    start = int(made.offset[1])
    view = made.pool[start : start + int(made.length[1])]
    assert view.tobytes() == LONG
    view[0] = 0x06
    assert made.settle()[1].frame[0] == 0x06


def test_many_frames_are_many_rows() -> None:
    made = Burst.from_octets([udp_frame()] * 512)
    assert len(made) == 512
    made.drop(made.udp.sport == 4000)
    assert {each.verdict for each in made.settle()} == {Verdict.DROP}


def test_settling_what_is_a_workers_is_refused() -> None:
    made = burst()
    made._keep = None
    with pytest.raises(RuntimeError, match="a worker settles its own"):
        made.settle()
