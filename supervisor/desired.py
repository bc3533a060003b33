# SPDX-License-Identifier: Apache-2.0
"""The desired state of an instance: saved by its supervisor, so that the next one goes on with it.

A configuration as plain values and back, and what differs between the one that runs and the one that is asked for.
Pure functions.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, Union

from halo_mp.supervisor.config_model import Config, PortConfig

T = TypeVar("T")

CHANGEABLE = frozenset(
    {
        "adopt",
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
    "data_octets": "--mtu",
    "driver_cores": "--driver-cores",
    "main_cores": "--driver-cores",
    "pcis": "--pci",
    "ports": "--ports",
    "slots": "--slot, --queues, --cores",
    "vdevs": "--vdev",
}
_PORT_FLAGS = {
    "addresses": "--address",
    "device": "--vdev, --pci",
    "mac": "--mac",
    "mtu": "--mtu",
    "promiscuous": "--promiscuous",
    "queues": "--queues",
    "tap": "--address",
}


def to_plain(value: object) -> Any:
    """Return a value of dataclasses, maps and sequences as what msgpack can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [to_plain(entry) for entry in value]
    return value


def from_plain(kind: type[T], plain: object) -> T:
    """Return the dataclass that `to_plain` was given. Raises ValueError when it is not of that kind."""
    found: T = _read(kind, plain)
    return found


def with_changes(running: Config, wanted: Config) -> Config:
    """Return what an instance that runs becomes: as it is, and what may change as it is asked for."""
    changes = {name: getattr(wanted, name) for name in CHANGEABLE - {"hugepages_auto", "warnings"}}
    return dataclasses.replace(running, **changes)


def differences(running: Config, wanted: Config) -> list[str]:
    """Return a phrase for each flag that can not change while the instance runs, and differs."""
    found = []
    for field in dataclasses.fields(Config):
        mine, asked = getattr(running, field.name), getattr(wanted, field.name)
        if mine == asked or field.name in CHANGEABLE:
            continue
        if field.name == "hugepages" and wanted.hugepages_auto:
            continue  # whatever there was when it started: by now they are taken, by itself
        if field.name == "ports" and len(mine) == len(asked):
            found += [phrase for pair in zip(mine, asked, strict=True) for phrase in _port_differences(*pair)]
        else:
            found.append(_phrase(_flag(field.name), mine, asked))
    return found


def _port_differences(running: PortConfig, wanted: PortConfig) -> list[str]:
    if running.number != wanted.number:
        return [_phrase("--ports", running.number, wanted.number)]
    return [
        _phrase(f"{_PORT_FLAGS[field.name]} of port {running.number}", mine, asked)
        for field in dataclasses.fields(PortConfig)
        if (mine := getattr(running, field.name)) != (asked := getattr(wanted, field.name))
    ]


def _phrase(flag: str, running: object, wanted: object) -> str:
    return f"{flag}: it runs with {_text(running)}, this asks for {_text(wanted)}"


def _text(value: object) -> str:
    plain = to_plain(value)
    return "none" if plain in (None, [], {}, "") else str(plain)


def _flag(name: str) -> str:
    return _FLAGS.get(name, "--" + name.removesuffix("_s").replace("_", "-"))


def _read(kind: Any, plain: Any) -> Any:
    """Return a plain value as what a type says; the types are those that config_model uses."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _read_optional(arguments, plain)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, plain)
    if origin is tuple:
        return _read_tuple(arguments, plain)
    if origin is dict:
        if not isinstance(plain, dict):
            raise ValueError(f"{plain!r:.40} is no map")
        return {_read(arguments[0], key): _read(arguments[1], entry) for key, entry in plain.items()}
    if kind is float and type(plain) is int:
        return float(plain)
    if type(plain) is not kind:
        raise ValueError(f"{plain!r:.40} is no {kind.__name__}")
    return plain


def _read_optional(kinds: tuple[Any, ...], plain: Any) -> Any:
    if plain is None and type(None) in kinds:
        return None
    [kind] = [each for each in kinds if each is not type(None)]
    return _read(kind, plain)


def _read_dataclass(kind: Any, plain: Any) -> Any:
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(plain, dict) or set(plain) != names:
        raise ValueError(f"{plain!r:.40} is no {kind.__name__}")
    return kind(**{name: _read(hints[name], plain[name]) for name in names})


def _read_tuple(kinds: tuple[Any, ...], plain: Any) -> tuple[Any, ...]:
    if not isinstance(plain, list | tuple):
        raise ValueError(f"{plain!r:.40} is no sequence")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_read(kinds[0], entry) for entry in plain)
    if len(kinds) != len(plain):
        raise ValueError(f"{plain!r:.40} has not {len(kinds)} entries")
    return tuple(_read(kind, entry) for kind, entry in zip(kinds, plain, strict=True))
