# SPDX-License-Identifier: Apache-2.0
"""Frames of the control protocols: 4 octets of length, big-endian, then one msgpack map of at most 64 KiB.

A map has a `type`, string keys without repetition, and at most 12 levels. Anything else is refused:
extension types, other keys, text that is no UTF-8, a second object behind the first. No I/O here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

MAX_FRAME_OCTETS = 64 << 10
MAX_DEPTH = 12
MAX_FDS = 192  # a driver's configuration: 3, 2 for each slot, 1 for each lcore; the kernel's limit is 253
LENGTH_OCTETS = 4

Message = dict[str, Any]

_TEXT = {str}


class FrameError(ValueError):
    """What came is no frame of this protocol."""


def emit(message: Mapping[str, Any]) -> bytes:
    """Return a message as a frame. Raises ValueError when it is too long: send tables in chunks."""
    body: bytes = msgpack.packb(message, use_bin_type=True)
    if len(body) > MAX_FRAME_OCTETS:
        raise ValueError(
            f"message {message.get('type')!r} has {len(body)} octets, more than {MAX_FRAME_OCTETS}"
        )
    return len(body).to_bytes(LENGTH_OCTETS, "big") + body


def parse_length(octets: bytes | bytearray) -> int:
    """Return how long the body will be. Raises FrameError when it may not be that long."""
    length = int.from_bytes(octets[:LENGTH_OCTETS], "big")
    if not 0 < length <= MAX_FRAME_OCTETS:
        raise FrameError(f"a frame of {length} octets; 1 to {MAX_FRAME_OCTETS} are allowed")
    return length


def parse_body(octets: bytes) -> Message:
    """Return the message. Raises FrameError and nothing else."""
    try:
        message = msgpack.unpackb(
            octets,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_map,
            ext_hook=_refuse_extension,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise FrameError(f"not one msgpack map: {type(error).__name__} {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise FrameError("not a map with a type")
    _check_depth(message)
    fds = message.get("fds", 0)
    if type(fds) is not int or not 0 <= fds <= MAX_FDS:
        raise FrameError(f"fds is {fds!r}; 0 to {MAX_FDS} are allowed")
    return message


def _map(pairs: list[tuple[Any, Any]]) -> Message:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is there twice")
    if not _TEXT.issuperset(map(type, result)):
        raise ValueError("a key is no string")
    return result


def _refuse_extension(code: int, _octets: bytes) -> None:
    raise ValueError(f"extension type {code}")


def _check_depth(message: Message) -> None:
    level: list[Any] = [message]
    for _ in range(MAX_DEPTH):
        values = (value.values() if type(value) is dict else value for value in level)
        level = [item for inner in values for item in inner if type(item) is list or type(item) is dict]
        if not level:
            return
    raise FrameError(f"nested deeper than {MAX_DEPTH} levels")
