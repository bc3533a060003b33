# SPDX-License-Identifier: Apache-2.0
"""Keeping the driver alive. Workers outlive it: its successor gets the same memory and the same doorbells."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Literal

from halo_mp import logs
from halo_mp.control.channel import Channel, ChannelError, ProtocolError, RequestFailed
from halo_mp.control.frame import Message
from halo_mp.control.messages import ReadyPort, field
from halo_mp.shm.layout import SlotState
from halo_mp.shm.ports import forget_driver
from halo_mp.supervisor.config import Config
from halo_mp.supervisor.greeter import Greeter
from halo_mp.supervisor.hang import HangWatch, read_activity
from halo_mp.supervisor.keeper import Keeper, Launch
from halo_mp.supervisor.life import Life
from halo_mp.supervisor.process import Child, Process
from halo_mp.supervisor.regions import Regions
from halo_mp.supervisor.wiring import driver_configure

# Walking a slot's life cycle looks at the owner of every buffer, which takes milliseconds.
REQUEST_TIMEOUT_S = 5.0
# Starting ports takes as long as their hardware wants: links are negotiated, firmware is loaded.
GRACE_FACTOR = 6

log = logs.get("supervisor")


class DriverKeeper(Keeper):
    """Keeps the driver, and tells who waits when it is up: ports started, tables written, TAPs configured."""

    def __init__(
        self,
        config: Config,
        regions: Regions,
        greeter: Greeter,
        launch: Launch,
        spawn: Callable[[], Child],
        on_ready: Callable[[Mapping[int, ReadyPort]], Awaitable[None]],
        on_ended: Callable[[], None],
        on_returned: Callable[[int], Coroutine[Any, Any, None]],
    ) -> None:
        limits = config.restart_limit, config.hang_timeout_s
        super().__init__("driver", None, greeter, limits, launch.start_grace_s * GRACE_FACTOR)
        self.ports: dict[int, ReadyPort] = {}  # as they are, or were before they were lost
        self.lost: dict[int, str] = {}  # ports without a device, and why
        self._config = config
        self._regions = regions
        self._spawn_process = spawn
        self._on_ready = on_ready
        self._on_gone = on_ended
        self._on_returned = on_returned
        self._returning: set[asyncio.Task[None]] = set()
        self._ready: asyncio.Future[Message] | None = None
        self._up: asyncio.Future[Life] = asyncio.get_running_loop().create_future()
        self._watches: dict[int, HangWatch] = {}

    async def up(self) -> Life:
        """Return the life of a driver that is up; wait for one while there is none."""
        return await asyncio.shield(self._up)

    async def request(
        self, life: Life, kind: Literal["slot.enable", "slot.reset"], slot: int
    ) -> Message | None:
        """Ask a driver for something it must be able to do; None when it could not: it will be another one then."""
        assert life.channel is not None  # it is up
        try:
            return await self._answer(life.channel, {"type": kind, "slot": slot})
        except TimeoutError:
            life.kill_hung(f"did not answer {kind} for {self._patience_s():g} s")
        except RequestFailed as error:
            if kind == "slot.enable" and self._is_broken(slot):
                return {}  # by its worker, which is ended for it
            life.kill(f"could not do {kind} for slot {slot} ({error})")
        except ChannelError:
            pass
        await life.ended.wait()
        return None

    async def _answer(self, channel: Channel, request: Message) -> Message:
        """Return the answer to a request. Raises ChannelError, and TimeoutError when it takes too long."""
        longest_s = REQUEST_TIMEOUT_S + self._start_grace_s
        answer = asyncio.create_task(channel.request(request, timeout_s=longest_s))
        try:
            await asyncio.wait([answer], timeout=REQUEST_TIMEOUT_S)
            if not answer.done() and not self.lost:  # as it is now: it may have lost a port meanwhile
                raise TimeoutError
            return await answer
        finally:
            answer.cancel()

    def _patience_s(self) -> float:
        """Return how long to wait for an answer.

        A driver with a lost port may be opening its device, which holds up its main thread for as long as the hardware
        takes: as long as a start.
        """
        return REQUEST_TIMEOUT_S + (self._start_grace_s if self.lost else 0.0)

    def _is_broken(self, slot: int) -> bool:
        return bool(self._regions.slots[slot].region.pointer.life.state == SlotState.BROKEN)

    def check_progress(self, now: float) -> None:
        """Kill a driver of which an lcore makes no progress."""
        life = self.life
        if life is None or life.useful_since is None:
            return
        for number in range(len(self._config.driver_cores)):
            lcore = self._regions.ports.pointer.lcore[number]
            if not lcore.running:
                continue
            watch = self._watches.get(number) or self._watch(number, life.child.pid)
            if reason := watch.check(now, lcore.progress, lcore.place):
                life.kill_hung(f"{reason} on lcore {number}")

    def _watch(self, number: int, pid: int) -> HangWatch:
        self._watches[number] = watch = HangWatch(self.hang_timeout_s, lambda: read_activity(pid))
        return watch

    def adopt_driver(self, child: Process, channel: Channel, ready: Message) -> None:
        """Begin with a driver that runs, and has said what its ports are."""
        self._ready = asyncio.get_running_loop().create_future()
        self._ready.set_result(ready)
        life = Life(child, channel, adopted=True)
        try:
            self._take_ports(ready)
        except ProtocolError as error:
            life.kill(str(error))
        self.adopt(life)

    def _begin(self) -> Life:
        self._ready = asyncio.get_running_loop().create_future()
        return Life(self._spawn_process())

    async def _make_useful(self, life: Life, channel: Channel) -> None:
        assert self._ready is not None
        if not life.adopted:
            configure = driver_configure(self._config, resuming=self._was_useful)
            await channel.send(configure, self._regions.driver_fds())
        message = await self.within_grace(self._ready, "did not get its ports ready")
        log.info("ports.ready", ports=len(self.ports), withheld=message.get("withheld", 0))
        for port in self.ports.values():
            _log_spread(port)
        await self._on_ready(self.ports)
        self._mark_useful(life)
        self._up.set_result(life)

    async def _on_message(self, life: Life, message: Message) -> None:
        is_ready = self._ready is not None and self._ready.done()
        if message["type"] == "port.lost" and is_ready:
            self.lost[field(message, "port", int)] = field(message, "reason", str)
        elif message["type"] == "port.returned" and is_ready:
            self._welcome(parse_ready(message))
        elif message["type"] == "ready" and self._ready is not None and not is_ready:
            self._take_ports(message)
            self._ready.set_result(message)
        else:
            raise ProtocolError(f"sent {message['type']!r:.40} when nothing like that was due")

    def _take_ports(self, ready: Message) -> None:
        """Know the ports as they are said to be, at once: what is said next may be that one of them is lost."""
        self.ports |= parse_ready(ready)
        self.lost = parse_lost(ready)

    def _welcome(self, returned: Mapping[int, ReadyPort]) -> None:
        """Do for ports that are back what was done for them at the start, beside the driver's other messages."""
        self.ports |= returned
        for number in returned:
            self.lost.pop(number, None)
            task = asyncio.create_task(self._on_returned(number))
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)

    def _on_ended(self, life: Life) -> None:
        if self._up.done():
            self._up = asyncio.get_running_loop().create_future()
        self._watches.clear()
        for task in self._returning:
            task.cancel()
        self._on_gone()
        forget_driver(self._regions.ports)


def spread_of(port: ReadyPort) -> tuple[str, int]:
    """Return who spreads a port's frames, `hardware` or `software`, and over how many queues."""
    if port["spread_queues"]:
        return "software", port["spread_queues"]
    return "hardware", port["rx_queues"]


def _log_spread(port: ReadyPort) -> None:
    spread, queues = spread_of(port)
    if queues > 1:
        log.info("port.spread", port=port["port"], spread=spread, queues=queues)


def parse_lost(message: Message) -> dict[int, str]:
    """Return the ports of a driver's `ready` that have no device, and why. Raises ProtocolError."""
    found: dict[int, str] = {}
    for entry in field(message, "lost", list):
        if not isinstance(entry, dict):
            raise ProtocolError("sent a lost port that is no map")
        port: dict[str, Any] = {"type": "lost port", **entry}
        found[field(port, "port", int)] = field(port, "reason", str)
    return found


def parse_ready(message: Message) -> dict[int, ReadyPort]:
    """Return the ports of a driver's `ready` by number. Raises ProtocolError."""
    found: dict[int, ReadyPort] = {}
    for entry in field(message, "ports", list):
        if not isinstance(entry, dict):
            raise ProtocolError("sent a port that is no map")
        port: dict[str, Any] = {"type": "port", **entry}
        if len(field(port, "mac", bytes)) != 6:
            raise ProtocolError("sent a MAC that is none")
        found[field(port, "port", int)] = {
            "port": field(port, "port", int),
            "device": field(port, "device", str),
            "driver": field(port, "driver", str),
            "mac": field(port, "mac", bytes),
            "mtu": field(port, "mtu", int),
            "mode": "copy" if field(port, "mode", str) == "copy" else "direct",
            "rx_queues": field(port, "rx_queues", int),
            "tx_queues": field(port, "tx_queues", int),
            "spread_queues": field(port, "spread_queues", int),
            "link_up": field(port, "link_up", bool),
        }
    return found
