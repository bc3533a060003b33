# SPDX-License-Identifier: Apache-2.0
"""Reads flags and keeps what is wrong with them: a user who mistyped three flags wants to hear of three."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self, TypeVar

from halo_mp.errors import UsageError
from halo_mp.supervisor import config_values as values

MOST_PROBLEMS = 50
"""That are told at once: of a file with thousands, nobody reads more."""

T = TypeVar("T")
D = TypeVar("D")


class FileText(str):
    """The value of a flag that a file stands for, and where it was written, as `router.toml, ports.0.mac`."""

    place: str

    def __new__(cls, text: str, place: str) -> Self:
        """Make one."""
        made = super().__new__(cls, text)
        made.place = place
        return made


class FlagReader:
    """The flags' texts as values. What is refused is noted, and the caller goes on with another value."""

    def __init__(self, flags: argparse.Namespace) -> None:
        self._flags = flags
        self._problems: list[str] = list(flags.problems)
        self._unusable: set[str] = set()
        self._places: dict[str, str] = {}

    def given(self, flag: str) -> bool:
        """Tell whether a flag was given at all, or has a default."""
        return bool(self._raw(flag))

    def one(self, flag: str, parser: Callable[[str, str], T], otherwise: D) -> T | D:
        """Return what a parser makes of a flag, `otherwise` if it is not given or refused."""
        text: str | None = self._raw(flag)
        return next(iter(self._parsed(flag, [] if text is None else [text], parser)), otherwise)

    def each(self, flag: str, parser: Callable[[str, str], T]) -> list[T]:
        """Return what a parser makes of a flag that may be repeated, without the refused ones."""
        texts: list[str] = self._raw(flag)
        return self._parsed(flag, texts, parser)

    def number(self, flag: str, low: int, high: int, example: str, otherwise: D) -> int | D:
        """Return a whole number from `low` to `high`."""
        return self.one(flag, partial(values.number, low=low, high=high, example=example), otherwise)

    def seconds(
        self, flag: str, low: float, high: float | None = None, *, example: str, otherwise: D
    ) -> float | D:
        """Return a number of seconds of at least `low`, and at most `high` where that is given."""
        return self.one(flag, partial(values.seconds, low=low, high=high, example=example), otherwise)

    def choice(self, flag: str, choices: Sequence[str]) -> str:
        """Return one of `choices`."""
        return self.one(flag, partial(values.choice, choices=choices), otherwise=choices[0])

    def refuse(self, flag: str, sentence: str) -> None:
        """Note what is wrong with a flag: nothing shall be concluded from its value."""
        self._note(flag, sentence, self._place(flag))

    def _note(self, flag: str, sentence: str, place: str) -> None:
        self._problems.append(f"{place}: {sentence}" if place else sentence)
        self._unusable.add(flag)

    def _place(self, flag: str) -> str:
        """Return where a flag was written, if that was in a file: the key, or of several only the file."""
        if flag not in self._places:  # of a hundred thousand routes each may be refused
            self._places[flag] = self._find_place(flag)
        return self._places[flag]

    def _find_place(self, flag: str) -> str:
        raw = self._raw(flag)
        places = {
            text.place for text in (raw if isinstance(raw, list) else [raw]) if isinstance(text, FileText)
        }
        return places.pop() if len(places) == 1 else places.pop().partition(",")[0] if places else ""

    def sound(self, *flags: str) -> bool:
        """Tell whether nothing is wrong with these flags, as far as is known yet."""
        return self._unusable.isdisjoint(flags)

    def report(self) -> None:
        """Raise one UsageError with every problem, a line each, if there is any."""
        if self._problems:
            more = len(self._problems) - MOST_PROBLEMS
            rest = [f"... and {more} more like these."] if more > 0 else []
            raise UsageError("\n".join([*self._problems[:MOST_PROBLEMS], *rest]))

    def _raw(self, flag: str) -> Any:
        return getattr(self._flags, flag.removeprefix("--").replace("-", "_"))

    def _parsed(self, flag: str, texts: Sequence[str], parser: Callable[[str, str], T]) -> list[T]:
        parsed: list[T] = []
        for text in texts:
            try:
                parsed.append(parser(flag, text))
            except ValueError as error:
                self._note(flag, str(error), text.place if isinstance(text, FileText) else "")
        return parsed
