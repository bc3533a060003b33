# SPDX-License-Identifier: Apache-2.0
"""Pings that the control socket is asked for, done by workers.

The worker is the home of the interface that the route leaves by: it alone asks for neighbors there. Where no route
leads, any worker will do: its router says why. Whoever asked may go away at any time, and so may the worker.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from halo_mp.control.channel import ChannelError, RequestFailed
from halo_mp.control.messages import Echo
from halo_mp.control.public import MAX_PINGS
from halo_mp.shm.layout import NO_SLOT
from halo_mp.shm.tables import Interface
from halo_mp.supervisor.keeper_worker import WorkerKeeper
from halo_mp.supervisor.life import Life
from halo_mp.supervisor.routes import Routes
from halo_mp.supervisor.running import RefusedError
from halo_mp.wire.ipv4 import PROTOCOL_ICMP

MAX_WAIT_MS = 60_000
MIN_INTERVAL_MS = 10
MAX_SIZE_OCTETS = 65507
PATIENCE_S = 10.0
"""For a worker that is busy, beyond the time that its ping takes."""
_OUTCOMES = ("reply", "error", "timeout")
_LIMITS = {
    "count": (1, MAX_PINGS),
    "interval_ms": (MIN_INTERVAL_MS, MAX_WAIT_MS),
    "timeout_ms": (MIN_INTERVAL_MS, MAX_WAIT_MS),
    "size": (0, MAX_SIZE_OCTETS),
    "ttl": (1, 255),
}

Outcome = list[Any]


@dataclass(frozen=True, slots=True)
class Ping:
    """What was asked for. Addresses are in host order; `source` 0: the one that the route suggests."""

    dst: int
    source: int = 0
    count: int = 4
    interval_ms: int = 1000
    timeout_ms: int = 1000
    size: int = 56
    ttl: int = 64
    df: bool = False

    def check(self) -> None:
        """Raise RefusedError where a number is out of its bounds."""
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise RefusedError(f"{name} {getattr(self, name)} is not within {least} to {most}.")

    @property
    def seconds(self) -> float:
        """The most that it takes."""
        return ((self.count - 1) * self.interval_ms + self.timeout_ms) / 1000


class Echoes:
    """Has workers ping; `interfaces` tells by number what stands in the tables now."""

    def __init__(
        self,
        routes: Routes,
        workers: Mapping[int, WorkerKeeper],
        interfaces: Callable[[], Mapping[int, Interface]],
    ) -> None:
        self._routes = routes
        self._workers = workers
        self._interfaces = interfaces
        self._numbers = itertools.count()

    async def ping(self, wanted: Ping) -> list[Outcome]:
        """Return the outcomes of a ping: what, source, nanoseconds, TTL, type, code, MTU. Raises RefusedError."""
        wanted.check()
        own = {address for each in self._interfaces().values() for address, _ in each.addresses}
        if wanted.source and wanted.source not in own:
            raise RefusedError(f"{IPv4Address(wanted.source)} is no address of an interface that is there.")
        slot, life = self._worker_for(wanted)
        assert life.channel is not None
        number = next(self._numbers)
        message = Echo(
            type="echo",
            number=number,
            dst=wanted.dst,
            count=wanted.count,
            interval_s=wanted.interval_ms / 1000,
            timeout_s=wanted.timeout_ms / 1000,
            size=wanted.size,
            df=wanted.df,
            ttl=wanted.ttl,
            source=wanted.source,
        )
        try:
            reply = await life.channel.request(message, timeout_s=wanted.seconds + PATIENCE_S)
        except RequestFailed as error:
            raise RefusedError(str(error)) from None
        except ChannelError:
            raise RefusedError(f"the worker of slot {slot} has ended meanwhile; ask again.") from None
        except (asyncio.CancelledError, TimeoutError) as error:
            life.tell({"type": "echo.end", "number": number})
            if isinstance(error, asyncio.CancelledError):
                raise
            raise RefusedError(f"the worker of slot {slot} has not finished in time; ask again.") from None
        return [_outcome(entry, slot) for entry in _outcomes(reply.get("outcomes"), wanted.count, slot)]

    def _worker_for(self, wanted: Ping) -> tuple[int, Life]:
        via = self._routes.choose(wanted.source, wanted.dst, PROTOCOL_ICMP)
        number = None if isinstance(via, str) or not via else via[0].interface
        out = None if number is None else self._interfaces().get(number)
        if out is not None and out.home_slot == NO_SLOT:
            raise RefusedError(
                f"the route to {IPv4Address(wanted.dst)} leaves by port {out.port}, of which no queue feeds a slot: "
                "nobody would hear the answer."
            )
        slots = sorted(self._workers) if out is None else [out.home_slot]
        for slot in slots:
            worker = self._workers.get(slot)
            if worker is not None and worker.is_useful and worker.life is not None and worker.life.channel:
                return slot, worker.life
        raise RefusedError(f"the worker of slot {slots[0]} is not ready; ask again in a moment.")


def _outcomes(found: object, most: int, slot: int) -> list[object]:
    if not isinstance(found, list) or len(found) > most:
        raise RefusedError(f"the worker of slot {slot} has answered what is no list of outcomes.")
    return found


def _outcome(entry: object, slot: int) -> Outcome:
    """Return an outcome as clients get it."""
    match entry:
        case [str(what), int(src), int(ns), int(ttl), int(kind), int(code), int(rest)] if (
            what in _OUTCOMES and 0 <= src < 1 << 32
        ):
            return [what, str(IPv4Address(src)) if src else "", ns, ttl, kind, code, rest & 0xFFFF]
    raise RefusedError(f"the worker of slot {slot} has answered what is no outcome of a ping.")
