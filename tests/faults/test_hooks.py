# SPDX-License-Identifier: Apache-2.0
"""A death at each place between two instructions that matter, under traffic: every buffer comes back.

The hooks stand in the sources; a new one is walked through without a change here. Those of frames that are handed over
are walked in tests/native/test_driver_hooks.py: no worker hands frames over by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from halo_mp import _driver, _native
from tests.faults.conftest import FLAGS, Scene, open_scene
from tests.support import hooks, lives
from tests.support.hooks import Action, Hooks
from tests.support.instance import Instance
from tests.support.namespace import Namespace

HANDING = "hand"
ROUND_TIMEOUT_S = 15.0


def area(name: str) -> str:
    return name.partition(".")[0]


NAMES = sorted(
    {name: None for folder in ("driver", "fastpath") for name in hooks.hook_names(folder)}, key=area
)
AREAS = {name: list(names) for name, names in groupby(NAMES, area) if name != HANDING}
# What makes somebody pass there, other than traffic: the death of one that has a successor.
FIRST_DIES: dict[str, lives.Role] = {
    "attach": "driver",
    "reset": "worker",
    "enable": "worker",
    "worker.rings": "worker",
    "worker.attached": "worker",
}
# Not the first time: in the midst of a loop, or of traffic.
PASSAGES = {"reset.owner": 200, "rx": 5, "tx": 5, "tx.served_one": 12, "spare": 2}


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """Processes of the shared instance come and go; see nothing_left_by_the_file."""


@pytest.fixture(scope="module")
def armed(nothing_left_by_the_file: None) -> Iterator[tuple[Hooks, Scene]]:
    folder = hooks.build()
    with (
        Hooks() as made,
        Namespace() as namespace,
        Instance(namespace, *FLAGS, via=made.via(folder)) as instance,
    ):
        for scene in open_scene(instance):
            yield made, scene


@pytest.mark.parametrize("names", AREAS.values(), ids=AREAS.keys())
def test_death_at_each_hook_loses_no_buffer(armed: tuple[Hooks, Scene], names: list[str]) -> None:
    order, scene = armed
    role: lives.Role = "worker" if area(names[0]) == "worker" else "driver"
    for name in names:
        lost = scene.canary.ports[1].lost
        die_at(order, scene, role, name)
        if role == "worker":
            assert scene.canary.ports[1].lost == lost, f"{name}: the other port noticed"
        assert scene.deaths("driver") == len(lives.said(scene.instance, "driver.died"))
    print(f"{names}: {scene.deaths('driver')} drivers and {scene.deaths('worker')} workers died")
    scene.assert_recovered(laws=True)


def die_at(order: Hooks, scene: Scene, role: lives.Role, name: str) -> None:
    """Have one process die at a hook, and everything recover."""
    first = FIRST_DIES.get(name, FIRST_DIES.get(area(name)))
    passage = PASSAGES.get(name, PASSAGES.get(area(name), 1))
    before = scene.deaths(role)
    # Who attaches has no pid yet; slot 1's worker attaches no more.
    pid = 0 if first == role else scene.pid(role)
    order.order(name, Action.KILL, passage=passage, pid=pid)
    expected = 1
    if first is not None:
        victim = scene.pid(first)
        lives.kill(victim)
        expected += first == role
    order.wait_until_hit(timeout_s=ROUND_TIMEOUT_S)
    if first is not None and first != role:
        scene.wait_for_successor(first, victim)
    wait_for_deaths(scene, role, before + expected)
    scene.assert_recovered()


def wait_for_deaths(scene: Scene, role: lives.Role, count: int) -> None:
    """Wait until so many lives have ended and another is useful."""
    slot = 0 if role == "worker" else None
    hooks.wait_until(
        lambda: scene.deaths(role) == count and lives.is_useful(scene.instance, role, slot),
        timeout_s=ROUND_TIMEOUT_S,
        what=f"life {count + 1} of the {role} in\n{scene.instance.text()}",
    )


def test_stop_between_owners_and_index_is_found_and_mended(armed: tuple[Hooks, Scene]) -> None:
    """The lcore stands still with a burst half delivered: it counts as hung, and its successor takes the burst back."""
    order, scene = armed
    for name in ("rx.owned", "tx.served"):
        victim = scene.pid("driver")
        order.order(name, Action.STOP, pid=victim)
        order.wait_until_hit()
        scene.wait_for_successor("driver", victim)
        scene.assert_recovered()


def test_pause_at_a_hook_harms_nobody(armed: tuple[Hooks, Scene]) -> None:
    order, scene = armed
    before = scene.deaths("driver"), scene.deaths("worker")
    for role, name in (("driver", "rx.published"), ("worker", "worker.put"), ("worker", "worker.asleep")):
        order.order(name, Action.SLEEP, pid=scene.pid(role), argument=200)  # type: ignore[arg-type]
        order.wait_until_hit()
        scene.assert_recovered()
    assert (scene.deaths("driver"), scene.deaths("worker")) == before


@pytest.mark.parametrize("module", [_driver, _native], ids=["driver", "native"])
def test_ordinary_module_has_no_hook(module: object) -> None:
    octets = Path(module.__file__).read_bytes()  # type: ignore[attr-defined]
    found = [name for name in [*NAMES, "halo_hook_order", hooks.VARIABLE] if name.encode() in octets]
    assert not found
    assert b"halo_" in octets


def test_hooked_modules_have_every_hook() -> None:
    octets = b"".join(path.read_bytes() for path in hooks.build().rglob("*.so"))
    assert not [name for name in NAMES if name.encode() not in octets]
    assert len(NAMES) > 30
