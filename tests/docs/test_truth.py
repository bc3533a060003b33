# SPDX-License-Identifier: Apache-2.0
"""Tables of the pages against the code: events, exit codes, messages, dependencies, metrics."""

from __future__ import annotations

import ast
import configparser
import re
import typing
from collections import defaultdict
from collections.abc import Iterator

import pytest

from halo_mp import errors
from halo_mp.control import messages
from tests.docs.markdown import ROOT, rows, section, spans

OPERATING = (ROOT / "docs/operating.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
DEPENDENCIES = (ROOT / "docs/dependencies.md").read_text()
PERFORMANCE = (ROOT / "docs/performance.md").read_text()
SOURCES = [path for folder in ("halo_mp", "supervisor", "workers") for path in (ROOT / folder).rglob("*.py")]
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
WRITTEN_OTHERWISE = {
    "dpdk": {"debug", "warning"},  # by a level that is chosen for each line
    "log": {"as it was"},  # by libraries
    "print": {"info"},  # past all levels
    "hook.failed": {"error"},  # these by BoundedLog
    "app.stop_failed": {"error"},
    "app.timer_failed": {"error"},
    "app.task_failed": {"error"},
    "log.dropped": {"warning"},  # by the log's own thread
}


def templates(node: ast.AST) -> Iterator[str]:
    """Yield the strings that an expression may be, {role} for the two roles written out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from templates(node.body)
        yield from templates(node.orelse)
    elif isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "" for part in node.values]
        assert parts[0] == "", ast.unparse(node)
        yield from (f"{role}{''.join(map(str, parts))}" for role in ("driver", "worker"))


def logged_events() -> dict[str, set[str]]:
    """Return the levels of each event that the sources log."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in SOURCES:
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            names = {
                ast.unparse(node.targets[0]): node.value
                for node in ast.walk(function)
                if isinstance(node, ast.Assign)
            }
            for node in ast.walk(function):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                    continue
                if ast.unparse(node.func.value) == "log" and node.func.attr in LEVELS:
                    event = names.get(ast.unparse(node.args[0]), node.args[0])
                    for name in templates(event):
                        found[name].add(LEVELS[node.func.attr])
    return found


def test_every_event_of_the_log_is_explained() -> None:
    told: defaultdict[str, set[str]] = defaultdict(set)
    for events, _, levels, _ in rows(section(OPERATING, "## The log")):
        listed, each = spans(events), levels.split(", ")
        for number, event in enumerate(listed):
            # One level for all, one for each, or several for one.
            told[event] |= {each[number]} if len(each) == len(listed) else set(each)
    assert dict(told) == logged_events() | WRITTEN_OTHERWISE


def test_exit_codes_are_those_of_the_code() -> None:
    kinds: list[type[errors.HaloError]] = [errors.HaloError, *errors.HaloError.__subclasses__()]
    codes = {errors.EXIT_STOPPED, errors.EXIT_FORCED, *(kind.exit_code for kind in kinds)}
    told = [cells[0] for cells in rows(section(OPERATING, "## Stopping"))]
    assert told == sorted(map(str, codes))


def words_of_the_code() -> str:
    """Return all that the code may say, its placeholders as gaps."""
    said = [path.read_text() for path in (ROOT / "native/driver").glob("*.c")]
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else " … " for part in node.values)
                said.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
    return "\n".join(said)


def test_sentences_to_react_to_are_said_by_the_code() -> None:
    said = words_of_the_code()
    for cells in rows(section(OPERATING, "## When it says ...").partition("And when it says nothing")[0]):
        for sentence in spans(cells[0]):
            if re.fullmatch(r"[a-z.]+", sentence):
                continue  # an event
            # What stands between numbers, names and dots is said word for word.
            runs = [run.strip() for run in re.split(r"\S*[\d'(_]\S*|\b[A-Z]{5,}\b|\.\.\.", sentence)]
            assert any(run in said for run in runs if len(run) > 7), f"nothing says {sentence!r}"


def typed(kind: object) -> Iterator[type]:
    """Yield the TypedDicts that an annotation is made of."""
    if typing.is_typeddict(kind):
        yield typing.cast("type", kind)
    for argument in typing.get_args(kind):
        yield from typed(argument)


def fields(kind: type) -> Iterator[str]:
    """Yield the names of a TypedDict's fields, those of inner ones too."""
    for name, annotation in typing.get_type_hints(kind).items():
        if name != "type":
            yield name
            for inner in typed(annotation):
                yield from fields(inner)


MESSAGES = [
    (kind, literal)
    for kind in vars(messages).values()
    if typing.is_typeddict(kind) and "type" in kind.__annotations__
    for literal in typing.get_args(typing.get_type_hints(kind)["type"])
]


@pytest.mark.parametrize(("kind", "name"), MESSAGES, ids=lambda value: getattr(value, "__name__", value))
def test_message_is_in_the_table(kind: type, name: str) -> None:
    table = rows(section(ARCHITECTURE, "## The private protocol"))
    role = next((role for role in ("driver", "worker") if kind.__name__.lower().startswith(role)), "")
    found = [row for row in table if f"`{name}`" in row[1] and role in row[0]]
    assert found, f"no row for {name}"
    said = " ".join(cell for row in found for cell in row)
    # Of a neighbor the row names the parts.
    assert [field for field in fields(kind) if f"`{field}`" not in said] == []


def test_table_has_no_other_messages() -> None:
    table = rows(section(ARCHITECTURE, "## The private protocol"))
    told = {name for row in table for name in spans(row[1])}
    assert told == {name for _, name in MESSAGES} | {"reply"}


def told_packages(heading: str) -> set[str]:
    return {name for cells in rows(section(DEPENDENCIES, heading)) for name in spans(cells[0])}


def required(lines: str) -> set[str]:
    return {re.split(r"[<>=]", line)[0] for line in lines.split()}


def test_python_packages_are_explained() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert told_packages("## To run") == required(setup["options"]["install_requires"])
    development = required(setup["options.extras_require"]["dev"])
    assert told_packages("## To develop") == development | {"setuptools"}


def test_debian_packages_are_explained() -> None:
    lines = (ROOT / "tools/debian-packages").read_text().splitlines()
    names = {line.split("#")[0].strip() for line in lines} - {""}
    assert told_packages("## Debian packages") == names


def test_every_metric_is_explained() -> None:
    groups = ("ring", "io", "idle", "ping", "start", "worker", "faults", "forward", "routes", "tx", "stats")
    benchmarks = "|".join((*groups, "dashboard"))
    text = "\n".join(path.read_text() for path in (ROOT / "bench").glob("*.py"))
    named = set(re.findall(rf'"((?:{benchmarks})\.[A-Za-z0-9_.]+)"', text))
    named -= set(logged_events())  # which benchmarks wait for
    derived = {name.replace("ratio_testpmd", "mpps") for name in named if name.startswith("io.")}
    table = rows(section(PERFORMANCE, "## What each metric means"))
    assert {name for cells in table for name in spans(cells[0])} == named | derived
