# SPDX-License-Identifier: Apache-2.0
"""The injector itself: its faults come from its seed, it says what it did, and everything recovers from them."""

from __future__ import annotations

import time

import pytest

from tests.faults.conftest import Scene
from tests.support import lives
from tests.support.faults import AREAS, Injector

SEED = 20261122
FAULTS = 9


@pytest.mark.parametrize("seed", [SEED])
def test_faults_at_random_are_recovered_from(scene: Scene, seed: int) -> None:
    with Injector(scene.instance, (0,), seed=seed) as faults:
        for _ in range(FAULTS):
            faults.at_random()
            if len(faults.log) % 3 == 0:  # two more while the first is not over
                faults.heal()
                scene.assert_recovered()
        faults.heal()
        scene.assert_recovered(laws=True)
        print(faults)
        assert len(faults.log) >= FAULTS
        assert {fault.kind for fault in faults.log} == {"kill", "stop", "pause", "scribble", "starve"}
    assert not [entry for entry in scene.instance.events() if entry["level"] == "error"]


def test_every_word_of_a_slot_scribbled_harms_nobody_else(scene: Scene) -> None:
    """Whatever the supervisor, the driver and readers of counters look at: none of them dies of it."""
    driver = scene.pid("driver")
    with Injector(scene.instance, (0,), seed=SEED) as faults:
        for area in (*AREAS, "rx", "tx", "spare", "descriptors"):
            for _ in range(12):
                faults.scribble(area, 0)
                time.sleep(0.005)  # for some to be looked at before they are mended
        faults.heal()
    scene.assert_recovered(laws=True)
    assert scene.pid("driver") == driver
    assert not lives.said(scene.instance, "supervisor.error")
    assert not scene.canary.ports[1].lost, "the other port noticed"


def test_same_seed_gives_the_same_faults_and_a_failure_prints_them(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = []
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), Injector(scene.instance, (0,), seed=SEED) as faults:
            assert one_more_each(faults) / 0
        assert f"seed {SEED}:" in (said := capsys.readouterr().out)
        assert "pause     worker 0" in said
        logs.append([(fault.kind, fault.role, fault.slot, fault.detail) for fault in faults.log])
    assert logs[0] == logs[1]
    assert lives.state(scene.pid("worker")) not in ("T", "")
    scene.assert_recovered()


def one_more_each(faults: Injector) -> int:
    faults.pause("worker", 0, for_s=0.05)
    for _ in range(4):
        faults.at_random(["starve"])
    return len(faults.log)
