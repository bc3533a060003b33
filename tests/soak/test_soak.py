# SPDX-License-Identifier: Apache-2.0
"""An hour of faults of every kind under traffic: `make soak`, not a part of `make test`.

One seed gives one order of faults; SOAK_SEED and SOAK_MINUTES say which and how long. After each batch, and without
traffic, the books are looked at: no buffer is lost, nobody has a descriptor or memory more than before.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections import Counter
from contextlib import ExitStack, suppress

import psutil

from tests.proc.conftest import kill_supervisor
from tests.support import lives
from tests.support.canary import Canary
from tests.support.faults import Injector
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, wait_until

FLAGS = ("--ports", "0,1", "--restart-limit", "1000/10", "--spare", "auto")
KINDS = ("kill",) * 28 + ("pause",) * 2 + ("scribble",) * 4 + ("starve",) * 2 + ("stop",)
"""One in so many; a stop takes more than a second to be found."""
BATCH = 20
BATCHES = 8  # under one supervisor, which is killed then
LEAST_KILLS_AN_HOUR = 1000
MOST_GROWTH_OCTETS = 8 << 20  # of one process, from its first batch to its last


class Sizes:
    """Memory and descriptors of every process of an instance, by what it does, as first seen.

    Drivers and workers die too often to be compared with themselves: what each inherits, and makes of it, has to
    be as little as it was for the first.
    """

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, int]] = {}

    def check(self, processes: dict[str, int]) -> None:
        """Fail when one has become larger than the first that did the same."""
        for name, pid in processes.items():
            process = psutil.Process(pid)
            memory, descriptors = process.memory_info().rss - process.memory_info().shared, process.num_fds()
            first_memory, first_descriptors = self._first.setdefault(name, (memory, descriptors))
            assert descriptors <= first_descriptors, f"{process.cmdline()}: {lives.descriptors(pid)}"
            assert memory - first_memory <= MOST_GROWTH_OCTETS, (
                f"{process.cmdline()}: {first_memory} to {memory}"
            )


def processes_of(instance: Instance) -> dict[str, int]:
    """Return the pids of supervisor, driver and workers; the spare comes and goes."""
    assert instance.process is not None
    found = {"supervisor": instance.process.pid, "driver": lives.pid(instance, "driver")}
    return found | {f"worker {slot}": lives.pid(instance, "worker", slot) for slot in (0, 1)}


def has_spare(instance: Instance) -> bool:
    """Whether one is ready, and so holds the descriptors that it will always hold."""
    ready, taken, died = (len(lives.said(instance, f"spare.{what}")) for what in ("ready", "taken", "died"))
    return ready > taken + died


def endure(
    instance: Instance, canary: Canary, sizes: Sizes, seed: int, deadline: float, done: Counter[str]
) -> None:
    """Do batches of faults, and look at the books after each."""
    ledger = Ledger(instance, 0, 1)
    with Injector(instance, (0, 1), seed=seed) as faults:
        for _ in range(BATCHES):
            canary.resume()
            for _ in range(BATCH):
                done[faults.at_random(KINDS).kind] += 1
                faults.heal()
                if time.monotonic() > deadline:
                    break
            canary.wait_for_more()
            canary.pause()
            ledger.assert_whole()
            assert not canary.live_leaks()
            wait_until(lambda: has_spare(instance), timeout_s=30, what="a spare")
            sizes.check(processes_of(instance))
            print(f"{max(0, deadline - time.monotonic()) / 60:6.1f} minutes left, {dict(done)}", flush=True)
            if time.monotonic() > deadline:
                return


def disturb(instance: Instance, done: Counter[str]) -> None:
    """Take a device away, and let strangers talk to the supervisor. The canary's sockets would not survive that."""
    for number in (0, 1):
        before = len(instance.events("port.returned"))
        instance.namespace.run("ip", "link", "delete", f"{instance.name}.{number}")
        instance.wait_for("port.returned", count=before + 1, timeout_s=30)
        done["device"] += 1
    for octets in (b"", b"\xff" * 64, b"\0\0\0\x05\x81\xa4type"):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(instance.runtime / "private.sock"))
            with suppress(BrokenPipeError):  # whom nobody expects is closed at once
                stranger.sendall(octets)
        done["stranger"] += 1


def test_soak(namespace: Namespace) -> None:
    minutes, seed = float(os.environ.get("SOAK_MINUTES", "60")), int(os.environ.get("SOAK_SEED", "20261122"))
    print(f"\nSOAK_SEED={seed} SOAK_MINUTES={minutes:g}", flush=True)
    deadline = time.monotonic() + minutes * 60
    seeds, done, sizes = random.Random(seed), Counter[str](), Sizes()
    with ExitStack() as stack:
        first = instance = stack.enter_context(Instance(namespace, *FLAGS))
        while True:
            with Canary(instance, 0, 1) as canary:
                canary.wait_for_more()
                canary.pause()
                endure(instance, canary, sizes, seeds.getrandbits(32), deadline, done)
            if time.monotonic() > deadline:
                break
            disturb(instance, done)
            kill_supervisor(instance)
            done["supervisor"] += 1
            instance = stack.enter_context(Instance(namespace, *FLAGS, name=first.name))
        assert instance.stop() == 0
    assert done["kill"] >= LEAST_KILLS_AN_HOUR * minutes / 60
    wait_until(
        lambda: not (namespace.shared_memory / f"halo-mp.{first.name}.owners").exists(), what="its end"
    )
