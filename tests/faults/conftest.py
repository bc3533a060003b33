# SPDX-License-Identifier: Apache-2.0
"""What tests of faults share: an instance that may die often, with a canary's traffic on both ports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.proc.conftest import pair
from tests.support import lives
from tests.support.canary import Canary
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.leftovers import leftovers
from tests.support.namespace import Namespace, wait_until

__all__ = ["FLAGS", "Scene", "open_scene", "pair", "scene"]

FLAGS = ("--ports", "0,1", "--restart-limit", "100/10")


@dataclass(frozen=True, slots=True)
class Scene:
    """An instance under traffic, and its books. Slot 0 is where faults happen, slot 1 the bystander."""

    instance: Instance
    ledger: Ledger
    canary: Canary

    def assert_recovered(self, *, laws: bool = False) -> None:
        """Both ports answer, every buffer is there, and nothing left by the wrong port.

        `laws`: what happens from here on balances too.
        """
        self.canary.wait_for_more()
        self.canary.pause()
        self.ledger.assert_whole()
        if laws:
            self.ledger.start_anew()
            self.canary.resume()
            self.canary.wait_for_more()
            self.canary.pause()
            self.ledger.assert_balanced()
        self.canary.resume()
        self.canary.assert_unharmed()

    def pid(self, role: lives.Role) -> int:
        """Return the pid of the driver, or of slot 0's worker."""
        return lives.pid(self.instance, role, self._slot(role))

    def wait_for_successor(self, role: lives.Role, old: int) -> int:
        """Wait until the driver, or slot 0's worker, has another life than `old`, and is useful."""
        return lives.wait_for_successor(self.instance, role, old, self._slot(role))

    def deaths(self, role: lives.Role) -> int:
        """Return how many lives of it have ended."""
        return len(lives.pids(self.instance, role, self._slot(role))) - 1

    def _slot(self, role: lives.Role) -> int | None:
        return 0 if role == "worker" else None


def open_scene(instance: Instance) -> Iterator[Scene]:
    """Yield a scene of an instance with ports 0 and 1 that is up; the bystander's worker must not have died in it."""
    bystander = lives.pid(instance, "worker", 1)
    ledger = Ledger(instance, 0, 1)
    with Canary(instance, 0, 1) as canary:
        canary.wait_for_more()
        yield Scene(instance, ledger, canary)
        canary.assert_unharmed()
    assert lives.pids(instance, "worker", 1) == [bystander]
    assert instance.stop() == 0


@pytest.fixture(scope="module")
def nothing_left_by_the_file() -> Iterator[None]:
    """For files that share a scene, whose workers come and go: what is left is looked for behind the last test."""
    before = leftovers()
    yield
    wait_until(lambda: not leftovers() - before, what="the end of everything that the tests started")


@pytest.fixture(scope="module")
def shared(nothing_left_by_the_file: None) -> Iterator[Scene]:
    """One scene for all tests of a file, which must define a `nothing_left` that lets workers come and go."""
    with Namespace() as namespace, Instance(namespace, *FLAGS) as instance:
        yield from open_scene(instance)


@pytest.fixture
def scene(namespace: Namespace) -> Iterator[Scene]:
    with Instance(namespace, *FLAGS) as instance:
        yield from open_scene(instance)
