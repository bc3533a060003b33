# SPDX-License-Identifier: Apache-2.0
"""Tables for people and JSON for scripts."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

PIPE_WIDTH = 1000
"""Columns of what no terminal shows: nothing is folded there."""


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
    """Write a table; columns among `numbers` are flush right. On a terminal long cells are folded, nothing is cut."""
    from rich.box import SIMPLE_HEAD  # a command without a table does not wait for these
    from rich.console import Console
    from rich.table import Table

    right = set(numbers)
    table = Table(
        box=SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, show_edge=False, header_style="bold"
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(width=width, highlight=False, markup=False, emoji=False).print(table)


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
