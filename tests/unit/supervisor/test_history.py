# SPDX-License-Identifier: Apache-2.0
"""Configurations that were replaced are read back as they were; of rubbish there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from halo_mp.supervisor import arguments, config, history
from halo_mp.supervisor.candidates import whole
from halo_mp.supervisor.history import Kept

MACHINE = config.Machine(cores=(0, 1), free_pages={})
FLAGS = (
    "--vdev net_null0 --vdev net_null1 --macswap 0=1 --address 0.7=10.1.0.1/24 "
    "--neighbor 0.7=10.1.0.9,02:00:00:00:00:09 --route default=10.1.0.2*2,10.1.0.3@0.7 "
    "--route 10.9.0.0/16=blackhole --route 10.8.0.0/16=blackhole"
)


def kept(*flags: str) -> Kept:
    built = config.build(arguments.parse([*FLAGS.split(), *flags]), MACHINE)
    return Kept(whole(built, None), 1.5, "uid 0", 7)


def test_history_is_read_back(tmp_path: Path) -> None:
    wanted = [kept(), kept("--route", "10.7.0.0/16=10.1.0.4")]
    history.save(tmp_path / "history", wanted)
    found = history.load(tmp_path / "history")
    assert [(each.until, each.by, each.changes) for each in found] == [(1.5, "uid 0", 7)] * 2
    assert [each.wanted.config for each in found] == [each.wanted.config for each in wanted]
    assert [list(each.wanted.routes) for each in found] == [list(each.wanted.routes) for each in wanted]
    assert [entry.name for entry in tmp_path.iterdir()] == ["history"]


def test_history_of_rubbish_is_none(tmp_path: Path) -> None:
    path = tmp_path / "history"
    assert history.load(path) == []
    history.save(path, [kept()])
    whole_one = path.read_bytes()
    for length in range(0, len(whole_one), 7):
        path.write_bytes(whole_one[:length])
        assert history.load(path) == []
    for place in range(0, len(whole_one), 5):
        path.write_bytes(whole_one[:place] + os.urandom(1) + whole_one[place + 1 :])
        history.load(path)  # whatever comes of it: it does not raise


@pytest.mark.parametrize("which", [b"", b"\x09\0\0\0" * 3])
def test_history_of_routes_without_hops_is_none(tmp_path: Path, which: bytes) -> None:
    history.save(tmp_path / "history", [kept()])
    whole_one = (tmp_path / "history").read_bytes()
    before = kept().wanted.routes.columns.which.tobytes()
    assert len(before) == 12
    head = bytes([0xC4, len(before)])
    assert head + before in whole_one
    (tmp_path / "history").write_bytes(whole_one.replace(head + before, bytes([0xC4, len(which)]) + which))
    assert history.load(tmp_path / "history") == []
