# SPDX-License-Identifier: Apache-2.0
"""Taking over what a dead supervisor of this name left running.

The driver and the workers go on without a supervisor for --orphan-timeout, and try to reach one. What the dead one
wanted stands in the state file; the memory has names; pool and doorbells, which have none, come back from the driver.
Without a driver there is nothing to adopt: then everything is ended and started anew.

    state file → differences? refused → driver greets → regions attached, descriptors received → workers greet (later)
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from halo_mp import logs
from halo_mp.control.channel import Channel, ChannelError, ProtocolError
from halo_mp.control.frame import Message
from halo_mp.control.inbox import close_all
from halo_mp.control.messages import Adopt
from halo_mp.errors import HaloError, InstanceRunning
from halo_mp.plain import from_plain
from halo_mp.supervisor import desired, leftovers
from halo_mp.supervisor.config import Config
from halo_mp.supervisor.greeter import Greeter
from halo_mp.supervisor.instance import Instance
from halo_mp.supervisor.process import Orphan
from halo_mp.supervisor.regions import Regions
from halo_mp.supervisor.running import Running
from halo_mp.supervisor.state import State

DRIVER_TIMEOUT_S = 3.0
"""For a driver that tries to reach us each quarter of a second, and may be held up by its devices meanwhile."""

log = logs.get("supervisor")


@dataclass(frozen=True, slots=True)
class Adopted:
    """What goes on running, and all that the next supervisor needs of it."""

    config: Config
    running: Running
    regions: Regions
    greeter: Greeter
    driver: Orphan
    channel: Channel
    """To the driver."""
    ready: Message
    """What the driver says of its ports."""
    workers: dict[int, Orphan]
    """By slot; those that are alive."""
    left: State


async def adopt(instance: Instance, wanted: Config, worker_uid: int | None) -> Adopted | None:
    """Take over what runs; None when there is nothing that could be. Holds the instance's lock.

    Raises InstanceRunning when it runs with other flags than are asked for now: then nothing was touched.
    """
    left = instance.load()
    known = _running_config(left, wanted)
    driver = _driver(left) if known is not None else None
    if known is None or driver is None:
        return None
    config, loaded, running = known
    try:
        _refuse_differences(loaded, wanted)
        greeter = Greeter(instance.socket_path, worker_uid)
    except BaseException:
        driver.close()
        raise
    try:
        return await _take_over(left, desired.with_changes(config, wanted), running, greeter, driver)
    except (HaloError, ChannelError, TimeoutError, OSError) as error:
        log.warning("adoption.failed", reason=str(error) or "the driver did not answer")
        await greeter.close()
        driver.close()
        return None


def _running_config(left: State, wanted: Config) -> tuple[Config, Config, Running] | None:
    """Return the configuration that it was started with, the one that was read last, and what has become of it."""
    if left.desired is None or not wanted.adopt:
        return None
    try:
        started, loaded = from_plain(Config, left.desired), from_plain(Config, left.loaded)
        return started, loaded, from_plain(Running, left.running)
    except ValueError as error:  # of another version of this program
        log.warning("adoption.failed", reason=f"the saved configuration makes no sense: {error}")
        return None


def _driver(left: State) -> Orphan | None:
    for member in left.members:
        if member.role == "driver" and (driver := Orphan.take(member.pid, member.start_ticks, member.box)):
            return driver
    return None


def _refuse_differences(running: Config, wanted: Config) -> None:
    found = desired.differences(running, wanted)
    if found:
        raise InstanceRunning(
            f"instance {wanted.instance!r} is running without a supervisor, and not as it is asked for now:\n"
            + "\n".join(f"  {phrase}" for phrase in found)
            + "\nStart it with the flags that it had to take it over, or with --no-adopt to end it and start anew."
        )


async def _take_over(
    left: State, config: Config, running: Running, greeter: Greeter, driver: Orphan
) -> Adopted:
    workers = {
        member.slot: worker
        for member in left.members
        if member.role == "worker" and member.slot is not None
        if (worker := Orphan.take(member.pid, member.start_ticks, member.box))
    }
    for slot, worker in workers.items():
        greeter.expect(worker.pid, "worker", slot)  # they will not wait until the driver has answered
    try:
        channel, ready, fds = await _ask_driver(config, greeter, driver)
        try:
            # Before a slot is reset: one that was started as its supervisor died might still be on its rings.
            await leftovers.end_strays(
                greeter.path.parent, {driver.pid, *(worker.pid for worker in workers.values())}
            )
            regions = Regions.adopt(config, left.generation, fds)
        except BaseException:
            channel.close()
            raise
    except BaseException:
        for worker in workers.values():
            greeter.forget(worker.pid)
            worker.close()
        raise
    return Adopted(config, running, regions, greeter, driver, channel, ready, workers, left)


async def _ask_driver(config: Config, greeter: Greeter, driver: Orphan) -> tuple[Channel, Message, list[int]]:
    """Return the channel to the driver, its `ready` message, and the descriptors that came with it."""
    greeted = greeter.expect(driver.pid, "driver", None)
    ended = asyncio.create_task(driver.wait())
    try:
        async with asyncio.timeout(DRIVER_TIMEOUT_S):
            either: list[asyncio.Future[Any]] = [greeted, ended]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not greeted.done():
                raise ProtocolError("the driver ended")
            channel = greeted.result()
            await channel.send(Adopt(type="adopt", orphan_timeout_s=config.orphan_timeout_s))
            while True:
                message, fds = await channel.receive()
                if message["type"] == "ready":
                    return channel, message, fds
                close_all(fds)
    except BaseException:
        greeter.forget(driver.pid)
        raise
    finally:
        ended.cancel()
