# SPDX-License-Identifier: Apache-2.0
"""From the configuration to what driver, workers and tables are told. Pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal, cast

from halo_mp.control.messages import (
    DriverConfigure,
    DriverPort,
    Idle,
    Privileges,
    ReadyPort,
    WorkerApp,
    WorkerConfigure,
    WorkerUser,
)
from halo_mp.shm.layout import NO_SLOT
from halo_mp.shm.tables import Interface, InterfaceFlag
from halo_mp.supervisor.config import Config, InterfaceConfig, PortConfig, SlotConfig, memory_mb

SPIN_NS = 100_000  # an idle worker polls this long before it sleeps: about one wake-up's cost, twice
SHARED_SPIN_NS = 10_000  # on a core that it shares


def driver_configure(config: Config, *, resuming: bool = False) -> DriverConfigure:
    """Return a driver's configuration; its descriptors are `Regions.driver_fds`."""
    return {
        "type": "configure",
        "instance": config.instance,
        "lcores": list(config.driver_cores),
        "main_cores": list(config.main_cores),
        "mem_channels": config.mem_channels,
        "hugepages": config.hugepages,
        "memory_mb": memory_mb(config),
        "vdevs": list(config.vdevs),
        "pcis": list(config.pcis),
        "eal": list(config.eal),
        "rx_checksum": config.rx_checksum,
        "tx_checksum": config.tx_checksum,
        "tx_only": config.tx_only,
        "idle": cast("Idle", config.idle),
        "debug_log": config.debug_log,
        "orphan_timeout_s": config.orphan_timeout_s,
        "resuming": resuming,
        "ports": _driver_ports(config),
        "slots": [
            {"slot": slot.number, "lcore": slot.lcore, "feeds": [*slot.feeds, *_twin_feeds(config, slot)]}
            for slot in config.slots
        ],
    }


def _driver_ports(config: Config) -> list[DriverPort]:
    """Return what the driver opens: the ports, and behind them the twins of those that the kernel shares."""
    ports: list[DriverPort] = [
        {
            "port": port.number,
            "device": port.device,
            "queues": port.queues,
            "spread": port.spread,
            "mtu": port.mtu,
            "promiscuous": port.promiscuous,
        }
        for port in config.ports
    ]
    twins: list[DriverPort] = [
        {
            "port": port.twin.port,
            "device": port.twin.device,
            "queues": 1,
            "spread": "auto",
            "mtu": port.mtu,
            "promiscuous": True,
        }
        for port in config.ports
        if port.twin
    ]
    return ports + twins


def _twin_feeds(config: Config, slot: SlotConfig) -> list[tuple[int, int]]:
    """Return what the kernel's side of ports adds to a slot: to the one that a port's lowest queue feeds."""
    twins = {port.number: port.twin.port for port in config.ports if port.twin}
    mine = sorted({port for port, _ in slot.feeds} & twins.keys())
    return [(twins[port], 0) for port in mine if home_slot(config, port) == slot.number]


def worker_configure(
    config: Config, slot: SlotConfig, privileges: Privileges, user: WorkerUser | None
) -> WorkerConfigure:
    """Return a worker's configuration; its descriptors are `Regions.worker_fds`."""
    return {
        "type": "configure",
        "slot": slot.number,
        "instance": config.instance,
        "idle": cast("Idle", config.idle),
        "spin_ns": _spin_ns(config, slot),
        "user": user,
        "privileges": privileges,
        "debug_log": config.debug_log,
        "orphan_timeout_s": config.orphan_timeout_s,
        "slots": [each.number for each in config.slots],
        "probe": config.probe,
        "icmp_rate": config.icmp_rate,
        "reachable_time_s": config.reachable_time_s,
        "macswap": sorted(config.macswap.items()),
        "twins": [(port.number, port.twin.port, port.twin.only or 0) for port in config.ports if port.twin],
        "ports": sorted({port for port, _ in slot.feeds}),
        "shared_ports": sorted(
            port for port in {port for port, _ in slot.feeds} if home_slot(config, port) != slot.number
        ),
        "app": _worker_app(config),
    }


def _spin_ns(config: Config, slot: SlotConfig) -> int:
    """Who polls on a core that others need takes it from those that it waits for."""
    tenants = [each.core for each in config.slots]
    tenants += [config.driver_cores[lcore] for lcore in {each.lcore for each in config.slots}]
    return SPIN_NS if tenants.count(slot.core) == 1 else SHARED_SPIN_NS


def _worker_app(config: Config) -> WorkerApp | None:
    app = config.app
    if app is None:
        return None
    return {
        "file": app.file,
        "module": app.module,
        "name": app.name,
        "directory": app.directory,
        "debug": app.debug,
    }


def spare_arguments(config: Config, privileges: Privileges, user: WorkerUser | None) -> list[str]:
    """Return what a spare worker is started with: to import an application, it gives up its privileges first."""
    app = config.app
    if app is None:
        return ["--spare"]
    found = ["--spare", "--app", app.text, "--app-dir", app.directory, "--privileges", privileges]
    if app.debug:
        found.append("--app-debug")
    return found if user is None else [*found, "--user", f"{user['uid']}:{user['gid']}"]


def stack_mac(instance: str, port: PortConfig, told: ReadyPort) -> bytes:
    """Return the MAC that our stack uses on a port.

    The kernel's side of a TAP carries the device's, so there ours is another one: locally administered, and the same
    at each start of the instance.
    """
    if port.mac is not None:
        return port.mac
    if told["driver"] != "net_tap":
        return told["mac"]
    digest = bytearray(hashlib.sha256(f"{instance}:{port.number}".encode()).digest()[:6])
    digest[0] = digest[0] & 0xFE | 0x02  # an individual address, locally administered
    return bytes(digest)


def interfaces(
    config: Config, ready: Mapping[int, ReadyPort], wanted: Iterable[InterfaceConfig] | None = None
) -> dict[int, Interface]:
    """Return the interfaces of every port that the driver has started, by their numbers.

    `wanted` is what they are to be at present, by default as configured.
    """
    ports = {port.number: port for port in config.ports}
    return {
        each.number: Interface(
            port=each.port,
            vlan=each.vlan,
            mac=stack_mac(config.instance, ports[each.port], ready[each.port]),
            mtu=min(each.mtu, ready[each.port]["mtu"]),
            addresses=tuple((entry.address, entry.prefix_length) for entry in each.addresses),
            home_slot=home_slot(config, each.port),
            flags=interface_flags(each),
        )
        for each in (config.interfaces if wanted is None else wanted)
        if each.port in ready
    }


def interface_flags(interface: InterfaceConfig) -> InterfaceFlag:
    """Return an interface's flags as the tables have them."""
    flags = InterfaceFlag.NONE
    for name in ("up", "forward", "directed_broadcast", "proxy_arp", "redirects"):
        if getattr(interface, name):
            flags |= InterfaceFlag[name.upper()]
    return flags


def home_slot(config: Config, port: int) -> int:
    """Return the slot whose worker resolves the neighbors behind a port: the one that its lowest queue feeds.

    NO_SLOT where no queue feeds any: nobody there would hear an answer.
    """
    feeds = [(feed, slot.number) for slot in config.slots for feed in slot.feeds if feed[0] == port]
    return min(feeds)[1] if feeds else NO_SLOT


def role_name(role: Literal["driver", "worker"], slot: int | None) -> str:
    """Return what a process is called in sentences."""
    return "the driver" if role == "driver" else f"the worker of slot {slot}"
