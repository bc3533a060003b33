# SPDX-License-Identifier: Apache-2.0
"""/dev/shm is full: at the start that is a sentence, later it is nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.proc.conftest import ADDRESSES, assert_answered, interfaces
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import Namespace
from tests.support.pinger import Pinger


class Cramped(Namespace):
    """A network namespace with a /dev/shm of its own, whose size the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.shared_memory = Path(f"/proc/{self.pid}/root/dev/shm")
        self.run("mount", "--make-rprivate", "/")
        self.run("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")

    def _entering(self) -> list[str]:
        return ["unshare", "--net", "--mount", "--"]

    def inside(self, command: Sequence[str]) -> list[str]:
        return ["nsenter", f"--net={self.path}", f"--mount=/proc/{self.pid}/ns/mnt", "--", *command]

    def remount(self, options: str) -> None:
        self.run("mount", "-o", f"remount,{options}", "/dev/shm")

    def left(self) -> list[str]:
        return [path.name for path in self.shared_memory.iterdir()]


@pytest.fixture
def cramped() -> Iterator[Cramped]:
    with Cramped() as made:
        yield made


def refused(namespace: Namespace, code: int = 3) -> str:
    """Let an instance fail to start; return what it said."""
    with Instance(namespace, "--ports", "0,1", wait=False) as instance:
        assert instance.wait() == code
    assert "Traceback" not in instance.text()
    assert not instance.runtime.exists()
    assert interfaces(namespace) == {"lo"}
    return instance.text()


def test_full_at_the_start_is_said_with_the_size_that_is_enough(cramped: Cramped) -> None:
    cramped.remount("size=1m")
    said = refused(cramped)
    assert re.search(r"/dev/shm has \d+ MiB free, and rings and tables need \d+ MiB", said), said
    found = re.search(r"mount -o remount,(size=\d+m) /dev/shm", said)
    assert found, said
    assert cramped.left() == []
    cramped.remount(found[1])
    with Instance(cramped, "--ports", "0,1") as instance:
        assert_answered(cramped, *ADDRESSES)
        assert instance.stop() == 0
    assert cramped.left() == []


def test_without_room_for_another_file_at_the_start_is_said(cramped: Cramped) -> None:
    cramped.remount("nr_inodes=4")
    assert "can not be created" in refused(cramped)
    assert cramped.left() == []


def test_full_while_it_runs_is_nothing_to_it(cramped: Cramped) -> None:
    """What restarts of driver and workers need was reserved at the start."""
    cramped.remount("size=64m")
    with Instance(cramped, "--ports", "0,1") as instance:
        filler = cramped.shared_memory / "filler"
        fill(filler)
        with Pinger(cramped, ADDRESSES[1]) as other:
            other.wait_for_more()
            succeed(instance, "worker", 0)
            other.wait_for_more()
            assert other.lost == set()
            succeed(instance, "driver")
            other.wait_for_more()
        assert_answered(cramped, *ADDRESSES)
        assert instance.stop() == 0
    assert cramped.left() == ["filler"]


def fill(file: Path) -> None:
    """Write a file until nothing has room beside it."""
    with file.open("wb", buffering=0) as stream, suppress(OSError):
        while stream.write(bytes(1 << 16)):
            pass
    free = os.statvfs(file)
    assert free.f_bavail == 0


def succeed(instance: Instance, role: lives.Role, slot: int | None = None) -> None:
    victim = lives.pid(instance, role, slot)
    lives.kill(victim)
    lives.wait_for_successor(instance, role, victim, slot)
