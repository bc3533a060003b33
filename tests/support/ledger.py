# SPDX-License-Identifier: Apache-2.0
"""Where every buffer of an instance is, and whether its books balance, over the deaths of its processes.

Each buffer is free, in a slot's hands, or in a port's queue, whoever died. The counters of a process that was
killed may lack what it did last, so books are compared from a moment at which all was quiet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from halo_mp.shm.counters import CounterBlock, PortSnapshot, SlotSnapshot
from halo_mp.shm.layout import RegionKind
from halo_mp.shm.owners import count_owned
from halo_mp.shm.region import Region, region_name
from tests.support.accounts import imbalances
from tests.support.instance import Instance
from tests.support.namespace import wait_until

_GAUGES = ("held", "outstanding", "sockets", "neighbors")
_TAP_QUEUE = 1023
"""Buffers that a receive queue of net_tap keeps ready: it takes one descriptor less than readv(2) can fill."""


class Ledger:
    """Of an instance. Open it when that is up and there is no traffic."""

    def __init__(self, instance: Instance, *slots: int) -> None:
        self._instance = instance
        self._slots = slots or (0,)
        wait_until(lambda: not list(self._disagreements()), what="spare buffers")
        self.start_anew()

    def start_anew(self) -> None:
        """Compare books from now on. Without traffic."""
        self._start = self.snapshots()

    def assert_whole(self) -> None:
        """Wait until nothing is under way; fail when a buffer is lost."""
        self._settle(self._disagreements, self._lost)

    def assert_balanced(self) -> None:
        """Wait until nothing is under way; fail when what has happened does not balance, or a buffer is lost."""
        self._settle(self._disagreements, self._lost, self._imbalances)

    def snapshots(self) -> list[SlotSnapshot]:
        """Return what the slots say now: counters since the start of the instance."""
        return [self._instance.slot(number) for number in self._slots]

    def _settle(self, *accounts: Callable[[], Iterator[str]]) -> None:
        problems: list[str] = []

        def settled() -> bool:
            problems[:] = [problem for account in accounts for problem in account()]
            return not problems

        try:
            wait_until(settled, what="whole books")
        except AssertionError:
            raise AssertionError("\n".join([*problems, *map(str, self.snapshots())])) from None

    def _disagreements(self) -> Iterator[str]:
        """Without traffic the driver's gauge, the table of owners and the spare ring tell of the same buffers."""
        region = self._attach("owners", RegionKind.OWNERS)
        try:
            for snapshot in self.snapshots():
                owned = count_owned(region, snapshot["slot"])
                outstanding, spare = snapshot["driver"]["counters"]["outstanding"], snapshot["spare_fill"]
                if not owned == outstanding == spare or not spare:
                    yield f"slot {snapshot['slot']}: owns {owned}, {outstanding} outstanding, {spare} spare"
        finally:
            region.close()

    def _lost(self) -> Iterator[str]:
        """The driver tells twice a second how many are free, so this may take as long to come true."""
        ports = self._instance.ports()
        held = sum(snapshot["driver"]["counters"]["outstanding"] for snapshot in self.snapshots())
        queued = sum(map(_queued, ports["ports"].values()))
        if (found := ports["pool_free"] + held + queued) != (everything := self._pool_size()):
            yield f"{ports['pool_free']} free, {held} in hands, {queued} in ports: {found} of {everything} buffers"

    def _imbalances(self) -> Iterator[str]:
        for now, start in zip(self.snapshots(), self._start, strict=True):
            yield from imbalances(_since(now, start))

    def _pool_size(self) -> int:
        region = self._attach("owners", RegionKind.OWNERS)
        try:
            return int(region.pointer.pool.buffer_count)
        finally:
            region.close()

    def _attach(self, name: str, kind: RegionKind) -> Region:
        return Region.attach(region_name(self._instance.name, name), kind, writable=False)


def _queued(port: PortSnapshot) -> int:
    """Return how many buffers of the pool a port keeps in its queues; most virtual devices keep none."""
    has_queues = port["driver"] == "net_tap" and port["state"] == "started"
    return port["rx_queues"] * _TAP_QUEUE if has_queues else 0


def _since(now: SlotSnapshot, start: SlotSnapshot) -> SlotSnapshot:
    """Return a snapshot whose counters say what has happened since; gauges stay."""
    return {
        **now,
        "worker": _minus(now["worker"], start["worker"]),
        "driver": _minus(now["driver"], start["driver"]),
    }


def _minus(now: CounterBlock, start: CounterBlock) -> CounterBlock:
    counters = {
        name: count - (0 if name in _GAUGES else start["counters"][name])
        for name, count in now["counters"].items()
    }
    drops = {name: count - start["drops"][name] for name, count in now["drops"].items()}
    return {"counters": counters, "drops": drops}
