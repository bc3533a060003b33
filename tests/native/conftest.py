# SPDX-License-Identifier: Apache-2.0
"""Nothing is left behind: after each test, and after each file, no process, shared memory or descriptor of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.native.rig import INSTANCE_PREFIX


def _ours() -> dict[str, list[str]]:
    """What this process has now, in words. The descriptor that lists the descriptors is gone when it is looked at."""
    descriptors = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            descriptors.append(f"{entry.name} -> {entry.readlink()}")
        except FileNotFoundError:
            continue
    return {
        "processes": sorted(str(child.pid) for child in psutil.Process(os.getpid()).children(recursive=True)),
        "shared memory": sorted(str(path) for path in Path("/dev/shm").glob(f"halo-mp.{INSTANCE_PREFIX}*")),
        "descriptors": sorted(descriptors),
    }


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_by_the_file() -> Iterator[None]:
    before = _ours()
    yield
    assert _ours() == before


@pytest.fixture(autouse=True)
def _nothing_left_by_the_test(_nothing_left_by_the_file: None) -> Iterator[None]:
    before = _ours()
    yield
    assert _ours() == before
