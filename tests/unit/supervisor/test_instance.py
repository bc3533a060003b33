# SPDX-License-Identifier: Apache-2.0
"""The lock of an instance, its directory, and its state file."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo_mp import runtime
from halo_mp.errors import EnvironmentProblem, InstanceRunning, UsageError
from halo_mp.runtime import runtime_base
from halo_mp.shm.identity import own_start_ticks
from halo_mp.supervisor import state
from halo_mp.supervisor.instance import Instance
from halo_mp.supervisor.state import Member, State

HOLDER = "import sys; from pathlib import Path; from halo_mp.supervisor.instance import Instance\n"
HOLDER += "held = Instance.acquire(sys.argv[1], Path(sys.argv[2])); print('held', flush=True); input()"


def test_acquire_makes_a_directory_that_others_may_only_pass(tmp_path: Path) -> None:
    held = Instance.acquire("x", tmp_path / "deeper")
    assert stat.S_IMODE(held.directory.stat().st_mode) == 0o711
    assert stat.S_IMODE((held.directory / "lock").stat().st_mode) == 0o600
    assert held.socket_path == held.directory / "private.sock"
    held.release()
    held.release()
    assert list((tmp_path / "deeper").iterdir()) == []


def test_acquire_running_is_refused_with_its_pid(tmp_path: Path) -> None:
    held = Instance.acquire("x", tmp_path)
    for _ in range(100):
        with pytest.raises(InstanceRunning, match=f"process {os.getpid()}") as caught:
            Instance.acquire("x", tmp_path)
        assert caught.value.pid == os.getpid()
        assert caught.value.exit_code == 4
    Instance.acquire("y", tmp_path).release()
    held.release()
    Instance.acquire("x", tmp_path).release()


def test_acquire_after_sudden_death_works_at_once(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, "x", str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(InstanceRunning, match=f"process {holder.pid}"):
            Instance.acquire("x", tmp_path)
        holder.kill()
        holder.wait()
        Instance.acquire("x", tmp_path).release()


def test_acquire_and_release_by_many_is_exclusive(tmp_path: Path) -> None:
    """The directory goes with each release, under the hands of who is about to lock in it."""
    inside, most, won = 0, 0, 0

    def compete() -> None:
        nonlocal inside, most, won
        for _ in range(200):
            try:
                held = Instance.acquire("x", tmp_path)
            except InstanceRunning:
                continue
            inside += 1
            most = max(most, inside)
            won += 1
            inside -= 1
            held.release()

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(compete) for _ in range(4)]:
            done.result()
    assert most == 1
    assert won > 10  # how often, is the scheduler's
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a" * 33, "ü", "a b", "a\n"])
def test_acquire_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no name"):
        Instance.acquire(name, tmp_path)


def test_acquire_where_nothing_can_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="can not be used"):
        Instance.acquire("x", tmp_path / "file")


def test_empty_removes_everything_but_the_lock(tmp_path: Path) -> None:
    held = Instance.acquire("x", tmp_path)
    (held.directory / "dpdk/x").mkdir(parents=True)
    (held.directory / "dpdk/x/config").write_text("")
    (held.directory / "link").symlink_to(tmp_path)
    held.save(State())
    held.empty()
    assert [entry.name for entry in held.directory.iterdir()] == ["lock"]
    assert tmp_path.exists()
    held.release()


def test_runtime_base_without_root_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_base() == tmp_path / "halo-mp"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with pytest.raises(EnvironmentProblem, match="XDG_RUNTIME_DIR"):
        runtime_base()


def test_runtime_base_of_root_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(runtime, "ROOT_BASE", tmp_path / "halo-mp")
    assert runtime_base() == tmp_path / "halo-mp"


def test_state_is_read_back(tmp_path: Path) -> None:
    content = State(
        members=(Member("supervisor", None, os.getpid(), own_start_ticks()), Member("worker", 3, 12, 34)),
        taps=("x.0",),
        regions=("/halo-mp.x.owners",),
        waiting=([1, 2, "x"],),
    )
    state.save(tmp_path / "state", content)
    assert state.load(tmp_path / "state") == content
    assert content.members[0].is_alive
    assert not content.members[1].is_alive
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_state_of_another_boot_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.save(tmp_path / "state", State(taps=("x.0",)))
    monkeypatch.setattr(state, "boot_id", lambda: bytes(16))
    assert state.load(tmp_path / "state") == State()


@given(octets=st.binary(max_size=100) | st.just(b"\x81\xa7version\x01"))
def test_state_of_rubbish_is_nothing(octets: bytes) -> None:
    read, write = os.pipe()
    os.write(write, octets)
    os.close(write)
    assert state.load(Path(f"/proc/self/fd/{read}")) == State()
    os.close(read)


def test_state_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert state.load(tmp_path / "state") == State()
