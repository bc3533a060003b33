# SPDX-License-Identifier: Apache-2.0
"""What README and docs/ name exists: links, files, targets of make, flags."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import click
import pytest

from halo_mp.supervisor import arguments, config_eal
from tests.docs import markdown
from tests.docs.markdown import PAGES, ROOT

FLAG = re.compile(r"(?<![\w=-])--[a-z][a-z0-9-]+")
FOLDERS = ("native", "tools", "tests", "docs", "examples", "supervisor", "workers", "halo_mp", "bench")
EAL = {name for name in (*config_eal._REFUSED, *config_eal._PASSED) if name.startswith("--")}
PRIVATE = ("halo_mp.supervisor.driver", "halo_mp.workers")
"""Programs that only the supervisor starts; their flags are no user's."""
OTHERS = {"--bind", "--force", "--membind", "--check", "--json"}
"""Flags of other programs that pages speak of by themselves: dpdk-devbind.py, numactl, tools and examples."""

by_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


@cache
def supervisor_flags() -> set[str]:
    return {name for action in arguments.parser()._actions for name in action.option_strings}


@cache
def status_flags() -> set[str]:
    return _flags_in(ROOT / "supervisor/status.py")


@cache
def dashboard_flags() -> set[str]:
    return _flags_in(ROOT / "halo_mp/dashboard/__main__.py")


@cache
def exporter_flags() -> set[str]:
    return _flags_in(ROOT / "halo_mp/exporter/__main__.py")


@cache
def cli_flags() -> set[str]:
    """Return the options of all commands of halo-mp."""
    from halo_mp.cli.main import main

    def options(command: click.Command, context: click.Context) -> set[str]:
        found = {
            name for option in command.get_params(context) for name in (*option.opts, *option.secondary_opts)
        }
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                found |= options(inner, click.Context(inner, parent=context, info_name=name))
        return found

    return options(main, click.Context(main, info_name="halo-mp"))


@cache
def bench_flags() -> set[str]:
    return _flags_in(ROOT / "bench/__main__.py")


def _flags_in(program: Path) -> set[str]:
    return {"--help", *FLAG.findall(program.read_text())}


def flags_of(line: str) -> tuple[list[str], set[str]]:
    """Return the flags in a piece of code that must be known, and those that are."""
    line = re.sub(r"\s#\s.*", "", line)
    if any(program in line for program in PRIVATE):
        return [], set()
    for start, known in (
        ("halo_mp.supervisor.status", status_flags()),
        ("halo_mp.dashboard", dashboard_flags()),
        ("halo_mp.exporter", exporter_flags()),
        ("halo-mp run", supervisor_flags()),
        ("halo-mp ", cli_flags()),
        ("halo_mp.supervisor", supervisor_flags() | EAL),
        ("make run", supervisor_flags()),
        ("-m bench", bench_flags()),
        ("make bench", bench_flags()),
    ):
        if start in line:
            return FLAG.findall(line.partition(start)[2]), known
    if example := re.search(r"examples/[\w.]+", line):
        return FLAG.findall(line[example.end() :]), _flags_in(ROOT / example[0])
    if line.startswith("--"):
        watching = cli_flags() | status_flags() | dashboard_flags() | exporter_flags()
        return FLAG.findall(line), supervisor_flags() | watching | bench_flags() | EAL | OTHERS
    return [], set()


@by_page
def test_links_lead_somewhere(path: Path) -> None:
    for target in markdown.links(path.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        page = path.parent / file if file else path
        assert page.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in markdown.anchors(page.read_text()), f"{path.name} links to {target}"


@by_page
def test_files_that_are_named_are_there(path: Path) -> None:
    for span in markdown.spans(path.read_text()):
        if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./-]*", span):
            assert (ROOT / span).exists(), f"{path.name} names {span}"


@by_page
def test_targets_of_make_are_there(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in markdown.code(path.read_text()):
        for target in re.findall(r"(?:^|sudo |&& )make ([a-z-]+)", line):
            assert target in targets, f"{path.name} says {line!r}"


@by_page
def test_flags_are_there(path: Path) -> None:
    page = path.read_text()
    for line in markdown.code(page):
        named, known = flags_of(line)
        assert set(named) <= known, f"{path.name} says {line!r}"
    assert set(FLAG.findall(markdown.prose(page))) <= supervisor_flags() | bench_flags() | cli_flags() | EAL


def test_flags_that_are_not_there_are_found() -> None:
    for line in (
        "--prots",
        "make run ARGS='--prots 0'",
        "python -m halo_mp.supervisor --prots 0",
        "make bench --idle",
        "halo-mp show --prots",
        "sudo halo-mp run --json",
    ):
        named, known = flags_of(line)
        assert not set(named) <= known, line


def test_every_page_can_be_found_from_readme() -> None:
    readme = markdown.links((ROOT / "README.md").read_text())
    assert {f"docs/{path.name}" for path in PAGES[1:]} <= {target.partition("#")[0] for target in readme}


@by_page
def test_rows_of_a_table_have_as_many_cells_as_its_head(path: Path) -> None:
    odd, cells = [], 0
    for line in markdown.prose(path.read_text()).splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        found = len(re.findall(r"(?<!\\)\|", line))
        cells = cells or found
        if found != cells:
            odd.append(line)
    assert not odd
