# SPDX-License-Identifier: Apache-2.0
"""The black box of a driver or worker: what it said last, in two files that outlive it however it ends.

    <box>.lines   the log lines of the process, the newest 32 KiB of them; each is written before it is logged
    <box>.trace   the traceback of a crash, of an exception that nobody caught, or of a process asked by SIGUSR2

The supervisor makes both before it starts the process, which inherits the descriptors: one that has given up root can
open nothing. Files, so that the next supervisor finds them by name when this one is dead.

`<box>.lines` is a ring of records, each `RS`, its number in 16 hexadecimal digits, a space, the line with its newline.
A record never wraps, and is one pwrite: whatever is killed leaves whole lines. What is left of an overwritten record
has no RS before it, and no reader takes it for one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
import sys
import traceback
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

VARIABLE = "HALO_MP_BOX"
BOX_OCTETS = 32 * 1024
LINE_OCTETS = 4096  # of one line at most: a box has room for eight of the longest
TRACE_OCTETS = 8192  # of a traceback that is read
ASKING = signal.SIGUSR2

_CUT = b" ...\n"
_RECORD = re.compile(rb"\x1e([0-9a-f]{16}) ([^\n\x1e]*)\n")


class LineBox:
    """Writes lines into the ring. A write that fails is a line less: the process goes on."""

    def __init__(self, fd: int, size_octets: int = BOX_OCTETS) -> None:
        self._fd = fd
        self._size_octets = size_octets
        self._offset = 0
        self._number = 0

    def write(self, line: bytes) -> None:
        """Put a line, newline included, over the oldest."""
        if len(line) > LINE_OCTETS:
            line = line[: LINE_OCTETS - len(_CUT)] + _CUT
        record = b"\x1e%016x %b" % (self._number, line)
        if self._offset + len(record) > self._size_octets:
            self._offset = 0
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, record, self._offset)
        self._offset += len(record)
        self._number += 1


@dataclass(frozen=True, slots=True)
class Inherited:
    """The two descriptors that this process was started with."""

    lines_fd: int
    trace_fd: int

    def lines(self) -> LineBox:
        """Return what `logs.configure` tees into."""
        return LineBox(self.lines_fd)


def install(environment: MutableMapping[str, str] = os.environ) -> Inherited | None:
    """Have every sudden end of this process leave a traceback; return its box, None when it was given none.

    Without a box tracebacks go to standard error.
    """
    box = _inherited(environment)
    file = sys.stderr if box is None else box.trace_fd
    faulthandler.enable(file=file, all_threads=True)
    faulthandler.register(ASKING, file=file, all_threads=True, chain=False)
    if box is not None:
        sys.excepthook = _Hook(box.trace_fd)
    return box


def _inherited(environment: MutableMapping[str, str]) -> Inherited | None:
    """Take the descriptors from the environment, so that nobody further down inherits them."""
    found = re.fullmatch(r"(\d+),(\d+)", environment.pop(VARIABLE, ""))
    if found is None:
        return None
    lines_fd, trace_fd = map(int, found.groups())
    for fd in (lines_fd, trace_fd):
        os.set_inheritable(fd, False)
    return Inherited(lines_fd, trace_fd)


class _Hook:
    """What Python calls for an exception that nobody caught: into the box, then to standard error as ever."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            text = "".join(traceback.format_exception(kind, error, trace))
            os.write(self._fd, shorten(text).encode("utf-8", "backslashreplace"))
        sys.__excepthook__(kind, error, trace)


def lines_path(box: str) -> Path:
    """Return the file with the log lines of a box, which is a path without its ending."""
    return Path(f"{box}.lines")


def trace_path(box: str) -> Path:
    """Return the file with the traceback of a box."""
    return Path(f"{box}.trace")


def read_lines(box: str, count: int) -> list[str]:
    """Return the last lines that a process logged, oldest first; none when there is no such box."""
    records = _RECORD.findall(_read(lines_path(box), BOX_OCTETS))
    by_number = {int(number, 16): line for number, line in records}
    newest = max(by_number, default=-1)
    # Behind a gap lies what a lap left untouched because its last record did not fit there.
    first = next(number for number in range(newest, -2, -1) if number not in by_number) + 1
    found = [by_number[number] for number in range(first, newest + 1)]
    return [line.decode("utf-8", "replace") for line in found[-count:]]


def read_trace(box: str) -> str:
    """Return the traceback in a box; nothing when there is none."""
    return shorten(_read(trace_path(box), 16 * TRACE_OCTETS).decode("utf-8", "replace").strip())


def shorten(text: str, most: int = TRACE_OCTETS) -> str:
    """Return a text without its middle when it is too long: what matters stands at one of its ends."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n ...\n{text[-most // 2 :]}"


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:  # whoever writes it may have made it longer than it should be
            return file.read(most)
    except OSError:
        return b""
