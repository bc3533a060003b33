# SPDX-License-Identifier: Apache-2.0
"""These tests start no process and open nothing, so nothing is looked for after each of them."""

import pytest


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """Instead of the fixture of all tests, which would take longer than these tests."""
