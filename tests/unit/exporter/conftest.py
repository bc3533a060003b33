# SPDX-License-Identifier: Apache-2.0
"""The shared memory of an instance without its processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.regions import Regions

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def regions(tmp_path: Path) -> Iterator[Regions]:
    with Regions(f"e{os.getpid() % 100000}", tmp_path) as made:
        made.forward(64000)
        made.add_hook(0, 'fil"ter\n\\', calls=3, packets=9, busy_ns=1_500_000_000)
        yield made


@pytest.fixture
def promtool() -> Path:
    """Prometheus's own tool; see tools/unpack-promtool."""
    found = shutil.which("promtool", path=f"{ROOT / 'build'}:{os.environ['PATH']}")
    assert found, "promtool is missing: make tools"
    return Path(found)
