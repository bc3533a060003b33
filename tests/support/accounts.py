# SPDX-License-Identifier: Apache-2.0
"""An instance's counters as accounts: do they balance, and what has happened since?

Every frame that came in went out, was consumed, or has a named drop, in the worker and in the driver, and each
buffer that a slot holds lies in its spare ring when nothing is under way.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from halo_mp.shm.counters import SlotSnapshot
from halo_mp.shm.layout import MAX_PORTS, RegionKind
from tests.support.instance import Instance
from tests.support.namespace import wait_until

_GAUGES = ("held", "outstanding", "sockets", "neighbors")
_SETTLE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Tally:
    """Counters summed over slots: of the workers, of the driver, and drops of both by reason."""

    worker: Counter[str] = field(default_factory=Counter)
    driver: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)

    def since(self, earlier: Tally) -> Tally:
        """Return what has happened in between; what has not is not in it."""
        return Tally(self.worker - earlier.worker, self.driver - earlier.driver, self.drops - earlier.drops)

    @property
    def arrived(self) -> int:
        """Frames that ports have delivered to the slots, those dropped on the way included."""
        return self.driver["rx_frames"] - self.driver["rx_handed"] + self._driver_rx_drops

    @property
    def _driver_rx_drops(self) -> int:
        return sum(count for name, count in self.drops.items() if name.startswith("rx_"))


def tally(instance: Instance, *slots: int) -> Tally:
    """Return the sums once the accounts of these slots (default: 0) balance and nothing is under way."""
    return _sum(balanced(instance, *slots))


def tally_after(instance: Instance, earlier: Tally, frames: int, *slots: int) -> Tally:
    """Wait until so many frames have arrived since `earlier`, and return what happened from there on."""

    wait_until(lambda: arrived(instance, earlier, *slots) >= frames, what=f"{frames} frames from the port")
    return tally(instance, *slots).since(earlier)


def arrived(instance: Instance, earlier: Tally, *slots: int) -> int:
    """Return how many frames have arrived since `earlier`, whatever is under way."""
    return _sum([instance.slot(number) for number in slots or (0,)]).since(earlier).arrived


def balanced(instance: Instance, *slots: int) -> list[SlotSnapshot]:
    """Wait until nothing is under way in these slots; fail with what does not balance then.

    A worker's counters are read before its driver's: twice the same, nothing has moved between the two.
    """
    deadline = time.monotonic() + _SETTLE_TIMEOUT_S
    before: list[tuple[object, ...]] = []
    while True:
        snapshots = [instance.slot(number) for number in slots or (0,)]
        problems = [problem for snapshot in snapshots for problem in imbalances(snapshot)]
        moved = [_moved(snapshot) for snapshot in snapshots]
        if not problems and moved == before:
            return snapshots
        before = moved
        if time.monotonic() > deadline:
            raise AssertionError("\n".join([*(problems or ["frames keep coming"]), *map(str, snapshots)]))
        if problems:
            time.sleep(0.01)


def buffers(instance: Instance, *slots: int) -> int:
    """Return the buffers that are free or in the slots' hands: one less for each that was lost.

    The driver tells the free ones twice a second: this waits until it has done so anew.
    """
    seen = _updates(instance)
    # Two updates on, the number was written after we began: it is the last thing of an update, and each counts 2.
    wait_until(lambda: _updates(instance) >= seen + 4, what="the driver's next status")
    held = sum(snapshot["driver"]["counters"]["outstanding"] for snapshot in balanced(instance, *slots))
    return instance.ports()["pool_free"] + held


def imbalances(snapshot: SlotSnapshot) -> Iterator[str]:
    """Yield a sentence for each account of a slot that does not balance, which is normal under way."""
    worker, driver = snapshot["worker"]["counters"], snapshot["driver"]["counters"]
    worker_drops, driver_drops = snapshot["worker"]["drops"], snapshot["driver"]["drops"]
    came = worker["rx_frames"] + worker["originated"] + worker["copies"]
    went = worker["tx_frames"] + worker["tx_handed"] + worker["consumed"] + worker["held"]
    if came != went + sum(worker_drops.values()):
        yield f"slot {snapshot['slot']}: {came} frames came, {went} went, {_happened(worker_drops)} were dropped"
    taken = driver["tx_descriptors"]
    given = driver["tx_sent"] + driver["tx_passed"] + driver["hand_sent"] + driver["released"]
    tx_drops = {name: count for name, count in driver_drops.items() if name.startswith("tx_")}
    if taken != given + sum(tx_drops.values()):
        yield f"slot {snapshot['slot']}: the driver took {taken}, {given} went on, {_happened(tx_drops)} were dropped"
    if driver["rx_frames"] != worker["rx_frames"]:
        yield f"slot {snapshot['slot']}: {driver['rx_frames']} frames put, {worker['rx_frames']} taken"
    if worker["held"] or snapshot["rx_fill"] or snapshot["tx_fill"]:
        yield f"slot {snapshot['slot']}: {worker['held']} held, {snapshot['rx_fill']}+{snapshot['tx_fill']} in rings"
    if driver["outstanding"] != snapshot["spare_fill"]:
        yield f"slot {snapshot['slot']}: {driver['outstanding']} buffers outstanding, {snapshot['spare_fill']} spare"


def _moved(snapshot: SlotSnapshot) -> tuple[object, ...]:
    """Return what changes with each frame that comes, goes or ends."""
    worker, driver = snapshot["worker"], snapshot["driver"]
    counted = [worker["counters"][name] for name in ("rx_frames", "tx_frames", "originated", "consumed")]
    return *counted, *worker["drops"].values(), driver["counters"]["tx_descriptors"]


def _sum(snapshots: list[SlotSnapshot]) -> Tally:
    sums = Tally()
    for snapshot in snapshots:
        for block, into in ((snapshot["worker"], sums.worker), (snapshot["driver"], sums.driver)):
            into.update({name: n for name, n in block["counters"].items() if name not in _GAUGES})
            sums.drops.update(block["drops"])
    return Tally(+sums.worker, +sums.driver, +sums.drops)  # without zeros, as a difference is


def _happened(drops: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in drops.items() if count}


def _updates(instance: Instance) -> int:
    with instance.region("ports", RegionKind.PORTS) as region:
        return max(int(region.pointer.port[number].updates) for number in range(MAX_PORTS))
