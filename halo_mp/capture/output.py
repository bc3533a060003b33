# SPDX-License-Identifier: Apache-2.0
"""Where captured packets go: a file, a row of files, a FIFO or standard output that somebody reads live."""

from __future__ import annotations

import contextlib
import stat
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from halo_mp.errors import EnvironmentProblem


class Output(Protocol):
    """What takes packets."""

    def write(self, octets: bytes) -> None:
        """Write a packet."""

    def flush(self) -> None:
        """Let who reads see it."""

    def close(self, last: bytes) -> None:
        """Write the end."""


class Stream:
    """One file, FIFO or pipe. Raises EnvironmentProblem without one, BrokenPipeError when nobody reads."""

    def __init__(self, path: str, first: bytes) -> None:
        """`path` - is standard output. A FIFO is waited for until somebody reads it."""
        self.name = path
        self.size_octets = len(first)
        self._file: BinaryIO = _open(path)
        self._file.write(first)
        self._file.flush()

    def write(self, octets: bytes) -> None:
        """Write a packet."""
        self._file.write(octets)
        self.size_octets += len(octets)

    def flush(self) -> None:
        """Let who reads see it."""
        self._file.flush()

    def close(self, last: bytes) -> None:
        """Write the end."""
        self._file.write(last)
        self._file.flush()
        if self._file is not sys.stdout.buffer:
            self._file.close()


class Rotated:
    """A row of files, each whole by itself: `x.pcapng` becomes `x-00001.pcapng` and so on."""

    def __init__(
        self,
        path: str,
        first: bytes,
        last: Callable[[], bytes],
        *,
        size_octets: int | None,
        seconds: float | None,
        keep: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`last` makes the end of a file; of more than `keep` files the oldest goes."""
        if path == "-" or _is_fifo(Path(path)):
            raise EnvironmentProblem(
                f"{path} can not be a row of files; name a file with -w, or do not rotate."
            )
        self._path, self._first, self._last = Path(path), first, last
        self._size_octets, self._seconds, self._keep = size_octets, seconds, keep
        self._clock = clock
        self._number = 0
        self._kept: deque[Path] = deque()
        self._next()

    def write(self, octets: bytes) -> None:
        """Write a packet, into the next file if this one is full or old enough."""
        full = self._size_octets is not None and self._stream.size_octets + len(octets) > self._size_octets
        old = self._seconds is not None and self._clock() - self._since >= self._seconds
        if (full or old) and self._packets:
            self._stream.close(self._last())
            self._next()
        self._stream.write(octets)
        self._packets += 1

    def flush(self) -> None:
        """Let who reads see it."""
        self._stream.flush()

    def close(self, last: bytes) -> None:
        """Write the end."""
        self._stream.close(last)

    def _next(self) -> None:
        self._number += 1
        path = self._path.with_name(f"{self._path.stem}-{self._number:05}{self._path.suffix}")
        self._stream = Stream(str(path), self._first)
        self._since = self._clock()
        self._packets = 0
        self._kept.append(path)
        while self._keep is not None and len(self._kept) > self._keep:
            with contextlib.suppress(FileNotFoundError):
                self._kept.popleft().unlink()


def _is_fifo(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


def _open(path: str) -> BinaryIO:
    if path == "-":
        return sys.stdout.buffer
    try:
        return Path(path).open("wb")
    except OSError as error:
        raise EnvironmentProblem(f"{path} can not be written: {error.strerror}.") from None
