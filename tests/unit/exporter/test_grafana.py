# SPDX-License-Identifier: Apache-2.0
"""The dashboard for Grafana: its expressions are PromQL over metrics that there are, and its file is the one made."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from halo_mp.exporter.collector import InstanceCollector
from halo_mp.exporter.grafana import dashboard
from tests.support.regions import Regions

FILE = Path(__file__).resolve().parents[3] / "docs" / "grafana.json"


def expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def test_file_is_the_one_that_is_made() -> None:
    made = json.dumps(dashboard(), indent=2) + "\n"
    assert FILE.read_text() == made, "python -m halo_mp.exporter --grafana > docs/grafana.json"


def test_panels_have_ids_and_places_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells


def test_metrics_of_expressions_are_there(regions: Regions) -> None:
    regions.ports.pointer.port[0].xstat[9].value = 1  # those that are 0 are left out
    collector = InstanceCollector([regions.instance], regions.base)
    there = {sample.name for family in collector.collect() for sample in family.samples}
    collector.close()
    used = {name for expression in expressions() for name in re.findall(r"halo_mp_\w+", expression)}
    assert len(used) > 15
    assert used <= there


def test_expressions_are_promql(tmp_path: Path, promtool: Path) -> None:
    rules = [
        {"record": f"halo:{at}", "expr": expression.replace("$__rate_interval", "1m")}
        for at, expression in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(rules)} rules found" in done.stdout
