# SPDX-License-Identifier: Apache-2.0
"""Pages of the web mode end with who shows them, whatever they are doing."""

from __future__ import annotations

import subprocess
import sys

import pytest

BUSY = """
import os
from halo_mp.dashboard import page
page.LOOK_S, page.GRACE_S = 0.05, 0.05
page.end_with_server({server})
print("runs", flush=True)
while True:
    pass
"""


@pytest.mark.parametrize(
    ("server", "closed"),
    [("os.getppid()", True), ("os.getppid() + 1", False)],
    ids=["nobody writes", "another parent"],
)
def test_page_that_is_busy_ends_with_its_server(server: str, closed: bool) -> None:
    command = [sys.executable, "-c", BUSY.format(server=server)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        if closed:
            assert process.stdout.readline() == b"runs\n"
            assert process.poll() is None
            process.stdin.close()
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdin.close()
        process.stdout.close()
