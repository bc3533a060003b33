# SPDX-License-Identifier: Apache-2.0
"""Starting and stopping the tree, and configurations that can not boot. Children are fake, processes are real."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from halo_mp.errors import EXIT_FORCED, EXIT_STOPPED, BootFailed, EnvironmentProblem
from halo_mp.shm.layout import RegionKind, size_of
from halo_mp.shm.region import Region, region_name
from halo_mp.supervisor import keeper
from tests.unit.supervisor.tree import Plan, Tree, impatient, names, scenario

__all__ = ["impatient"]
pytestmark = pytest.mark.usefixtures("impatient")


def test_up_then_stopped_in_order(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {})
        text = await tree.up()
        assert f"instance '{tree.name}' is up" in text
        assert await tree.stop() == EXIT_STOPPED
        stops = names(tree.events(event="stop"))
        assert set(stops[:2]) == {"worker.0", "worker.1"}
        assert stops[2:] == ["driver"]
        assert tree.events(event="term") == []

    scenario(tmp_path, play)


def test_up_children_are_pinned_in_sessions_of_their_own(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {})
        await tree.up()
        config = tree.supervisor._config
        cores = {f"worker.{slot.number}": [slot.core] for slot in config.slots}
        cores["driver"] = sorted(config.main_cores)
        started = tree.events(event="start")
        assert {entry["name"]: entry["cores"] for entry in started} == cores
        assert all(entry["session"] for entry in started)
        assert [entry["fds"] for entry in tree.events("driver", "configured")] == [
            3 + 2 * 2 + len(config.driver_cores)
        ]
        assert [entry["fds"] for entry in tree.events("worker.1", "configured")] == [6]
        await tree.stop()

    scenario(tmp_path, play)


def test_up_slots_are_enabled_after_the_driver_is_ready(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {})
        await tree.up()
        happened = [(entry["name"], entry["event"]) for entry in tree.events()]
        assert happened.index(("driver", "ready")) < happened.index(("driver", "slot.enable"))
        assert ("driver", "slot.reset") not in happened
        await tree.stop()

    scenario(tmp_path, play)


BOOT_FAILURES: list[tuple[str, Plan, str, int]] = [
    ("driver says why", {"driver": ["failed:There_is_no_port_7.@configured"]}, r"^There is no port 7\.$", 1),
    (
        "driver exits with 5",
        {"driver": ["exit:5@configured"]},
        "^the driver can not start; it has said why",
        1,
    ),
    ("driver dies", {"driver": ["kill@hello"]}, "the driver was killed by SIGKILL, the third time", 3),
    ("worker says why", {"worker.1": ["failed:No_such_user.@hello"]}, r"^No such user\.$", 1),
    ("worker exits with 5", {"worker.0": ["exit:5@start"]}, "the worker of slot 0 can not start", 1),
    ("worker exits", {"worker.0": ["exit:1@attached"]}, "slot 0 ended with exit code 1, the third time", 3),
    ("worker is silent", {"worker.0": ["wait@start"]}, "slot 0 said nothing for 1.5 s", 3),
    ("worker does not attach", {"worker.0": ["wait@configured"]}, "did not attach for 1.5 s", 3),
    ("worker speaks another version", {"worker.0": ["wrong@hello"]}, "speaks version 999", 3),
]


@pytest.mark.parametrize(
    ("_case", "plan", "sentence", "lives"), BOOT_FAILURES, ids=[row[0] for row in BOOT_FAILURES]
)
def test_boot_fails_is_one_sentence_and_cleaned(
    tmp_path: Path, _case: str, plan: Plan, sentence: str, lives: int
) -> None:
    async def play() -> None:
        # Short only where it is waited for: on a busy machine the others may need theirs.
        tree = Tree(tmp_path, plan, start_grace_s=1.5 if "for 1.5 s" in sentence else 15.0)
        with pytest.raises(BootFailed, match=sentence):
            await tree.ended()
        (culprit,) = plan
        assert len(tree.events(culprit, "start")) == lives
        assert not tree.announced.done()

    scenario(tmp_path, play)


def test_boot_program_is_not_there_fails(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {})
        tree.supervisor._launch = type(tree.supervisor._launch)(driver=("/nonexistent/program",))
        with pytest.raises(
            BootFailed, match=r"could not be started \(No such file or directory\), the third"
        ):
            await tree.ended()

    scenario(tmp_path, play)


def test_boot_name_of_a_region_is_taken_says_so(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {})
        taken = Region.create(
            region_name(tree.name, "ports"), RegionKind.PORTS, size_of("halo_ports"), generation=1
        )
        with pytest.raises(EnvironmentProblem, match="exists already"):
            await tree.ended()
        taken.unlink()
        taken.close()

    scenario(tmp_path, play)


@pytest.mark.parametrize("stage", ["start", "configured", "enable"])
def test_stopped_while_it_starts_is_an_ordered_end(tmp_path: Path, stage: str) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {"driver": [f"wait@{stage}"]})
        await tree.wait_for("driver", "cue")
        assert await tree.stop() == EXIT_STOPPED

    scenario(tmp_path, play)


def test_stopped_at_once_is_an_ordered_end(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {})
        assert await tree.stop() == EXIT_STOPPED

    scenario(tmp_path, play)


def test_stop_child_that_ignores_everything_is_killed(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {"worker.0": ["ignore@configured"]})
        await tree.up()
        pid = tree.pid("worker.0")
        assert await tree.stop() == EXIT_STOPPED
        assert not psutil.pid_exists(pid)
        assert names(tree.events(event="stop"))[-1] == "driver"

    scenario(tmp_path, play)


def test_stop_second_signal_kills_everybody_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "STOP_GRACE_S", 1000.0)

    async def play() -> None:
        tree = Tree(tmp_path, {"worker.0": ["ignore@configured"]})
        await tree.up()
        tree.signals.on_signal(signal.SIGINT)
        await tree.wait_for("worker.0", "stop")
        tree.signals.on_signal(signal.SIGTERM)
        assert await tree.ended() == EXIT_FORCED

    scenario(tmp_path, play)


def test_stop_stopped_child_is_killed(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {}, "--hang-timeout", "60")
        await tree.up()
        os.kill(tree.pid("driver"), signal.SIGSTOP)
        assert await tree.stop() == EXIT_STOPPED

    scenario(tmp_path, play)


def test_stop_five_runs_leave_nothing(tmp_path: Path) -> None:
    async def play() -> None:
        for _ in range(5):
            tree = Tree(tmp_path, {})
            await tree.up()
            assert await tree.stop() == EXIT_STOPPED

    scenario(tmp_path, play)
