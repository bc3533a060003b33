# SPDX-License-Identifier: Apache-2.0
"""The driver process: `python -m halo_mp.supervisor.driver`, started by the supervisor, by nobody else.

The only process that links DPDK. Its main thread runs asyncio (control, signals, status) and is the EAL main lcore; the
lcores that move frames are EAL worker threads in C, which never take the GIL.

    connecting → configured → ports started → launched (ready) → stopping
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from halo_mp import blackbox, logs
from halo_mp.control.channel import ChannelError
from halo_mp.control.frame import Message
from halo_mp.control.lifeline import Lifeline
from halo_mp.errors import BootFailed, HaloError
from halo_mp.supervisor.device_watch import TRANSIENT, DeviceWatch
from halo_mp.supervisor.driver_eal import EalLog, eal_arguments
from halo_mp.supervisor.driver_ports import DriverPorts

log = logs.get("driver")

EXIT_FAULT = 1
EXIT_CANNOT_BOOT = 5
STATUS_INTERVAL_S = 0.5


class DriverHost:
    """One driver. `run` returns the exit status of the process."""

    def __init__(self, runtime: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._line = Lifeline(runtime, lambda: {"role": "driver"}, self._handle)
        self._ports: DriverPorts | None = None
        self._devices: DeviceWatch | None = None
        self._eal_log: EalLog | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._end: asyncio.Future[int] = self._loop.create_future()

    async def run(self) -> int:
        """Serve the supervisor until told to stop."""
        await self._line.connect()
        self._start(self._serve())
        self._start(self._update_status())
        try:
            return await self._end
        finally:
            for task in self._tasks:
                task.cancel()
            self._leave()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        """A task that dies of a mistake takes the driver with it: half of one would go on unwatched."""
        self._tasks.discard(task)
        if task.cancelled() or self._end.done():
            return
        try:
            task.result()
        except Exception:
            log.exception("driver.fault")
            self.stop(EXIT_FAULT)

    def stop(self, status: int = 0) -> None:
        """End `run` with that status."""
        if not self._end.done():
            self._end.set_result(status)

    async def _serve(self) -> None:
        try:
            orphaned = await self._line.serve(lambda: self._ports is not None)
        except HaloError as error:
            await self._fail(error)
            return
        if orphaned:
            log.warning("driver.orphaned", waited_s=self._line.orphan_timeout_s)
        self.stop(0 if orphaned else EXIT_CANNOT_BOOT)

    async def _handle(self, message: dict[str, Any], fds: list[int]) -> None:
        if message["type"] == "configure" and self._ports is None:
            await self._configure(message, fds)
            return
        for fd in fds:
            os.close(fd)
        if self._ports is None:
            await self._line.channel.refuse(message, "the driver is not configured yet")
            return
        if message["type"] == "adopt":
            self._line.orphan_timeout_s = float(message["orphan_timeout_s"])
            await self._tell_ready(self._ports, self._ports.fds)
            return
        try:
            reply = self._command(self._ports, message)
        except HaloError as error:
            await self._line.channel.refuse(message, str(error))
            return
        await self._line.channel.reply(message, **reply)
        if message["type"] == "stop":
            self.stop()

    def _command(self, ports: DriverPorts, message: dict[str, Any]) -> dict[str, Any]:
        match message["type"]:
            case "slot.enable":
                ports.enable_slot(int(message["slot"]))
            case "slot.reset":
                return {"reclaimed": ports.reset_slot(int(message["slot"]))}
            case "feeds":
                ports.set_feeds(message["slots"])
            case "stop":
                pass
            case unknown:
                raise BootFailed(f"the driver does not know {unknown!r}")
        return {}

    async def _configure(self, message: dict[str, Any], fds: list[int]) -> None:
        self._line.orphan_timeout_s = float(message["orphan_timeout_s"])
        self._eal_log = EalLog(self._loop)
        ports = DriverPorts(message, fds)
        try:
            ports.start(eal_arguments(message), self._eal_log)
        except BaseException:
            ports.close()
            raise
        self._ports = ports
        with contextlib.suppress(ChannelError):  # no supervisor any more: the next one asks when it adopts
            await self._tell_ready(ports)
        log.info("driver.ready", ports=len(message["ports"]), withheld=ports.withheld)
        self._devices = DeviceWatch(ports, lambda message: self._start(self._tell(message)))
        self._start(self._devices.run())

    async def _tell(self, message: Message) -> None:
        """Send what nobody waits for; without a supervisor it is lost, and the next one gets the ports as they are."""
        with contextlib.suppress(ChannelError):
            await self._line.channel.send(message)

    async def _tell_ready(self, ports: DriverPorts, fds: Sequence[int] = ()) -> None:
        lost = [{"port": number, "reason": reason} for number, reason in ports.lost.items()]
        ready = {"type": "ready", "ports": ports.describe(), "lost": lost, "withheld": ports.withheld}
        await self._line.channel.send(ready, fds)

    async def _fail(self, error: HaloError) -> None:
        if self._eal_log is not None:
            self._eal_log.drain()
        log.error("driver.failed", error=str(error))
        try:
            await self._line.channel.send(
                {"type": "failed", "kind": type(error).__name__, "error": str(error)}
            )
        except ChannelError:
            pass
        self.stop(EXIT_CANNOT_BOOT)

    async def _update_status(self) -> None:
        while True:
            await asyncio.sleep(STATUS_INTERVAL_S)
            with contextlib.suppress(*TRANSIENT):  # looked at again in a moment
                self._look_around()

    def _look_around(self) -> None:
        if self._ports is not None:
            self._ports.update_status()
        if self._devices is not None:
            self._devices.poll()

    def _leave(self) -> None:
        if self._devices is not None:
            self._devices.close()
        if self._ports is not None:
            self._ports.close()
        if self._eal_log is not None:
            self._eal_log.close()
        self._line.close()
        log.info("driver.stopped")


async def _run(runtime: Path) -> int:
    host = DriverHost(runtime)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, host.stop)
    return await host.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the driver to its end. Exit status 0 as asked, 1 after a mistake of its own, 5 could not boot."""
    box = blackbox.install()
    parser = argparse.ArgumentParser(prog="python -m halo_mp.supervisor.driver", description=__doc__)
    parser.add_argument("--runtime", type=Path, required=True, help="runtime directory of the instance")
    parser.add_argument("--instance", required=True)
    options = parser.parse_args(arguments)
    os.environ["RUNTIME_DIRECTORY"] = str(options.runtime)  # where EAL makes its directory: it goes with ours
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # EAL prints its usage there when it dislikes an argument
    style: logs.Format = "json" if os.environ.get("HALO_MP_LOG_FORMAT") == "json" else "text"
    level = os.environ.get("HALO_MP_LOG_LEVEL", "info")
    logs.configure("driver", level, style, box=box.lines() if box else None)
    try:
        status = asyncio.run(_run(options.runtime))
    except (OSError, ChannelError) as error:
        logs.say(f"halo-mp driver: cannot reach its supervisor: {error}\n", fd=2, wait_s=1.0)
        status = EXIT_CANNOT_BOOT
    logs.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
