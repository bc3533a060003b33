# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all tests: a namespace, and the proof after each test that nothing outlived it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.support.leftovers import leftovers, mark_this_run
from tests.support.namespace import Namespace

mark_this_run()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts us in the background ignores it, and so would all that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_GRACE_S = 2.0  # a process that was told to end may need a moment


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail the test that leaves a process, a shared memory object or a runtime directory behind."""
    before = leftovers()
    yield
    deadline = time.monotonic() + _GRACE_S
    while (left := leftovers() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, f"outlived the test: {', '.join(sorted(left))}"


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A network namespace of the test's own."""
    with Namespace() as made:
        yield made


@pytest.fixture
def peer() -> Iterator[Namespace]:
    """A second one, for the other end of a veth."""
    with Namespace() as made:
        yield made
