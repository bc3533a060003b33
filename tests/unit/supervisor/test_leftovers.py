# SPDX-License-Identifier: Apache-2.0
"""Cleaning up after a supervisor that was killed, and touching nothing of one that lives."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from halo_mp.errors import InstanceRunning
from halo_mp.shm.identity import own_start_ticks, start_ticks
from halo_mp.shm.layout import RegionKind, size_of
from halo_mp.shm.region import DIRECTORY, Region, region_name
from halo_mp.supervisor import leftovers
from halo_mp.supervisor.instance import Instance
from halo_mp.supervisor.state import Member, State
from tests.unit.supervisor.tree import Tree, impatient

__all__ = ["impatient"]
pytestmark = pytest.mark.usefixtures("impatient")

RUN = """
import asyncio, sys
from pathlib import Path
from tests.unit.supervisor.tree import Tree

async def main():
    tree = Tree(Path(sys.argv[1]), {"worker.0": ["wait@lost"], "worker.1": ["wait@lost"], "driver": ["wait@lost"]})
    await tree.up()
    print(tree.name, *tree.pids("driver", "worker.0", "worker.1"), flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.fixture
def name() -> str:
    return f"u{os.getpid() % 100000}"


def regions_of(name: str) -> list[str]:
    return sorted(path.name for path in DIRECTORY.glob(f"halo-mp.{name}.*"))


def clean(name: str, base: Path) -> None:
    held = Instance.acquire(name, base)
    try:
        asyncio.run(leftovers.clean(held))
    finally:
        held.release()


def test_supervisor_killed_the_next_one_ends_what_it_left(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as dead:
        assert dead.stdout is not None
        name, *pids = dead.stdout.readline().split()
        with pytest.raises(InstanceRunning):
            Instance.acquire(name, tmp_path)
        dead.kill()
    assert len(regions_of(name)) == 7
    clean(name, tmp_path)
    assert not any(start_ticks(int(pid)) for pid in pids)
    assert regions_of(name) == []
    assert not (tmp_path / name).exists()


def test_supervisor_killed_six_times_the_next_one_always_comes_up(tmp_path: Path) -> None:
    """Killed at a random moment of its start; whatever is there then, the next start must find its way."""
    for number in range(6):
        command = [
            sys.executable,
            "-c",
            RUN.replace("tree.up()", f"asyncio.sleep({number * 0.05})"),
            str(tmp_path),
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as dead:
            deadline = time.monotonic() + 10
            while not list(tmp_path.glob("*/lock")) and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(number * 0.05)
            dead.kill()
        for directory in [entry for entry in tmp_path.iterdir() if entry.is_dir()]:
            clean(directory.name, tmp_path)
            assert regions_of(directory.name) == []


def test_process_known_by_its_command_line_is_ended(tmp_path: Path, name: str) -> None:
    """The state file is older than the youngest child."""
    words = ["-m", "halo_mp.workers", "--runtime", str(tmp_path / name), "--instance", name]
    script = "import time; time.sleep(1000)"
    ours = subprocess.Popen([sys.executable, "-c", script, *words])
    foreign = subprocess.Popen([sys.executable, "-c", script, *words[:3], str(tmp_path / "other")])
    while not all(
        b"--runtime" in Path(f"/proc/{child.pid}/cmdline").read_bytes() for child in (ours, foreign)
    ):
        pass
    clean(name, tmp_path)
    assert ours.wait(5) == -15
    assert foreign.poll() is None
    foreign.kill()
    foreign.wait()


def test_process_that_has_a_recorded_pid_again_is_left_alone(tmp_path: Path, name: str) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    ticks = start_ticks(other.pid)
    assert ticks is not None
    held = Instance.acquire(name, tmp_path)
    held.save(
        State(
            members=(Member("worker", 0, other.pid, ticks + 1), Member("supervisor", None, other.pid, ticks))
        )
    )
    asyncio.run(leftovers.clean(held))
    held.release()
    assert other.poll() is None
    other.kill()
    other.wait()


def make_region(name: str, region: str) -> Region:
    return Region.create(region_name(name, region), RegionKind.TABLES, size_of("halo_tables"), generation=1)


def test_regions_of_a_dead_run_go_and_those_of_others_stay(tmp_path: Path, name: str) -> None:
    dead = [make_region(name, region) for region in ("owners", "slot.12", "tables")]
    for region in dead:
        region.pointer.header.creator_start_ticks = own_start_ticks() + 1
    other = make_region(f"{name}.b", "owners")
    other.pointer.header.creator_start_ticks = own_start_ticks() + 1  # dead too, and none of ours
    clean(name, tmp_path)
    assert regions_of(name) == [other.name[1:]]
    other.unlink()
    for region in (*dead, other):
        region.close()


def test_region_of_a_living_run_is_never_touched(tmp_path: Path, name: str) -> None:
    alive = make_region(name, "owners")
    held = Instance.acquire(name, tmp_path)

    async def try_again_and_again() -> None:
        for _ in range(200):
            with pytest.raises(InstanceRunning, match="in use by another instance"):
                await leftovers.clean(held)

    asyncio.run(try_again_and_again())
    held.release()
    assert regions_of(name) == [alive.name[1:]]
    alive.unlink()
    alive.close()


def test_tree_after_a_tree_of_the_same_name_finds_nothing(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {})
        await tree.up()
        await tree.stop()
        held = Instance.acquire(tree.name, tmp_path)
        assert held.load() == State()
        await leftovers.clean(held)
        held.release()

    asyncio.run(play())
