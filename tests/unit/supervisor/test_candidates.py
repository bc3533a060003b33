# SPDX-License-Identifier: Apache-2.0
"""Configurations that clients send in parts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from halo_mp.supervisor.candidates import MAX_CANDIDATES, MAX_TEXT, REFUSALS_TOLD, Candidates
from halo_mp.supervisor.config_changes import Wanted
from halo_mp.supervisor.running import RefusedError

FILE = '[ports.0]\n[interfaces.0]\naddresses = ["10.1.0.1/24"]\n'


def built(candidates: Candidates, number: int) -> Wanted:
    return asyncio.run(candidates.build(number))


def refusal(candidates: Candidates, text: str, routes: list[tuple[str, list[str]]] | None = None) -> str:
    number, _ = candidates.add(None, "r.toml", text, routes)
    with pytest.raises(RefusedError) as refused:
        built(candidates, number)
    return str(refused.value)


def test_parts_are_put_together_and_named_after_the_instance() -> None:
    candidates = Candidates("edge")
    number, results = candidates.add(None, "r.toml", FILE[:17], None)
    assert results == []
    assert (
        candidates.add(number, "", FILE[17:] + '[[routes]]\nprefix = "default"\nvia = "10.1.0.2"\n', None)[0]
        == number
    )
    found = built(candidates, number)
    assert found.config.instance == "edge"
    assert [str(entry) for entry in found.config.interfaces[0].addresses] == ["10.1.0.1/24"]
    assert [(prefix, length) for prefix, length, _ in found.routes] == [(0, 0)]


def test_problems_are_told_with_file_and_key() -> None:
    sentences = refusal(Candidates("edge"), '[ports.0]\nmac = "x"\n[memory]\nring_sise = 5\n').splitlines()
    assert [sentence.partition(":")[0] for sentence in sentences] == [
        "r.toml, line 4, memory.ring_sise",
        "r.toml, line 2, ports.0.mac",
    ]
    assert "line 1" in refusal(Candidates("edge"), "[[[")


def test_routes_file_is_never_opened_and_its_routes_must_come_along(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root:x:0\n")
    candidates = Candidates("edge")
    text = f'{FILE}[routing]\nroutes_file = "{secret}"\n'
    sentence = refusal(candidates, text)
    assert "send its routes too" in sentence
    assert "root" not in sentence
    number, results = candidates.add(None, "r.toml", text, [("10.0.0.0/8", ["10.1.0.2"])])
    assert results == [None]
    found = built(candidates, number)
    assert [length for _, length, _ in found.routes] == [8]
    assert found.config.routes_file is None


def test_routes_that_are_none_are_refused_one_by_one() -> None:
    candidates = Candidates("edge")
    _, results = candidates.add(
        None, "r", FILE, [("10.0.0.0/8", ["10.1.0.2"]), ("x", ["y"]), ("10.0.0.1/8", ["10.1.0.2"])]
    )
    assert results[0] is None
    assert "'y'" in str(results[1])
    assert "10.0.0.0/8" in str(results[2])
    _, results = candidates.add(None, "r", FILE, [("x" * 60_000, ["10.1.0.2"])] * 1024)
    assert sum(len(str(result)) for result in results) < 32 << 10
    assert len([result for result in results if result != "refused, too."]) == REFUSALS_TOLD


@pytest.mark.parametrize("hop", ["10.9.0.1", "10.1.0.2@7", "10.1.0.1"])
def test_routes_to_nowhere_are_refused(hop: str) -> None:
    assert "routes file" in refusal(Candidates("edge"), FILE, [("10.0.0.0/8", [hop])])


def test_route_that_is_there_twice_is_refused() -> None:
    twice = [("10.0.0.0/8", ["10.1.0.2"])] * 2
    assert "10.0.0.0/8 is there twice" in refusal(Candidates("edge"), FILE, twice)


def test_memory_is_bounded() -> None:
    candidates = Candidates("edge")
    first, _ = candidates.add(None, "r", "x" * MAX_TEXT, None)
    with pytest.raises(RefusedError, match="at most"):
        candidates.add(first, "r", "x", None)
    for _ in range(MAX_CANDIDATES):
        candidates.add(None, "r", "", None)
    with pytest.raises(RefusedError, match=f"no candidate {first}"):
        candidates.add(first, "r", "x", None)
