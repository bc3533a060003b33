# SPDX-License-Identifier: Apache-2.0
"""What the workers of an instance are told: interfaces and routes through tables, neighbors and news by messages.

Owned by the supervisor. What is wanted is a value (`running`); this brings the tables, the routes, the kernel's side of
our TAPs and the workers to it, one change after the other.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial

from halo_mp import logs
from halo_mp.control.frame import Message
from halo_mp.control.messages import Neighbor, ReadyPort, chunks
from halo_mp.errors import HaloError
from halo_mp.shm.tables import Interface, TablesWriter
from halo_mp.supervisor import tap
from halo_mp.supervisor.captures import Captures
from halo_mp.supervisor.config import Config, PortConfig, TapConfig, TwinConfig
from halo_mp.supervisor.config_interfaces import kernel_side
from halo_mp.supervisor.config_model import AddressConfig, NeighborConfig
from halo_mp.supervisor.config_routes import RouteList, via_of
from halo_mp.supervisor.echo import Echoes
from halo_mp.supervisor.kcp import KcpReports
from halo_mp.supervisor.keeper_driver import DriverKeeper
from halo_mp.supervisor.keeper_worker import WorkerKeeper
from halo_mp.supervisor.life import Life
from halo_mp.supervisor.neighbors import NeighborTable
from halo_mp.supervisor.news import News
from halo_mp.supervisor.routes import Routes, WaitingRoute
from halo_mp.supervisor.running import RefusedError, Running
from halo_mp.supervisor.sockets import Sockets
from halo_mp.supervisor.targets import RouteError
from halo_mp.supervisor.wiring import interface_flags, interfaces

TABLES_POLL_S = 0.005

log = logs.get("supervisor")

Place = tuple[int, int, int]
"""Port, VLAN and address of a neighbor."""


class Published:
    """What is told to the workers of one run; `workers` may still be filled, `driver` is set once there is one."""

    driver: DriverKeeper

    def __init__(
        self,
        config: Config,
        tables: TablesWriter,
        routes: Routes,
        workers: Mapping[int, WorkerKeeper],
        lent: Callable[[], AbstractContextManager[None]],
        on_changed: Callable[[], None],
        static: RouteList | None = None,
    ) -> None:
        """`static` is loaded once there are interfaces.

        `lent` lends descriptors for a moment; `on_changed` is called when a successor should know what is wanted.
        """
        self.config = config
        self.running = Running.of(config)
        self.routes = routes
        routes.on_waiting = on_changed
        self.neighbors = NeighborTable()
        self.news = News(self.neighbors, routes, workers, lambda: self.interfaces)
        self.kcp = KcpReports(workers)
        self.echoes = Echoes(routes, workers, lambda: self.interfaces)
        self.captures = Captures(workers)
        self.sockets = Sockets(tables, self.reader_epochs)
        self.interfaces: dict[int, Interface] = {}
        self.on_interfaces: Callable[[], None] = lambda: None
        """Called when something about interfaces may have changed."""
        self._tables = tables
        self._workers = workers
        self._lent = lent
        self._on_changed = on_changed
        self._static = static
        self._publishing = asyncio.Lock()
        self._kernel_side = {port.number: port.tap.addresses for port in config.ports if port.tap}

    def resume(
        self, running: Running, found: dict[int, Interface], waiting: Iterable[WaitingRoute] = ()
    ) -> None:
        """Go on from what a predecessor wanted, and from what stands in the tables; `waiting` stands in none.

        Only once `workers` say which epochs are read: routes that a predecessor did not finish are finished here.
        """
        self.running = running
        self.interfaces = found
        try:
            self.routes.set_interfaces(found)
        except RouteError as error:  # no reason to end what forwards
            log.warning("route.refused", reason=str(error))
        for refusal in self.routes.resume_waiting(waiting):
            log.warning("route.refused", reason=refusal)
        self._kernel_side = {number: self._wanted_side(number) for number in self._kernel_side}

    # ---- what the driver brings about

    async def on_driver_ready(self, ready: Mapping[int, ReadyPort]) -> None:
        """Do what workers need before they may get frames."""
        lost = self.driver.lost
        # What the tables say of a lost port stays: it will most likely be true again, and stacks go on undisturbed.
        async with self._publishing:
            await self._publish(self._interfaces(ready))
            if self._static is not None:  # gateways are known now, and no worker has a frame yet
                self._load(self._static)
                self._static = None
        for port in self.config.ports:
            if port.number not in lost:
                await self._configure_tap(port, may_fail=self.driver.was_useful)
            if port.twin is not None:
                await self._configure_twin(port, port.twin, may_fail=self.driver.was_useful)
        self._tell_to_announce(port.number for port in self.config.ports if port.number not in lost)

    async def on_port_returned(self, number: int) -> None:
        """Do the same for a port whose device went away and came back. It may go away again meanwhile."""
        async with self._publishing:  # several ports may return together
            await self._publish(self._interfaces(self.driver.ports))
        for port in self.config.ports:
            if port.number == number:
                await self._configure_tap(port, may_fail=True)
                self._tell_to_announce([number])
            # The port's device may be another one now, and the twin has its MAC.
            if port.twin is not None and number in (port.number, port.twin.port):
                await self._configure_twin(port, port.twin, may_fail=True)

    def _interfaces(self, ready: Mapping[int, ReadyPort]) -> dict[int, Interface]:
        """Return what is to stand in the tables, of ports without a device what stood there last."""
        found = interfaces(self.config, ready, self.running.interfaces)
        for each in self.running.interfaces:
            before = self.interfaces.get(each.number)
            if before is not None and each.port in self.driver.lost and each.port not in ready:
                found[each.number] = dataclasses.replace(
                    before,
                    mtu=min(before.mtu, each.mtu),
                    addresses=tuple((entry.address, entry.prefix_length) for entry in each.addresses),
                    flags=interface_flags(each),
                )
        return found

    async def _publish(self, wanted: dict[int, Interface]) -> None:
        """Write the tables, when nobody reads the block any more that is written to."""
        if wanted == self.interfaces:
            return
        while not self._tables.can_write(self.reader_epochs()):  # noqa: ASYNC110 - in shm
            await asyncio.sleep(TABLES_POLL_S)  # not for long: who hangs is killed
        epoch = self._tables.write(wanted)
        self.interfaces = wanted
        self.on_interfaces()
        self.routes.set_interfaces(wanted)
        log.info("tables.written", epoch=epoch, interfaces=len(wanted))
        self._tell({"type": "interfaces"})

    def reader_epochs(self) -> list[int]:
        """Return the epoch that each worker reads the tables in; 0 for who reads none."""
        return [worker.epoch for worker in self._workers.values()]

    def _load(self, static: RouteList) -> None:
        """Add the routes that the instance starts with; those that are refused are logged."""
        known = self.running.interfaces
        begin = time.monotonic()
        refused, sentences = self.routes.load(static.columns, [via_of(hops, known) for hops in static.hops])
        seconds = static.read_s + time.monotonic() - begin
        for sentence in sentences:
            log.warning("route.refused", reason=sentence)
        if static:
            loaded = len(static) - refused
            log.info("routes.loaded", routes=loaded, refused=refused, seconds=round(seconds, 3))

    # ---- what is asked for at run time

    async def change(self, make: Callable[[Running], Running]) -> None:
        """Bring about what `make` returns; what it raises is raised, with nothing changed."""
        async with self._publishing:
            wanted = make(self.running)
            if wanted == self.running:
                return
            before, self.running = self.running, wanted
            self._on_changed()
            try:
                await self._publish(self._interfaces(self.driver.ports))
            except RouteError as error:
                await self._take_back(before, wanted)
                raise RefusedError(str(error)) from None
        self.on_interfaces()
        gone = {_place(each) for each in before.neighbors} - {_place(each) for each in wanted.neighbors}
        if gone:
            self.neighbors.on_touched(gone)
            self._tell_forget(gone)
        new = [each for each in wanted.neighbors if each not in before.neighbors]
        if new:
            self.neighbors.remove(map(_place, new))
            for chunk in chunks(map(_neighbor, new)):
                self._tell({"type": "static", "neighbors": chunk})
        await self._change_kernel_side()

    async def _take_back(self, before: Running, wanted: Running) -> None:
        """Undo a change for which the routes have no room. Neighbors may have been changed meanwhile."""
        lost = tuple(each for each in before.neighbors if each not in wanted.neighbors)
        kept = (*self.running.neighbors, *lost)
        self.running = dataclasses.replace(self.running, interfaces=before.interfaces, neighbors=kept)
        self.on_interfaces()
        self.neighbors.on_touched(map(_place, lost))
        self._on_changed()
        try:
            await self._publish(self._interfaces(self.driver.ports))
        except RouteError as error:
            log.warning("route.refused", reason=str(error))

    async def _change_kernel_side(self) -> None:
        for port in self.config.ports:
            if port.tap is None:
                continue
            before, wanted = self._kernel_side[port.number], self._wanted_side(port.number)
            self._kernel_side[port.number] = wanted
            if before == wanted:
                continue
            await self._take_away(port.tap, [each for each in before if each not in wanted])
            await self._configure_tap(port, may_fail=True)

    def _wanted_side(self, number: int) -> tuple[AddressConfig, ...]:
        return kernel_side(self.running.interface((number, 0)).addresses)

    async def _take_away(self, side: TapConfig, gone: list[AddressConfig]) -> None:
        try:
            with self._lent():
                await tap.take_away(side.interface, gone)
        except HaloError as error:
            log.warning("port.not_configured", interface=side.interface, reason=str(error))

    async def _configure_tap(self, port: PortConfig, *, may_fail: bool) -> None:
        """Give the kernel's side of a port its addresses, if there is one and it is ours.

        A TAP that was running may be deleted this very moment. The driver notices, and makes it anew: no reason to end
        anything, or to keep another TAP from its address. Raises EnvironmentProblem unless it `may_fail`.
        """
        if port.tap is not None:
            side = dataclasses.replace(port.tap, addresses=self._kernel_side[port.number])
            await self._on_kernels_side(port.number, lambda: tap.configure([side]), may_fail=may_fail)

    async def _configure_twin(self, port: PortConfig, twin: TwinConfig, *, may_fail: bool) -> None:
        """Give the kernel's share of a port the MAC of its device, once that is known. Raises as above."""
        if twin.port in self.driver.lost or port.number not in self.driver.ports:
            return
        mac = self.driver.ports[port.number]["mac"]
        configure = partial(tap.configure_twin, twin.interface, mac)
        await self._on_kernels_side(twin.port, configure, may_fail=may_fail)

    async def _on_kernels_side(
        self, number: int, configure: Callable[[], Awaitable[None]], *, may_fail: bool
    ) -> None:
        try:
            with self._lent():
                await configure()
        except HaloError as error:
            if not may_fail:
                raise
            log.warning("port.not_configured", port=number, reason=str(error))

    # ---- what workers say

    def receive(self, slot: int, life: Life, message: Message) -> None:
        """Act on a message of a worker. Raises ProtocolError."""
        if message["type"] in ("sockets.open", "sockets.close"):
            self.sockets.receive(slot, life, message)
        else:
            self.news.receive(life, message)

    # ---- neighbors

    def on_worker_ready(self, slot: int, life: Life) -> None:
        """Tell a worker that starts what the others know."""
        self.captures.on_worker_ready(slot, life)
        if told := self.news.tell_all(life):
            log.info("neighbors.told", slot=slot, neighbors=told)
        for chunk in chunks(map(_neighbor, self.running.neighbors)):
            life.tell({"type": "static", "neighbors": chunk})

    def set_static(self, neighbor: NeighborConfig, running: Running) -> None:
        """Make a neighbor static; `running` is what is wanted then."""
        self.running = running
        self.neighbors.remove([_place(neighbor)])
        self._on_changed()
        self._tell({"type": "static", "neighbors": [_neighbor(neighbor)]})

    def forget(self, places: Iterable[Place], running: Running) -> None:
        """Have every worker forget neighbors; `running` is what is wanted then."""
        gone = set(places)
        if running != self.running:
            self.running = running
            self._on_changed()
        self.neighbors.remove(gone)
        self._tell_forget(gone)

    def _tell_forget(self, places: Iterable[Place]) -> None:
        found = list(places)
        for worker in self._workers.values():
            if worker.life is not None:
                worker.life.tell_each({"type": "forget", "neighbors": chunk} for chunk in chunks(found))

    # ---- messages

    def _tell_to_announce(self, ports: Iterable[int]) -> None:
        """Ports are back: have those on the link told who is there, whatever they asked for meanwhile was lost."""
        message = {"type": "announce", "ports": list(ports)}
        for worker in self._workers.values():
            if worker.life is not None and worker.is_useful:
                worker.life.tell(message)

    def _tell(self, message: dict[str, object]) -> None:
        for worker in self._workers.values():
            if worker.life is not None:
                worker.life.tell(message)


def _place(neighbor: NeighborConfig) -> Place:
    return neighbor.port, neighbor.vlan, neighbor.address


def _neighbor(neighbor: NeighborConfig) -> Neighbor:
    return neighbor.port, neighbor.vlan, neighbor.address, neighbor.mac
