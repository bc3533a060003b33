# SPDX-License-Identifier: Apache-2.0
"""What a benchmark returns, and how it is printed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. `value` is ours, or the ratio of ours to the peer's; `met` is None where there is no target."""

    metric: str
    value: float | None
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    target: str | None = None
    met: bool | None = None
    note: str = ""


def row_at_least(metric: str, value: float, unit: str, least: float, **more: object) -> Row:
    """Return a row whose target is a minimum."""
    return Row(metric=metric, value=value, unit=unit, target=f">= {least:g}", met=value >= least, **more)  # type: ignore[arg-type]


def row_at_most(metric: str, value: float, unit: str, most: float, **more: object) -> Row:
    """Return a row whose target is a maximum."""
    return Row(metric=metric, value=value, unit=unit, target=f"<= {most:g}", met=value <= most, **more)  # type: ignore[arg-type]


def row_skipped(metric: str, why: str) -> Row:
    """Return a row for something that this machine could not measure."""
    return Row(metric=metric, value=None, unit="", note=f"not measured: {why}")


def interval(values: Sequence[float]) -> str:
    """Return the median and the range between the quartiles, for a note."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return f"median {middle:.4g}, quartiles {low:.4g} to {high:.4g}, {len(values)} rounds"


def as_json(rows: Sequence[Row]) -> str:
    """Return the rows as one JSON list."""
    return json.dumps([asdict(row) for row in rows], indent=2)


def as_table(rows: Sequence[Row]) -> str:
    """Return the rows as text in columns."""
    header = ("metric", "value", "unit", "peer", "target", "met", "note")
    lines = [header, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header) - 1)]
    return "\n".join(
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=True)), line[-1]]
        ).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    peer = "-" if row.peer is None else f"{row.peer} {_number(row.peer_value)}"
    met = {True: "yes", False: "NO", None: "-"}[row.met]
    return (row.metric, _number(row.value), row.unit or "-", peer, row.target or "-", met, row.note)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}" if value < 1e6 else f"{value / 1e6:,.1f}M"
