# SPDX-License-Identifier: Apache-2.0
"""The black box: its ring of lines at every size, and what it holds after real sudden ends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from halo_mp import blackbox
from halo_mp.blackbox import LineBox
from halo_mp.supervisor.boxes import Boxes
from tests.support.namespace import wait_until

SIZE = 8192


@pytest.fixture
def box(tmp_path: Path) -> str:
    """A box that was made by hand."""
    path = str(tmp_path / "x.0")
    blackbox.lines_path(path).write_bytes(bytes(SIZE))
    blackbox.trace_path(path).touch()
    return path


def writer(box: str) -> LineBox:
    return LineBox(os.open(blackbox.lines_path(box), os.O_WRONLY | os.O_CLOEXEC), SIZE)


def test_empty_box_has_no_lines(box: str) -> None:
    assert blackbox.read_lines(box, 32) == []
    assert blackbox.read_trace(box) == ""
    assert blackbox.read_lines(f"{box}.none", 32) == []


def test_lines_come_back_in_order(box: str) -> None:
    lines = writer(box)
    for number in range(40):
        lines.write(f"line {number} ä\n".encode())
    assert blackbox.read_lines(box, 32) == [f"line {number} ä" for number in range(8, 40)]


def test_full_box_keeps_the_newest_and_never_grows(box: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance, lines, said = random.Random(seed), writer(box), []
    for number in range(2000):
        said.append(f"{number} " + "x" * chance.choice((0, 1, 50, 300, 3000)))
        lines.write(said[-1].encode() + b"\n")
        found = blackbox.read_lines(box, 10**6)
        # Whole lines, none of them changed, and the newest without a gap.
        assert found == said[len(said) - len(found) :]
    assert blackbox.lines_path(box).stat().st_size == SIZE
    assert sum(map(len, found)) > SIZE // 4


def test_line_that_fills_the_box_to_its_end_fits(box: str) -> None:
    lines = writer(box)
    record = 18 + 1  # RS, number, space; newline
    for _ in range(2):
        lines.write(b"a" * (SIZE // 2 - record) + b"\n")
    assert [len(line) for line in blackbox.read_lines(box, 32)] == [SIZE // 2 - record] * 2
    lines.write(b"b\n")
    assert [line[0] for line in blackbox.read_lines(box, 32)] == ["a", "b"]


def test_long_line_is_cut(box: str) -> None:
    lines = writer(box)
    lines.write(b"y" * 100_000 + b"\n")
    lines.write(b"next\n")
    long, last = blackbox.read_lines(box, 32)
    assert long == "y" * (blackbox.LINE_OCTETS - 5) + " ..."
    assert last == "next"


@pytest.mark.parametrize(
    "junk", [b"\x1e", b"\x1e0000", b"\x1e" + b"0" * 16, b"\n\x1e" + b"g" * 16 + b" x\n", b"\xff" * SIZE]
)
def test_junk_is_no_line(box: str, junk: bytes) -> None:
    blackbox.lines_path(box).write_bytes(junk)
    assert blackbox.read_lines(box, 32) == []


def test_descriptor_that_can_not_be_written_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    LineBox(os.open(path, os.O_RDONLY | os.O_CLOEXEC)).write(b"lost\n")
    assert path.read_bytes() == b""


def test_traceback_that_is_too_long_keeps_both_ends(box: str) -> None:
    blackbox.trace_path(box).write_text("begin" + "z" * 50_000 + "end")
    found = blackbox.read_trace(box)
    assert found.startswith("begin")
    assert found.endswith("end")
    assert len(found) < blackbox.TRACE_OCTETS + 10


# ---- real processes

PROGRAM = """
import os, signal, subprocess, sys, time
from halo_mp import blackbox, logs
box = blackbox.install()
assert blackbox.VARIABLE not in os.environ
logs.configure("x", "info", box=box.lines())
log = logs.get("x")

def the_place(how):
    if how == "stands":
        log.info("x.stands")
        print("stands", flush=True)
        time.sleep(1000)
    if how == "raises":
        raise RuntimeError("of the test")
    if how == "heir":
        script = "import os, sys; sys.exit(sum(os.path.exists(f'/proc/self/fd/{fd}') for fd in sys.argv[1:]))"
        fds = map(str, (box.lines_fd, box.trace_fd))
        sys.exit(subprocess.run([sys.executable, "-c", script, *fds], close_fds=False).returncode)
    if how == "exits":
        log.error("x.leaves", status=7)
        sys.exit(7)
    os.kill(os.getpid(), signal.Signals[how])

the_place(sys.argv[1])
"""


def run(tmp_path: Path, how: str) -> tuple[int, str, str]:
    """Run the program with a box; return how it ended, its box, and what it wrote on standard error."""
    with Boxes(tmp_path / "last").new("x") as box:
        command = [sys.executable, "-c", PROGRAM, how]
        done = subprocess.run(
            command,
            pass_fds=box.fds,
            env={**os.environ, **box.environment},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert box.path is not None
    return done.returncode, box.path, done.stderr


@pytest.mark.parametrize("how", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE"])
def test_crash_leaves_its_traceback(tmp_path: Path, how: str) -> None:
    status, box, _ = run(tmp_path, how)
    assert status == -signal.Signals[how]
    assert "in the_place" in blackbox.read_trace(box)


def test_exception_leaves_its_traceback_here_and_there(tmp_path: Path) -> None:
    status, box, stderr = run(tmp_path, "raises")
    assert status == 1
    for text in (blackbox.read_trace(box), stderr):
        assert "in the_place" in text
        assert text.rstrip().endswith("RuntimeError: of the test")


def test_exit_leaves_its_lines_and_no_traceback(tmp_path: Path) -> None:
    status, box, _ = run(tmp_path, "exits")
    [line] = blackbox.read_lines(box, 32)
    assert status == 7
    assert line.endswith("x x.leaves status=7")
    assert blackbox.read_trace(box) == ""


def test_nobody_inherits_the_box(tmp_path: Path) -> None:
    assert run(tmp_path, "heir")[0] == 0


def test_asked_process_says_where_it_is_and_goes_on(tmp_path: Path) -> None:
    with Boxes(tmp_path / "last").new("x") as box:
        environment = {**os.environ, **box.environment}
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "stands"],
            pass_fds=box.fds,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    try:
        assert process.stdout is not None
        assert box.path is not None
        assert process.stdout.readline() == b"stands\n"
        process.send_signal(blackbox.ASKING)
        path = box.path
        wait_until(lambda: "in the_place" in blackbox.read_trace(path), what="a traceback")
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
        assert "in the_place" in blackbox.read_trace(box.path)
        assert blackbox.read_lines(box.path, 32)[-1].endswith("x x.stands"), "it survives SIGKILL"
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_process_without_a_box_crashes_as_ever() -> None:
    script = "from halo_mp import blackbox; assert blackbox.install({}) is None; import os; os.abort()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in done.stderr
