# SPDX-License-Identifier: Apache-2.0
"""Several instances: one of a name, and any number of different names side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.proc.conftest import ADDRESSES, assert_answered, everybody, interfaces
from tests.support import lives
from tests.support.instance import Instance
from tests.support.leftovers import leftovers
from tests.support.namespace import Namespace
from tests.support.pinger import Pinger


def refused(instance: Instance) -> str:
    """Let an instance of a taken name end; return what it said."""
    with instance:
        assert instance.wait() == 4
    assert "Traceback" not in instance.text()
    return instance.text()


def test_second_of_a_name_is_refused_and_disturbs_nothing(pair: Instance, peer: Namespace) -> None:
    assert pair.process is not None
    before, children = leftovers(), everybody(pair)
    with Pinger(pair.namespace) as pinger:
        pinger.wait_for_more()
        for where in (pair.namespace, peer):
            said = refused(Instance(where, "--ports", "0", name=pair.name, wait=False))
            assert said == (
                f"halo-mp: instance {pair.name!r} is running as process {pair.process.pid}. Stop it with "
                f"`kill {pair.process.pid}`, or give this one another --name.\n"
            )
        pinger.wait_for_more()
    assert pinger.lost == set()
    assert everybody(pair) == children
    assert leftovers() == before
    assert interfaces(pair.namespace) >= {f"{pair.name}.0", f"{pair.name}.1"}
    assert pair.stop() == 0


def test_many_of_a_name_started_together_leave_one(namespace: Namespace) -> None:
    """Whoever has the lock: the others neither clean nor unlink what is its."""
    rivals = [Instance(namespace, name=f"r{id(namespace) % 100000}", wait=False) for _ in range(3)]
    with ThreadPoolExecutor() as executor:
        list(executor.map(Instance.__enter__, rivals))
    try:
        losers = [rival for rival in rivals if not comes_up(rival)]
        assert len(losers) == len(rivals) - 1
        assert {rival.wait() for rival in losers} == {4}
        [winner] = set(rivals) - set(losers)
        assert_answered(namespace, ADDRESSES[0])
        assert winner.stop() == 0
    finally:
        for rival in rivals:
            rival.stop()


def comes_up(instance: Instance) -> bool:
    """Wait until it is up, or has ended."""
    try:
        instance.wait_for("instance.up")
    except AssertionError:
        assert instance.process is not None
        assert instance.process.poll() is not None
        return False
    return True


def test_two_names_side_by_side_know_nothing_of_each_other(namespace: Namespace, peer: Namespace) -> None:
    with Instance(namespace, "--ports", "0,1") as left, Instance(peer, "--ports", "0,1") as right:
        with Pinger(peer, ADDRESSES[0]) as pinger:
            pinger.wait_for_more()
            for role, slot in (("driver", None), ("worker", 0)):
                victim = lives.pid(left, role, slot)  # type: ignore[arg-type]
                lives.kill(victim)
                lives.wait_for_successor(left, role, victim, slot)  # type: ignore[arg-type]
            assert_answered(namespace, *ADDRESSES)
            assert left.stop() == 0
            pinger.wait_for_more()
        assert pinger.lost == set()
        assert not lives.said(right, "worker.died")
        assert right.stop() == 0


def test_two_names_in_one_namespace(namespace: Namespace) -> None:
    """Of which one begins the other: `x` must not take the memory of `x.s` for its own."""
    with Instance(namespace) as left:
        with Instance(namespace, "--address", "0=10.78.0.1/24", name=f"{left.name}.s") as right:
            assert_answered(namespace, "10.77.0.1")
            assert_answered(namespace, "10.78.0.1")
            assert interfaces(namespace) == {"lo", f"{left.name}.0", f"{right.name}.0"}
            assert left.stop() == 0
            assert_answered(namespace, "10.78.0.1")
            assert right.stop() == 0
    assert interfaces(namespace) == {"lo"}
