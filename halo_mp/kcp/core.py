# SPDX-License-Identifier: Apache-2.0
"""One KCP session alone: `struct halo_kcp` of native/kcp, sans-I/O. Times are milliseconds of any clock, modulo 2**32.

The session owns its memory and frees it with itself. What comes from outside may be any octets: `input` judges them and
never raises for what they are.
"""

from __future__ import annotations

import os
from enum import IntEnum
from typing import Any, Final, Protocol

from halo_mp._native import ffi, lib

NO_DEADLINE: Final = 0x7FFFFFFF
CLOCK_MASK: Final = 0xFFFFFFFF

ENDS: Final = ("alive", "dead link", "closed")
COUNTERS: Final = tuple(name for name, _ in ffi.typeof("struct halo_kcp_counters").fields)
INFO: Final = tuple(name for name, _ in ffi.typeof("struct halo_kcp_info").fields)


class Fields(Protocol):
    """What settings are told by: something that can write them to a `struct halo_kcp_settings`."""

    def emit(self, pointer: Any) -> None:
        """Write each field."""


class Verdict(IntEnum):
    """What `input` says of a datagram, by the numbers of `enum halo_kcp_verdict`."""

    TAKEN = 0
    BAD_CONV = -1
    BAD_LENGTH = -2
    BAD_COMMAND = -3
    BAD_CHECK = -4
    ENDED = -5


def default_settings() -> Any:
    """A new `struct halo_kcp_settings` with the reference's values."""
    settings = ffi.new("struct halo_kcp_settings *")
    lib.halo_kcp_settings_default(settings)
    return settings


class Session:
    """A session. Raises ValueError for settings that can not be, MemoryError."""

    __slots__ = ("_kcp", "_output")

    def __init__(self, settings: Fields, conv: int) -> None:
        pointer = default_settings()
        settings.emit(pointer)
        wrong = lib.halo_kcp_settings_check(pointer)
        if wrong != ffi.NULL:
            name = ffi.string(wrong).decode()
            raise ValueError(f"the setting {name} can not be {getattr(pointer, name)}")
        most = 0xFFFFFFFF if pointer.format == lib.HALO_KCP_CLASSIC else 0xFFFFFFFFFFFFFFFF
        if not 0 <= conv <= most:
            raise ValueError(f"the conv {conv} is not in 0 to {most}")
        self._own(lib.halo_kcp_create(conv, pointer))

    def _own(self, kcp: Any) -> None:
        if kcp == ffi.NULL:
            raise MemoryError("no memory for a KCP session")
        self._kcp = ffi.gc(kcp, lib.halo_kcp_free)
        self._output = ffi.gc(ffi.new("struct halo_kcp_output *"), lib.halo_kcp_output_free)

    @property
    def pointer(self) -> Any:
        """The `struct halo_kcp *`, which stays the session's."""
        return self._kcp

    def send(self, octets: bytes | bytearray | memoryview) -> int:
        """Write a message, or octets in stream mode. Raises OSError: EMSGSIZE, EPIPE when ended, ENOBUFS, ENOMEM."""
        buffer = ffi.from_buffer(octets)
        return _checked(lib.halo_kcp_send(self._kcp, buffer, len(buffer)))

    def peek(self) -> int | None:
        """Octets of the next message, or of all there is in stream mode; None: there is none."""
        size = lib.halo_kcp_peek(self._kcp)
        return None if size < 0 else size

    def receive(self, room: int | None = None) -> bytes | None:
        """The next message, or in stream mode at most `room` octets; None: there is none yet."""
        size = self.peek()
        if size is None:
            return None
        buffer = ffi.new("uint8_t[]", size if room is None else min(size, room))
        length = _checked(lib.halo_kcp_receive(self._kcp, buffer, len(buffer)))
        return bytes(ffi.buffer(buffer, length))

    def input(self, octets: bytes | bytearray | memoryview, now_ms: int) -> int:
        """Take in one datagram; return a Verdict."""
        buffer = ffi.from_buffer(octets)
        return lib.halo_kcp_input(self._kcp, buffer, len(buffer), now_ms & CLOCK_MASK)

    def poll(self, now_ms: int) -> list[bytes]:
        """Return the datagrams that are to be sent now."""
        output = self._output
        lib.halo_kcp_output_clear(output)
        count = lib.halo_kcp_poll(self._kcp, now_ms & CLOCK_MASK, output)
        datagram = output.datagram
        return [bytes(ffi.buffer(datagram[i].octets, datagram[i].length)) for i in range(count)]

    def next_deadline(self, now_ms: int) -> int | None:
        """Milliseconds until `poll` wants to be called; None: not before something else happens."""
        wait = lib.halo_kcp_next(self._kcp, now_ms & CLOCK_MASK)
        return None if wait == NO_DEADLINE else wait

    def probe(self) -> None:
        """Ask the peer for its window with the next poll, so that it answers."""
        lib.halo_kcp_probe(self._kcp)

    def close(self) -> None:
        """End it here; nothing is said to the peer."""
        lib.halo_kcp_close(self._kcp)

    @property
    def waiting(self) -> int:
        """Segments written that are not yet acknowledged."""
        return lib.halo_kcp_waiting(self._kcp)

    @property
    def end(self) -> str | None:
        """Why it has ended; None: it has not."""
        end = self.info()["end"]
        return ENDS[end] if end else None

    def counters(self) -> dict[str, int]:
        """The fields of `struct halo_kcp_counters`."""
        counters = ffi.new("struct halo_kcp_counters *")
        lib.halo_kcp_counters_read(self._kcp, counters)
        return {name: getattr(counters, name) for name in COUNTERS}

    def info(self) -> dict[str, int]:
        """The fields of `struct halo_kcp_info`."""
        info = ffi.new("struct halo_kcp_info *")
        lib.halo_kcp_info_read(self._kcp, info)
        return {name: getattr(info, name) for name in INFO}

    def export(self) -> bytes:
        """The whole state, for `import_` in a successor on the same machine with the same clock."""
        length = lib.halo_kcp_export(self._kcp, ffi.NULL, 0)
        buffer = ffi.new("uint8_t[]", length)
        lib.halo_kcp_export(self._kcp, buffer, length)
        return bytes(ffi.buffer(buffer))

    @classmethod
    def import_(cls, octets: bytes) -> Session:
        """The session that `export` saved. Raises ValueError for octets that are not one."""
        kcp = lib.halo_kcp_import(ffi.from_buffer(octets), len(octets))
        if kcp == ffi.NULL:
            raise ValueError(f"{len(octets)} octets that are no exported KCP session, or no memory for it")
        session = cls.__new__(cls)
        session._own(kcp)
        return session


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result
