# SPDX-License-Identifier: Apache-2.0
"""A link in memory that loses, repeats, delays, reorders and damages datagrams, by a seed; and two that talk over it.

    link = LossyLink(Weather(loss=0.1, delay_ms=20, jitter_ms=5), seed=7)
    link.send(datagram, now_ms)
    for datagram in link.due(now_ms): ...

    talk = Talk(ours, reference, Weather(loss=0.3), seed=7)
    talk.run(2000)      # two seconds, a millisecond at a time
    talk.now_ms, talk.there.counters

The clock is an argument: nothing sleeps, and the same seed gives the same fates. The n-th datagram of a link has the
same fate whatever it holds, as each takes the same random numbers, so that two implementations meet the same weather.
Used by tests and by `bench kcp-loss`.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


class Peer(Protocol):
    """What talks: a session of ours, or one of another implementation."""

    def input(self, octets: bytes, now_ms: int) -> int:
        """Take in one datagram, and return a verdict."""

    def poll(self, now_ms: int) -> list[bytes]:
        """Return the datagrams that are to be sent now."""


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens on a link. Shares are of all datagrams, 0 to 1; times are one way.

    jitter_ms: added to delay_ms, evenly from 0; as in a queue, nobody overtakes for it.
    reorder: the share that comes reorder_ms later than it would, and lets others overtake.
    burst: the mean length of a run of losses, when loss is to come in runs (1: each for itself).
    noise: the share in which one bit is wrong.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    noise: float = 0.0
    delay_ms: int = 0
    jitter_ms: int = 0
    reorder_ms: int = 10
    burst: float = 1.0


CALM = Weather()


@dataclass(slots=True)
class LinkCounters:
    """delivered + waiting + lost == sent + duplicated."""

    sent: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    damaged: int = 0
    delivered: int = 0


@dataclass(slots=True)
class LossyLink:
    """One direction. Datagrams that are due at the same time arrive in the order in which they were sent."""

    weather: Weather
    seed: int
    counters: LinkCounters = field(default_factory=LinkCounters)
    octets: int = 0
    """All that was given to the link."""
    _random: random.Random = field(init=False)
    _heap: list[tuple[int, int, bytes]] = field(init=False, default_factory=list)
    _order: int = field(init=False, default=0)
    _last_ms: int = field(init=False, default=0)
    _losing: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def send(self, octets: bytes, now_ms: int) -> None:
        """Give one datagram to the link at that time."""
        counters, weather = self.counters, self.weather
        counters.sent += 1
        self.octets += len(octets)
        draw = self._random.random
        loss, twice, late, noisy, bit, jitter, gap = (draw() for _ in range(7))
        if self._loses(loss):
            counters.lost += 1
            return
        arrives = max(now_ms + weather.delay_ms + round(jitter * weather.jitter_ms), self._last_ms)
        if late < weather.reorder:
            counters.reordered += 1
            arrives += weather.reorder_ms
        else:
            self._last_ms = arrives
        if twice < weather.duplicate:
            counters.duplicated += 1
            self._put(octets, arrives + round(gap * weather.jitter_ms))
        if noisy < weather.noise and octets:
            counters.damaged += 1
            octets = flip(octets, int(bit * len(octets) * 8))
        self._put(octets, arrives)

    def _loses(self, drawn: float) -> bool:
        """Two states, losing and not (Gilbert's model); with a burst of 1 each datagram stands for itself."""
        loss, burst = self.weather.loss, self.weather.burst
        if burst <= 1 or loss >= 1:
            return drawn < loss
        stay = 1 - 1 / burst
        self._losing = drawn < (stay if self._losing else loss / (1 - loss) / burst)
        return self._losing

    def _put(self, octets: bytes, arrives_ms: int) -> None:
        self._order += 1
        heapq.heappush(self._heap, (arrives_ms, self._order, octets))

    def due(self, now_ms: int) -> list[bytes]:
        """Take out what has arrived by that time."""
        arrived = []
        while self._heap and self._heap[0][0] <= now_ms:
            arrived.append(heapq.heappop(self._heap)[2])
        self.counters.delivered += len(arrived)
        return arrived

    @property
    def next_ms(self) -> int | None:
        """When the next one arrives; None: nothing is on its way."""
        return self._heap[0][0] if self._heap else None

    @property
    def waiting(self) -> int:
        """Datagrams on their way."""
        return len(self._heap)


def flip(octets: bytes, bit: int) -> bytes:
    """The octets with one bit turned."""
    changed = bytearray(octets)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


class Talk:
    """Two peers, a link each way, and a clock in ms that may start anywhere and is given to the peers modulo 2**32."""

    def __init__(self, one: Peer, other: Peer, weather: Weather, seed: int, *, now_ms: int = 0) -> None:
        self.one, self.other = one, other
        self.there = LossyLink(weather, seed)
        self.back = LossyLink(weather, seed + 1)
        self.now_ms = now_ms
        self.verdicts: dict[int, int] = {}
        """How often each verdict was given."""

    def step(self) -> None:
        """One millisecond: what has arrived is taken in, then both say what they have to."""
        self.now_ms += 1
        now = self.now_ms & 0xFFFFFFFF
        for link, peer in ((self.there, self.other), (self.back, self.one)):
            for octets in link.due(self.now_ms):
                verdict = peer.input(octets, now)
                self.verdicts[verdict] = self.verdicts.get(verdict, 0) + 1
        for peer, link in ((self.one, self.there), (self.other, self.back)):
            for octets in peer.poll(now):
                link.send(octets, self.now_ms)

    def run(self, duration_ms: int, each: Callable[[int], bool | None] | None = None) -> bool:
        """Go on for so long, or until `each`, which is called with the time before each step, returns True.

        Returns whether it did.
        """
        for _ in range(duration_ms):
            if each is not None and each(self.now_ms):
                return True
            self.step()
        return False
