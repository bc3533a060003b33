# SPDX-License-Identifier: Apache-2.0
"""Making a real driver or worker run a few lines of Python, by a signal: leave, raise, stand still, say something.

A directory with a `sitecustomize` goes in front of the path of every process of an instance; it does something only in
children, and only when a signal of the test's own comes.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEAVE = signal.SIGRTMIN + 1
RAISE = signal.SIGRTMIN + 2
STAND_STILL = signal.SIGRTMIN + 3
SAY = signal.SIGRTMIN + 4
WAIT = signal.SIGRTMIN + 5

LEAVES_WITH = 3
SAYS = 100  # lines

_SOURCE = f"""
import sys

if {{"halo_mp.workers", "halo_mp.supervisor.driver"}} & set(sys.orig_argv):
    import signal

    def leave(*_):
        sys.exit({LEAVES_WITH})

    def stumble(*_):
        raise RuntimeError("stumbled on a cue")

    def stand_still_in_python(*_):
        while True:
            pass

    def wait_for_nothing(*_):
        import time
        time.sleep(1000)

    def say(*_):
        from halo_mp import logs
        for number in range({SAYS}):
            logs.get("cue").info("cue.said", number=number)

    for number, function in (
        ({LEAVE:d}, leave), ({RAISE:d}, stumble), ({STAND_STILL:d}, stand_still_in_python), ({SAY:d}, say),
        ({WAIT:d}, wait_for_nothing),
    ):
        signal.signal(number, function)
"""


@contextmanager
def environment() -> Iterator[dict[str, str]]:
    """Yield the environment for an instance whose children take cues."""
    with tempfile.TemporaryDirectory(prefix="halo-mp-test-") as directory:
        Path(directory).chmod(0o755)  # workers are nobody
        (Path(directory) / "sitecustomize.py").write_text(_SOURCE)
        path = os.pathsep.join(filter(None, (directory, os.environ.get("PYTHONPATH"))))
        yield {**os.environ, "PYTHONPATH": path}
