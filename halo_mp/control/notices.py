# SPDX-License-Identifier: Apache-2.0
"""What an instance tells clients that subscribed: the topics, their values, and how clients read them. No I/O.

A notice of `neighbors`, `interfaces` or `routes` says how what was changed is now, or that it is gone; several changes
of one thing may be one. Who lists after it has subscribed, and then goes by the notices, misses nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from halo_mp.control.frame import FrameError, Message
from halo_mp.control.public import InterfaceInfo, NeighborInfo, RouteInfo, read, read_interface, read_route

TOPICS = ("events", "neighbors", "interfaces", "routes", "statistics")
EVENT_LEVELS = ("debug", "info", "warning", "error")
MIN_PERIOD_S = 0.1
MAX_PERIOD_S = 3600.0
MAX_WAITING_OCTETS = 512 << 10
"""Of notices, for one client: who lets more come together is dropped."""
MAX_HELD = 10_000
"""Notices that a client of ours keeps for its program; of more than that the oldest are forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventInfo:
    """A line of the supervisor's log: what happens to processes, ports, gateways, routes, clients."""

    at: float
    """Seconds since 1970."""
    level: str
    event: str
    """Such as `worker.died`."""
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PortStatistics:
    """Totals of a port since the instance was started, at its device."""

    number: int
    state: str
    link_up: bool
    rx_frames: int
    tx_frames: int
    rx_octets: int
    tx_octets: int
    rx_missed: int
    rx_errors: int
    tx_errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotStatistics:
    """A slot: totals of its workers since the instance was started, and the drops on both sides by reason."""

    number: int
    state: str
    worker_state: str
    worker_pid: int
    rx_frames: int
    tx_frames: int
    rx_fill: int
    """Frames that wait for the worker now."""
    drops: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceStatistics:
    """IPv4 and ARP at all workers since the instance started; octets are those of frames."""

    name: str
    rx_packets: int
    rx_octets: int
    tx_packets: int
    tx_octets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsInfo:
    """What an instance has counted, at a moment."""

    at: float
    """Seconds since 1970."""
    monotonic: float
    """Seconds of a clock that never jumps, for rates: those of two notices of one supervisor."""
    pool_free: int
    """Buffers that nobody has."""
    ports: tuple[PortStatistics, ...]
    slots: tuple[SlotStatistics, ...]
    interfaces: tuple[InterfaceStatistics, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What has become of a topic. What the topic has nothing of is empty."""

    topic: str
    missed: bool = False
    """Not all of it was told, there was too much: list anew what is of interest."""
    events: tuple[EventInfo, ...] = ()
    changed: tuple[NeighborInfo | InterfaceInfo | RouteInfo, ...] = ()
    """As they are now, those that are new among them."""
    gone: tuple[str, ...] = ()
    """Interfaces by name, routes by prefix, neighbors as `10.77.0.2@0`."""
    statistics: StatisticsInfo | None = field(default=None)


class Notices:
    """What has come for a program that has not taken it yet."""

    def __init__(self) -> None:
        self._held: deque[Notice] = deque()
        self._parts: list[Message] = []  # of statistics, which may come in several
        self._forgot: set[str] = set()  # topics of which something was

    def put(self, message: Message) -> bool:
        """Take a message if it is a notice, or a part of one; False if it is something else. Raises FrameError."""
        if message["type"] != "notice":
            return False
        try:
            self._put(message)
        except (KeyError, TypeError, ValueError) as error:
            raise FrameError(f"a notice that is none: {error!r}") from None
        return True

    def take(self) -> Notice | None:
        """Return the next one."""
        if not self._held:
            return None
        notice = self._held.popleft()
        if notice.topic in self._forgot:
            self._forgot.discard(notice.topic)
            notice = replace(notice, missed=True)
        return notice

    def _put(self, message: Message) -> None:
        if message["topic"] == "statistics":
            self._parts.append(message)
            if message["more"]:
                return
            parts, self._parts = self._parts, []
            notice = _statistics(parts)
        else:
            notice = _notice(message)
        if len(self._held) == MAX_HELD:
            self._forgot.add(self._held.popleft().topic)
        self._held.append(notice)


def _notice(message: Message) -> Notice:
    topic = message["topic"]
    if topic == "events":
        events = tuple(read(EventInfo, entry) for entry in message["events"])
        return Notice(topic=topic, missed=message["missed"], events=events)
    return Notice(
        topic=topic,
        missed=message["missed"],
        changed=tuple(_READ[topic](entry) for entry in message["changed"]),
        gone=tuple(message["gone"]),
    )


_READ: dict[str, Any] = {
    "neighbors": lambda entry: read(NeighborInfo, entry),
    "interfaces": read_interface,
    "routes": read_route,
}


def _statistics(parts: list[Message]) -> Notice:
    first = parts[0]
    found = StatisticsInfo(
        at=first["at"],
        monotonic=first["monotonic"],
        pool_free=first["pool_free"],
        ports=tuple(read(PortStatistics, entry) for part in parts for entry in part["ports"]),
        slots=tuple(read(SlotStatistics, entry) for part in parts for entry in part["slots"]),
        interfaces=tuple(read(InterfaceStatistics, entry) for part in parts for entry in part["interfaces"]),
    )
    return Notice(topic="statistics", statistics=found)
