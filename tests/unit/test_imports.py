# SPDX-License-Identifier: Apache-2.0
"""Imports run one way: who may import whom, of the parts of the package. Imports inside functions count as others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"halo_mp": "halo_mp", "workers": "halo_mp.workers", "supervisor": "halo_mp.supervisor"}

LOW = {"halo_mp", "errors", "blackbox", "logs", "plain", "runtime", "listen"}  # what is one module at the top
MAY = {
    "halo_mp": set(),
    "errors": set(),
    "blackbox": {"errors"},
    "logs": {"errors", "blackbox"},
    "plain": set(),
    "runtime": {"errors"},
    "listen": {"errors"},
    "wire": set(),
    "stack": {"wire"},
    "shm": LOW | {"_native"},
    "kcp": {"wire", "_native"},
    "control": LOW | {"shm", "wire"},
    "app": LOW | {"shm", "wire"},
    "stats": LOW | {"shm"},
    "capture": LOW | {"shm", "control"},
    "workers": LOW | {"shm", "wire", "stack", "control", "app"},
    "supervisor": LOW | {"shm", "wire", "control", "stats", "_driver"},
    "exporter": LOW | {"shm", "stats"},
    "dashboard": LOW | {"shm", "control", "stats", "supervisor"},
    "cli": LOW | {"shm", "control", "stats", "capture", "dashboard", "supervisor"},
}


def part(module: str) -> str:
    """The part that a module belongs to."""
    return module.split(".")[1] if "." in module else module


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules of ours that a file imports; what comes from the package itself is a version or a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "halo_mp")
        elif isinstance(node, ast.ImportFrom) and node.module == "halo_mp":
            yield from (f"halo_mp.{alias.name}" for alias in node.names if not alias.name.startswith("__"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("halo_mp."):
            yield node.module or ""


@cache
def imports() -> dict[str, dict[str, str]]:
    """For each part those that it imports, each with a file that does."""
    found: dict[str, dict[str, str]] = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            own = part(".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]))
            own = "halo_mp" if own == "__init__" else own
            for module in imported(ast.parse(path.read_text())):
                if part(module) != own:
                    found.setdefault(own, {})[part(module)] = str(path.relative_to(ROOT))
    return found


@pytest.mark.parametrize("name", sorted(MAY))
def test_part_imports_only_what_it_may(name: str) -> None:
    others = {other: file for other, file in imports().get(name, {}).items() if other not in MAY[name]}
    assert not others


def test_every_part_has_its_rule() -> None:
    assert set(imports()) <= set(MAY)


def test_rules_go_one_way() -> None:
    list(TopologicalSorter(MAY).static_order())  # raises CycleError
