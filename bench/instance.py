# SPDX-License-Identifier: Apache-2.0
"""A halo-mp instance as a user starts it: the supervisor's command line, watched through shared memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, Any, Self

from bench.machine import wait_until
from halo_mp.errors import HaloError
from halo_mp.shm.layout import RegionKind, SlotState, WorkerState
from halo_mp.shm.region import Region, region_name

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0


class Instance:
    """Use as a context manager: started and ready inside, stopped in order afterwards."""

    def __init__(self, arguments: Sequence[str], *, slots: int = 1) -> None:
        self.name = f"bench-{os.getpid()}"
        self._arguments = [*arguments, "--name", self.name]
        self._slot_count = slots
        self._slots: list[Region] = []
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives until stop()
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Start the supervisor and return at once."""
        command = [sys.executable, "-m", "halo_mp.supervisor", *self._arguments]
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    def __enter__(self) -> Self:
        self.launch()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_ready(self) -> None:
        """Wait until every slot is enabled and has its worker."""
        wait_until(self._is_ready, START_TIMEOUT_S, f"the start of {' '.join(self._arguments)}")

    def slot(self, number: int = 0) -> Any:
        """The shared `struct halo_slot` of a slot, read-only."""
        return self._slots[number].pointer

    def worker_pids(self) -> list[int]:
        """The pids of all workers."""
        return [int(region.pointer.status.pid) for region in self._slots]

    def driver_pid(self) -> int:
        """The pid of the driver, once it lives; the region outlives it."""
        name = region_name(self.name, "ports")
        region = Region.attach(name, RegionKind.PORTS, writable=False)
        try:
            return int(region.pointer.driver_pid)
        finally:
            region.close()

    def log(self) -> str:
        """What every process has logged so far."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def kill(self) -> None:
        """End the supervisor as nothing can refuse; the others go on. `launch` starts the next."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def tx_rate(self, seconds: float, number: int = 0) -> float:
        """Frames per second that the driver sent for a slot, over that time."""
        counters = self.slot(number).driver
        before, begin = counters.tx_sent, time.monotonic_ns()
        time.sleep(seconds)
        after, end = counters.tx_sent, time.monotonic_ns()
        return float((after - before) / (end - begin) * 1e9)

    def stop(self) -> None:
        """End the instance as Ctrl-C does."""
        for region in self._slots:
            region.close()
        self._slots.clear()
        if self.process is None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(STOP_TIMEOUT_S)
        self.process = None
        self._log.close()

    def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            self._log.seek(0)
            raise RuntimeError(f"halo-mp ended with {self.process.returncode}:\n{self._log.read().decode()}")
        try:
            while len(self._slots) < self._slot_count:
                name = region_name(self.name, f"slot.{len(self._slots)}")
                region = Region.attach(name, RegionKind.SLOT, writable=False)
                region.close_fd()
                self._slots.append(region)
        except HaloError:
            return False
        return all(
            region.pointer.life.state == SlotState.ENABLED
            and region.pointer.status.state == WorkerState.ATTACHED
            for region in self._slots
        )
