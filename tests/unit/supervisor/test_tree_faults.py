# SPDX-License-Identifier: Apache-2.0
"""What dies while the tree is up, and what the others notice of it. Children are fake, processes are real."""

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest

from halo_mp.shm.identity import start_ticks
from halo_mp.supervisor import keeper_driver
from tests.unit.supervisor.tree import Tree, impatient, scenario, until

__all__ = ["impatient"]
pytestmark = pytest.mark.usefixtures("impatient")

KEEP = ("--restart-limit", "100/10")


def test_worker_killed_is_reset_and_restarted_alone(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {}, *KEEP)
        await tree.up()
        before = tree.pids("driver", "worker.1")
        os.kill(tree.pid("worker.0"), signal.SIGKILL)
        await tree.wait_for("worker.0", "ready", 2)
        assert tree.pids("driver", "worker.1") == before
        told = [(entry["event"], entry["slot"]) for entry in tree.events("driver") if "slot" in entry]
        assert told[-2:] == [("slot.reset", 0), ("slot.enable", 0)]
        seen = tree.events("worker.0", "region")[-1]
        assert (seen["state"], seen["generation"]) == (0, 1)  # attached behind the reset, before the enabling
        await tree.stop()

    scenario(tmp_path, play)


def test_worker_killed_ten_times_leaves_no_descriptor(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {}, *KEEP)
        await tree.up()
        counts = set()
        for number in range(1, 11):
            os.kill(tree.pid("worker.0"), signal.SIGKILL)
            await tree.wait_for("worker.0", "ready", number + 1)
            counts.add(len(os.listdir("/proc/self/fd")))
        assert max(counts) - min(counts) <= 1
        assert tree.supervisor._workers[0].restarts == 10
        await tree.stop()

    scenario(tmp_path, play)


def test_driver_killed_workers_keep_their_pid_and_are_enabled_again(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {}, *KEEP)
        await tree.up()
        before = tree.pids("worker.0", "worker.1")
        os.kill(tree.pid("driver"), signal.SIGKILL)
        await tree.wait_for("driver", "slot.enable", 4)
        assert tree.pids("worker.0", "worker.1") == before
        assert tree.events("driver", "slot.reset") == []
        again = tree.events("driver", "slot.enable")[2:]
        assert {(entry["life"], entry["slot"], entry["state"]) for entry in again} == {(1, 0, 1), (1, 1, 1)}
        await tree.stop()

    scenario(tmp_path, play)


def test_driver_and_worker_killed_the_new_driver_resets_the_slot(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {}, *KEEP)
        await tree.up()
        before = tree.pid("worker.1")
        for pid in tree.pids("driver", "worker.0"):
            os.kill(pid, signal.SIGKILL)
        await tree.wait_for("worker.0", "ready", 2)
        await tree.wait_for("driver", "slot.enable", 4)
        assert tree.pid("worker.1") == before
        told = [
            entry["event"] for entry in tree.events("driver") if entry["life"] == 1 and entry.get("slot") == 0
        ]
        assert told == ["slot.reset", "slot.enable"]
        await tree.stop()

    scenario(tmp_path, play)


@pytest.mark.parametrize("cue", ["kill@reset", "wait@reset"])
def test_driver_dies_or_hangs_in_a_reset_the_next_does_it(tmp_path: Path, cue: str) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {"driver": [cue, ""]}, *KEEP)
        await tree.up()
        os.kill(tree.pid("worker.0"), signal.SIGKILL)
        await tree.wait_for("worker.0", "ready", 2)
        assert [entry["life"] for entry in tree.events("driver", "slot.reset")] == [0, 1]
        assert len(tree.events("worker.1", "start")) == 1
        await tree.stop()

    scenario(tmp_path, play)


def test_driver_that_may_be_opening_a_lost_device_is_waited_for(tmp_path: Path) -> None:
    """As long as a start may take: opening is what a start does, and it holds up the driver's main thread."""
    linger_s = 2 * keeper_driver.REQUEST_TIMEOUT_S

    async def play() -> None:
        tree = Tree(tmp_path, {"driver": [f"lose:1@ready linger:{linger_s}@reset"]}, *KEEP)
        await tree.up()
        await until(lambda: bool(tree.supervisor._driver.lost))
        os.kill(tree.pid("worker.0"), signal.SIGKILL)
        await tree.wait_for("worker.0", "ready", 2)
        assert len(tree.events("driver", "start")) == len(tree.events("driver", "slot.reset")) == 1
        await tree.stop()

    scenario(tmp_path, play)


def test_crash_loop_is_bounded_and_nobody_else_notices(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {"worker.0": ["", "exit:1@ready"]}, "--restart-limit", "3/60")
        await tree.up()
        before = tree.pids("driver", "worker.1")
        os.kill(tree.pid("worker.0"), signal.SIGKILL)
        keeper = tree.supervisor._workers[0]
        await until(lambda: keeper.failed_because is not None)
        assert keeper.failed_because == "ended with exit code 1"
        await asyncio.sleep(0.3)
        assert len(tree.events("worker.0", "start")) == 4  # the first, and three more
        assert tree.pids("driver", "worker.1") == before
        assert len(tree.events("driver", "slot.reset")) == 4  # its buffers do not wait for the next life
        await tree.stop()

    scenario(tmp_path, play)


@pytest.mark.parametrize(
    ("plan", "flags"),
    [
        pytest.param({"worker.0": ["stop@soon", ""]}, (), id="stopped"),
        pytest.param({"worker.0": ["block@soon", ""]}, (), id="blocked in native code"),
        pytest.param(
            {"worker.0": ["freeze@soon python@place", ""]}, ("--hang-timeout", "1"), id="busy in Python"
        ),
        pytest.param({"worker.0": ["break@ready", ""]}, (), id="rings broken"),
        pytest.param({"worker.0": ["garbage@ready", ""]}, (), id="garbage on its channel"),
        pytest.param({"worker.0": ["say:configure@ready", ""]}, (), id="says what it must not"),
    ],
)
def test_worker_useless_is_killed_and_restarted(
    tmp_path: Path, plan: dict[str, list[str]], flags: tuple[str, ...]
) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, plan, *KEEP, *flags)
        await tree.wait_for("worker.0", "ready", 2)
        first, second = (entry["pid"] for entry in tree.events("worker.0", "start"))
        assert first != second
        assert not psutil.pid_exists(first)
        assert len(tree.events("worker.1", "start")) == len(tree.events("driver", "start")) == 1
        await tree.stop()

    scenario(tmp_path, play)


@pytest.mark.parametrize("cue", ["freeze@soon", "stop@soon"])
def test_driver_without_progress_is_killed_and_restarted(tmp_path: Path, cue: str) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {"driver": [cue, ""]}, *KEEP)
        await tree.wait_for("driver", "ready", 2)
        await tree.up()
        assert len(tree.events("worker.0", "start")) == 1
        await tree.stop()

    scenario(tmp_path, play)


def test_worker_stopped_for_a_moment_is_left_alone(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {}, *KEEP)
        await tree.up()
        pid = tree.pid("worker.0")
        for _ in range(3):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(0.5)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.3)
        assert tree.pid("worker.0") == pid
        await tree.stop()

    scenario(tmp_path, play)


def test_worker_busy_in_python_is_left_alone_for_its_time(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {"worker.0": ["freeze@soon python@place"]}, *KEEP)
        await tree.up()
        await asyncio.sleep(2.0)
        assert len(tree.events("worker.0", "start")) == 1
        await tree.stop()

    scenario(tmp_path, play)


def test_worker_dies_what_it_has_started_dies_too(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {"worker.0": ["grandchild@ready", ""]}, *KEEP)
        await tree.up()
        (entry,) = await tree.wait_for("worker.0", "grandchild")
        os.kill(tree.pid("worker.0"), signal.SIGKILL)
        await tree.wait_for("worker.0", "ready", 2)
        await until(lambda: start_ticks(entry["child"]) is None)
        await tree.stop()

    scenario(tmp_path, play)


def test_worker_sends_descriptors_they_are_closed(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {"worker.0": ["fds@ready"]}, *KEEP)
        await tree.up()
        before = len(os.listdir("/proc/self/fd"))
        await tree.wait_for("worker.0", "cue")
        await asyncio.sleep(0.3)
        assert len(os.listdir("/proc/self/fd")) <= before + 1
        assert len(tree.events("worker.0", "start")) == 1
        await tree.stop()

    scenario(tmp_path, play)


def test_neighbor_learned_is_told_to_the_others_and_to_who_comes_later(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {"worker.0": ["learn:167772161@ready", ""]}, *KEEP)
        await tree.up()
        await tree.wait_for("worker.1", "neighbors")
        os.kill(tree.pid("worker.0"), signal.SIGKILL)
        await tree.wait_for("worker.0", "ready", 2)
        await until(lambda: any(entry["life"] == 1 for entry in tree.events("worker.0", "neighbors")))
        await tree.stop()

    scenario(tmp_path, play)


def test_driver_comes_back_with_other_macs_the_tables_follow(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {}, *KEEP)
        await tree.up()
        epoch = tree.supervisor._tables.epoch
        told = len(tree.events("worker.0", "interfaces"))  # none when it came after the tables
        os.kill(tree.pid("driver"), signal.SIGKILL)
        await tree.wait_for("driver", "slot.enable", 4)
        assert tree.supervisor._tables.epoch == epoch + 1
        await tree.wait_for("worker.0", "interfaces", told + 1)
        await tree.stop()

    scenario(tmp_path, play)


def test_everybody_killed_at_once_everybody_comes_back(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {}, *KEEP)
        await tree.up()
        for number in range(2, 5):
            for pid in tree.pids("worker.0", "driver", "worker.1"):
                os.kill(pid, signal.SIGKILL)
            await tree.wait_for("worker.0", "ready", number)
            await tree.wait_for("worker.1", "ready", number)
        await tree.stop()

    scenario(tmp_path, play)
