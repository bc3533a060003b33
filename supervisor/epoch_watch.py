# SPDX-License-Identifier: Apache-2.0
"""Finding the worker that keeps an old epoch while it goes on.

What workers may look at is not used again before they have passed it, so one that says for ever that it works in
an old epoch would hold up changes of interfaces, and use up the tables. A sound one takes the new epoch on its next
turn, and one that hangs is found by its progress; this one is scribbling, or broken. Pure: the caller has the clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

PATIENCE_S = 5.0


class EpochWatch:
    """Remembers which epoch was current when; one instance for all workers."""

    def __init__(self) -> None:
        self._history: deque[tuple[float, int]] = deque()

    def laggards(self, now: float, current: int, epochs: Mapping[int, int]) -> list[int]:
        """Return the slots whose worker is in an epoch, 0 for none, that was old `PATIENCE_S` ago.

        To be called now and then with the current epoch and what each worker has published.
        """
        if not self._history or self._history[-1][1] != current:
            self._history.append((now, current))
        while len(self._history) > 1 and self._history[1][0] <= now - PATIENCE_S:
            self._history.popleft()
        since, wanted = self._history[0]
        if since > now - PATIENCE_S:
            return []
        return [slot for slot, epoch in epochs.items() if 0 < epoch < wanted]
