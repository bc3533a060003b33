# SPDX-License-Identifier: Apache-2.0
"""What tests of processes share: an instance with two ports, and the wait for processes that are not our children."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import lives
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, wait_until

ADDRESSES = ("10.77.0.1", "10.77.1.1")


@pytest.fixture
def pair(namespace: Namespace) -> Iterator[Instance]:
    """An instance with two ports that answer."""
    with Instance(namespace, "--ports", "0,1") as instance:
        assert_answered(namespace, *ADDRESSES, count=1)
        yield instance


def assert_answered(namespace: Namespace, *addresses: str, count: int = 3) -> None:
    """Ping each address from inside until that many replies came, however long a busy machine takes."""
    for address in addresses:
        namespace.pinged(address, count=count)


def interfaces(namespace: Namespace) -> set[str]:
    """Return the names of the interfaces of a namespace."""
    lines = namespace.run("ip", "-o", "link").stdout.splitlines()
    return {line.split(":")[1].strip().partition("@")[0] for line in lines}


def everybody(instance: Instance) -> list[int]:
    """Return the pids of the latest lives of the driver and the workers of slots 0 and 1."""
    workers = [lives.pid(instance, "worker", slot) for slot in (0, 1)]
    return [lives.pid(instance, "driver"), *workers]


def kill_supervisor(instance: Instance) -> None:
    """End it so that it can do nothing about it."""
    instance.signal(signal.SIGKILL)
    assert instance.wait() == -signal.SIGKILL


def start_again(instance: Instance, *flags: str, **options: Any) -> Instance:
    """Return the next instance of that name in the same namespace, to be entered; options are Instance's."""
    return Instance(instance.namespace, "--ports", "0,1", *flags, name=instance.name, **options)


def wait_for_end(*processes: int, timeout_s: float = 10.0) -> None:
    """Wait until none of these processes runs any more."""
    wait_until(
        lambda: not any(map(lives.is_running, processes)), timeout_s=timeout_s, what=f"the end of {processes}"
    )


def assert_recovered(ledger: Ledger, namespace: Namespace, *addresses: str) -> None:
    """Every buffer is back, the ports answer, and from here on every frame is accounted for. Without traffic."""
    ledger.assert_whole()
    ledger.start_anew()
    assert_answered(namespace, *addresses or ADDRESSES[:1], count=10)
    ledger.assert_balanced()
