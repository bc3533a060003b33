# SPDX-License-Identifier: Apache-2.0
"""Hooks of the fast path, and frames put in at a stage: what chain_def.h says, as an object.

Hot path. Rules: no object per packet; nothing here logs or blocks. What a poll came back for (`PollReason.HOOK`) is a
pointer to `struct halo_packet`, contiguous, and a count: verdicts and fields are written there, and the next poll goes
on with them. The pointer ends with that poll.
"""

from __future__ import annotations

import errno
import os
from enum import IntEnum
from typing import Any, NamedTuple

from halo_mp.app.verdict import Stage
from halo_mp.shm.layout import ffi, lib
from halo_mp.workers.fastpath import FastPath

NO_INTERFACE: int = lib.HALO_NO_INTERFACE
MAX_HOOKS: int = lib.HALO_MAX_HOOKS
NAME_OCTETS: int = lib.HALO_HOOK_NAME_OCTETS


class HookPolicy(IntEnum):
    """What becomes of packets that a hook failed on, or of all packets of a hook in quarantine."""

    PASS = lib.HALO_HOOK_PASS
    DROP = lib.HALO_HOOK_DROP


class Parked(NamedTuple):
    """What a poll came back for: the hook's number, its packets (`struct halo_packet *`) and how many they are."""

    hook: int
    packets: Any
    length: int


class FastPathHooks:
    """The hooks of one fast path, by number."""

    def __init__(self, fastpath: FastPath) -> None:
        self._fastpath = fastpath
        self._result = fastpath.result

    def add(
        self,
        name: str,
        stage: Stage,
        *,
        priority: int = 0,
        ports: int = 0,
        interface: int = NO_INTERFACE,
        on_error: HookPolicy = HookPolicy.PASS,
        function: int = 0,
    ) -> int:
        """Add a hook and return its number.

        `ports` is a bitmap, 0: all; `function` the address of a native hook, 0: Python's. Raises OSError: ENOSPC when
        MAX_HOOKS are there, EINVAL for a stage or priority that can not be.
        """
        setup = ffi.new("struct halo_hook_setup *")
        setup.name = name.encode()[: NAME_OCTETS - 1].decode(errors="ignore").encode()
        setup.stage, setup.priority, setup.ports, setup.interface = stage, priority, ports, interface
        setup.on_error, setup.function = on_error, _function(function)
        return _check(lib.halo_worker_add_hook(self._worker, setup))

    def remove(self, number: int) -> None:
        """End a hook; its counters stay. Raises OSError (ENOENT) when there is no such hook."""
        _check(lib.halo_worker_remove_hook(self._worker, number))

    def set_function(self, number: int, function: int) -> None:
        """Have a hook be native from the next burst on, by an address; 0: Python's. Ends a quarantine."""
        _check(lib.halo_worker_set_hook_function(self._worker, number, _function(function)))

    def set_interface(self, number: int, interface: int) -> None:
        """Have a hook see packets of this interface only; NO_INTERFACE: of all."""
        _check(lib.halo_worker_set_hook_interface(self._worker, number, interface))

    def quarantine(self, number: int, policy: HookPolicy) -> None:
        """Call a hook no more: its packets pass, or are dropped."""
        _check(lib.halo_worker_quarantine_hook(self._worker, number, policy))

    def count_errors(self, number: int, errors: int = 1) -> None:
        """Count exceptions that no packet's verdict tells of."""
        _check(lib.halo_worker_count_hook_errors(self._worker, number, errors))

    def parked(self) -> Parked:
        """Return what the last poll came back for, with PollReason.HOOK."""
        result = self._result
        return Parked(result.hook, result.hook_packets, result.hook_count)

    def inject(self, stage: Stage, port: int, frame: bytes | bytearray | memoryview) -> bool:
        """Put a frame in; False when it was dropped, which is counted. Raises OSError (EINVAL) for no port or frame."""
        octets = ffi.from_buffer("uint8_t[]", frame)
        result = lib.halo_worker_inject(self._worker, stage, port, octets, len(octets))
        if result in (-errno.ENOBUFS, -errno.EMSGSIZE):
            return False
        return _check(result) == 0

    @property
    def _worker(self) -> Any:
        return self._fastpath.pointer


def _function(address: int) -> Any:
    return ffi.cast("halo_hook_function", address)


def _check(result: int) -> int:
    if result < 0:
        raise OSError(-result, f"hooks of the fast path: {os.strerror(-result)}")
    return int(result)
