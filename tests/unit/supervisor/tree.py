# SPDX-License-Identifier: Apache-2.0
"""A supervisor's tree with fake children, in the test's own process, and the proof that nothing is left of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from halo_mp.supervisor import arguments, config, keeper, keeper_driver, process
from halo_mp.supervisor.instance import Instance
from halo_mp.supervisor.keeper import Launch
from halo_mp.supervisor.signals import StopSignals
from halo_mp.supervisor.supervisor import Supervisor

FAKE_CHILD = Path(__file__).with_name("fake_child.py")
FLAGS = (
    "--vdev",
    "net_null0",
    "--vdev",
    "net_null1",
    "--ring-size",
    "64",
    "--hugepages",
    "off",
    "--spare",
    "0",
)
TIMEOUT_S = 20.0
_numbers = itertools.count()

Plan = dict[str, list[str]]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits for children that do not answer; how long they are is no matter of these tests."""
    monkeypatch.setattr(keeper, "STOP_GRACE_S", 0.5)
    monkeypatch.setattr(process, "TERM_GRACE_S", 0.5)
    monkeypatch.setattr(keeper_driver, "REQUEST_TIMEOUT_S", 1.0)


def build_config(*flags: str, name: str = "x") -> config.Config:
    """Return the configuration of two ports that need no privileges, with a worker each."""
    return config.build(arguments.parse(["--name", name, *FLAGS, *flags]))


def fake_launch(plan: Path, start_grace_s: float = 5.0) -> Launch:
    """Return how to start fake children that follow a plan."""
    command = (sys.executable, str(FAKE_CHILD))
    return Launch(
        driver=(*command, "driver", "--plan", str(plan)),
        worker=(*command, "worker", "--plan", str(plan)),
        start_grace_s=start_grace_s,
    )


class Tree:
    """One run. Make it inside the event loop."""

    def __init__(self, directory: Path, plan: Plan, *flags: str, start_grace_s: float = 5.0) -> None:
        self.name = f"u{os.getpid() % 100000}-{next(_numbers)}"
        self._plan = directory / f"{self.name}.plan"
        self._plan.write_text(json.dumps(plan))
        self.instance = Instance.acquire(self.name, base=directory)
        self.signals = StopSignals()
        self.announced: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.supervisor = Supervisor(
            build_config(*flags, name=self.name),
            self.instance,
            self.signals,
            launch=fake_launch(self._plan, start_grace_s),
            on_up=self.announced.set_result,
        )
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> int:
        try:
            return await self.supervisor.run()
        finally:
            self.instance.release()

    async def up(self) -> str:
        """Wait until everything is up; return what a person reads then."""
        await asyncio.wait(
            [self.task, self.announced], timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        if not self.announced.done():
            self.task.result()
        return self.announced.result()

    async def stop(self) -> int:
        """Ask it to stop, as Ctrl-C does; return the exit code."""
        self.signals.on_signal(signal.SIGINT)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for its end; return the exit code, or raise what ended it."""
        return await asyncio.wait_for(asyncio.shield(self.task), TIMEOUT_S)

    def events(self, name: str | None = None, event: str | None = None) -> list[dict[str, Any]]:
        """Return what children have written down, all or some of it."""
        path = self._plan.with_suffix(".journal")
        lines = path.read_text().splitlines() if path.exists() else []
        entries = [json.loads(line) for line in lines]
        return [
            entry for entry in entries if name in (None, entry["name"]) and event in (None, entry["event"])
        ]

    async def wait_for(self, name: str, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until a child has written something down so often."""
        await until(lambda: self.task.done() or len(self.events(name, event)) >= count)
        found = self.events(name, event)
        assert len(found) >= count, f"the tree has ended: {self.task}"
        return found

    def pid(self, name: str) -> int:
        """Return the pid of the latest life of a child."""
        return int(self.events(name, "start")[-1]["pid"])

    def pids(self, *names: str) -> list[int]:
        """Return the pids of several."""
        return [self.pid(name) for name in names]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something that sends no event has become true."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def leftovers(directory: Path) -> set[str]:
    """Return what a tree could leave in this process and on this machine."""
    found = {f"fd {fd}" for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}
    found |= {
        f"shared memory {path.name}" for path in Path("/dev/shm").glob(f"halo-mp.u{os.getpid() % 100000}-*")
    }
    found |= {f"process {child.pid}" for child in psutil.Process().children(recursive=True)}
    return found | {f"file {path}" for path in directory.iterdir() if path.is_dir()}


def scenario(directory: Path, play: Callable[[], Awaitable[None]]) -> None:
    """Play a scenario in an event loop, and assert that nothing is left when it is over."""
    before = leftovers(directory)
    asyncio.run(asyncio.wait_for(play(), 3 * TIMEOUT_S))  # type: ignore[arg-type]
    assert leftovers(directory) - before == set()


def names(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Return who wrote these."""
    return [str(entry["name"]) for entry in entries]
