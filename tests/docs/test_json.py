# SPDX-License-Identifier: Apache-2.0
"""docs/json.md has the keys of what commands print with --json, each of them and no other."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.docs.markdown import ROOT, anchors, rows, section, spans
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import Namespace, wait_until

HALO = (sys.executable, "-m", "halo_mp.cli")
PAGE = (ROOT / "docs/json.md").read_text()
SECTIONS = [line[3:] for line in PAGE.splitlines() if line.startswith("## ")]
CONFIG = "halo-mp show config"
MORE = {
    "halo-mp status": ("--reports",),
    "halo-mp top": ("--interval", "0.2"),
    "halo-mp show route": ("10.77.0.1",),
}
"""What a command needs to print everything that it can."""
FLAGS = ("--address", "0=10.77.0.1/24", "--address", "1=10.77.1.1/24", "--address", "0.7=10.9.7.1/24")
APPLICATION = """
import asyncio
from halo_mp import kcp
from halo_mp.app import App, Worker

app = App("everything")
kept = []

@app.hook("ingress")
def look(packet):
    pass

@app.on_start
async def start(worker: Worker) -> None:
    if worker.slot == 0:
        kept.append(await kcp.start_server(lambda reader, writer: asyncio.sleep(3600), "10.77.0.1", 4000))
    else:
        kept.append(asyncio.ensure_future(kcp.open_connection("10.77.0.1", 4000)))
"""


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """One that has something of everything: a hook, KCP, a neighbor, and a worker that has died."""
    file = tmp_path_factory.mktemp("application") / "everything.py"
    for parent in file.parents:
        if parent.stat().st_mode & 0o055 != 0o055:  # workers run as another user
            parent.chmod(parent.stat().st_mode | 0o055)
    file.write_text(APPLICATION)
    flags = ("--ports", "0,1", *FLAGS, "--app", f"{file}:app", "--neighbor", "0=10.77.0.9,02:00:00:00:00:09")
    with Namespace() as namespace, Instance(namespace, *flags, "--route", "10.8.0.0/16=blackhole") as running:
        namespace.pinged("10.77.0.1", count=1)
        before = len(running.events("worker.ready"))
        os.kill(lives.pid(running, "worker", 1), signal.SIGKILL)
        running.wait_for("worker.ready", count=before + 1)
        wait_until(
            lambda: bool(printed(running, "halo-mp show kcp")["0"]["sessions"]), what="a session of KCP"
        )
        yield running
        assert running.stop() == 0


def printed(instance: Instance, command: str) -> Any:
    """Return what a command prints with --json."""
    name = () if command == "halo-mp doctor" else ("--name", instance.name)
    words = (*command.split()[1:], *MORE.get(command, ()), *name)
    done = instance.namespace.run(*HALO, *words, "--json", check=False)
    assert done.returncode in (0, 1), done
    return json.loads(done.stdout)


def told(heading: str, page: str = PAGE) -> dict[str, str]:
    """Return the keys of a section, and what is said of each; those that it has from another section among them."""
    found: dict[str, str] = {}
    for cells in rows(section(page, f"## {heading}")):
        for key in spans(cells[0]):
            assert key not in found, f"{heading} has {key} twice"
            found[key] = cells[1]
            if borrowed := re.fullmatch(r"keys as in \[[\w ]+\]\(#([\w-]+)\).*", cells[1]):
                [other] = [each for each in SECTIONS if each.replace(" ", "-") == borrowed[1]]
                theirs = told(other, page)
                within = {each: said for each, said in theirs.items() if each.startswith(f"{key}.")}
                found |= within or {f"{key}{each}": said for each, said in theirs.items()}
    return found


def keys(value: object, known: Mapping[str, str], at: str = "") -> Iterator[tuple[str, str]]:
    """Yield where something stands, as the page writes that, and what stood for the last `*`.

    Of objects and arrays it is what they have, or that they are empty.
    """
    if isinstance(value, dict):
        below = f"{at}.*" if at else "*"
        is_open = any(each == below or each.startswith((f"{below}.", f"{below}[")) for each in known)
        for key, inner in value.items():
            for found, name in keys(inner, known, below if is_open else f"{at}.{key}" if at else key):
                yield found, name or (key if is_open and found == below else "")
        if is_open and not value:
            yield below, ""
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, known, f"{at}[]")
    else:
        yield at, ""


def said_of(cell: str) -> set[str]:
    """Return the names that a row has, or the page that it leads to."""
    found = set(spans(cell))
    for file, anchor in re.findall(r"\]\(([\w-]+\.md)#([\w-]+)\)", cell):
        page = (ROOT / "docs" / file).read_text()
        assert anchor in anchors(page)
        found |= set(re.findall(r"\w+", page))  # there are blocks of code
    return found


@pytest.mark.parametrize("heading", [each for each in SECTIONS if each != CONFIG])
def test_keys_are_those_of_the_page(instance: Instance, heading: str) -> None:
    known = told(heading)
    found = set(keys(printed(instance, heading), known))
    ends = {key for key in known if not any(each.startswith((f"{key}.", f"{key}[")) for each in known)}
    assert {key for key, _ in found} == ends
    for key, name in found:
        if name and not name.isdecimal() and "own names" not in known[key]:
            assert name in said_of(known[key]), f"{key} is {name}, of which the page knows nothing"


def test_every_command_with_json_that_shows_something_has_a_section() -> None:
    page = (ROOT / "docs/cli.md").read_text()
    headings = re.findall(r"^##+ (halo-mp (?:status|top|doctor|show \w+))$", page, re.MULTILINE)
    assert sorted(headings) == sorted(SECTIONS)


def test_configuration_has_the_keys_of_its_page(instance: Instance) -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    known = {key for cells in rows(section(page, "## Keys")) for key in spans(cells[0])}
    found = {
        re.sub(r"(?<=\.)\*(?=\.)", "N", key).removesuffix("[]")
        for key, _ in keys(
            printed(instance, CONFIG), {"ports.*.x": "", "slots.*.x": "", "interfaces.*.x": ""}
        )
    }
    assert found - known == set()
    assert {"interfaces.N.mtu", "neighbors[].mac", "instance.name"} <= found


def test_tests_can_fail() -> None:
    """The comparison sees a key more, a key less, and a name that nobody has explained."""
    known = {"a.*.b": "", "c[]": "", "d.*": "`x`"}
    assert set(keys({"a": {"0": {"b": 1}}, "c": [1, 2], "d": {"x": 1, "y": 2}}, known)) == {
        ("a.*.b", ""),
        ("c[]", ""),
        ("d.*", "x"),
        ("d.*", "y"),
    }
    assert ("d.*", "") in set(keys({"d": {}}, known))
    assert {key for key, _ in keys({"a": {"0": {"e": 1}}}, known)} == {"a.*.e"}
