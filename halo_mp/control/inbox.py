# SPDX-License-Identifier: Apache-2.0
"""Making frames, with the descriptors that came along, out of what was read from a stream.

The kernel never merges octets behind a message with descriptors into one read, so descriptors belong to the
frame that holds the last octet of the read they came with. No I/O here but close(2).
"""

from __future__ import annotations

import os
from collections import deque

from halo_mp.control import frame
from halo_mp.control.frame import LENGTH_OCTETS, MAX_FDS, FrameError, Message


class Inbox:
    """Owns the descriptors in it until `take` returns them. After a FrameError only `close` makes sense."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0  # position in the stream of the buffer's first octet
        self._batches: deque[tuple[int, list[int]]] = (
            deque()
        )  # position of a read's last octet, its descriptors

    def __bool__(self) -> bool:
        """Whether a part of a frame waits for the rest."""
        return bool(self._buffer)

    def put(self, octets: bytes, fds: list[int]) -> None:
        """Add one read. Raises FrameError when more descriptors wait than any frame may have."""
        self._buffer += octets
        if fds:
            self._batches.append((self._start + len(self._buffer) - 1, fds))
            if sum(len(batch) for _, batch in self._batches) > MAX_FDS:
                raise FrameError(f"more than {MAX_FDS} descriptors")

    def take(self) -> tuple[Message, list[int]] | None:
        """Return the next frame and exactly the descriptors that it declares; None while it is not all there.

        Descriptors that it does not declare are closed. Raises FrameError.
        """
        if len(self._buffer) < LENGTH_OCTETS:
            return None
        end = LENGTH_OCTETS + frame.parse_length(self._buffer)
        if len(self._buffer) < end:
            return None
        message = frame.parse_body(bytes(self._buffer[LENGTH_OCTETS:end]))
        del self._buffer[:end]
        self._start += end
        fds = self._take_fds()
        declared: int = message.pop("fds", 0)
        if len(fds) < declared:
            came = len(fds)
            close_all(fds)
            raise FrameError(f"{declared} descriptors declared, of which {came} came")
        close_all(fds[declared:])
        return message, fds[:declared]

    def close(self) -> None:
        """Close every descriptor that was not taken."""
        while self._batches:
            close_all(self._batches.popleft()[1])

    def _take_fds(self) -> list[int]:
        """Return the descriptors of the frame that was just cut off."""
        fds: list[int] = []
        while self._batches and self._batches[0][0] < self._start:
            fds += self._batches.popleft()[1]
        return fds


def close_all(fds: list[int]) -> None:
    """Close and forget."""
    for fd in fds:
        os.close(fd)
    fds.clear()
