# SPDX-License-Identifier: Apache-2.0
"""Counters, read straight from shared memory without asking anybody.

Each counter is a 64-bit word with one writer, so a single one never tears; several of them were not read at
one instant. Counters are cumulative over the life of the region: a new worker or driver goes on from what
it finds. What the driver tells of ports is whole: it is copied again when an update was under way.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import takewhile
from struct import Struct
from typing import Any, TypedDict

from halo_mp.shm.layout import (
    DROP_NAMES,
    MAX_LCORES,
    MAX_PORTS,
    Place,
    PortMode,
    PortState,
    SlotState,
    WorkerState,
    ffi,
    lib,
)
from halo_mp.shm.region import Region

_XSTAT = Struct("=64sQ")  # struct halo_xstat
COPY_ATTEMPTS = 100  # a copy takes some microseconds, an update happens a few times a second


class CounterBlock(TypedDict):
    """Counters of one writer by name, and its drops by reason, those that never happened included."""

    counters: dict[str, int]
    drops: dict[str, int]


class SlotSnapshot(TypedDict):
    """What a slot's region says."""

    slot: int
    state: str
    generation: int
    home_lcore: int
    driver_sleeping: bool
    worker_state: str
    worker_pid: int
    worker_sleeping: bool
    place: str
    progress: int
    epoch: int
    last_burst_ns: int
    rx_fill: int
    tx_fill: int
    spare_fill: int
    worker: CounterBlock
    driver: CounterBlock


# What a forwarding lcore says of itself: `lcore` and `place`, and its counters by name.
LcoreSnapshot = dict[str, Any]


class PortSnapshot(TypedDict):
    """What the driver says of a port. `whole` is False when its writer stopped in the middle of an update."""

    port: int
    state: str
    mode: str
    device: str
    driver: str
    mac: bytes
    mtu: int
    link_up: bool
    speed_mbps: int
    full_duplex: bool
    promiscuous: bool
    has_rx_fd: bool
    rx_queues: int
    tx_queues: int
    spread_queues: int
    losses: int
    returns: int
    link_changes: int
    stats: dict[str, int]
    xstats: dict[str, int]
    whole: bool


class PortsSnapshot(TypedDict):
    """What the driver says of itself, its lcores that run, and its ports that are there."""

    driver_pid: int
    pool_free: int
    withheld: int
    lcores: list[LcoreSnapshot]
    ports: dict[int, PortSnapshot]


def _counter_names(struct: str) -> tuple[str, ...]:
    """Return the fields in front of `drops`, in order, all of 64 bits."""
    names = (name for name, _ in ffi.typeof(f"struct {struct}").fields)
    return tuple(takewhile(lambda name: name != "drops", names))


_WORKER_NAMES = _counter_names("halo_worker_counters")
_DRIVER_NAMES = _counter_names("halo_driver_counters")
_LCORE_NAMES = tuple(
    name
    for name, field in ffi.typeof("struct halo_lcore_status").fields
    if field.type.cname == "uint64_t" and name != "reserved"
)
INTERFACE_COUNTERS = tuple(name for name, _ in ffi.typeof("struct halo_interface_counters").fields)
_PORT_STATS = (
    "rx_frames",
    "tx_frames",
    "rx_octets",
    "tx_octets",
    "rx_missed",
    "rx_errors",
    "tx_errors",
    "rx_no_mbuf",
)
PORT_COUNTERS = (*_PORT_STATS, "losses", "returns", "link_changes")
"""What is counted of a port, xstats aside."""


def read_slot(region: Region) -> SlotSnapshot:
    """Return everything that a slot's region says, rings only by how full they are."""
    slot = region.pointer
    return {
        "slot": slot.geometry.slot,
        "state": _name(SlotState, slot.life.state),
        "generation": slot.life.generation,
        "home_lcore": slot.life.home_lcore,
        "driver_sleeping": bool(slot.life.driver_sleeping),
        "worker_state": _name(WorkerState, slot.status.state),
        "worker_pid": slot.status.pid,
        "worker_sleeping": bool(slot.doorbell.worker_sleeping),
        "place": _name(Place, slot.status.place),
        "progress": slot.status.progress,
        "epoch": slot.status.epoch,
        "last_burst_ns": slot.status.last_burst_ns,
        "rx_fill": _fill(slot.rx),
        "tx_fill": _fill(slot.tx),
        "spare_fill": _fill(slot.spare),
        "worker": read_worker_counters(region),
        "driver": read_driver_counters(region),
    }


def read_worker_counters(region: Region) -> CounterBlock:
    """Return what the worker of a slot counts."""
    return _block(region.pointer.worker, _WORKER_NAMES)


def read_driver_counters(region: Region) -> CounterBlock:
    """Return what the driver counts for a slot."""
    return _block(region.pointer.driver, _DRIVER_NAMES)


def read_interface_counters(region: Region, number: int) -> dict[str, int]:
    """Return what the worker of a slot counts for an interface of the tables."""
    counters = region.pointer.interface[number]
    return {name: getattr(counters, name) for name in INTERFACE_COUNTERS}


def read_interfaces_counted(region: Region, count: int) -> list[int]:
    """Return what the worker of a slot counts for the first `count` interfaces: INTERFACE_COUNTERS of each, flat."""
    words = ffi.cast("uint64_t *", region.pointer.interface)
    found: list[int] = ffi.unpack(words, count * len(INTERFACE_COUNTERS))
    return found


def read_ports(region: Region) -> PortsSnapshot:
    """Return what the driver says of itself and of every port that is there."""
    ports = region.pointer
    copies = (
        (number, *_copy_port(ports.port[number])) for number in range(MAX_PORTS) if ports.port[number].state
    )
    return {
        "driver_pid": ports.driver_pid,
        "pool_free": ports.pool_free,
        "withheld": ports.withheld,
        "lcores": [_lcore(i, ports.lcore[i]) for i in range(MAX_LCORES) if ports.lcore[i].running],
        "ports": {number: _port(number, copy, whole) for number, copy, whole in copies},
    }


def port_counters(port: PortSnapshot) -> dict[str, int]:
    """Return PORT_COUNTERS of a port."""
    events = {"losses": port["losses"], "returns": port["returns"], "link_changes": port["link_changes"]}
    return port["stats"] | events


def _block(struct: Any, names: tuple[str, ...]) -> CounterBlock:
    words = ffi.unpack(ffi.cast("uint64_t *", ffi.addressof(struct)), len(names) + lib.HALO_DROP_LIMIT)
    counters = dict(zip(names, words, strict=False))
    counters.pop("reserved", None)
    return {"counters": counters, "drops": dict(zip(DROP_NAMES, words[len(names) :], strict=False))}


def _copy_port(status: Any) -> tuple[Any, bool]:
    """Return a private copy of a port's status, and whether it is whole: `updates` even and unchanged."""
    copy = ffi.new("struct halo_port_status *")
    for _ in range(COPY_ATTEMPTS):
        before = status.updates
        ffi.memmove(copy, ffi.addressof(status), ffi.sizeof("struct halo_port_status"))
        if before % 2 == 0 and status.updates == before:
            return copy, True
    return copy, False


def _port(number: int, status: Any, whole: bool) -> PortSnapshot:
    octets = min(status.xstat_count, lib.HALO_MAX_XSTATS) * _XSTAT.size
    xstats = _XSTAT.iter_unpack(ffi.buffer(ffi.addressof(status, "xstat"), octets))
    return {
        "port": number,
        "state": _name(PortState, status.state),
        "mode": _name(PortMode, status.mode),
        "device": _text(status.device),
        "driver": _text(status.driver),
        "mac": bytes(ffi.buffer(status.mac)),
        "mtu": status.mtu,
        "link_up": bool(status.link_up),
        "speed_mbps": status.speed_mbps,
        "full_duplex": bool(status.full_duplex),
        "promiscuous": bool(status.promiscuous),
        "has_rx_fd": bool(status.has_rx_fd),
        "rx_queues": status.rx_queues,
        "tx_queues": status.tx_queues,
        "spread_queues": status.spread_queues,
        "losses": status.losses,
        "returns": status.returns,
        "link_changes": status.link_changes,
        "stats": {name: getattr(status, name) for name in _PORT_STATS},
        "xstats": {_xstat_name(name): value for name, value in xstats},
        "whole": whole,
    }


@lru_cache(maxsize=4096)
def _xstat_name(octets: bytes) -> str:
    return octets.partition(b"\0")[0].decode("utf-8", "replace")


def _lcore(number: int, status: Any) -> LcoreSnapshot:
    counters = {name: getattr(status, name) for name in _LCORE_NAMES}
    return {"lcore": number, "place": _name(Place, status.place), **counters}


def _fill(index: Any) -> int:
    return int((index.producer - index.consumer) % 2**32)


@lru_cache(maxsize=256)
def _name(enum: type[SlotState | WorkerState | Place | PortState | PortMode], value: int) -> str:
    try:
        return enum(value).name.lower()
    except ValueError:
        return str(value)


def _text(field: Any) -> str:
    return bytes(ffi.string(field)).decode("utf-8", "replace")
