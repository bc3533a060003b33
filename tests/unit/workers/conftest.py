# SPDX-License-Identifier: Apache-2.0
"""A name for regions of the test's own, and the proof that no descriptor was left open."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def flat_descriptors() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    left = set(os.listdir("/proc/self/fd")) - before
    assert not {fd for fd in left if os.path.exists(f"/proc/self/fd/{fd}")}


@pytest.fixture
def instance() -> str:
    return f"u{os.getpid() % 100000}"
