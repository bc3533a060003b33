# SPDX-License-Identifier: Apache-2.0
"""The process tree: starting in order, watching, and stopping in order.

Start: regions → private socket → driver and workers at once → driver ready → tables → kernel side of TAPs →
slots enabled → workers ready → up → spares. Stop: spares → workers → driver → TAPs → socket → regions. Whatever
happens in between, the stop is gone through once, so that nothing outlives it. What was adopted goes through the same
steps, and most find that they were taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from halo_mp import logs
from halo_mp.control.messages import Privileges, WorkerUser
from halo_mp.control.public import SOCKET
from halo_mp.errors import EXIT_FORCED, EXIT_STOPPED, HaloError, RuntimeFailure
from halo_mp.plain import from_plain, to_plain
from halo_mp.shm.fib import FibWriter
from halo_mp.shm.identity import own_start_ticks
from halo_mp.shm.sockets import read_sockets
from halo_mp.shm.tables import TablesWriter, read_interfaces
from halo_mp.supervisor import tap
from halo_mp.supervisor.adoption import Adopted
from halo_mp.supervisor.announce import announce
from halo_mp.supervisor.boxes import Boxes
from halo_mp.supervisor.config import Config, SlotConfig
from halo_mp.supervisor.config_changes import Wanted
from halo_mp.supervisor.config_routes import RouteList
from halo_mp.supervisor.configuration import Configuration
from halo_mp.supervisor.control import ControlServer
from halo_mp.supervisor.epoch_watch import EpochWatch
from halo_mp.supervisor.feed_statistics import Sampler
from halo_mp.supervisor.feed_values import Describer
from halo_mp.supervisor.feeds import Feeds
from halo_mp.supervisor.greeter import Greeter
from halo_mp.supervisor.hang import INTERVAL_S
from halo_mp.supervisor.instance import Instance
from halo_mp.supervisor.keeper import Keeper, Launch
from halo_mp.supervisor.keeper_driver import DriverKeeper
from halo_mp.supervisor.keeper_worker import WorkerKeeper
from halo_mp.supervisor.life import Life
from halo_mp.supervisor.mending import Mending
from halo_mp.supervisor.operations import PublishedOperations
from halo_mp.supervisor.process import OOM_SCORES, Child, set_oom_score
from halo_mp.supervisor.published import Published
from halo_mp.supervisor.regions import Regions
from halo_mp.supervisor.reports import Reports
from halo_mp.supervisor.routes import Routes, WaitingRoute
from halo_mp.supervisor.running import RefusedError
from halo_mp.supervisor.service import Service
from halo_mp.supervisor.signals import StopSignals
from halo_mp.supervisor.spares import Spares
from halo_mp.supervisor.state import Member, State
from halo_mp.supervisor.statistics import Statistics
from halo_mp.supervisor.status_file import StatusFile
from halo_mp.supervisor.wiring import spare_arguments, worker_configure

SPARE_TIMEOUT_S = 10.0
"""To replace a worker without one leaves its port longer to its ring."""

log = logs.get("supervisor")


class Supervisor:
    """One run of an instance whose lock is held and whose configuration was checked."""

    def __init__(
        self,
        config: Config,
        instance: Instance,
        signals: StopSignals,
        *,
        privileges: tuple[Privileges, WorkerUser | None] = ("keep", None),
        control_group: int | None = None,
        routes: RouteList | None = None,
        launch: Launch | None = None,
        on_up: Callable[[str], None] | None = None,
        adopted: Adopted | None = None,
        reread: Callable[[], Wanted] | None = None,
        service: Service | None = None,
    ) -> None:
        """`reread` returns what flags and file say at present, and may block."""
        self._reread = reread
        self._service = service or Service({})
        self._loaded = to_plain(config)
        self._config = adopted.config if adopted else config
        self._adopted = adopted
        self._instance = instance
        self._signals = signals
        self._privileges = privileges
        self._control_group = os.getegid() if control_group is None else control_group
        self._routes_to_load = routes
        self._launch = launch or Launch()
        self._on_up = on_up or (lambda _text: None)
        self._workers: dict[int, WorkerKeeper] = {}
        self._epoch_watch = EpochWatch()
        self._boxes = Boxes(instance.directory / "last")
        self._reports = Reports(instance.directory)
        self._status: StatusFile | None = None
        self._control: ControlServer | None = None
        self._sampler = Sampler(config.instance, instance.directory.parent)
        self._tasks: list[asyncio.Task[None]] = []
        self._reconfigured = asyncio.Event()

    async def run(self) -> int:
        """Run until a signal asks to stop; return the exit code.

        Raises HaloError when it could not start or go on; everything is cleaned up then too.
        """
        self._service.starting("Starting the driver and workers")
        for warning in self._config.warnings:
            log.warning("config.warning", text=warning)
        if self._adopted is None:
            self._regions = Regions.create(self._config, generation=secrets.randbits(63))
        else:
            self._regions = self._adopted.regions
        try:
            self._mending = Mending(self._regions)
            self._tables = TablesWriter(
                self._regions.tables, lambda: self._mending.renew(self._regions.tables)
            )
            self._statistics = Statistics(self._config, self._regions)
            self._greeter = self._adopted.greeter if self._adopted else self._listen()
            fib = FibWriter(self._regions.fib, self._regions.routes)
            try:
                self._publish_for(fib)
                await self._start_and_wait()
            finally:
                await self._stop()
                fib.close()
        finally:
            self._regions.close()
        forced = self._signals.forced.is_set()
        log.info("instance.stopped", instance=self._config.instance, forced=forced)
        return EXIT_FORCED if forced else EXIT_STOPPED

    # ---- start

    def _publish_for(self, fib: FibWriter) -> None:
        """Make what tells workers of interfaces, routes and neighbors."""
        self._published = Published(
            self._config,
            self._tables,
            Routes(fib, self._tables, lambda: [worker.epoch for worker in self._workers.values()]),
            self._workers,
            self._greeter.reserve.lent,
            self._record_soon,
            self._routes_to_load,
        )

    def _listen(self) -> Greeter:
        _, user = self._privileges
        if self._config.app is not None:
            self._instance.make_cache(user["uid"] if user else None)
        return Greeter(self._instance.socket_path, user["uid"] if user else None)

    async def _start_and_wait(self) -> None:
        """Start everything, then wait for a signal, or for what can not go on."""
        self._driver = DriverKeeper(
            self._config,
            self._regions,
            self._greeter,
            self._launch,
            lambda: self._spawn("driver", self._launch.driver, self._config.main_cores),
            on_ready=self._published.on_driver_ready,
            on_ended=self._statistics.driver_died,
            on_returned=self._published.on_port_returned,
        )
        self._published.driver = self._driver
        self._spares = Spares(
            self._config.spares, self._greeter, self._spawn_spare, self._is_calm, self._launch.start_grace_s
        )
        for slot in self._config.slots:
            self._workers[slot.number] = self._worker(slot)
        self._reports.lent = self._greeter.reserve.lent
        self._spares.reports = self._reports
        for keeper in self._keepers():
            keeper.reports = self._reports
        self._configuration = Configuration(
            self._published,
            started=self._config,
            reread=self._reread,
            on_applied=self._on_applied,
            directory=self._instance.directory,
        )
        self._status = StatusFile(
            self._config,
            self._instance,
            self._regions,
            self._driver,
            list(self._workers.values()),
            self._spares,
            self._statistics,
            self._reports,
            self._configuration,
        )
        if self._adopted is not None:
            self._resume(self._adopted)
        jobs = [keeper.start() for keeper in self._keepers()]
        self._status.update()
        self._control = self._listen_for_clients()
        self._tasks = [
            asyncio.create_task(job)
            for job in (
                self._watch(),
                self._announce(),
                self._log_statistics(),
                self._replace_workers(),
                self._reload(),
                self._configuration.take_back_in_time(),
            )
        ]
        stop = asyncio.create_task(self._signals.requested.wait())
        waiting: set[asyncio.Task[Any]] = {stop, *jobs, *self._tasks}
        try:
            while not stop.done():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    _raise_failure(task)
        finally:
            stop.cancel()

    def _listen_for_clients(self) -> ControlServer:
        operations = PublishedOperations(
            self._published,
            (slot.region for slot in self._regions.slots.values()),
            configuration=self._configuration,
            stop=lambda: self._signals.on_asked("control"),
        )
        describer = Describer(self._published, operations.interface, operations.route)
        self._feeds = operations.feeds = Feeds(self._published, describer, self._sampler.sample)
        return ControlServer(
            self._instance.directory / SOCKET,
            operations,
            instance=self._config.instance,
            group=self._control_group,
        )

    def _resume(self, adopted: Adopted) -> None:
        """Let everything begin where the dead supervisor left it."""
        self._tables.resume()
        self._statistics.keep(adopted.left.kept)
        self._reports.take_over(adopted.left.members)
        self._boxes.sweep(adopted.left.members)
        self._driver.adopt_driver(adopted.driver, adopted.channel, adopted.ready)
        for number, keeper in self._workers.items():
            if number in adopted.workers:
                keeper.adopt_worker(adopted.workers[number])
            else:
                keeper.adopt_slot()
        waiting = [from_plain(WaitingRoute, each) for each in adopted.left.waiting]
        self._published.resume(adopted.running, read_interfaces(self._regions.tables), waiting)
        self._published.sockets.resume(read_sockets(self._regions.tables))
        log.info(
            "instance.adopted",
            instance=self._config.instance,
            driver=adopted.driver.pid,
            workers=len(adopted.workers),
        )

    def _keepers(self) -> list[Keeper]:
        return [self._driver, *self._workers.values()]

    def _worker(self, slot: SlotConfig) -> WorkerKeeper:
        privileges, user = self._privileges
        return WorkerKeeper(
            self._config,
            slot,
            self._regions,
            self._greeter,
            self._driver,
            self._launch,
            self._spares,
            lambda: self._spawn(
                f"worker.{slot.number}", (*self._launch.worker, "--slot", str(slot.number)), [slot.core]
            ),
            worker_configure(self._config, slot, privileges, user),
            neighbors=self._published.neighbors,
            on_taken=self._record_soon,
            on_ready=lambda life: self._on_worker_ready(slot, life),
            on_news=partial(self._published.receive, slot.number),
            on_gone=lambda: self._published.sockets.drop(slot.number),
        )

    def _spawn(self, name: str, command: Sequence[str], cores: Iterable[int]) -> Child:
        with self._greeter.reserve.lent(), self._boxes.new(name) as box:
            child = Child.spawn(
                [*command, "--runtime", str(self._instance.directory), "--instance", self._config.instance],
                {"HALO_MP_LOG_LEVEL": self._config.log_level, "HALO_MP_LOG_FORMAT": self._config.log_format},
                cores,
                box,
            )
            set_oom_score(child.pid, OOM_SCORES[name.partition(".")[0]])
        self._record_soon()
        return child

    def _spawn_spare(self) -> Child:
        arguments = spare_arguments(self._config, *self._privileges)
        return self._spawn("spare", (*self._launch.worker, *arguments), self._config.main_cores)

    def _is_calm(self) -> bool:
        """Whether nobody is starting whom another process on these cores would hold up."""
        return all(keeper.is_useful or keeper.failed_because is not None for keeper in self._keepers())

    def _record_soon(self) -> None:
        """Write it down after this turn of the loop, when the keeper knows its child, and before it is configured."""
        asyncio.get_running_loop().call_soon(self._record)

    def _record(self) -> None:
        """Write down what a successor needs to go on, or to clean up, if we die suddenly."""
        members = [Member("supervisor", None, os.getpid(), own_start_ticks())]
        for keeper in self._keepers():
            if keeper.life is not None:
                child = keeper.life.child
                members.append(Member(keeper.role, keeper.slot, child.pid, child.start_ticks, child.box))
        state = State(
            members=tuple(members),
            taps=tuple(self._tap_names()),
            regions=self._regions.names,
            generation=self._regions.generation,
            desired=to_plain(self._config),
            loaded=self._loaded,
            running=to_plain(self._published.running),
            waiting=to_plain(self._published.routes.waiting()),
            kept=self._statistics.kept(),
        )
        try:
            with self._greeter.reserve.lent():
                self._instance.save(state)
        except OSError as error:
            log.warning("state.not_saved", reason=error.strerror)

    # ---- what happens while it runs

    def _on_worker_ready(self, slot: SlotConfig, life: Life) -> None:
        self._record()  # it may have been a spare, or another supervisor's
        self._published.on_worker_ready(slot.number, life)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(INTERVAL_S)
            self._service.alive(loop.time())
            self._greeter.reserve.refill()
            with contextlib.suppress(MemoryError):  # looked at again in a moment
                self._look_around(loop.time())

    def _look_around(self, now: float) -> None:
        for slot in self._mending.check():  # first: what is looked at below must be there
            self._workers[slot].end_scribbled()
        self._published.routes.collect()
        self._published.news.watch_gateways()
        self._driver.check_progress(now)
        for worker in self._workers.values():
            worker.check_progress(now)
        epochs = {number: worker.epoch for number, worker in self._workers.items()}
        for slot in self._epoch_watch.laggards(now, self._tables.epoch, epochs):
            self._workers[slot].end_laggard()
        if self._status is not None:
            self._status.update()

    async def _announce(self) -> None:
        if self._tap_names():
            await tap.warm_up()
        for worker in self._workers.values():
            await worker.was_ready.wait()
        log.info("instance.up", instance=self._config.instance, workers=len(self._workers))
        self._on_up(announce(self._config, self._driver.ports))
        self._service.ready(f"{len(self._config.ports)} ports, {len(self._workers)} workers")
        self._spares.start()

    async def _replace_workers(self) -> None:
        """Have one worker after the other replaced, each time that it is asked for. Frames wait meanwhile."""
        while True:
            await self._signals.replace.wait()
            self._signals.replace.clear()
            for number, worker in self._workers.items():
                warm = await self._spares.wait(SPARE_TIMEOUT_S)
                if await worker.replace():
                    log.info("worker.replaced", slot=number, warm=warm)
                else:
                    log.warning("worker.not_replaced", slot=number)

    async def _reload(self) -> None:
        """Read the configuration anew each time that SIGHUP asks for it."""
        while True:
            await self._signals.reload.wait()
            self._signals.reload.clear()
            self._service.reloading()
            try:
                await self._configuration.reload("SIGHUP")
            except RefusedError as error:
                log.error("config.refused", by="SIGHUP", reason=str(error))
            except Exception:  # a mistake of ours: no reason to end what forwards
                log.exception("config.error", by="SIGHUP")
            self._service.ready(f"{len(self._config.ports)} ports, {len(self._workers)} workers")

    def _on_applied(self, config: Config, reread: Config | None) -> None:
        """Take over what another configuration changes of ourselves, and write all of it down."""
        if config.log_level != self._config.log_level:
            logs.set_level(config.log_level)
        self._config = config
        if reread is not None:
            self._loaded = to_plain(reread)
        for keeper in self._keepers():
            keeper.set_limits(config.restart_limit, config.hang_timeout_s)
        self._reconfigured.set()
        self._record()
        if self._status is not None:
            self._status.update()  # a sudden death may come before the next look, and then it should be known

    async def _log_statistics(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if self._config.stats_log is not None:
                for line in self._statistics.sample(loop.time()):
                    log.info("stats", **line.fields())
                due = max(due + self._config.stats_log, loop.time())
            self._reconfigured.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due if self._config.stats_log is not None else None):
                    await self._reconfigured.wait()
                    due = loop.time()

    # ---- stop

    async def _stop(self) -> None:
        """End everything in order. A step that fails is logged, and the others are taken all the same."""
        self._service.stopping()
        force = asyncio.create_task(self._force())
        self._greeter.reserve.close()  # nothing is started any more
        if self._status is not None:
            self._status.update(stopping=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._control is not None:
            await _step("control", self._control.close())
            self._feeds.close()
            self._sampler.close()
        await _step("spares", self._spares.stop())
        await _step("workers", asyncio.gather(*(worker.stop() for worker in self._workers.values())))
        self._published.sockets.stop()
        await _step("driver", self._driver.stop())
        await _step("taps", tap.delete(self._tap_names()))
        await _step("socket", self._greeter.close())
        force.cancel()
        await asyncio.wait([force])

    async def _force(self) -> None:
        """Wait for the second signal, and end every process then."""
        await self._signals.forced.wait()
        for keeper in self._keepers():
            keeper.kill()

    def _tap_names(self) -> list[str]:
        taps = [port.tap.interface for port in self._config.ports if port.tap is not None]
        return taps + [port.twin.interface for port in self._config.ports if port.twin is not None]


async def _step(name: str, work: Awaitable[object]) -> None:
    try:
        await work
    except Exception:
        log.exception("instance.stop", step=name)


def _raise_failure(task: asyncio.Task[Any]) -> None:
    """Raise what a task ended with; an error that is no HaloError is a mistake of ours."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, HaloError):
        raise error
    if error is not None:
        log.error("supervisor.error", task=task.get_name(), error=repr(error))
        raise RuntimeFailure(f"the supervisor met an error of its own: {error!r}.") from error
