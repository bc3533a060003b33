# SPDX-License-Identifier: Apache-2.0
"""A capture or a trace that runs: the records of all workers in the order of their time."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator
from operator import attrgetter
from typing import Protocol, Self

from halo_mp.control.public import CaptureInfo
from halo_mp.errors import RuntimeFailure
from halo_mp.shm.capture_ring import Record, RingReader

MOST = 4096
"""Records of a ring that are taken at a time."""
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
        self._held: list[tuple[int, Record]] = []
        """Later than what a ring that is behind has still to give."""

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
        """Return what has come, with its slot: of the workers together in the order of time.

        What is later than all that a ring with more to come has given is kept for the next time.
        """
        until = None
        found = self._held
        for slot, reader in self._readers.items():
            records = list(reader.read(MOST))
            found += [(slot, record) for record in records]
            if len(records) == MOST:
                last = records[-1].time_ns
                until = last if until is None else min(until, last)
        found.sort(key=lambda entry: _by_time(entry[1]))
        end = len(found) if until is None else bisect_right(found, until, key=lambda entry: entry[1].time_ns)
        self._held = found[end:]
        return found[:end]

    def batches(self, stopped: Callable[[], bool]) -> Iterator[list[tuple[int, Record]]]:
        """Yield what has come, time and again, empty when there was nothing for a moment, until `stopped` says so; then
        what has come up to there.

        Raises RuntimeFailure when the instance is gone, after what it has still written.
        """
        is_over = False
        while not is_over and not stopped():
            batch = self.read()
            yield batch
            if not batch:
                time.sleep(PAUSE_S)
            is_over = self._is_over()
        yield from self._rest()
        if is_over:
            raise RuntimeFailure(OVER)

    async def follow(self) -> AsyncIterator[list[tuple[int, Record]]]:
        """Yield what has come, time and again, for asyncio; never nothing. Who has enough leaves the loop.

        Raises RuntimeFailure as `batches` does.
        """
        while not self._is_over():
            if batch := self.read():
                yield batch
            await asyncio.sleep(0 if batch else PAUSE_S)
        for batch in self._rest():
            if batch:
                yield batch
        raise RuntimeFailure(OVER)

    def _rest(self) -> Iterator[list[tuple[int, Record]]]:
        """Yield what there is now."""
        ends = [(reader, reader.produced) for reader in self._readers.values()]
        while any(reader.position < end for reader, end in ends):
            yield self.read()
        held, self._held = self._held, []
        yield held

    def _is_over(self) -> bool:
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return False
        self._looked = now
        return not self._client.is_open
