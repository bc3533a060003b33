# SPDX-License-Identifier: Apache-2.0
"""A feed of the shared memory of an instance without its processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from halo_mp.dashboard.feed import Feed
from halo_mp.stats.reader import Reader
from tests.support.regions import Regions


@pytest.fixture
def regions(tmp_path: Path) -> Iterator[Regions]:
    with Regions(f"d{os.getpid() % 100000}", tmp_path) as made:
        yield made


@pytest.fixture
def feed(regions: Regions) -> Iterator[Feed]:
    with Reader(regions.instance, base=regions.base) as reader:
        yield Feed(reader, regions.base / regions.instance)
