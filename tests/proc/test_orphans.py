# SPDX-License-Identifier: Apache-2.0
"""The supervisor dies suddenly: the data path goes on, and ends by itself; where the next of the name can not take it
over, or is told not to, it cleans up. How it takes over stands in test_adoption.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.proc.conftest import (
    ADDRESSES,
    assert_answered,
    everybody,
    interfaces,
    kill_supervisor,
    start_again,
    wait_for_end,
)
from tests.support import lives
from tests.support.instance import Instance
from tests.support.leftovers import leftovers
from tests.support.namespace import Namespace
from tests.support.pinger import Pinger

ORPHAN_TIMEOUT_S = 2


@pytest.fixture
def short_lived(namespace: Namespace) -> Iterator[Instance]:
    """An instance whose children outlive the supervisor for two seconds. What is left is the test's to clean."""
    flags = ("--ports", "0,1", "--orphan-timeout", str(ORPHAN_TIMEOUT_S))
    with Instance(namespace, *flags) as instance:
        yield instance


def test_orphans_go_on_and_end_by_themselves(short_lived: Instance) -> None:
    children = everybody(short_lived)
    with Pinger(short_lived.namespace) as pinger:
        pinger.wait_for_more()
        kill_supervisor(short_lived)
        pinger.wait_for_more(100)  # a second's worth
        assert pinger.lost == set()
        assert all(map(lives.is_running, children))
        wait_for_end(*children)
    for process, event in (
        ("worker.0", "worker.orphaned"),
        ("worker.1", "worker.orphaned"),
        ("driver", "driver.orphaned"),
    ):
        [entry] = [entry for entry in short_lived.events(event) if entry["process"] == process]
        assert entry["waited_s"] == ORPHAN_TIMEOUT_S
    left = {name for name in leftovers() if short_lived.name in name}
    assert not [name for name in left if name.startswith("process")]
    with start_again(short_lived) as successor:
        assert_answered(short_lived.namespace, ADDRESSES[0])
        removed = {entry["name"] for entry in successor.events("leftover.region")}
        assert removed == {
            f"/halo-mp.{short_lived.name}.{region}"
            for region in ("owners", "ports", "tables", "fib", "routes", "slot.0", "slot.1")
        }
        assert {entry["interface"] for entry in successor.events("leftover.tap")} == {
            f"{short_lived.name}.0",
            f"{short_lived.name}.1",
        }
        assert not successor.events("leftover.process")
        assert successor.stop() == 0
    assert interfaces(short_lived.namespace) == {"lo"}


def test_successor_ends_live_orphans_and_comes_up(namespace: Namespace) -> None:
    with Instance(namespace, "--ports", "0,1", "--orphan-timeout", "60") as first:
        orphans = everybody(first)
        kill_supervisor(first)
        assert_answered(namespace, ADDRESSES[0])
        with start_again(first, "--no-adopt") as successor:
            assert not any(map(lives.is_running, orphans))
            ended = [(entry["role"], entry["pid"]) for entry in successor.events("leftover.process")]
            assert {pid for _, pid in ended} == set(orphans)
            assert [role for role, _ in ended] == ["worker", "worker", "driver"], "in the order of a stop"
            assert_answered(namespace, *ADDRESSES)
            assert set(everybody(successor)).isdisjoint(orphans)
            assert successor.stop() == 0


def test_orphans_of_a_supervisor_that_wants_none_end_at_once(namespace: Namespace) -> None:
    with Instance(namespace, "--ports", "0,1", "--orphan-timeout", "0") as instance:
        children = everybody(instance)
        kill_supervisor(instance)
        wait_for_end(*children)
        with start_again(instance) as successor:
            assert not successor.events("leftover.process")
            assert successor.stop() == 0


def test_orphan_that_can_not_end_by_itself_is_ended(namespace: Namespace) -> None:
    with Instance(namespace, "--ports", "0,1", "--orphan-timeout", "0") as first:
        orphans = everybody(first)
        os.kill(orphans[1], signal.SIGSTOP)
        kill_supervisor(first)
        wait_for_end(orphans[0], orphans[2])
        with start_again(first) as successor:
            assert [entry["pid"] for entry in successor.events("leftover.process")] == [orphans[1]]
            assert successor.stop() == 0


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)])
def test_everything_killed_is_cleaned_by_the_next(namespace: Namespace, order: tuple[int, ...]) -> None:
    """In whatever order they go, the supervisor among them."""
    with Instance(namespace, "--ports", "0,1") as first:
        assert first.process is not None
        everything = [first.process.pid, *everybody(first)]
        for number in order:
            lives.kill(everything[number])
        first.wait()
        # What the supervisor may have started again meanwhile belongs to the state that it left.
        with start_again(first) as successor:
            assert_answered(namespace, *ADDRESSES)
            assert successor.stop() == 0
    assert interfaces(namespace) == {"lo"}


def test_leftovers_of_another_boot_or_without_sense_are_cleaned(namespace: Namespace) -> None:
    """What a name left behind may be half written, by another version, or by nobody."""
    with Instance(namespace, "--ports", "0,1", "--orphan-timeout", "0") as first:
        children = everybody(first)
        kill_supervisor(first)
        wait_for_end(*children)
        (first.runtime / "state").write_bytes(b"\x82\xa7nonsense")
        (first.runtime / "private.sock").unlink()
        (first.runtime / "surplus").mkdir()
        with start_again(first) as successor:
            assert_answered(namespace, ADDRESSES[1])
            assert successor.stop() == 0
    assert not first.runtime.exists()
