# SPDX-License-Identifier: Apache-2.0
"""Descriptors that are kept back for what has to work when there are no others.

    reserve = Reserve(8)
    with reserve.lent():
        start_a_process()

What is opened meanwhile and kept is missing in the reserve, until `refill` finds descriptors again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


class Reserve:
    """Owns `count` descriptors, or as many of them as there are. Not for several threads."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._fds: list[int] = []
        self._borrowers = 0
        self.refill()

    def refill(self) -> bool:
        """Take back what is missing; False when it is lent, or there are not enough."""
        if self._borrowers:
            return False
        try:
            while len(self._fds) < self._count:
                self._fds.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return False
        return True

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Have them free for others meanwhile. May be nested, and held over an await."""
        self._borrowers += 1
        self._close()
        try:
            yield
        finally:
            self._borrowers -= 1
            self.refill()

    def close(self) -> None:
        """Give them up for good. May be called twice."""
        self._count = 0
        self._close()

    def _close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())
