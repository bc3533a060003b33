# SPDX-License-Identifier: Apache-2.0
"""Tables for people and JSON for scripts."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

GAP = 2
"""Blanks between two columns."""
MIN_WIDTH = 20


def write_json(value: object) -> None:
    """Write values, dataclasses among them, as JSON."""
    sys.stdout.write(json.dumps(value, indent=2, default=plain) + "\n")


def write_json_lines(values: Iterable[object]) -> None:
    """Write an array of any length, an element to a line, as the elements come."""
    separator = "[\n"
    for value in values:
        sys.stdout.write(separator + json.dumps(value, default=plain))
        separator = ",\n"
    sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")


def write_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[str] = ()
) -> None:
    """Write a table; columns among `numbers` are flush right. Nothing is cut, and no word is broken.

    On a terminal that is too narrow the last columns go below each line, with their names.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    terminal = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    beside = len(columns)
    while terminal is not None and beside > 1 and sum(widths[:beside]) + GAP * (beside - 1) > terminal:
        beside -= 1
    right = [column in set(numbers) for column in columns]
    for number, row in enumerate([list(columns), *cells]):
        aligned = [
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row[:beside], widths, right, strict=False)
        ]
        sys.stdout.write((" " * GAP).join(aligned).rstrip() + "\n")
        below = [f"{name}: {cell}" for name, cell in zip(columns[beside:], row[beside:], strict=True)]
        if below and number and terminal is not None:
            sys.stdout.write(_below("; ".join(below), terminal))


def _below(text: str, terminal: int) -> str:
    return (
        textwrap.fill(
            text,
            max(terminal, MIN_WIDTH),
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        + "\n"
    )


def write_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Write names and values, one pair in a line."""
    found = [(name, _cell(value)) for name, value in pairs]
    width = max(len(name) for name, _ in found)
    sys.stdout.writelines(f"{name:{width}}  {value}\n" for name, value in found)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "-"
    return str(value) if value not in (None, "") else "-"


def plain(value: Any) -> Any:
    """Return what JSON can hold instead of a dataclass."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{value!r} is nothing for JSON")
