# SPDX-License-Identifier: Apache-2.0
"""Tables as plain text, for screen readers, files and pipes: no colours, no boxes, nothing moves. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from halo_mp.dashboard.feed import Frame
from halo_mp.dashboard.problems import problems
from halo_mp.dashboard.tables import Column, Table, everything, headline
from halo_mp.plain import to_plain
from halo_mp.stats.rates import port_rates, slot_rates

WIDTH, WIDE = 80, 140
LOG_LINES = 20


def as_text(frames: Sequence[Frame], width: int = WIDTH) -> str:
    """Return all tables of the last of these frames. Wider than `width` are log lines only, and what people named."""
    parts = [headline(frames[-1])]
    for table in everything(frames):
        if table.name == "logs":
            table = Table(table.name, table.title, table.columns, table.rows[-LOG_LINES:], table.note)
        parts.append("\n".join(_lines(table.shown(wide=width >= WIDE))))
    return "\n\n".join(parts) + "\n"


def as_json(frame: Frame) -> dict[str, Any]:
    """Return everything that was read, with rates, as what JSON can hold."""
    return {
        **frame.now.plain(),
        "rates": {
            "seconds": frame.now.now - frame.before.now,
            "ports": {n: to_plain(port_rates(frame.before, frame.now, n)) for n in frame.now.ports},
            "slots": {n: to_plain(slot_rates(frame.before, frame.now, n)) for n in frame.now.slots},
        },
        "problems": to_plain(problems(frame)),
        "processes": to_plain(list(frame.processes)),
        "neighbors": to_plain(frame.asked.neighbors),
        "routes": to_plain(frame.asked.routes),
        "more_routes": frame.asked.more_routes,
    }


def _lines(table: Table) -> list[str]:
    """Return a table's lines: its title, its columns, its rows."""
    lines = [table.title]
    if table.note:
        lines.append(table.note)
    if not table.rows:
        return lines
    if len(table.columns) == 1:
        return [*lines, *(row[0].text for row in table.rows)]
    head = tuple(column.title for column in table.columns)
    rows = [head, *(tuple(cell.text for cell in row) for row in table.rows)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    return [*lines, *(_line(row, widths, table.columns) for row in rows)]


def _line(row: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> str:
    cells = (
        cell.rjust(width) if column.right else cell.ljust(width)
        for cell, width, column in zip(row, widths, columns, strict=True)
    )
    return "  ".join(cells).rstrip()
