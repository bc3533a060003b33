# SPDX-License-Identifier: Apache-2.0
"""Dataclasses as plain values that msgpack and JSON can hold, and back. Pure functions.

Reading is strict: what was written by another version, or by nobody, is refused.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

T = TypeVar("T")


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


def _read(kind: Any, plain: Any) -> Any:
    """Return a plain value as what a type says; not of every type, but of those that our dataclasses use."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _read_optional(arguments, plain)
    if origin is Literal:
        if plain not in arguments:
            raise ValueError(f"{plain!r:.40} is none of {arguments}")
        return plain
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
