# SPDX-License-Identifier: Apache-2.0
"""What the reader returns. Counters are totals since the instance was started, and never go backwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from halo_mp.plain import to_plain
from halo_mp.shm.counters import LcoreSnapshot
from halo_mp.shm.load import HookStats, WorkerLoad
from halo_mp.stats.status_model import Status

GAUGES = frozenset({"held", "outstanding", "sockets", "neighbors"})
"""Counters of a slot that are no sums: what there is now."""
WORD = 2**64 - 1
"""Sums of counters are words as they are: a worker may write what it likes into its own, and msgpack has no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """A queue of a port's device, where its PMD tells of queues."""

    rx_frames: int = 0
    rx_octets: int = 0
    tx_frames: int = 0
    tx_octets: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PortStats:
    """A port."""

    number: int
    device: str
    driver: str
    state: str
    """`started`, `failed`, or `absent` while no driver has it."""
    mac: str
    mtu: int
    link_up: bool
    speed_mbps: int
    counters: dict[str, int]
    """Frames and octets as its PMD counts them, what it missed, its losses, returns and link changes."""
    queues: dict[int, QueueStats]
    xstats: dict[str, int]
    """What its PMD counts besides, by the PMD's names. They begin at zero with each opening of the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotStats:
    """A slot: a worker, and what the driver does for it."""

    number: int
    ports: tuple[int, ...]
    """Whose frames come to it; in software spreading, whose share of frames."""
    state: str
    worker_state: str
    worker_pid: int
    place: str
    """Where the worker's thread is: `native`, `python`, `asleep`."""
    home_lcore: int
    ring_size: int
    rx_fill: int
    """Descriptors that wait on each ring now."""
    tx_fill: int
    spare_fill: int
    progress: int
    worker: dict[str, int]
    driver: dict[str, int]
    worker_drops: dict[str, int]
    """By reason, those that never happened included."""
    driver_drops: dict[str, int]
    load: WorkerLoad
    hooks: tuple[HookStats, ...]

    @property
    def drops(self) -> dict[str, int]:
        """Drops that happened, of both sides, the most frequent first."""
        sums = {name: count + self.driver_drops[name] & WORD for name, count in self.worker_drops.items()}
        return dict(sorted(((name, n) for name, n in sums.items() if n), key=lambda item: -item[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceStats:
    """An interface, counted at all workers: IPv4 and ARP, octets of frames."""

    name: str
    """`0`, or `0.100` for VLAN 100 of port 0."""
    number: int
    mac: str
    mtu: int
    up: bool
    addresses: tuple[str, ...]
    rx_packets: int = 0
    rx_octets: int = 0
    tx_packets: int = 0
    tx_octets: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """An instance at a moment."""

    instance: str
    generation: int
    """Of the run: another one counts from zero."""
    at: float
    """Seconds since 1970."""
    now: float
    """The same moment, of the monotonic clock."""
    driver_pid: int
    pool_free: int
    """Buffers that nobody has."""
    withheld: int
    lcores: tuple[LcoreSnapshot, ...]
    ports: dict[int, PortStats]
    slots: dict[int, SlotStats]
    interfaces: dict[str, InterfaceStats]
    status: Status
    """What the supervisor said last: which processes there are, and how they are."""

    def plain(self) -> dict[str, Any]:
        """Return it as what JSON can hold, without `now`."""
        found: dict[str, Any] = to_plain(self)
        del found["now"]
        return found
