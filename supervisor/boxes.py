# SPDX-License-Identifier: Apache-2.0
"""The black boxes of an instance's processes: made before a process starts, read and removed when it has ended.

They lie in `<runtime>/last`, for the supervisor's user only. A box is known by the path of its files without their
ending, which says role, slot and a number that no other box of this instance has had. What the supervisor itself logs
is kept in `<runtime>/supervisor.lines`, over its death too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from halo_mp import blackbox, logs
from halo_mp.supervisor.state import Member

OWN = "supervisor"
OWN_LINES = f"{OWN}.lines"
_MOST_LINES = 1000  # more than a box holds

log = logs.get("supervisor")


@dataclass(frozen=True, slots=True)
class Box:
    """A box while its process is being started. Without room for one the process starts all the same."""

    path: str | None = None
    fds: tuple[int, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What tells the process of its descriptors."""
        return {blackbox.VARIABLE: ",".join(map(str, self.fds))} if self.fds else {}


NO_BOX = Box()


class Boxes:
    """Makes boxes in a directory, which it makes too."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number: int | None = None

    @contextmanager
    def new(self, name: str) -> Iterator[Box]:
        """Make a box and yield it with its descriptors, which are closed behind the block."""
        with ExitStack() as stack:
            box = NO_BOX
            try:
                box = self._make(name, stack)
            except OSError as error:
                log.warning("box.not_made", box=name, reason=error.strerror)
            yield box

    def sweep(self, members: Iterable[Member]) -> None:
        """Remove the boxes of whoever is not alive, or is nobody of these."""
        kept = {member.box for member in members if member.is_alive}
        with suppress(OSError):  # there is no directory
            for file in list(self._directory.iterdir()):
                if str(file.with_suffix("")) not in kept:
                    file.unlink(missing_ok=True)

    def _make(self, name: str, stack: ExitStack) -> Box:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        path = str(self._directory / f"{name}.{self._next()}")

        def create(file: Path, flags: int) -> int:
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | flags, 0o600)
            stack.callback(os.close, fd)
            return fd

        try:
            lines_fd = create(blackbox.lines_path(path), 0)
            os.posix_fallocate(lines_fd, 0, blackbox.BOX_OCTETS)
            return Box(path, (lines_fd, create(blackbox.trace_path(path), os.O_APPEND)))
        except OSError:
            remove(path)
            raise

    def _next(self) -> int:
        """Return a number that is not taken, also not by what an earlier supervisor made."""
        if self._number is None:
            taken = (file.stem.rpartition(".")[2] for file in self._directory.iterdir())
            self._number = max((int(number) for number in taken if number.isdigit()), default=-1)
        self._number += 1
        return self._number


@contextmanager
def own_lines(directory: Path) -> Iterator[None]:
    """Keep what this process logs in a box of its own, behind what a dead predecessor had logged.

    Without room for it the supervisor works all the same.
    """
    box, new = str(directory / OWN), str(directory / f"{OWN}.new")
    with ExitStack() as stack:
        try:
            before = blackbox.read_lines(box, _MOST_LINES)
            fd = os.open(
                blackbox.lines_path(new), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
            )
            stack.callback(os.close, fd)
            os.posix_fallocate(fd, 0, blackbox.BOX_OCTETS)
            lines = blackbox.LineBox(fd)
            for line in before:
                lines.write(f"{line}\n".encode("utf-8", "backslashreplace"))
            blackbox.lines_path(new).rename(blackbox.lines_path(box))
        except OSError as error:
            log.warning("box.not_made", box=OWN, reason=error.strerror)
            remove(new)
        else:
            logs.keep(lines)
            stack.callback(logs.keep, None)
        yield


def remove(path: str | None) -> None:
    """Remove the files of a box, as far as they are there."""
    if path is not None:
        for file in (blackbox.lines_path(path), blackbox.trace_path(path)):
            file.unlink(missing_ok=True)
