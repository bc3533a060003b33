# SPDX-License-Identifier: Apache-2.0
"""The driver process before it has any port, with the test as its supervisor."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from halo_mp.supervisor.greeter import Greeter

TIMEOUT_S = 30.0


def test_mistake_in_what_runs_beside_ends_the_driver_and_is_told(tmp_path: Path) -> None:
    """A task that died unheard would leave a driver that listens to nobody, or watches nothing."""

    async def play() -> tuple[int, bytes]:
        greeter = Greeter(tmp_path / "private.sock")
        command = ["-m", "halo_mp.supervisor.driver", "--runtime", str(tmp_path), "--instance", "x"]
        driver = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=subprocess.PIPE)
        try:
            channel = await greeter.expect(driver.pid, "driver", None)
            await channel.send({"type": "configure", "ports": []})  # which says nothing of what is needed
            _, said = await driver.communicate()
            channel.close()
        finally:
            if driver.returncode is None:
                driver.kill()
                await driver.wait()
            await greeter.close()
        assert driver.returncode is not None
        return driver.returncode, said

    status, said = asyncio.run(asyncio.wait_for(play(), TIMEOUT_S))
    assert (status, said.count(b"driver.fault")) == (1, 1), said.decode()
    assert b"KeyError" in said
    assert b"driver.stopped" in said, "in order, all the same"
