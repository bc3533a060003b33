# SPDX-License-Identifier: Apache-2.0
"""A confirmation that is awaited is read back as it was; of rubbish there is none."""

from __future__ import annotations

import os
from pathlib import Path

from halo_mp.supervisor import awaited
from halo_mp.supervisor.awaited import Awaited
from tests.unit.supervisor.test_history import kept


def test_what_is_awaited_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / awaited.FILE
    wanted = Awaited(kept(), deadline=0.0).applied(now=12.5, at=1_000_000.0, seconds=60)
    awaited.save(path, wanted)
    found = awaited.load(path)
    assert found is not None
    assert (found.deadline, found.until) == (72.5, 1_000_060.0)
    assert (found.before.by, found.before.wanted.config) == ("uid 0", wanted.before.wanted.config)
    assert list(found.before.wanted.routes) == list(wanted.before.wanted.routes)
    assert [entry.name for entry in tmp_path.iterdir()] == [awaited.FILE]


def test_rubbish_is_no_confirmation(tmp_path: Path) -> None:
    path = tmp_path / awaited.FILE
    assert awaited.load(path) is None
    awaited.save(path, Awaited(kept(), deadline=1.0))
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert awaited.load(path) is None
    path.write_bytes(whole.replace(b"\xa7version\x01", b"\xa7version\x02"))
    assert awaited.load(path) is None
    path.write_bytes(os.urandom(len(whole)))
    assert awaited.load(path) is None
