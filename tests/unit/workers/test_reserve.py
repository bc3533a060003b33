# SPDX-License-Identifier: Apache-2.0
"""The reserve: whoever asks for the last of the memory gets it, and the process is told before anything fails."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import functools, operator, os, resource, sys, threading, time
from halo_mp.workers import reserve

def end() -> None:
    sys.stdout.write(f"told in {threading.current_thread().name}, {failed} failed, {len(bytes(1 << 20))} octets")
    sys.stdout.flush()
    os._exit(7)

failed = 0
reserve.hold(end)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
octets = (int(status["VmSize"].split()[0]) << 10) + (32 << 20)  # a thread has a stack
resource.setrlimit(resource.RLIMIT_AS, (octets, octets))
kept = []

def use(make) -> None:
    global failed
    while True:
        try:
            kept.append(make())
        except MemoryError:
            failed += 1
            if failed == 1_000:
                break
"""
USES = {
    "small objects": "use(lambda: [object()])",
    "large objects": "use(lambda: bytearray(100_000))",
    "zeroed objects": "use(lambda: bytes(100_000))",
    "growing objects": "use(lambda: functools.reduce(operator.iadd, [bytes(9_000)] * 50, bytearray()))",
    "another thread": "threading.Thread(target=use, args=(lambda: (time.sleep(0.001), bytes(100_000)),)).start()\n"
    "while True: time.sleep(0.01)",
}


def run(use: str) -> subprocess.CompletedProcess[str]:
    """What came of a process that uses all of its memory."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + use], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_process_is_told_before_anything_fails_and_has_memory_to_say_so(use: str) -> None:
    done = run(use)
    assert done.stdout == "told in MainThread, 0 failed, 1048576 octets", done.stderr
    assert done.returncode == 7


def test_request_that_is_far_too_large_fails_as_ever_and_leaves_the_reserve() -> None:
    done = run("use(lambda: bytearray(1 << 30))\nprint('goes on,', failed, 'failed')")
    assert (done.stdout, done.returncode) == ("goes on, 1000 failed\n", 0), done.stderr


def test_reserve_is_held_once() -> None:
    done = run("reserve.hold(end)")
    assert done.returncode == 1
    assert "HaloError" in done.stderr
