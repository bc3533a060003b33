# SPDX-License-Identifier: Apache-2.0
"""What both cffi build scripts share: C declarations, preprocessed from the headers that C itself compiles."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

NATIVE = Path(__file__).resolve().parent
INCLUDE = NATIVE / "include"
WARNINGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O3", "-fno-plt"]

_DROP_ENTRY = re.compile(r'^X\((\w+),\s*"([^"]*)"\)', re.MULTILINE)


def drop_reasons() -> list[tuple[str, str]]:
    """Return (name, sentence) of each drop reason, in the order of the X-macro list."""
    return _DROP_ENTRY.findall((INCLUDE / "halo" / "drop_def.h").read_text())


def preprocess(header: str) -> str:
    """Return a header of include/halo after the C preprocessor, in the subset that cdef() parses."""
    command = ["cc", "-E", "-P", "-x", "c", "-DHALO_CDEF", "-I", str(INCLUDE), str(INCLUDE / "halo" / header)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def declarations(*headers: str) -> str:
    """Return the cdef() text for the layout, the drop reasons, and the named API headers."""
    names = [f"HALO_DROP_{name}" for name, _ in drop_reasons()] + ["HALO_DROP_COUNT"]
    drops = "enum halo_drop { " + ", ".join(f"{name} = {value}" for value, name in enumerate(names)) + " };\n"
    return drops + "".join(preprocess(header) for header in ("layout_def.h", *headers))
