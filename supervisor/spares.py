# SPDX-License-Identifier: Apache-2.0
"""Warm spares: workers that have imported everything, have greeted, and wait to be told which slot is theirs.

Starting Python costs more than everything else that a worker's successor needs; a spare has that behind it. There is
no new one before all workers do their work again: it would take the time of those that start.

    spawned → greeted (ready) → taken, or dead: then another, after a while
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import psutil

from halo_mp import logs
from halo_mp.control.channel import Channel, ChannelError
from halo_mp.control.frame import Message
from halo_mp.control.inbox import close_all
from halo_mp.supervisor import boxes
from halo_mp.supervisor.greeter import Greeter
from halo_mp.supervisor.process import OOM_SCORES, Child, first_of, is_stopped, pin, set_oom_score
from halo_mp.supervisor.reports import Reports
from halo_mp.supervisor.restart import Restart

LEAST_MEMORY_OCTETS = 512 << 20
"""That must be available for a spare that nobody asked for."""
CALM_S = 0.2
"""After the workers are back."""
PING_INTERVAL_S = 1.0
PING_TIMEOUT_S = 5.0
"""Long enough for one that waits for a core."""
MEMORY_INTERVAL_S = 10.0
LONGEST_DELAY_S = 30.0

log = logs.get("supervisor")


class Spare:
    """One that is ready."""

    def __init__(self, child: Child, channel: Channel) -> None:
        self.child = child
        self.channel = channel
        self.taken = False
        self.tasks: list[asyncio.Task[None]] = []


class Spares:
    """Keeps so many ready until `stop`. Without `start` there are none."""

    def __init__(
        self,
        wanted: int | None,
        greeter: Greeter,
        spawn: Callable[[], Child],
        is_calm: Callable[[], bool],
        start_grace_s: float,
    ) -> None:
        """`wanted` None: one, while memory allows."""
        self.reports = Reports()  # the supervisor sets the instance's
        self._wanted = wanted
        self._greeter = greeter
        self._spawn = spawn
        self._is_calm = is_calm
        self._start_grace_s = start_grace_s
        self._ready: list[Spare] = []
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> int:
        """How many wait."""
        return len(self._ready)

    @property
    def processes(self) -> list[Child]:
        """Those that wait."""
        return [spare.child for spare in self._ready]

    def start(self) -> None:
        """Begin to keep them."""
        count = 1 if self._wanted is None else self._wanted
        self._keepers = [asyncio.create_task(self._keep(), name="keep a spare") for _ in range(count)]

    async def wait(self, timeout_s: float) -> bool:
        """Wait until one is ready; False when none is kept, or none came in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s if self._keepers else 0):
                while not self._ready:  # noqa: ASYNC110 - rarely waited for
                    await asyncio.sleep(CALM_S / 4)
        return bool(self._ready)

    def take(self, core: int) -> Spare | None:
        """Return one that is the caller's from now on, on that core; None when there is none."""
        while self._ready:
            spare = self._ready.pop(0)
            if spare.child.gone or spare.channel.closed or is_stopped(spare.child.pid):
                continue  # its own task will notice
            spare.taken = True
            for task in spare.tasks:
                task.cancel()
            pin(spare.child.pid, [core])
            set_oom_score(spare.child.pid, OOM_SCORES["worker"])
            log.info("spare.taken", pid=spare.child.pid)
            return spare
        return None

    async def stop(self) -> None:
        """End them."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def _keep(self) -> None:
        failures = 0
        while True:
            await self._wait_for_calm()
            try:
                failures = 0 if await self._one() else failures + 1
            except Exception:  # whatever it is, there shall be another one
                log.exception("spare.error")
                failures += 1
            if failures:
                await asyncio.sleep(min(LONGEST_DELAY_S, 2.0 ** (failures - 1)))

    async def _wait_for_calm(self) -> None:
        """Wait until nothing starts, and there is the memory."""
        told = False
        while self._wanted is None and _is_memory_short():
            if not told:
                log.warning(
                    "spare.skipped", reason="too little memory is available", least=LEAST_MEMORY_OCTETS
                )
            told = True
            await asyncio.sleep(MEMORY_INTERVAL_S)
        while not self._is_calm():  # noqa: ASYNC110 - of many keepers
            await asyncio.sleep(CALM_S)
        await asyncio.sleep(CALM_S)

    async def _one(self) -> bool:
        """Make one and watch it until it is taken (True) or dead."""
        try:
            child = self._spawn()
        except OSError as error:
            log.warning("spare.died", reason=f"could not be started ({error.strerror})")
            return False
        spare: Spare | None = None
        reason: str | None = None
        try:
            spare = await self._greeted(child)
            self._ready.append(spare)
            log.info("spare.ready", pid=child.pid)
            await self._watch(spare)
        except (ChannelError, TimeoutError) as error:
            if not (spare and spare.taken):
                reason = str(error) or "it did not answer"
                log.warning("spare.died", pid=child.pid, reason=reason)
        finally:
            if spare is not None and spare in self._ready:
                self._ready.remove(spare)
            if not (spare and spare.taken):
                await self._end(child, spare)
                self._take_stock(child, reason)
        return spare is not None and spare.taken

    def _take_stock(self, child: Child, reason: str | None) -> None:
        """Keep a report of one that died; None: it was ended as asked."""
        if reason is None:
            boxes.remove(child.box)
            return
        self.reports.ended(
            "a spare worker",
            "spare",
            None,
            child,
            Restart(delay_s=0.0, failed=False),
            reason=f"was of no use any more ({reason}), and {child.ending}",
            failure=None,
            silence=None,
            useful_s=0.0,
            restarts=0,
        )

    async def _greeted(self, child: Child) -> Spare:
        try:
            greeted = self._greeter.expect(child.pid, "spare", None)
            async with asyncio.timeout(self._start_grace_s):
                await first_of(asyncio.shield(greeted), child.wait())
            if not greeted.done():
                raise ChannelError("it ended before it had said anything")
            return Spare(child, greeted.result())
        except BaseException:
            self._greeter.forget(child.pid)
            raise

    async def _watch(self, spare: Spare) -> None:
        """Return when it was taken or has ended. Raises ChannelError, TimeoutError when it is of no use any more."""

        async def handle(message: Message, fds: list[int]) -> None:
            close_all(fds)  # it has nothing to say but replies

        async def ping() -> None:
            while True:
                await asyncio.sleep(PING_INTERVAL_S)
                await spare.channel.request({"type": "ping"}, timeout_s=PING_TIMEOUT_S)

        spare.tasks = [asyncio.create_task(spare.channel.serve(handle)), asyncio.create_task(ping())]
        try:
            done, _ = await asyncio.wait(spare.tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled():
                    task.result()
        finally:
            for task in spare.tasks:
                task.cancel()
            await asyncio.gather(*spare.tasks, return_exceptions=True)
        if not spare.taken:
            raise ChannelError("it ended")

    async def _end(self, child: Child, spare: Spare | None) -> None:
        self._greeter.forget(child.pid)
        if spare is not None:
            spare.channel.close()  # that is what it ends for
            if await child.wait_for(PING_INTERVAL_S):
                return
        await child.end()


def _is_memory_short() -> bool:
    try:
        return bool(psutil.virtual_memory().available < LEAST_MEMORY_OCTETS)
    except (OSError, MemoryError):  # out of descriptors, or just that
        return True
