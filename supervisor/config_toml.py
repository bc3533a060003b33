# SPDX-License-Identifier: Apache-2.0
"""From a configuration back to the file that gives it: what `config_file` and `config.build` make a Config of.

Everything is written down, defaults too, so that the same comes of it wherever it is read. Pure functions.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address

from halo_mp.shm.tables import interface_name
from halo_mp.supervisor.config_model import (
    Config,
    HopConfig,
    InterfaceConfig,
    NeighborConfig,
    PortConfig,
)
from halo_mp.supervisor.config_pool import PAGE_SIZES

Value = bool | int | float | str | Sequence[int] | Sequence[str]


def settings(config: Config) -> list[str]:
    """Return a file's tables for all but routes, a text for each; `config` as it is, not as it was started."""
    tables: dict[str, Mapping[str, Value | None]] = {
        "instance": _instance(config),
        "application": _application(config),
        "devices": _devices(config),
        "routing": _routing(config),
        "cores": {
            "workers": [slot.core for slot in config.slots],
            "driver": config.driver_cores,
            "idle": config.idle,
        },
        "memory": _memory(config),
        "packets": {
            "rx_checksum": config.rx_checksum,
            "tx_checksum": config.tx_checksum,
            "tx_only": config.tx_only,
        },
        "logs": {
            "stats": config.stats_log,
            "debug": config.debug_log,
            "level": config.log_level,
            "format": config.log_format,
        },
    }
    for port in config.ports:
        tables[f"ports.{port.number}"] = _port(port, config)
    for slot in config.slots:
        tables[f"slots.{slot.number}"] = {"feeds": [f"{port}.{queue}" for port, queue in slot.feeds]}
    for interface in config.interfaces:
        name = f'"{interface.name}"' if interface.vlan else interface.name
        tables[f"interfaces.{name}"] = _interface(interface)
    if config.app is None:
        del tables["application"]
    return [
        *(_table(f"[{name}]", content) for name, content in tables.items()),
        *map(neighbor, config.neighbors),
    ]


def neighbor(entry: NeighborConfig) -> str:
    """Return the table of a static neighbor."""
    content: Mapping[str, Value] = {
        "interface": interface_name(entry.port, entry.vlan),
        "address": str(IPv4Address(entry.address)),
        "mac": entry.mac.hex(":"),
    }
    return _table("[[neighbors]]", content)


def route(prefix: str, hops: Iterable[HopConfig]) -> str:
    """Return the table of a route."""
    return _table("[[routes]]", {"prefix": prefix, "via": [str(hop) for hop in hops]})


def _instance(config: Config) -> Mapping[str, Value | None]:
    count, seconds = config.restart_limit
    return {
        "name": config.instance,
        "ports": [port.number for port in config.ports],
        "user": config.user,
        "control_group": config.control_group,
        "spare": "auto" if config.spares is None else config.spares,
        "restart_limit": f"{count}/{seconds!r}",
        "hang_timeout": config.hang_timeout_s,
        "orphan_timeout": config.orphan_timeout_s,
        "adopt": config.adopt,
    }


def _application(config: Config) -> Mapping[str, Value | None]:
    app = config.app
    return {"app": app.text, "directory": app.directory, "debug": app.debug} if app else {}


def _devices(config: Config) -> Mapping[str, Value | None]:
    """Return what ports are made of; of TAPs of our own, and of the kernel's share of a port, nothing is said."""
    first = config.ports[0]
    twins = {port.twin.device for port in config.ports if port.twin}
    named = [vdev for vdev in config.vdevs if vdev.partition(",")[0] not in twins]
    embedded = any(port.tap for port in config.ports)
    return {
        "pci": config.pcis or None,
        "vdev": None if embedded or not named else named,
        "queues": first.queues,
        "spread": first.spread,
        "promiscuous": first.promiscuous,
    }


def _routing(config: Config) -> Mapping[str, Value | None]:
    return {
        "probe": config.probe,
        "icmp_rate": config.icmp_rate,
        "reachable_time": config.reachable_time_s,
        "ecmp_seed": config.ecmp_seed,
    }


def _memory(config: Config) -> Mapping[str, Value | None]:
    sizes = {size: name for name, size in PAGE_SIZES.items()}
    pages = "auto" if config.hugepages_auto else sizes.get(config.hugepages or 0, "off")
    return {
        "ring_size": config.ring_size,
        "pool_size": config.pool_size,
        "hugepages": pages,
        "mem_channels": config.mem_channels,
        "eal": [shlex.quote(word) for word in config.eal] or None,
    }


def _port(port: PortConfig, config: Config) -> Mapping[str, Value | None]:
    kernel: Value | None = None
    if port.twin is not None:
        kernel = True if port.twin.only is None else str(IPv4Address(port.twin.only))
    return {
        "mac": port.mac.hex(":") if port.mac else None,
        "mtu": port.mtu,
        "macswap": config.macswap.get(port.number),
        "kernel": kernel,
    }


def _interface(interface: InterfaceConfig) -> Mapping[str, Value]:
    return {
        "addresses": list(map(str, interface.addresses)),
        "mtu": interface.mtu,
        "up": interface.up,
        "forward": interface.forward,
        "proxy_arp": interface.proxy_arp,
        "directed_broadcast": interface.directed_broadcast,
        "redirects": interface.redirects,
    }


def _table(head: str, content: Mapping[str, Value | None]) -> str:
    lines = [f"{key} = {_value(value)}" for key, value in content.items() if value is not None]
    return "\n".join([head, *lines, "", ""])


def _value(value: Value) -> str:
    """Return a value as TOML has it, which for these is as JSON has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return "[" + ", ".join(map(_value, value)) + "]"
