# SPDX-License-Identifier: Apache-2.0
"""Somebody scribbles where only others may write: it is found, counted and put right, and only its own slot notices."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from halo_mp.shm.layout import RegionKind, SlotState, ffi
from halo_mp.shm.region import Region, region_name
from tests.faults.conftest import Scene
from tests.support import lives
from tests.support.faults import Injector
from tests.support.namespace import wait_until

SEED = 20261122
WHY = "had its slot's region scribbled over, and was killed by SIGKILL"


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """Processes of the shared instance come and go; see nothing_left_by_the_file."""


def path_of(scene: Scene, region: str) -> Path:
    name = region_name(scene.instance.name, region).lstrip("/")
    return scene.instance.namespace.shared_memory / name


def mapped(scene: Scene, region: str, kind: RegionKind) -> Region:
    """Map a region as nobody but its writers may."""
    return Region.attach(os.open(path_of(scene, region), os.O_RDWR | os.O_CLOEXEC), kind, writable=True)


def mendings(scene: Scene) -> list[dict[str, Any]]:
    return lives.said(scene.instance, "region.mended")


def wait_for_mending(scene: Scene, before: int) -> dict[str, Any]:
    wait_until(lambda: len(mendings(scene)) > before, what=f"region.mended in\n{scene.instance.text()}")
    return mendings(scene)[before]


def reason_of_death(scene: Scene, pid: int) -> str:
    [died] = lives.said(scene.instance, "worker.died", pid=pid)
    return str(died["reason"])


WORDS = [
    "header.magic",
    "header.layout_version",
    "header.size_octets",
    "geometry.ring_size",
    "geometry.pool.stride_octets",
]


@pytest.mark.parametrize("word", WORDS)
def test_slot_header_or_geometry_scribbled(shared: Scene, word: str) -> None:
    before, victim, driver = len(mendings(shared)), shared.pid("worker"), shared.pid("driver")
    lost = shared.canary.ports[1].lost
    region = mapped(shared, "slot.0", RegionKind.SLOT)
    right = bytes(ffi.buffer(region.pointer, 128))
    *path, field = word.split(".")
    struct = region.pointer
    for name in path:
        struct = getattr(struct, name)
    setattr(struct, field, 0x55AA55AA)
    mended = wait_for_mending(shared, before)
    assert mended["region"] == region_name(shared.instance.name, "slot.0")
    assert mended["which"][0] == word
    assert mended["level"] == "warn"
    assert bytes(ffi.buffer(region.pointer, 128)) == right
    region.close()
    shared.wait_for_successor("worker", victim)
    assert reason_of_death(shared, victim) == WHY
    shared.assert_recovered()
    assert shared.pid("driver") == driver
    assert shared.canary.ports[1].lost == lost, "the other port noticed"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("owners", RegionKind.OWNERS), ("ports", RegionKind.PORTS), ("tables", RegionKind.TABLES)],
)
def test_header_of_another_region_scribbled_ends_nobody(shared: Scene, name: str, kind: RegionKind) -> None:
    before, alive = len(mendings(shared)), (shared.pid("driver"), shared.pid("worker"))
    region = mapped(shared, name, kind)
    right = bytes(ffi.buffer(region.pointer, 64))
    ffi.buffer(region.pointer, 64)[:] = random.Random(SEED).randbytes(64)
    mended = wait_for_mending(shared, before)
    assert mended["words"] == 16
    assert bytes(ffi.buffer(region.pointer, 64)) == right
    region.close()
    shared.assert_recovered()
    assert (shared.pid("driver"), shared.pid("worker")) == alive


def test_pool_geometry_of_owners_scribbled_does_not_reach_the_next_driver(shared: Scene) -> None:
    before, deaths = len(mendings(shared)), shared.deaths("driver")
    region = mapped(shared, "owners", RegionKind.OWNERS)
    region.pointer.pool.stride_octets = 64
    assert wait_for_mending(shared, before)["which"] == ["pool.stride_octets"]
    region.close()
    victim = shared.pid("driver")
    lives.kill(victim)
    shared.wait_for_successor("driver", victim)
    assert shared.deaths("driver") == deaths + 1
    shared.assert_recovered()


def test_tables_scribbled_are_written_again_for_who_reads_them_next(shared: Scene) -> None:
    """A worker may have copied what was scribbled with a new generation; the right one has it copy once more."""
    before = len(mendings(shared))
    region = mapped(shared, "tables", RegionKind.TABLES)
    block = region.pointer.interfaces[region.pointer.active]
    address, generation = block.address[0].address, region.pointer.interface_generation
    block.address[0].address = 0x01020304
    region.pointer.interface_generation += 5
    region.pointer.epoch += 5
    mended = wait_for_mending(shared, before)
    assert {"epoch", "interface_generation"} <= set(mended["which"])
    assert block.address[0].address == address
    assert region.pointer.interface_generation == generation
    region.close()
    shared.assert_recovered()


@pytest.mark.parametrize("field", ["state", "generation"])
def test_life_scribbled_by_the_worker_ends_it(shared: Scene, field: str) -> None:
    victim = shared.pid("worker")
    generation = shared.instance.slot(0)["generation"]
    broken = shared.instance.slot(0)["driver"]["counters"]["rings_broken"]
    region = mapped(shared, "slot.0", RegionKind.SLOT)
    setattr(region.pointer.life, field, SlotState.DISABLED if field == "state" else 0x7FFFFFFF)
    region.close()
    shared.wait_for_successor("worker", victim)
    assert reason_of_death(shared, victim) == "broke its rings, and was killed by SIGKILL"
    shared.assert_recovered()
    after = shared.instance.slot(0)
    assert after["generation"] == generation + 1
    assert after["driver"]["counters"]["rings_broken"] == broken + 1


@pytest.mark.parametrize("octets", [0, 4096])
def test_region_cut_off_grows_again(shared: Scene, octets: int) -> None:
    """Who touches what is not there dies of it; everybody comes back, and the books are whole."""
    before, path = len(mendings(shared)), path_of(shared, "slot.0")
    size, victim = path.stat().st_size, shared.pid("worker")
    os.truncate(path, octets)
    assert wait_for_mending(shared, before)["found_octets"] == octets
    assert path.stat().st_size == size
    shared.wait_for_successor("worker", victim)
    shared.assert_recovered(laws=True)
    assert shared.instance.process is not None
    assert shared.instance.process.poll() is None
    assert path.stat().st_blocks * 512 >= size, "what is mapped is reserved"


def test_region_made_longer_is_cut_again(shared: Scene) -> None:
    before, path = len(mendings(shared)), path_of(shared, "slot.0")
    size, victim = path.stat().st_size, shared.pid("worker")
    os.truncate(path, size + 4096)
    assert wait_for_mending(shared, before)["found_octets"] == size + 4096
    assert path.stat().st_size == size
    shared.wait_for_successor("worker", victim)
    shared.assert_recovered()


@pytest.mark.parametrize(
    "area", ["rx", "tx", "spare", "descriptors", "doorbell", "status", "counters.worker", "counters.driver"]
)
def test_words_scribbled_harm_their_own_slot_only(shared: Scene, area: str) -> None:
    driver = shared.pid("driver")
    with Injector(shared.instance, (0,), seed=SEED) as faults:
        for _ in range(3):
            faults.scribble(area, 0)
        faults.heal()
        shared.assert_recovered()
    assert shared.pid("driver") == driver
    assert not lives.said(shared.instance, "worker.died", slot=1)
