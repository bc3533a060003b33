# SPDX-License-Identifier: Apache-2.0
"""Pings of this worker: the clock and the way out for `halo_mp.stack.pinger`, and what the supervisor is told of them.

Each has an identifier of its own, of the 1024 that belong to the slot, so that whichever worker an answer comes to
knows whose it is. Bounded: a ping ends when its last request has, and remembers one outcome for each request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from halo_mp.errors import HaloError
from halo_mp.stack.local_delivery import IDENTIFIERS_PER_SLOT
from halo_mp.stack.outputs import EchoReply, IcmpError
from halo_mp.stack.pinger import Pinger, PingFailure, PingOutcome, PingReply, PingSettings
from halo_mp.wire.ipv4 import PROTOCOL_ICMP, Ipv4Packet

_NS: Final = 1_000_000_000
_ECHO_FIELDS: Final = (
    ("dst", int),
    ("count", int),
    ("interval_s", float),
    ("timeout_s", float),
    ("size", int),
    ("df", bool),
    ("ttl", int),
    ("source", int),
)


class EchoError(HaloError):
    """A ping that can not be, or can not go on; `str()` says why."""


class Listen(Protocol):
    """Have replies with an identifier reported from now on, or no more."""

    def __call__(self, identifier: int, *, listen: bool) -> None: ...


class _Running:
    """A ping, and how its task hears of news."""

    def __init__(self, pinger: Pinger) -> None:
        self.pinger = pinger
        self.news = asyncio.Event()


class Pings:
    """All pings of one worker."""

    def __init__(
        self,
        slot: int,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[Ipv4Packet], None],
        listen: Listen,
    ) -> None:
        """`send` sends a packet of ours; what comes of it, perhaps at once, is for `receive`."""
        self._first = slot * IDENTIFIERS_PER_SLOT
        self._next = 0
        self._loop = loop
        self._send = send
        self._listen = listen
        self._running: dict[int, _Running] = {}
        self._closed = False

    async def run(self, settings: PingSettings) -> list[PingOutcome]:
        """Send all requests, and return the outcome of each once the last has ended. Cancelled, nothing is left of it.

        A reply that comes after its time-out, while others are waited for, counts; a second one to the same does not.
        """
        identifier = self._take_identifier()
        running = self._running[identifier] = _Running(Pinger(settings, identifier))
        self._listen(identifier, listen=True)
        try:
            return await self._follow(running)
        finally:
            self._listen(identifier, listen=False)
            del self._running[identifier]

    def receive(self, heard: EchoReply | IcmpError, now: float) -> None:
        """What was heard at `now` of requests of ours; whose they are, it says."""
        identifier = heard.identifier if isinstance(heard, EchoReply) else _identifier_in(heard)
        running = self._running.get(identifier)
        if running is None:
            return
        if isinstance(heard, EchoReply):
            running.pinger.receive(heard, now)
        else:
            running.pinger.fail(heard, now)
        running.news.set()

    def close(self) -> None:
        """End all of them with EchoError, and begin no more."""
        self._closed = True
        for running in self._running.values():
            running.news.set()

    async def _follow(self, running: _Running) -> list[PingOutcome]:
        pinger = running.pinger
        found: dict[int, PingOutcome] = {}
        while True:
            if self._closed:
                raise EchoError("the worker is leaving; ask again.")
            running.news.clear()
            for packet in pinger.poll(self._loop.time()):
                self._send(packet)
            while pinger.outcomes:
                outcome = pinger.outcomes.popleft()
                if not (isinstance(outcome, PingReply) and outcome.duplicate):
                    found[outcome.number] = outcome
            if pinger.is_finished:
                return [found[number] for number in sorted(found)]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(pinger.next_deadline()):
                    await running.news.wait()

    def _take_identifier(self) -> int:
        """Take the one after the last: what is still on its way for that is nobody's."""
        if len(self._running) == IDENTIFIERS_PER_SLOT or self._closed:
            raise EchoError(f"{len(self._running)} pings run already, as many as a worker can have.")
        while self._first + self._next in self._running:
            self._next = (self._next + 1) % IDENTIFIERS_PER_SLOT
        identifier = self._first + self._next
        self._next = (self._next + 1) % IDENTIFIERS_PER_SLOT
        return identifier


def _identifier_in(error: IcmpError) -> int:
    about = error.about
    return int.from_bytes(about.payload[4:6], "big") if about.protocol == PROTOCOL_ICMP else -1


# ---- as the supervisor sees it


def parse_echo(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `StackHost.ping` that an `echo` message carries."""
    return {name: kind(message[name]) for name, kind in _ECHO_FIELDS}


def emit_outcome(outcome: PingOutcome) -> list[Any]:
    """Return an outcome as the supervisor gets it: what, source, nanoseconds, TTL, type, code, rest."""
    match outcome:
        case PingReply(_, src, rtt_s, ttl):
            return ["reply", src, round(rtt_s * _NS), ttl, 0, 0, 0]
        case PingFailure(_, error, rtt_s):
            return ["error", error.src, round(rtt_s * _NS), 0, error.type, error.code, error.rest]
    return ["timeout", 0, 0, 0, 0, 0, 0]
