# SPDX-License-Identifier: Apache-2.0
"""The shared memory of an instance without its processes, and a reader of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from halo_mp.stats.reader import Reader
from tests.support.regions import Regions


@pytest.fixture
def regions(tmp_path: Path) -> Iterator[Regions]:
    with Regions(f"s{os.getpid() % 100000}", tmp_path, queues=2) as made:
        yield made


@pytest.fixture
def reader(regions: Regions) -> Iterator[Reader]:
    with Reader(regions.instance, base=regions.base) as made:
        yield made
