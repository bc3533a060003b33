# SPDX-License-Identifier: Apache-2.0
"""Captures that can not be had are refused with a sentence, before any memory is taken."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from halo_mp.supervisor import captures
from halo_mp.supervisor.captures import Captures, Wanted
from halo_mp.supervisor.running import RefusedError


def test_more_memory_than_there_is_to_spare_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal:        9000000 kB\nMemAvailable:    4096000 kB\n")
    monkeypatch.setattr(captures, "MEMORY", memory)
    wanted = Wanted(steps=b"", points=1, ports=0, snap_octets=1, ring_octets=1 << 30)
    some = Captures(cast("dict[int, Any]", {0: None, 1: None}))
    with pytest.raises(
        RefusedError, match=r"2 workers .* 1024 MiB are 2048 MiB, .* the 4000 MiB .* --buffer"
    ):
        asyncio.run(some.start(wanted))
