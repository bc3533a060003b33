# SPDX-License-Identifier: Apache-2.0
"""Memory runs out: in a worker, in the supervisor, on the machine. Who is missed least goes first, and is replaced."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from halo_mp.supervisor.process import OOM_SCORES, Child, set_oom_score
from tests.proc.conftest import ADDRESSES, assert_answered
from tests.support import frames, lives
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.limits import limited
from tests.support.namespace import Namespace, wait_until
from tests.support.pinger import Pinger
from tests.support.station import Station

OURS = bytes((10, 60, 0, 1))
NOTHING_MORE = 1 << 20
"""Octets of address space, of which every process has more already: no mapping is made any more."""


def test_worker_out_of_memory_is_replaced_and_nobody_else_notices(namespace: Namespace) -> None:
    """Every ARP request is from another station, and Python learns them until it has no memory for the next."""
    with Instance(namespace, "--ports", "0,1", "--address", "0=10.60.0.1/16") as instance:
        assert_answered(namespace, "10.60.0.1", ADDRESSES[1], count=1)
        ledger = Ledger(instance, 0, 1)
        victim = lives.pid(instance, "worker", 0)
        with Pinger(namespace, ADDRESSES[1]) as other, limited(victim, "as", NOTHING_MORE):
            other.wait_for_more()
            introduce_stations_until_dead(instance, victim)
            lives.wait_for_successor(instance, "worker", victim, 0)
            other.wait_for_more()
        assert other.lost == set(), "the other port noticed"
        [died] = lives.said(instance, "worker.died")
        assert (died["slot"], died["reason"]) == (0, "ran out of memory")
        assert [entry["process"] for entry in instance.events("worker.no_memory")] == ["worker.0"]
        assert_answered(namespace, "10.60.0.1")
        ledger.assert_whole()
        assert instance.stop() == 0


def introduce_stations_until_dead(instance: Instance, worker: int) -> None:
    with Station(instance.namespace, f"{instance.name}.0") as station:
        numbers = count(256)

        def introduce() -> bool:
            for number in (next(numbers) for _ in range(64)):
                mac = b"\2\0" + number.to_bytes(4, "big")
                address = bytes((10, 60, *(number & 0xFFFF).to_bytes(2, "big")))
                request = b"\0\1\x08\0\6\4\0\1" + mac + address + bytes(6) + OURS
                station.send(frames.frame(dst=b"\xff" * 6, src=mac, payload=request, ethertype=frames.ARP))
            return not lives.is_running(worker)

        wait_until(introduce, timeout_s=30, what="a worker without memory")


def test_worker_that_needs_no_more_memory_goes_on_without(pair: Instance) -> None:
    worker = lives.pid(pair, "worker", 0)
    with limited(worker, "as", NOTHING_MORE), Pinger(pair.namespace, options=("-R",)) as pinger:
        pinger.wait_for_more(200)
    assert pinger.lost == set()
    assert lives.pid(pair, "worker", 0) == worker
    assert pair.stop() == 0


def test_supervisor_out_of_memory_goes_on_and_makes_up_for_it(namespace: Namespace) -> None:
    with Instance(namespace, "--ports", "0,1", "--spare", "0") as instance:
        assert instance.process is not None
        victim = lives.pid(instance, "worker", 0)
        with Pinger(namespace, ADDRESSES[1]) as other:
            with limited(instance.process.pid, "as", NOTHING_MORE):
                other.wait_for_more()
                lives.kill(victim)
                other.wait_for_more(50)
            lives.wait_for_successor(instance, "worker", victim, 0, timeout_s=40)
            other.wait_for_more()
        assert other.lost == set(), "the other port noticed"
        assert_answered(namespace, ADDRESSES[0])
        assert instance.stop() == 0


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_out_of_memory_the_kernel_takes_who_is_missed_least(namespace: Namespace) -> None:
    with Instance(namespace, "--spare", "1") as instance:
        assert instance.process is not None
        supervisor = oom_score(instance.process.pid)
        [ready] = instance.wait_for("spare.ready")
        spare, victim = ready["pid"], lives.pid(instance, "worker", 0)
        found = [oom_score(pid) - supervisor for pid in (spare, victim, lives.pid(instance, "driver"))]
        assert found == [OOM_SCORES["spare"], OOM_SCORES["worker"], OOM_SCORES["driver"]]
        assert found == sorted(found, reverse=True)
        lives.kill(victim)
        wait_until(lambda: instance.slot()["worker_pid"] == spare, what="the spare in its place")
        assert oom_score(spare) - supervisor == OOM_SCORES["worker"], "it is one now"
        assert instance.stop() == 0


def test_oom_score_of_who_is_gone_is_nobodys_business(capfd: pytest.CaptureFixture[str]) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    set_oom_score(child.pid, 100)
    assert capfd.readouterr() == ("", "")


def test_child_out_of_memory_can_not_be_started_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    async def play() -> None:
        with pytest.raises(OSError, match="Cannot allocate memory"):
            Child.spawn([sys.executable], {}, [0])

    monkeypatch.setattr(subprocess, "Popen", no_memory)
    asyncio.run(play())
