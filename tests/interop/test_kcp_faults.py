# SPDX-License-Identifier: Apache-2.0
"""KCP sessions that end in the middle of something, on sockets of the kernel: each program a process in a namespace."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.namespace import Namespace


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as made:
        yield made


def run(namespace: Namespace, program: str) -> dict[str, Any]:
    """What the program saw, when it has ended well."""
    ran = namespace.run(sys.executable, "-m", "tests.support.kcp_faults", program, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_aborting_refusal_told_by_sendto_ends_the_session_once(namespace: Namespace) -> None:
    assert run(namespace, "refusal_waits") == {"end": "closed", "sessions": 0}


def test_rebind_of_what_has_ended_leaves_no_socket(namespace: Namespace) -> None:
    assert run(namespace, "rebind_of_an_end") == {"ends": ["closed"] * 4, "left": 0}


def test_waiting_output_of_a_session_never_goes_to_who_has_its_number_next(namespace: Namespace) -> None:
    assert run(namespace, "number_of_another") == {"same": True, "conv": 2, "undelivered": 1}
