# SPDX-License-Identifier: Apache-2.0
"""A capture's ring between a worker and a reader: nothing is torn, losses are counted, scribbling hurts nobody."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bench.worker import Rig, build_plain, measure
from halo_mp.errors import EnvironmentProblem, RuntimeFailure
from halo_mp.shm.capture_ring import MIN_OCTETS, Ring, RingReader, create_ring
from halo_mp.shm.layout import lib

RX: int = lib.HALO_POINT_RX


@pytest.fixture(scope="module")
def rig() -> Rig:
    return build_plain()


@pytest.fixture
def ends(rig: Rig) -> Iterator[tuple[Ring, RingReader, Rig]]:
    """A ring that a worker writes to and a reader reads."""
    fd = create_ring(MIN_OCTETS)
    ring, reader = Ring(os.dup(fd)), RingReader(fd)
    place = rig.fastpath.add_capture(
        ring.pointer, ring.size_octets, steps=b"", points=RX, ports=0, snap_octets=100
    )
    yield ring, reader, rig
    rig.fastpath.remove_capture(place)
    reader.close()
    ring.close()


def test_what_is_read_and_what_is_lost_is_what_came(ends: tuple[Ring, RingReader, Rig]) -> None:
    ring, reader, rig = ends
    before, read = rig.slot.worker.rx_frames, 0
    for _ in range(3):  # and round the ring's end
        measure(rig)
        records = list(reader.read())
        read += len(records)
        assert all(record.point == RX and len(record.octets) == record.length == 60 for record in records)
        assert records
    assert reader.lost > 0
    assert read + reader.lost == rig.slot.worker.rx_frames - before
    assert ring.pointer.records == read


def test_reader_scribbles_and_the_worker_writes_nothing(ends: tuple[Ring, RingReader, Rig]) -> None:
    ring, _, rig = ends
    ring.pointer.consumer = 1 << 60
    before = rig.slot.worker.rx_frames
    measure(rig)
    assert ring.pointer.records == 0
    assert ring.pointer.lost == rig.slot.worker.rx_frames - before


@pytest.mark.parametrize("producer", [1 << 60, 2 * MIN_OCTETS, 8])
def test_worker_scribbles_and_the_reader_says_so(ends: tuple[Ring, RingReader, Rig], producer: int) -> None:
    ring, reader, _ = ends
    ring.pointer.producer = producer
    with pytest.raises(RuntimeFailure, match="scribbled"):
        list(reader.read())
    ring.pointer.producer = 0


def test_length_of_a_record_lies_and_the_reader_says_so(ends: tuple[Ring, RingReader, Rig]) -> None:
    ring, reader, rig = ends
    measure(rig)
    octets = memoryview(reader._octets)
    for size in (0, 8, 24, 1 << 31):
        octets[:4] = size.to_bytes(4, "little")
        with pytest.raises(RuntimeFailure, match="scribbled"):
            list(reader.read())
    assert ring.pointer.consumer == 0


def test_memory_that_is_no_ring_is_refused() -> None:
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 1 << 20)
    with pytest.raises(EnvironmentProblem, match="no sealed ring"):
        Ring(fd)
