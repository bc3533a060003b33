# SPDX-License-Identifier: Apache-2.0
"""Where captures go: a full disk leaves whole packets, and a reader that pauses, or never comes, keeps nobody."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from halo_mp.capture.output import Pipe, Stream, is_pipe
from halo_mp.errors import EnvironmentProblem, RuntimeFailure

PACKET = b"p" * 50


@contextmanager
def disk_of(octets: int) -> Iterator[None]:
    """Let no file become longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Fifo:
    """A FIFO with a reader, and whether it is time to end."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.is_time = False

    def open(self) -> Pipe:
        return Pipe(self.path, lambda: self.is_time)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    made = Fifo(tmp_path / "fifo")
    yield made
    os.close(made.reader)


def test_full_disk_leaves_whole_packets(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    with disk_of(1030):
        stream = Stream(str(path), b"f" * 100)
        for _ in range(10):
            stream.write(PACKET)
        stream.flush()
        for _ in range(10):
            stream.write(PACKET)
        with pytest.raises(
            EnvironmentProblem, match=r"x.pcapng can not be written: .*; the packets .* whole"
        ):
            stream.flush()
    assert path.read_bytes() == b"f" * 100 + PACKET * 10


def test_full_device_is_a_sentence() -> None:
    with pytest.raises(EnvironmentProblem, match="/dev/full can not be written: No space left on device"):
        Stream("/dev/full", b"f")


def test_fifo_that_nobody_reads_ends_when_it_is_time(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    looks = iter([False, False, True])
    assert is_pipe(str(path))
    with pytest.raises(EnvironmentProblem, match=r"nobody has read .*fifo"):
        Pipe(str(path), lambda: next(looks))


def test_reader_gets_everything_in_order(fifo: Fifo) -> None:
    pipe = fifo.open()
    pipe.write(PACKET)
    pipe.flush()
    assert os.read(fifo.reader, 1000) == PACKET
    pipe.write(PACKET)
    pipe.close(b"last")
    assert os.read(fifo.reader, 1000) == PACKET + b"last"
    assert os.read(fifo.reader, 1000) == b""


def test_reader_that_takes_nothing_is_left_when_it_is_time(fifo: Fifo) -> None:
    pipe = fifo.open()
    fifo.is_time = True
    with pytest.raises(RuntimeFailure, match="is not read: the end of the capture is not there"):
        pipe.write(b"x" * (1 << 20))


def test_reader_that_has_gone_is_found_without_a_packet(tmp_path: Path) -> None:
    made = Fifo(tmp_path / "fifo")
    pipe = made.open()
    pipe.flush()
    os.close(made.reader)
    with pytest.raises(BrokenPipeError) as found:
        pipe.flush()
    assert found.value.errno == errno.EPIPE
