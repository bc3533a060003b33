# SPDX-License-Identifier: Apache-2.0
"""The topic `statistics`: what the instance counts, each so often, for clients that can not map its memory.

Those with the same period are told at the same moments, from one sample; one that has not gone out when the next is
there gives way to it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack

from halo_mp import logs
from halo_mp.control import frame
from halo_mp.control.notices import InterfaceStatistics, PortStatistics, SlotStatistics
from halo_mp.errors import HaloError
from halo_mp.plain import to_plain
from halo_mp.supervisor.operations import PAGE_OCTETS
from halo_mp.supervisor.outbox import Outbox

if TYPE_CHECKING:
    from halo_mp.stats.model import InterfaceStats, PortStats, SlotStats, Snapshot
    from halo_mp.stats.reader import Reader

TOGETHER_S = 0.025
"""Who is due within this time is told at once."""

log = logs.get("supervisor")


class Sampler:
    """Reads all statistics of an instance, from the same memory as others do; nothing is mapped before the first."""

    def __init__(self, instance: str, base: Path) -> None:
        self._instance = instance
        self._base = base
        self._reader: Reader | None = None

    def sample(self) -> Snapshot:
        """Return what there is now. Raises HaloError and OSError."""
        from halo_mp.stats.reader import Reader  # an instance that nobody asks starts without it

        if self._reader is None:
            self._reader = Reader(self._instance, base=self._base)
        try:
            return self._reader.read()
        except (HaloError, OSError):
            self.close()
            raise

    def close(self) -> None:
        """Unmap everything. May be called twice."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class StatisticsFeed:
    """Samples while anybody has subscribed."""

    def __init__(self, sample: Callable[[], Snapshot]) -> None:
        self._sample = sample
        self._periods: dict[Outbox, float] = {}
        self._due: dict[Outbox, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._complained = False

    def subscribe(self, outbox: Outbox, period_s: float) -> None:
        """Tell somebody now, and each so many seconds."""
        self._periods[outbox] = period_s
        self._due[outbox] = 0.0
        self._schedule()

    def unsubscribe(self, outbox: Outbox) -> None:
        """Tell it no more."""
        if self._periods.pop(outbox, None) is not None:
            del self._due[outbox]
            self._schedule()

    def close(self) -> None:
        """Tell nobody."""
        self._periods.clear()
        self._due.clear()
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            loop = asyncio.get_running_loop()
            # Who subscribes waits for others who do: else fifty at once would be fifty samples.
            when = max(min(self._due.values()), loop.time() + TOGETHER_S)
            self._timer = loop.call_at(when, self._tell)

    def _tell(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        octets = self._frames()
        for outbox, due in list(self._due.items()):
            if due <= now + TOGETHER_S:
                period = self._periods[outbox]
                self._due[outbox] = (math.floor((now + TOGETHER_S) / period) + 1) * period
                if octets:
                    outbox.put(octets, is_state=True)
        if self._timer is None:  # dropping somebody schedules, too
            self._schedule()

    def _frames(self) -> bytes:
        """Return a sample as notices, nothing when there is none: descriptors may have run out."""
        try:
            snapshot = self._sample()
        except (HaloError, OSError, MemoryError) as error:
            if not self._complained:
                log.warning("statistics.not_read", reason=str(error))
            self._complained = True
            return b""
        self._complained = False
        return emit(snapshot)


def emit(snapshot: Snapshot) -> bytes:
    """Return a snapshot as notices: all but the last say that there is more of it."""
    parts: list[dict[str, Any]] = [_part()]
    octets = 0
    for name, entry in _entries(snapshot):
        if octets > PAGE_OCTETS:
            parts.append(_part())
            octets = 0
        plain = to_plain(entry)
        parts[-1][name].append(plain)
        octets += len(msgpack.packb(plain))
    head = {
        "type": "notice",
        "topic": "statistics",
        "at": snapshot.at,
        "monotonic": snapshot.now,
        "pool_free": snapshot.pool_free,
    }
    last = len(parts) - 1
    return b"".join(frame.emit({**head, **part, "more": number < last}) for number, part in enumerate(parts))


def _part() -> dict[str, Any]:
    return {"ports": [], "slots": [], "interfaces": []}


def _entries(snapshot: Snapshot) -> Iterable[tuple[str, object]]:
    for port in snapshot.ports.values():
        yield "ports", _port(port)
    for slot in snapshot.slots.values():
        yield "slots", _slot(slot)
    for interface in snapshot.interfaces.values():
        yield "interfaces", _interface(interface)


def _port(port: PortStats) -> PortStatistics:
    names = ("rx_frames", "tx_frames", "rx_octets", "tx_octets", "rx_missed", "rx_errors", "tx_errors")
    counters = {name: port.counters[name] for name in names}
    return PortStatistics(number=port.number, state=port.state, link_up=port.link_up, **counters)


def _slot(slot: SlotStats) -> SlotStatistics:
    return SlotStatistics(
        number=slot.number,
        state=slot.state,
        worker_state=slot.worker_state,
        worker_pid=slot.worker_pid,
        rx_frames=slot.worker["rx_frames"],
        tx_frames=slot.worker["tx_frames"],
        rx_fill=slot.rx_fill,
        drops=slot.drops,
    )


def _interface(interface: InterfaceStats) -> InterfaceStatistics:
    return InterfaceStatistics(
        name=interface.name,
        rx_packets=interface.rx_packets,
        rx_octets=interface.rx_octets,
        tx_packets=interface.tx_packets,
        tx_octets=interface.tx_octets,
    )
