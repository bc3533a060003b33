# SPDX-License-Identifier: Apache-2.0
"""A session reads the rings of all workers: in the order of time, also where one is behind, and up to its end."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Any, cast

import pytest

from halo_mp.capture import session
from halo_mp.capture.session import Session
from halo_mp.control.public import CaptureInfo
from halo_mp.errors import RuntimeFailure
from halo_mp.shm.capture_ring import HEADER_OCTETS, MIN_OCTETS, Ring, create_ring
from halo_mp.shm.layout import ffi, lib

_RECORD = struct.Struct("=IBBBBQIIHHHH")


def ring(times: Sequence[int]) -> int:
    """Return the descriptor of a ring with a record of each of these times."""
    fd = create_ring(MIN_OCTETS)
    with Ring(os.dup(fd)) as written:
        octets = ffi.buffer(written.pointer, written.size_octets)
        for i, time_ns in enumerate(times):
            at = HEADER_OCTETS + i * _RECORD.size
            record = _RECORD.pack(_RECORD.size, lib.HALO_POINT_RX, 0, 0, 0, time_ns, 60, 0, 0, 0, 0, 0)
            octets[at : at + _RECORD.size] = record
        written.pointer.producer = len(times) * _RECORD.size
    return fd


class _Gone:
    """A client whose instance has gone."""

    is_open = False


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session of two workers, one of which has more than is taken at a time."""
    monkeypatch.setattr(session, "MOST", 2)
    rings = {0: ring([1, 2, 3, 4, 6]), 1: ring([5])}
    return Session(cast("Any", _Gone()), CaptureInfo(number=1, rings=rings, ports={}, hooks={}))


def times(batch: Sequence[tuple[int, Any]]) -> list[int]:
    return [record.time_ns for _, record in batch]


def test_worker_that_is_behind_and_the_others_wait(two: Session) -> None:
    with two:
        assert [times(two.read()) for _ in range(4)] == [[1, 2], [3, 4], [5, 6], []]


def test_end_comes_behind_all_that_was_there(two: Session) -> None:
    with two:
        assert [each for batch in two.batches(lambda: True) for each in times(batch)] == [1, 2, 3, 4, 5, 6]


def test_instance_is_gone_and_all_that_it_had_written_comes_first(two: Session) -> None:
    found: list[int] = []

    def take() -> None:
        for batch in two.batches(lambda: False):
            found.extend(times(batch))

    with two, pytest.raises(RuntimeFailure, match="what came until then is here"):
        take()
    assert found == [1, 2, 3, 4, 5, 6]
