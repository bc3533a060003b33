# SPDX-License-Identifier: Apache-2.0
"""The supervisor dies and the next of its name takes over what runs: same processes, same memory, no packet lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from halo_mp.capture.session import Session
from halo_mp.control.capture_client import CaptureClient
from halo_mp.shm.layout import RegionKind
from halo_mp.supervisor.captures import MAX_CAPTURES
from tests.proc.conftest import (
    ADDRESSES,
    assert_answered,
    assert_recovered,
    everybody,
    interfaces,
    kill_supervisor,
    start_again,
    wait_for_end,
)
from tests.support import lives
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, wait_until
from tests.support.pinger import Pinger

REGIONS = {
    "owners": RegionKind.OWNERS,
    "ports": RegionKind.PORTS,
    "slot.0": RegionKind.SLOT,
    "slot.1": RegionKind.SLOT,
}


def creators(instance: Instance) -> set[int]:
    """Return who stands in the headers of the regions."""
    found = set()
    for name, kind in REGIONS.items():
        with instance.region(name, kind) as region:
            found.add(region.header.creator_pid)
    return found


def test_next_supervisor_takes_over_and_no_packet_is_lost(pair: Instance) -> None:
    namespace, children = pair.namespace, everybody(pair)
    ledger = Ledger(pair, 0, 1)
    with Pinger(namespace, ADDRESSES[0]) as pinger, Pinger(namespace, ADDRESSES[1]) as other:
        for each in (pinger, other):
            each.wait_for_more()
        kill_supervisor(pair)
        with start_again(pair) as successor:
            for each in (pinger, other):
                each.wait_for_more()
                assert each.lost == set()
                assert set(each.answered.values()) == {1}
            [adopted] = successor.events("instance.adopted")
            assert (adopted["driver"], adopted["workers"]) == (children[0], 2)
            assert everybody(successor) == children
            assert all(map(lives.is_running, children))
            assert successor.process is not None
            assert creators(successor) == {successor.process.pid}, "nobody may take these regions for stale"
            assert not successor.events("slot.reset")
            for event in ("supervisor.lost", "supervisor.found"):  # where the first supervisor's log went
                assert len(pair.events(event)) == len(children)
            for snapshot in ledger.snapshots():
                assert snapshot["driver"]["counters"]["resets"] == 0
            for each in (pinger, other):
                each.stop()
            ledger.assert_balanced()
            assert successor.stop() == 0
    wait_for_end(*children)
    assert interfaces(namespace) == {"lo"}


def captured(client: CaptureClient, namespace: Namespace) -> list[bytes]:
    """Return what a capture that begins now has of a ping that is sent then."""
    with Session(client, client.capture(points=["rx"], ports=[0], octets=1 << 16)) as session:
        assert_answered(namespace, ADDRESSES[0])
        return [record.octets for _, record in next(session.batches(lambda: False))]


def test_capture_of_the_one_before_is_ended_with_a_sentence_and_leaves_nothing(
    pair: Instance, tmp_path: Path
) -> None:
    path = tmp_path / "whole.pcapng"
    command = [sys.executable, "-m", "halo_mp.cli", "capture", "--name", pair.name, "-w", str(path), "icmp"]
    with pair.namespace.popen(*command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert running.stderr.readline().startswith("capturing")
        assert_answered(pair.namespace, ADDRESSES[0])
        kill_supervisor(pair)
        told = running.stderr.read()
        assert running.wait(30) == 1
    assert "the supervisor has gone, and the capture with it" in told
    assert ", 0 lost" in told
    assert subprocess.run(["tshark", "-r", path], capture_output=True, check=True).stdout
    with start_again(pair) as successor, ExitStack() as stack:
        for _ in range(MAX_CAPTURES):  # a worker has room for as many: of the one before it has none
            client = CaptureClient(path=successor.runtime / "control.sock")
            stack.enter_context(client)
            assert captured(client, successor.namespace)
        assert not successor.events("capture.failed")


def test_what_was_adopted_is_kept_alive_like_children(pair: Instance) -> None:
    """Driver and worker that die under the second supervisor have successors on the same memory."""
    ledger = Ledger(pair, 0, 1)
    driver, worker, other = everybody(pair)
    kill_supervisor(pair)
    with start_again(pair) as successor:
        lives.kill(worker)
        second = lives.wait_for_successor(successor, "worker", worker, 0)
        [died] = lives.said(successor, "worker.died")
        assert died["reason"] == "ended, and only its parent, which is dead, could have known how"
        lives.kill(driver)
        lives.wait_for_successor(successor, "driver", driver)
        assert everybody(successor)[1:] == [second, other]
        assert_recovered(ledger, pair.namespace, *ADDRESSES)
        assert successor.stop() == 0


def test_three_supervisors_one_after_the_other(pair: Instance) -> None:
    """Adoption leaves no descriptor behind in those that stay."""
    children = everybody(pair)
    before = [len(lives.descriptors(child)) for child in children]
    ledger = Ledger(pair, 0, 1)
    with Pinger(pair.namespace) as pinger:
        pinger.wait_for_more()
        kill_supervisor(pair)
        with start_again(pair) as second:
            kill_supervisor(second)
            with start_again(pair) as third:
                assert everybody(third) == children
                pinger.wait_for_more()
                assert pinger.lost == set()
                assert [len(lives.descriptors(child)) for child in children] == before
                pinger.stop()
                ledger.assert_balanced()
                assert third.stop() == 0


def test_worker_that_died_without_a_supervisor_is_started_again(pair: Instance) -> None:
    ledger = Ledger(pair, 0, 1)
    driver, worker, other = everybody(pair)
    with Pinger(pair.namespace, ADDRESSES[1]) as pinger:
        pinger.wait_for_more()
        kill_supervisor(pair)
        lives.kill(worker)
        pinger.wait_for_more()
        with start_again(pair) as successor:
            assert lives.pid(successor, "driver") == driver
            assert lives.pid(successor, "worker", 1) == other
            assert lives.is_useful(successor, "worker", 0)
            [reset] = lives.said(successor, "slot.reset")
            assert reset["slot"] == 0
            pinger.wait_for_more()
            assert pinger.lost == set(), "the other port has lost nothing"
            pinger.stop()
            assert_recovered(ledger, pair.namespace, *ADDRESSES)
            assert successor.stop() == 0


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
def test_without_a_driver_everything_is_started_anew(pair: Instance, fate: signal.Signals) -> None:
    """The pool has no name: without a driver that answers nobody can give it to anyone."""
    driver, *workers = everybody(pair)
    os.kill(driver, fate)
    kill_supervisor(pair)
    with start_again(pair) as successor:
        assert set(everybody(successor)).isdisjoint({driver, *workers})
        assert not successor.events("instance.adopted")
        assert bool(successor.events("adoption.failed")) == (fate == signal.SIGSTOP)
        wait_for_end(driver, *workers)
        assert_answered(pair.namespace, *ADDRESSES)
        assert successor.stop() == 0


def test_other_flags_are_refused_with_the_difference_and_touch_nothing(pair: Instance) -> None:
    children = everybody(pair)
    kill_supervisor(pair)
    with Pinger(pair.namespace) as pinger:
        pinger.wait_for_more()
        refused = start_again(pair, "--ring-size", "1024", "--address", "0=10.77.0.9/24", wait=False)
        with refused:
            assert refused.wait() == 4
        assert "--ring-size: it runs with 16384, this asks for 1024" in refused.text()
        assert "--address of port 0: it runs with " in refused.text()
        assert "--no-adopt" in refused.text()
        pinger.wait_for_more()
        assert pinger.lost == set()
    with start_again(pair) as successor:
        assert everybody(successor) == children
        assert successor.stop() == 0


def test_flags_of_the_supervisor_alone_may_change(pair: Instance) -> None:
    children = everybody(pair)
    kill_supervisor(pair)
    flags = ("--hang-timeout", "3", "--restart-limit", "0/1", "--stats-log", "0.2", "--orphan-timeout", "0")
    with start_again(pair, *flags, "--log-level", "debug") as second:
        assert everybody(second) == children
        second.wait_for("stats")
        kill_supervisor(second)
        wait_for_end(*children)  # with the time-out that the second has told them
    with start_again(pair) as third:
        assert not third.events("instance.adopted")
        assert third.stop() == 0


def test_what_one_supervisor_learned_the_next_one_knows(pair: Instance) -> None:
    """Workers tell a new supervisor what they know, so that a worker that is started later knows it too."""
    kill_supervisor(pair)
    # From here on the kernel neither asks nor answers, so nothing is learned anew.
    pair.namespace.run("ip", "link", "set", f"{pair.name}.0", "arp", "off")
    with start_again(pair) as successor:
        worker = lives.pid(successor, "worker", 0)
        lives.kill(worker)
        lives.wait_for_successor(successor, "worker", worker, 0)
        told = [entry for entry in successor.events("neighbors.told") if entry["slot"] == 0]
        assert told[-1]["neighbors"] >= 1
        assert successor.stop() == 0


@pytest.mark.parametrize("damage", [b"\x82\xa7nonsense", b""])
def test_state_that_can_not_be_read_is_no_state(pair: Instance, damage: bytes) -> None:
    children = everybody(pair)
    kill_supervisor(pair)
    (pair.runtime / "state").write_bytes(damage)
    with start_again(pair) as successor:
        assert set(everybody(successor)).isdisjoint(children)
        wait_for_end(*children)
        assert_answered(pair.namespace, *ADDRESSES)
        assert successor.stop() == 0


@pytest.mark.parametrize("region", ["owners", "slot.1"])
def test_region_of_another_run_is_not_adopted(pair: Instance, region: str) -> None:
    """Everything is started anew then: half an instance would be worse."""
    children = everybody(pair)
    kill_supervisor(pair)
    path = pair.namespace.shared_memory / f"halo-mp.{pair.name}.{region}"
    with path.open("r+b") as file:
        file.seek(40)  # the generation
        file.write(bytes(8))
    with start_again(pair) as successor:
        [failed] = successor.events("adoption.failed")
        assert region in failed["reason"]
        wait_for_end(*children)
        assert_answered(pair.namespace, *ADDRESSES)
        assert successor.stop() == 0


@pytest.mark.parametrize("seed", range(6))
def test_supervisor_killed_at_a_random_moment_of_the_start(namespace: Namespace, seed: int) -> None:
    """Whatever was there by then is adopted or ended; the next one comes up."""
    chance = random.Random(seed)
    events = (
        "driver.spawned",
        "worker.spawned",
        "worker.attached",
        "driver.ready",
        "tables.written",
        "worker.ready",
    )
    with Instance(namespace, "--ports", "0,1", wait=False) as first:
        first.wait_for(chance.choice(events))
        kill_supervisor(first)
        with start_again(first) as successor:
            assert_answered(namespace, *ADDRESSES)
            Ledger(successor, 0, 1).assert_balanced()
            assert successor.stop() == 0
    assert interfaces(namespace) == {"lo"}


@pytest.mark.parametrize("seed", range(4))
def test_everybody_killed_in_a_random_order(namespace: Namespace, seed: int) -> None:
    """With pauses in between, in which what is left may have begun to react."""
    chance = random.Random(seed)
    with Instance(namespace, "--ports", "0,1") as first:
        assert first.process is not None
        victims = [first.process.pid, *everybody(first)]
        for victim in chance.sample(victims, len(victims)):
            lives.kill(victim)
            wait_until(lambda: not lives.is_running(victim), what="its end")  # noqa: B023 - called at once
        first.wait()
        with start_again(first) as successor:
            assert_answered(namespace, *ADDRESSES)
            assert successor.stop() == 0
    assert interfaces(namespace) == {"lo"}


def test_supervisor_that_stands_still_costs_nothing(pair: Instance) -> None:
    children = everybody(pair)
    assert pair.process is not None
    with Pinger(pair.namespace, ADDRESSES[0]) as pinger:
        pinger.wait_for_more()
        os.kill(pair.process.pid, signal.SIGSTOP)
        try:
            pinger.wait_for_more(300)  # three seconds, longer than any hang limit for native code
        finally:
            os.kill(pair.process.pid, signal.SIGCONT)
        pinger.wait_for_more()
        assert pinger.lost == set()
    assert everybody(pair) == children
    assert not pair.events("worker.died")
    assert pair.stop() == 0


def test_what_was_scribbled_over_without_a_supervisor_is_put_right(pair: Instance) -> None:
    """Nobody else would: who attaches next believes what stands there."""
    ledger = Ledger(pair, 0, 1)
    kill_supervisor(pair)
    path = pair.namespace.shared_memory / f"halo-mp.{pair.name}.slot.0"
    with path.open("r+b") as region:
        region.seek(64)  # behind the header: the geometry
        region.write(os.urandom(64))
    with start_again(pair) as successor:
        worker = lives.pid(successor, "worker", 0)
        lives.kill(worker)
        lives.wait_for_successor(successor, "worker", worker, 0)
        assert not successor.events("region.mended")
        assert_recovered(ledger, pair.namespace, *ADDRESSES)
        assert successor.stop() == 0
