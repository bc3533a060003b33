# SPDX-License-Identifier: Apache-2.0
"""Sums that never go backwards, though their sources start again from zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


class Totals:
    """Counters that go on counting when their source starts again from zero."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._kept: Counter[str] = Counter()

    def update(self, counters: Mapping[str, int]) -> dict[str, int]:
        """Take a sample of the source and return the totals."""
        for name, value in counters.items():
            if value < self._last.get(name, 0):
                self._kept[name] += self._last[name]
            self._last[name] = value
        return {name: value + self._kept[name] for name, value in self._last.items()}

    @property
    def kept(self) -> dict[str, int]:
        """What sources before the present one have counted."""
        return dict(self._kept)

    def keep(self, counters: Mapping[str, int]) -> None:
        """Go on from what another had kept."""
        self._kept.update(counters)

    def restarted(self) -> None:
        """Take note that the source is a new one, which counts from zero."""
        for name, value in self._last.items():
            self._kept[name] += value
            self._last[name] = 0


class Floor:
    """Sums that somebody else keeps, and that may be behind for a moment: the highest ones that were seen."""

    def __init__(self) -> None:
        self._highest: dict[str, int] = {}

    def update(self, counters: Mapping[str, int]) -> dict[str, int]:
        """Take a sample and return the highest of each counter, those that are missing now included."""
        for name, value in counters.items():
            self._highest[name] = max(value, self._highest.get(name, 0))
        return dict(self._highest)
