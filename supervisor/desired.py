# SPDX-License-Identifier: Apache-2.0
"""The desired state of an instance: saved by its supervisor, so that the next one goes on with it.

What differs between the configuration that runs and the one that is asked for, and what may. Pure functions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence

from halo_mp.plain import to_plain
from halo_mp.shm.tables import interface_name
from halo_mp.supervisor.config_model import (
    AddressConfig,
    Config,
    InterfaceConfig,
    PortConfig,
    RouteConfig,
)

CHANGEABLE = frozenset(
    {
        "adopt",
        "control_group",
        "hang_timeout_s",
        "hugepages_auto",
        "log_format",
        "log_level",
        "orphan_timeout_s",
        "restart_limit",
        "spares",
        "stats_log",
        "warnings",
    }
)
"""What a supervisor may change of an instance that runs: it concerns the supervisor, or what it starts from now on."""

_FLAGS = {
    "app": "--app, --app-dir, --app-debug",
    "data_octets": "--mtu",
    "instance": "--name",
    "spares": "--spare",
    "neighbors": "--neighbor",
    "routes": "--route",
    "driver_cores": "--driver-cores",
    "main_cores": "--driver-cores",
    "pcis": "--pci",
    "ports": "--ports",
    "slots": "--slot, --queues, --cores",
    "vdevs": "--vdev",
}
_PORT_FLAGS = {
    "device": "--vdev, --pci",
    "mac": "--mac",
    "mtu": "--mtu",
    "promiscuous": "--promiscuous",
    "queues": "--queues",
    "spread": "--spread",
    "twin": "--kernel",
}
_INTERFACE_FLAGS = {
    "addresses": "--address",
}


def with_changes(running: Config, wanted: Config) -> Config:
    """Return what an instance that runs becomes: as it is, and what may change as it is asked for."""
    changes = {name: getattr(wanted, name) for name in CHANGEABLE - {"hugepages_auto", "warnings"}}
    return dataclasses.replace(running, **changes)


def differences(running: Config, wanted: Config, changeable: Collection[str] = CHANGEABLE) -> list[str]:
    """Return a phrase for each flag that can not change while the instance runs, and differs.

    `changeable` may: by default what may when another supervisor takes it over.
    """
    found = []
    for field in dataclasses.fields(Config):
        mine, asked = getattr(running, field.name), getattr(wanted, field.name)
        if mine == asked or field.name in changeable:
            continue
        if field.name == "hugepages" and wanted.hugepages_auto:
            continue  # whatever there was when it started: by now they are taken, by itself
        if field.name == "ports" and len(mine) == len(asked):
            found += [phrase for pair in zip(mine, asked, strict=True) for phrase in _port_differences(*pair)]
        elif field.name == "interfaces":
            found += _interface_differences(mine, asked)
        else:
            found.append(_phrase(_flag(field.name), mine, asked))
    return list(dict.fromkeys(found))


def _port_differences(running: PortConfig, wanted: PortConfig) -> list[str]:
    if running.number != wanted.number:
        return [_phrase("--ports", running.number, wanted.number)]
    return [
        _phrase(f"{_PORT_FLAGS[field.name]} of port {running.number}", mine, asked)
        for field in dataclasses.fields(PortConfig)
        if field.name != "tap"  # follows from the interface's addresses
        if (mine := getattr(running, field.name)) != (asked := getattr(wanted, field.name))
    ]


def _interface_differences(
    running: Sequence[InterfaceConfig], wanted: Sequence[InterfaceConfig]
) -> Iterator[str]:
    mine, asked = ({each.key: each for each in side} for side in (running, wanted))
    for key in sorted(mine.keys() ^ asked.keys()):
        if key[1]:  # of ports the difference is told by --ports
            yield _phrase(f"--vlan {interface_name(*key)}", key in mine, key in asked)
    for key in mine.keys() & asked.keys():
        for field in dataclasses.fields(InterfaceConfig):
            ours, theirs = getattr(mine[key], field.name), getattr(asked[key], field.name)
            if ours != theirs and field.name == "forward":
                yield _phrase("--no-forward", not ours, not theirs)
            elif ours != theirs and field.name != "number":
                flag = _INTERFACE_FLAGS.get(field.name) or _flag(field.name)
                yield _phrase(f"{flag} of port {mine[key].name}", ours, theirs)


def _phrase(flag: str, running: object, wanted: object) -> str:
    return f"{flag}: it runs with {_text(running)}, this asks for {_text(wanted)}"


def _text(value: object) -> str:
    if (
        isinstance(value, tuple)
        and value
        and all(isinstance(each, AddressConfig | RouteConfig) for each in value)
    ):
        return ", ".join(map(str, value))
    plain = to_plain(value)
    return "none" if plain in (None, [], {}, "") else str(plain)


def _flag(name: str) -> str:
    return _FLAGS.get(name, "--" + name.removesuffix("_s").replace("_", "-"))
