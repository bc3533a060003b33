# SPDX-License-Identifier: Apache-2.0
"""What clients of the control socket may subscribe to, and who has.

    touched by whom changes it → gathered for a moment → described as it is then → one frame, to every outbox

Each topic is a feed. What nobody has subscribed to costs nothing, and what many have is described once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from halo_mp.control.notices import EVENT_LEVELS, MAX_PERIOD_S, MIN_PERIOD_S, TOPICS
from halo_mp.supervisor.feed_events import EventFeed
from halo_mp.supervisor.feed_state import StateFeed
from halo_mp.supervisor.feed_statistics import StatisticsFeed
from halo_mp.supervisor.feed_values import Describer
from halo_mp.supervisor.outbox import Outbox
from halo_mp.supervisor.published import Published
from halo_mp.supervisor.running import RefusedError

DEFAULT_LEVEL = "info"
DEFAULT_PERIOD_S = 1.0


class Feed(Protocol):
    """One topic."""

    def unsubscribe(self, outbox: Outbox) -> None:
        """Send nothing more to it, if anything was."""

    def close(self) -> None:
        """Send nothing more to anybody. May be called twice."""


class Feeds:
    """All topics of one instance, until closed."""

    def __init__(self, published: Published, describer: Describer, sample: Callable[[], Any]) -> None:
        """`sample` reads all statistics, and returns a Snapshot."""
        self._events = EventFeed()
        self._neighbors = StateFeed("neighbors", describer.neighbors)
        self._interfaces = StateFeed("interfaces", describer.interfaces, remembers=True)
        self._routes = StateFeed("routes", describer.routes)
        self._statistics = StatisticsFeed(sample)
        self._describer = describer
        self._feeds: dict[str, Feed] = {
            "events": self._events,
            "neighbors": self._neighbors,
            "interfaces": self._interfaces,
            "routes": self._routes,
            "statistics": self._statistics,
        }
        published.neighbors.on_touched = self._neighbors.touch
        published.routes.on_touched = self._routes.touch
        published.on_interfaces = lambda: self._interfaces.touch(describer.interface_numbers())

    def subscribe(self, outbox: Outbox, topic: str, *, level: str | None, period_ms: int | None) -> None:
        """Tell a client of a topic from now on, in place of what it had subscribed to there. Raises RefusedError."""
        _check_topic(topic)
        if level is not None and topic != "events":
            raise RefusedError(f"only events have a level, {topic} have none.")
        if period_ms is not None and topic != "statistics":
            raise RefusedError(f"only statistics have a period; {topic} are told when they change.")
        if topic == "events":
            self._events.subscribe(outbox, _checked_level(level))
        elif topic == "statistics":
            self._statistics.subscribe(outbox, _checked_period(period_ms))
        elif topic == "interfaces":
            self._interfaces.subscribe(outbox, self._describer.interface_numbers())
        else:
            state = self._neighbors if topic == "neighbors" else self._routes
            state.subscribe(outbox)

    def unsubscribe(self, outbox: Outbox, topic: str) -> None:
        """Tell a client no more of a topic. Raises RefusedError."""
        _check_topic(topic)
        self._feeds[topic].unsubscribe(outbox)

    def forget(self, outbox: Outbox) -> None:
        """Tell a client no more. May be called twice."""
        for feed in self._feeds.values():
            feed.unsubscribe(outbox)

    def close(self) -> None:
        """Tell nobody anything more. May be called twice."""
        for feed in self._feeds.values():
            feed.close()


def _check_topic(topic: str) -> None:
    if topic not in TOPICS:
        raise RefusedError(f"there is no topic {topic!r:.80}; there are {', '.join(TOPICS)}.")


def _checked_level(level: str | None) -> str:
    if level is None:
        return DEFAULT_LEVEL
    if level not in EVENT_LEVELS:
        raise RefusedError(f"there is no level {level!r:.80}; there are {', '.join(EVENT_LEVELS)}.")
    return level


def _checked_period(period_ms: int | None) -> float:
    if period_ms is None:
        return DEFAULT_PERIOD_S
    least, most = round(1000 * MIN_PERIOD_S), round(1000 * MAX_PERIOD_S)
    if not least <= period_ms <= most:
        raise RefusedError(f"a period of {period_ms} ms can not be had; there are {least} to {most} ms.")
    return period_ms / 1000
