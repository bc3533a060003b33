# SPDX-License-Identifier: Apache-2.0
"""Where captured packets go: a file, a row of files, a FIFO or standard output that somebody reads live.

Whoever reads may pause, and Ctrl-C ends a capture all the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from halo_mp.errors import EnvironmentProblem, RuntimeFailure

_BUFFER_OCTETS = 1 << 18
_LOOK_S = 0.1
"""Between two looks whether it is time to end, while a reader is waited for."""
_PATIENCE_S = 1.0
"""For which a reader that takes nothing is waited for once it is time to end."""


class Output(Protocol):
    """What takes packets."""

    def write(self, octets: bytes) -> None:
        """Write a packet."""

    def flush(self) -> None:
        """Let who reads see it."""

    def close(self, last: bytes) -> None:
        """Write the end."""


class Stream:
    """A file. Raises EnvironmentProblem when it can not be written; what it has is whole then."""

    def __init__(self, path: str, first: bytes) -> None:
        self.size_octets = 0
        self._path = path
        self._whole_octets = 0  # up to where the file ends with a packet
        self._waiting = bytearray()
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise EnvironmentProblem(f"{path} can not be written: {error.strerror}.") from None
        self.write(first)
        self.flush()

    def write(self, octets: bytes) -> None:
        """Write a packet."""
        self._waiting += octets
        self.size_octets += len(octets)
        if len(self._waiting) >= _BUFFER_OCTETS:
            self.flush()

    def flush(self) -> None:
        """Let who reads see it."""
        try:
            while self._waiting:
                del self._waiting[: os.write(self._fd, self._waiting)]
        except OSError as error:
            with contextlib.suppress(OSError):  # /dev/full and the like
                os.ftruncate(self._fd, self._whole_octets)
            raise EnvironmentProblem(
                f"{self._path} can not be written: {error.strerror}; the packets that it has are whole."
            ) from None
        self._whole_octets = self.size_octets

    def close(self, last: bytes) -> None:
        """Write the end."""
        self.write(last)
        self.flush()
        os.close(self._fd)


class Pipe:
    """A FIFO or a pipe, read live. Raises BrokenPipeError when nobody reads any more.

    Its reader may pause for as long as it likes; once it is time to end it has a second, and then it is a
    RuntimeFailure.
    """

    def __init__(self, path: str, ended: Callable[[], bool]) -> None:
        """`path` - is standard output. A FIFO is waited for until somebody reads it, or it is time to end.

        Raises EnvironmentProblem.
        """
        self._name = "standard output" if path == "-" else path
        self._ended = ended
        self._standard = path == "-"
        self._fd = sys.stdout.fileno() if self._standard else _open_fifo(path, ended)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        self._waiting = bytearray()

    def write(self, octets: bytes) -> None:
        """Write a packet."""
        self._waiting += octets
        if len(self._waiting) >= _BUFFER_OCTETS:
            self.flush()

    def flush(self) -> None:
        """Let who reads see it; without anything new, only see that it is there."""
        if not self._waiting and any(events & select.POLLERR for _, events in self._poll.poll(0)):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))  # as write(2) says it
        idle_s = 0.0
        while self._waiting:
            if self._poll.poll(_LOOK_S * 1000):
                self._write_some()
                idle_s = 0.0
            elif self._ended():
                idle_s += _LOOK_S
                if idle_s >= _PATIENCE_S:
                    raise RuntimeFailure(f"{self._name} is not read: the end of the capture is not there.")

    def _write_some(self) -> None:
        """Write what the kernel takes at once: no write waits, and there is always somebody to hear Ctrl-C."""
        try:
            del self._waiting[: os.write(self._fd, self._waiting[: select.PIPE_BUF])]
        except BrokenPipeError:
            raise
        except OSError as error:  # standard output may be a file
            raise EnvironmentProblem(f"{self._name} can not be written: {error.strerror}.") from None

    def close(self, last: bytes) -> None:
        """Write the end."""
        self.write(last)
        self.flush()
        if not self._standard:
            os.close(self._fd)


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
        if is_pipe(path):
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


def is_pipe(path: str) -> bool:
    """Return whether somebody else reads it as it is written: standard output, -, or a FIFO."""
    if path == "-":
        return True
    try:
        return stat.S_ISFIFO(Path(path).stat().st_mode)
    except OSError:
        return False


def _open_fifo(path: str, ended: Callable[[], bool]) -> int:
    """Return a descriptor once somebody reads. Python would open it again behind each signal."""
    while not ended():
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise EnvironmentProblem(f"{path} can not be written: {error.strerror}.") from None
            time.sleep(_LOOK_S)
            continue
        os.set_blocking(fd, True)
        return fd
    raise EnvironmentProblem(f"nobody has read {path}; open it, say with wireshark -k -i {path}.")
