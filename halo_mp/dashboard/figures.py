# SPDX-License-Identifier: Apache-2.0
"""Numbers as people read them, in few columns. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"


def si(value: float) -> str:
    """Return three digits and a prefix: 0, 12, 1.23k, 45.6M."""
    prefixes = ["", "k", "M", "G", "T", "P"]
    while value >= 999.5 and len(prefixes) > 1:
        value /= 1000
        del prefixes[0]
    prefix = prefixes[0]
    if prefix == "" and value == int(value):
        return str(int(value))
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}{prefix}"


def octets(value: float) -> str:
    """Return memory with a binary prefix: 12.3 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1000 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value >= 99.95 or unit == "B" else f"{value:.1f} {unit}"


def percent(share: float) -> str:
    """Return 0.123 as 12.3%."""
    return f"{100 * share:.1f}%"


def seconds(value: float) -> str:
    """Return a short time: 0, 16µs, 4.2ms, 1.5s."""
    if value <= 0:
        return "0"
    for unit, size in (("µs", 1e-6), ("ms", 1e-3)):
        if value < 999.5 * size:
            return f"{si(value / size)}{unit}"
    return f"{si(value)}s"


def cores(numbers: Sequence[int]) -> str:
    """Return cores as taskset(1) takes them: 0-3,8."""
    parts: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1] = (parts[-1][0], number)
        else:
            parts.append((number, number))
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def spark(values: Sequence[float], width: int) -> str:
    """Return the latest values as blocks, the highest full; what is 0 is blank."""
    shown = values[-width:]
    highest = max(shown, default=0)
    if highest <= 0:
        return " " * len(shown)
    top = len(BLOCKS) - 1
    return "".join(" " if value <= 0 else BLOCKS[round(value / highest * top)] for value in shown)
