# SPDX-License-Identifier: Apache-2.0
"""The captures that a worker makes: rings that the supervisor has sent, filled by the fast path.

They end when the supervisor says so, and when another supervisor takes over: who asked for them is gone then.
"""

from __future__ import annotations

import os
from typing import Any

from halo_mp.errors import EnvironmentProblem
from halo_mp.shm.capture_ring import Ring
from halo_mp.workers.fastpath import FastPath


class CaptureError(Exception):
    """A capture can not be started; `str()` says why."""


class Captures:
    """All captures of one worker, by the number that the supervisor gave them."""

    def __init__(self, fastpath: FastPath) -> None:
        self._fastpath = fastpath
        self._running: dict[int, tuple[int, Ring]] = {}

    def start(self, message: dict[str, Any], fd: int) -> None:
        """Begin; the descriptor of the ring is closed. Raises CaptureError."""
        number = int(message["number"])
        if number in self._running:
            os.close(fd)
            return
        try:
            ring = Ring(fd)
        except EnvironmentProblem as error:
            raise CaptureError(str(error)) from None
        try:
            place = self._fastpath.add_capture(
                ring.pointer,
                ring.size_octets,
                steps=bytes(message["filter"]),
                points=int(message["points"]),
                ports=int(message["ports"]),
                snap_octets=int(message["snap"]),
            )
        except OSError as error:
            ring.close()
            raise CaptureError(error.strerror) from None
        self._running[number] = place, ring

    def stop(self, number: int) -> None:
        """End one; do nothing when there is none of that number."""
        if found := self._running.pop(number, None):
            place, ring = found
            self._fastpath.remove_capture(place)
            ring.close()

    def stop_all(self) -> None:
        """End all."""
        for number in list(self._running):
            self.stop(number)
