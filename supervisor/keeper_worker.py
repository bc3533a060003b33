# SPDX-License-Identifier: Apache-2.0
"""Keeping the worker of one slot alive.

After a worker's death the driver walks the slot's life cycle (reclaims its buffers, empties its rings), and
only then does a successor attach. Whenever a driver is up and a worker is attached, the slot is enabled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from halo_mp import logs
from halo_mp.control.channel import Channel, ChannelError, ProtocolError
from halo_mp.control.frame import Message
from halo_mp.control.messages import Adopt, Neighbors, WorkerConfigure, chunks
from halo_mp.shm.layout import SlotState
from halo_mp.supervisor.config import Config, SlotConfig
from halo_mp.supervisor.greeter import Greeter
from halo_mp.supervisor.hang import HangWatch, read_activity
from halo_mp.supervisor.keeper import Keeper, Launch
from halo_mp.supervisor.keeper_driver import DriverKeeper
from halo_mp.supervisor.life import Life
from halo_mp.supervisor.neighbors import NeighborTable
from halo_mp.supervisor.process import Child, Process
from halo_mp.supervisor.regions import Regions
from halo_mp.supervisor.spares import Spares

SPARE_GRACE_S = 3.0
"""For a spare to attach: it has everything imported."""
APP_GRACE_S = 60.0
"""For a worker to import an application, and to compile its hooks."""
LEAVE_TIMEOUT_S = 10.0
"""As long as Python may take in a worker by default."""

log = logs.get("supervisor")


class WorkerKeeper(Keeper):
    """Keeps one worker."""

    def __init__(
        self,
        config: Config,
        slot: SlotConfig,
        regions: Regions,
        greeter: Greeter,
        driver: DriverKeeper,
        launch: Launch,
        spares: Spares,
        spawn: Callable[[], Child],
        configuration: WorkerConfigure,
        neighbors: NeighborTable,
        on_taken: Callable[[], None],
        on_ready: Callable[[Life], None],
        on_news: Callable[[Life, Message], None],
        on_gone: Callable[[], None],
    ) -> None:
        limits = config.restart_limit, config.hang_timeout_s
        super().__init__("worker", slot.number, greeter, limits, launch.start_grace_s)
        self.number = slot.number
        self.was_ready = asyncio.Event()
        self._replaced = asyncio.Event()
        self._slot = regions.slots[slot.number].region.pointer
        self._fds = regions.worker_fds(slot.number)
        self._driver = driver
        self._core = slot.core
        self._spares = spares
        self._spawn_process = spawn
        self._configuration = configuration
        self._neighbors = neighbors
        self._on_taken = on_taken
        self._on_ready = on_ready
        self._on_news = on_news
        self._on_gone = on_gone
        self._attached = asyncio.Event()
        self._ready = asyncio.Event()
        self._touched = False  # the slot's memory, by a worker, since its last reset
        self._reads = False  # the tables, by the worker that lives now
        self._reset: asyncio.Task[None] | None = None
        self._watch: HangWatch | None = None

    @property
    def epoch(self) -> int:
        """The epoch of the tables that the worker reads; 0 while it reads none, or can not read any."""
        return int(self._slot.status.epoch) if self._reads else 0

    def check_progress(self, now: float) -> None:
        """Kill a worker that makes no progress, or whose rings make no sense."""
        life = self.life
        if life is None or self._watch is None:
            return
        status = self._slot.status
        if reason := self._watch.check(now, status.progress, status.place):
            life.kill_hung(reason)
        if self._slot.life.state == SlotState.BROKEN:
            life.kill("broke its rings")

    def end_scribbled(self) -> None:
        """End a worker whose region was scribbled over; the slot's life cycle is walked for it."""
        if self.life is not None and self._touched:
            self.life.kill("had its slot's region scribbled over")

    def end_laggard(self) -> None:
        """End a worker that goes on and keeps an old epoch of the tables, which holds up changes for everybody."""
        if self.life is not None and self._reads:
            self.life.kill("kept an old epoch of the tables")

    async def replace(self) -> bool:
        """Have a fresh process take over the slot as it is: with its rings, and every frame that waits on them.

        False when the worker did not leave in order: then it is killed, or has died, like any other.
        """
        life = self.life
        if life is None or life.channel is None or not self.is_useful:
            return False
        self._replaced = asyncio.Event()
        try:
            await life.channel.request({"type": "leave"}, timeout_s=LEAVE_TIMEOUT_S)
        except TimeoutError:
            life.kill_hung(f"did not leave for {LEAVE_TIMEOUT_S:g} s")
            return False
        except ChannelError:
            return False
        self._watch = None
        life.left.set()
        await self._replaced.wait()
        return True

    def adopt_worker(self, child: Process) -> None:
        """Begin with a worker that runs."""
        self.adopt(Life(child, adopted=True))
        self._touched = self._reads = True

    def adopt_slot(self) -> None:
        """Begin with a slot whose worker died while there was no supervisor."""
        self._was_useful = self._touched = True
        self._on_gone()
        self._begin_reset()

    def _begin(self) -> Life:
        self._attached.clear()
        self._ready.clear()
        if spare := self._spares.take(self._core):
            self._on_taken()  # before it is configured: a worker that no state file knows would never be adopted
            return Life(spare.child, spare.channel, was_spare=True)
        return Life(self._spawn_process())

    async def _make_useful(self, life: Life, channel: Channel) -> None:
        if self._reset is not None:
            await asyncio.shield(self._reset)
        self._touched = self._reads = True
        if life.adopted:
            await channel.send(Adopt(type="adopt", orphan_timeout_s=self._configuration["orphan_timeout_s"]))
        else:
            for chunk in chunks(self._neighbors.all()):
                await channel.send(Neighbors(type="neighbors", neighbors=chunk))
            await channel.send(self._configuration, self._fds)
        await self.within_grace(self._attached.wait(), "did not attach", self._attach_grace_s(life))
        pid = life.child.pid
        self._watch = HangWatch(self.hang_timeout_s, lambda: read_activity(pid))
        await self._enable()
        await self.within_grace(self._ready.wait(), "was not ready")
        self._on_ready(life)
        self._mark_useful(life)
        self.was_ready.set()
        self._replaced.set()
        while True:
            await (await self._driver.up()).ended.wait()
            await self._enable()

    def _attach_grace_s(self, life: Life) -> float:
        """How long a worker may take to attach: a spare has imported everything, an application too."""
        if life.was_spare:
            return SPARE_GRACE_S
        return self._start_grace_s + (APP_GRACE_S if self._configuration["app"] else 0.0)

    async def _enable(self) -> None:
        """Have the slot enabled by the driver that is up, or by the first that is."""
        while await self._driver.request(await self._driver.up(), "slot.enable", self.number) is None:
            pass

    async def _reset_slot(self) -> None:
        """Have the slot's buffers reclaimed and its rings emptied."""
        while (
            reply := await self._driver.request(await self._driver.up(), "slot.reset", self.number)
        ) is None:
            pass
        self._touched = False
        log.info("slot.reset", slot=self.number, reclaimed=reply.get("reclaimed"))

    async def _on_message(self, life: Life, message: Message) -> None:
        match message["type"]:
            case "attached":
                self._attached.set()
            case "ready":  # again each time that the slot is enabled
                self._ready.set()
            case (
                "learned" | "forgotten" | "used" | "hops.up" | "hops.down" | "sockets.open" | "sockets.close"
            ):
                self._on_news(life, message)
            case other:
                raise ProtocolError(f"sent {other!r:.40}, which is nothing a worker says")

    def _on_ended(self, life: Life) -> None:
        self._watch = None
        self._reads = False
        self._on_gone()
        self._attached.clear()
        if self._touched and not life.left.is_set() and not self._stop_asked.is_set():
            self._begin_reset()

    def _begin_reset(self) -> None:
        if self._reset is None or self._reset.done():
            self._reset = asyncio.create_task(self._reset_slot(), name=f"reset slot {self.number}")

    async def stop(self) -> None:
        await super().stop()
        if self._reset is not None:
            self._reset.cancel()
            await asyncio.wait([self._reset])
