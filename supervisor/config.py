# SPDX-License-Identifier: Apache-2.0
"""From flags to the configuration of an instance.

`build` looks at everything before it complains, and complains of everything at once. It starts nothing and,
but for the cores and hugepages that defaults depend on, looks at nothing outside the flags: whether the
machine can do what is asked is the matter of `checks`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial

from halo_mp.shm.pool import PoolGeometry
from halo_mp.supervisor import config_pool as pool
from halo_mp.supervisor import config_values as values
from halo_mp.supervisor.config_app import plan_app
from halo_mp.supervisor.config_eal import eal_words
from halo_mp.supervisor.config_model import (
    AddressConfig,
    AppConfig,
    Config,
    HopConfig,
    InterfaceConfig,
    Machine,
    NeighborConfig,
    PortConfig,
    RouteConfig,
    SlotConfig,
    TapConfig,
    TwinConfig,
)
from halo_mp.supervisor.config_pool import memory_mb, pool_geometry
from halo_mp.supervisor.config_ports import PortPlan, plan_ports
from halo_mp.supervisor.config_reader import FlagReader
from halo_mp.supervisor.config_routes import plan_neighbors, plan_routes
from halo_mp.supervisor.config_slots import SlotPlan, plan_slots

__all__ = [
    "AddressConfig",
    "AppConfig",
    "Config",
    "HopConfig",
    "InterfaceConfig",
    "Machine",
    "NeighborConfig",
    "PortConfig",
    "RouteConfig",
    "SlotConfig",
    "TapConfig",
    "TwinConfig",
    "build",
    "memory_mb",
    "pool_geometry",
]

IDLE_POLICIES = ("adaptive", "poll", "sleep")
LOG_LEVELS = ("info", "debug", "warning", "error")
LOG_FORMATS = ("text", "json")
HUGEPAGES = ("off", "auto", *pool.PAGE_SIZES)
LEAST_RING_SIZE = 64
MOST_RING_SIZE = 1 << 20
MOST_SPARES = 8
MOST_ICMP_RATE = 1_000_000
MOST_REACHABLE_TIME_S = 3600.0
"""RFC 4861 section 6.2.1 (AdvReachableTime)."""
LEAST_HANG_TIMEOUT_S = 1.0
"""A worker shows a sign of life at least each 250 ms; a limit near that would kill healthy ones."""


def build(flags: argparse.Namespace, machine: Machine | None = None) -> Config:
    """Return the configuration that flags stand for; `flags` is what `arguments.parse` returns.

    Raises UsageError with one sentence, on a line of its own, for each thing that is wrong.
    """
    machine = machine or Machine.here()
    reader = FlagReader(flags)
    instance = reader.one("--name", values.instance_name, otherwise="default")
    ports = plan_ports(reader, instance, promiscuous=flags.promiscuous, forward=not flags.no_forward)
    slots = plan_slots(reader, ports.ports, machine.cores)
    memory = _plan_memory(reader, ports, slots, machine)
    config = Config(
        instance=instance,
        ports=ports.ports,
        interfaces=ports.interfaces,
        routes=plan_routes(reader, ports.interfaces),
        routes_file=reader.one("--routes-file", values.file, otherwise=None),
        neighbors=plan_neighbors(reader, ports.interfaces),
        probe=flags.probe,
        icmp_rate=reader.number("--icmp-rate", 0, MOST_ICMP_RATE, example="1000", otherwise=0),
        reachable_time_s=reader.seconds(
            "--reachable-time", 1.0, MOST_REACHABLE_TIME_S, example="30", otherwise=1.0
        ),
        ecmp_seed=reader.number("--ecmp-seed", 0, (1 << 32) - 1, example="7", otherwise=None),
        slots=slots.slots,
        driver_cores=slots.driver_cores,
        main_cores=slots.main_cores,
        vdevs=ports.vdevs,
        pcis=ports.pcis,
        eal=tuple(word for words in reader.each("--eal", eal_words) for word in words),
        mem_channels=reader.number("--mem-channels", 1, 32, example="4", otherwise=None),
        pool_size=memory.pool_size,
        ring_size=memory.ring_size,
        hugepages=memory.hugepages,
        hugepages_auto=flags.hugepages == "auto",
        data_octets=memory.data_octets,
        rx_checksum=flags.rx_checksum,
        tx_checksum=flags.tx_checksum,
        tx_only=flags.tx_only,
        idle=reader.choice("--idle", IDLE_POLICIES),
        stats_log=reader.seconds("--stats-log", 0.1, example="1", otherwise=None),
        debug_log=flags.debug_log,
        control_group=reader.one("--control-group", values.group, otherwise=None),
        user=reader.one("--user", values.user, otherwise=None),
        log_level=reader.choice("--log-level", LOG_LEVELS),
        log_format=reader.choice("--log-format", LOG_FORMATS),
        restart_limit=reader.one("--restart-limit", values.restart_limit, otherwise=(0, 1.0)),
        hang_timeout_s=reader.seconds("--hang-timeout", LEAST_HANG_TIMEOUT_S, example="10", otherwise=1.0),
        orphan_timeout_s=reader.seconds("--orphan-timeout", 0.0, example="60", otherwise=0.0),
        adopt=not flags.no_adopt,
        app=plan_app(reader, debug=flags.app_debug),
        macswap=_macswap(reader, ports, flags.tx_only),
        spares=_spares(reader),
        warnings=(*slots.warnings, *memory.warnings),
    )
    reader.report()
    return config


@dataclass(frozen=True, slots=True)
class _MemoryPlan:
    pool_size: int
    ring_size: int
    data_octets: int
    hugepages: int | None
    warnings: tuple[str, ...]


def _plan_memory(reader: FlagReader, ports: PortPlan, slots: SlotPlan, machine: Machine) -> _MemoryPlan:
    """Return the sizes of rings and pool, and the pages under it."""
    parser = partial(values.power_of_two, low=LEAST_RING_SIZE, high=MOST_RING_SIZE, example="16384")
    ring_size = reader.one("--ring-size", parser, otherwise=LEAST_RING_SIZE)
    data = pool.data_octets(max((port.mtu for port in ports.ports), default=0))
    queues = sum(port.device_queues for port in ports.ports)
    needs = pool.PoolNeeds(slots=len(slots.slots), port_queues=queues, lcores=len(slots.driver_cores))
    size, warnings = _pool_size(reader, needs, ring_size, data)
    eal = pool.eal_mb(PoolGeometry(size, data), pool.copying_queues(ports.ports, ports.vdevs))
    hugepages = _hugepages(reader, PoolGeometry(size, data), eal, bool(ports.pcis), machine)
    return _MemoryPlan(size, ring_size, data, hugepages, warnings)


def _hugepages(
    reader: FlagReader, geometry: PoolGeometry, eal: int, dma: bool, machine: Machine
) -> int | None:
    """Return the size of the pages to use, or None for ordinary ones."""
    wanted = reader.choice("--hugepages", HUGEPAGES)
    if wanted == "off" and dma:
        sentence = "--hugepages off: a PCI device reads and writes buffers by DMA and needs them in hugepages"
        reader.refuse("--hugepages", f"{sentence}; write --hugepages auto, or leave it out.")
    if wanted != "auto":
        return pool.PAGE_SIZES.get(wanted)
    chosen = pool.choose_pages(geometry, eal, machine.free_pages)
    # A PCI device cannot do without: ask for the usual size, so that checks say how many are missing.
    return chosen or (pool.PAGE_SIZES["2M"] if dma else None)


def _pool_size(
    reader: FlagReader, needs: pool.PoolNeeds, ring_size: int, data: int
) -> tuple[int, tuple[str, ...]]:
    """Return the buffers of the pool, and what there is to say about too few of them."""
    default, least, most = needs.default(ring_size), needs.least(), pool.largest_pool_size(data)
    size = reader.number("--pool-size", 1, (1 << 31) - 1, example=str(default), otherwise=default)
    if not reader.sound("--pool-size", "--ring-size", "--ports", "--queues", "--slot", "--vdev", "--pci"):
        return least, ()  # a size to go on with; nothing is concluded from it
    if size < least:
        sentence = f"--pool-size {size}: {needs} need at least {least} buffers"
        reader.refuse("--pool-size", f"{sentence}; write --pool-size {least}.")
    elif size > most and reader.given("--pool-size"):
        sentence = (
            f"--pool-size {size}: a pool has to stay below 4 GiB, so at most {most} buffers of this size fit"
        )
        reader.refuse("--pool-size", f"{sentence}; write --pool-size {most}.")
    elif size > most:
        sentence = f"--ring-size {ring_size}: full rings of {needs} would hold {size} buffers"
        fitting = needs.largest_ring(most)
        reader.refuse("--ring-size", f"{sentence}, and below 4 GiB fit {most}; write --ring-size {fitting}.")
    elif size < default and needs.slots > 1:
        sentence = f"The pool of {size} buffers is smaller than what full rings hold, {default}: each slot"
        share = f"may have {needs.share(size)} of them, and drops what comes beyond that"
        return size, (f"{sentence} {share}; --pool-size {default} prevents that.",)
    return min(max(size, least), most), ()


def _spares(reader: FlagReader) -> int | None:
    """Return how many spare workers are asked for; None: as memory allows."""
    parser = partial(values.spares, high=MOST_SPARES)
    return reader.one("--spare", parser, otherwise=None)


def _macswap(reader: FlagReader, ports: PortPlan, tx_only: bool) -> dict[int, int]:
    """Return which port's frames leave by which other."""
    found: dict[int, int] = {}
    numbers = [port.number for port in ports.ports]
    for port, out in reader.each("--macswap", values.macswap):
        missing = [each for each in (port, out) if each not in numbers]
        if missing and reader.sound("--ports", "--pci", "--vdev"):
            listed = ", ".join(map(str, numbers))
            sentence = f"--macswap {port}={out}: port {missing[0]} is not one of the ports, {listed}"
            reader.refuse("--macswap", f"{sentence}; add it to --ports.")
        elif port in found:
            sentence = f"--macswap: frames of port {port} would leave by port {found[port]} and by port {out}"
            reader.refuse("--macswap", f"{sentence}; name each port once on the left.")
        found[port] = out
    shared = {port.number for port in ports.ports if port.twin}
    for port in sorted(shared & (found.keys() | set(found.values()))):
        sentence = f"--macswap: port {port} is shared with the kernel by --kernel, which needs its frames"
        reader.refuse("--macswap", f"{sentence}; leave one of the two out.")
    if found and tx_only:
        sentence = "--tx-only: a port that receives nothing has nothing for --macswap to send on"
        reader.refuse("--tx-only", f"{sentence}; leave one of the two out.")
    return found
