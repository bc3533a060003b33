# SPDX-License-Identifier: Apache-2.0
"""A capture or a trace that runs: the records of all workers in the order of their time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from operator import attrgetter
from typing import Protocol, Self

from halo_mp.control.public import CaptureInfo
from halo_mp.errors import RuntimeFailure
from halo_mp.shm.capture_ring import Record, RingReader

PAUSE_S = 0.01
"""Between two looks at rings that were empty."""
LOOK_S = 0.5
"""Between two looks at the instance while there are packets."""

OVER = (
    "the supervisor has gone, and the capture with it; what came until then is here. The next supervisor knows "
    "nothing of it: when there is one (halo-mp status), start the capture again."
)

_by_time = attrgetter("time_ns")


class Connected(Protocol):
    """A client that has begun a capture."""

    @property
    def is_open(self) -> bool:
        """Whether the instance is still there."""


class Session:
    """Reads the rings of a capture. Use as a context manager; the client stays the caller's."""

    def __init__(self, client: Connected, info: CaptureInfo) -> None:
        self._client = client
        self.info = info
        self._readers: dict[int, RingReader] = {}
        for slot, fd in info.rings.items():
            self._readers[slot] = RingReader(fd)
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._looked = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers.values():
            reader.close()

    @property
    def lost(self) -> int:
        """Frames that nobody read in time."""
        return sum(reader.lost for reader in self._readers.values())

    def time_ns(self, record: Record) -> int:
        """Return when that was, since 1970. The clock's later changes are not followed: time goes forward here."""
        return record.time_ns + self._offset_ns

    def read(self) -> list[tuple[int, Record]]:
        """Return what has come, with its slot: of the workers together in the order of time."""
        found = [(slot, record) for slot, reader in self._readers.items() for record in reader.read()]
        found.sort(key=lambda entry: _by_time(entry[1]))
        return found

    def batches(self, stopped: Callable[[], bool]) -> Iterator[list[tuple[int, Record]]]:
        """Yield what has come, time and again, empty when there was nothing for a moment, until `stopped` says so.

        Raises RuntimeFailure when the instance is gone, after what it has still written.
        """
        while not stopped():
            is_over = self._is_over()
            batch = self.read()
            yield batch
            if is_over:
                raise RuntimeFailure(OVER)
            if not batch:
                time.sleep(PAUSE_S)
        yield self.read()

    async def follow(self) -> AsyncIterator[list[tuple[int, Record]]]:
        """Yield what has come, time and again, for asyncio; never nothing. Who has enough leaves the loop.

        Raises RuntimeFailure as `batches` does.
        """
        while True:
            is_over = self._is_over()
            if batch := self.read():
                yield batch
            if is_over:
                raise RuntimeFailure(OVER)
            await asyncio.sleep(0 if batch else PAUSE_S)

    def _is_over(self) -> bool:
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return False
        self._looked = now
        return not self._client.is_open
