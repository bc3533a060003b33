# SPDX-License-Identifier: Apache-2.0
"""Regions of a run without any process: what is found, what is put right, and who has to be ended for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from halo_mp.errors import EnvironmentProblem
from halo_mp.shm.layout import RegionKind, ffi
from halo_mp.shm.region import Region
from halo_mp.shm.tables import Interface, TablesWriter
from halo_mp.supervisor import arguments, config
from halo_mp.supervisor.config import Config
from halo_mp.supervisor.mending import Mending
from halo_mp.supervisor.regions import Regions


@pytest.fixture
def made() -> Config:
    return config.build(arguments.parse(["--name", f"m{os.getpid() % 100000}", "--ports", "0,1"]))


@pytest.fixture
def regions(made: Config) -> Iterator[Regions]:
    created = Regions.create(made, generation=7)
    yield created
    created.close()


@pytest.fixture
def mending(regions: Regions) -> Mending:
    return Mending(regions)


def region(regions: Regions, name: str) -> Region:
    found: Region = regions.slots[0].region if name == "slot" else getattr(regions, name)
    return found


def octets(of: Region) -> Any:
    return ffi.buffer(of.pointer, of.size_octets)


def test_nothing_scribbled_nothing_mended(mending: Mending) -> None:
    assert mending.check() == set()
    assert not mending.mended


@pytest.mark.parametrize(
    ("name", "guarded"),
    [("slot", 128), ("owners", 96), ("ports", 64), ("tables", 128 + 2 * (64 + 256 * 32 + 1024 * 8))],
)
def test_every_word_that_is_the_supervisors_is_mended(
    regions: Regions, mending: Mending, name: str, guarded: int
) -> None:
    scribbled = region(regions, name)
    right = bytes(octets(scribbled))
    words = range(0, guarded, 4 if guarded < 256 else 508)
    for at in words:
        octets(scribbled)[at] = bytes([right[at] ^ 0x80])
        assert mending.check() == ({0} if name == "slot" else set()), at
        assert bytes(octets(scribbled)) == right
    assert mending.mended == {scribbled.name: len(words)}


@pytest.mark.parametrize("name", ["slot", "owners", "ports"])
def test_word_that_is_anothers_is_left_alone(regions: Regions, mending: Mending, name: str) -> None:
    at = {"slot": 128, "owners": 128, "ports": 64}[name]
    octets(region(regions, name))[at] = b"\x55"
    assert mending.check() == set()
    assert octets(region(regions, name))[at] == b"\x55"


def test_what_the_supervisor_wrote_itself_is_right(regions: Regions, mending: Mending) -> None:
    writer = TablesWriter(regions.tables)
    epoch = writer.write({0: Interface(port=0, mac=bytes(6), mtu=1500)})
    mending.renew(regions.tables)
    assert mending.check() == set()
    assert writer.epoch == epoch


@pytest.mark.parametrize(
    ("name", "ended"), [("slot", {0}), ("owners", {0, 1}), ("ports", set()), ("tables", set())]
)
def test_region_cut_off_is_whole_again(
    regions: Regions, mending: Mending, name: str, ended: set[int]
) -> None:
    cut = region(regions, name)
    os.ftruncate(cut.fd, 100)
    assert mending.check() == ended
    assert os.fstat(cut.fd).st_size == cut.size_octets
    assert os.fstat(cut.fd).st_blocks * 512 >= cut.size_octets
    assert cut.header.check(cut.kind, cut.size_octets) is None


def test_region_made_longer_is_cut(regions: Regions, mending: Mending) -> None:
    os.ftruncate(regions.ports.fd, regions.ports.size_octets + 1)
    mending.check()
    assert os.fstat(regions.ports.fd).st_size == regions.ports.size_octets


def test_region_that_can_not_be_mended_is_tried_again(
    regions: Regions, mending: Mending, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full /dev/shm: said once, and the others are looked at all the same."""

    def full(_fd: int, _offset: int, _octets: int) -> None:
        raise OSError(28, os.strerror(28))

    os.ftruncate(regions.slots[0].region.fd, 0)
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        for _ in range(2):
            regions.slots[1].region.pointer.header.magic = 1
            assert mending.check() == {1}
    assert mending.check() == {0}


def test_layout_of_another_version_is_refused_with_both_versions(regions: Regions) -> None:
    """An upgrade: who knows another layout than the region has says so, and maps nothing."""
    slot = regions.slots[0].region
    slot.pointer.header.layout_version += 1
    with pytest.raises(
        EnvironmentProblem, match=r"its layout is version \d+, this program knows version \d+"
    ):
        Region.attach(os.dup(slot.fd), RegionKind.SLOT, writable=True)
