# SPDX-License-Identifier: Apache-2.0
"""Regions: what is made, what is refused, and what happens when memory is short."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halo_mp.errors import EnvironmentProblem
from halo_mp.shm.identity import own_start_ticks
from halo_mp.shm.layout import LAYOUT_VERSION, MAGIC, RegionKind, ffi, size_of
from halo_mp.shm.region import HEADER_OCTETS, Header, Region, is_stale, region_name

SIZE = size_of("halo_tables")


@pytest.fixture
def region(instance: str) -> Iterator[Region]:
    made = Region.create(region_name(instance, "tables"), RegionKind.TABLES, SIZE, generation=7)
    yield made
    made.unlink()
    made.close()


def test_create_header_says_what_it_is_and_whose(region: Region) -> None:
    header = region.header
    assert (header.magic, header.layout_version) == (MAGIC, LAYOUT_VERSION)
    assert (header.kind, header.size_octets, header.generation) == (RegionKind.TABLES, SIZE, 7)
    assert (header.creator_pid, header.creator_start_ticks) == (os.getpid(), own_start_ticks())
    assert header.creator_is_alive
    assert header.check(RegionKind.TABLES, SIZE) is None


def test_create_reserves_every_page(region: Region) -> None:
    assert os.fstat(region.fd).st_blocks * 512 >= SIZE


def test_create_name_taken_is_refused_with_the_owner(region: Region) -> None:
    with pytest.raises(EnvironmentProblem, match=f"process {os.getpid()}, which is alive"):
        Region.create(region.name, RegionKind.TABLES, SIZE, generation=8)
    assert region.header.generation == 7


def test_attach_sees_what_the_creator_writes(region: Region) -> None:
    attached = Region.attach(region.name, RegionKind.TABLES, writable=False)
    region.pointer.epoch = 12
    assert attached.pointer.epoch == 12
    attached.close()


def test_attach_keeps_its_mapping_without_the_descriptor(region: Region) -> None:
    attached = Region.attach(os.dup(region.fd), RegionKind.TABLES, writable=True)
    before = len(os.listdir("/proc/self/fd"))
    attached.close_fd()
    assert len(os.listdir("/proc/self/fd")) == before - 1
    attached.pointer.epoch = 3
    assert region.pointer.epoch == 3
    with pytest.raises(ValueError, match="no descriptor"):
        _ = attached.fd
    attached.close()
    attached.close()


def test_readonly_fd_can_not_be_mapped_for_writing(region: Region) -> None:
    with pytest.raises(PermissionError):
        Region.attach(region.readonly_fd(), RegionKind.TABLES, writable=True)
    reader = Region.attach(region.readonly_fd(), RegionKind.TABLES, writable=False)
    assert reader.header == region.header
    reader.close()


def test_write_through_readonly_mapping_kills_the_writer(region: Region) -> None:
    script = (
        "import sys; from halo_mp.shm.region import *\n"
        "region = Region.attach(sys.argv[1], RegionKind.TABLES, writable=False); region.pointer.epoch = 5"
    )
    assert subprocess.run([sys.executable, "-c", script, region.name], check=False).returncode == -11
    assert region.pointer.epoch == 0


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("magic", 0x1122334455667788, "0x1122334455667788"),
        ("layout_version", LAYOUT_VERSION + 1, f"version {LAYOUT_VERSION + 1}"),
        ("kind", RegionKind.SLOT, "of kind slot, not tables"),
        ("kind", 99, "of kind 99, not tables"),
        ("size_octets", SIZE - 1, f"says {SIZE - 1} octets, the file has {SIZE}"),
        ("size_octets", 2**64 - 1, f"the file has {SIZE}"),
        ("boot_id", bytes(16), "before this machine booted"),
    ],
)
def test_attach_header_scribbled_is_refused_with_what_was_found(
    region: Region, field: str, value: object, words: str
) -> None:
    setattr(region.pointer.header, field, value)
    with pytest.raises(EnvironmentProblem, match=words):
        Region.attach(region.name, RegionKind.TABLES, writable=False)


@pytest.mark.parametrize("size", [0, 1, HEADER_OCTETS - 1, HEADER_OCTETS, SIZE - 1, SIZE + 4096])
def test_attach_file_of_another_size_is_refused(region: Region, size: int) -> None:
    os.ftruncate(region.fd, size)
    with pytest.raises(EnvironmentProblem, match="is refused"):
        Region.attach(region.name, RegionKind.TABLES, writable=False)


def test_attach_kind_smaller_than_its_struct_is_refused(instance: str) -> None:
    small = Region.create(region_name(instance, "slot.0"), RegionKind.OWNERS, 128, generation=1)
    small.pointer.header.kind = RegionKind.SLOT
    with pytest.raises(EnvironmentProblem, match="is refused"):
        Region.attach(small.name, RegionKind.SLOT, writable=False)
    small.unlink()
    small.close()


def test_attach_nothing_there_says_so(instance: str) -> None:
    with pytest.raises(EnvironmentProblem, match="there is no shared memory"):
        Region.attach(region_name(instance, "ports"), RegionKind.PORTS, writable=False)


def test_attach_pipe_is_refused() -> None:
    reading, writing = os.pipe()
    with pytest.raises((EnvironmentProblem, OSError)):
        Region.attach(reading, RegionKind.TABLES, writable=False)
    os.close(writing)


@given(octets=st.binary(min_size=HEADER_OCTETS, max_size=HEADER_OCTETS))
@settings(max_examples=200)
def test_check_random_header_is_never_accepted(octets: bytes) -> None:
    assert Header.parse(octets).check(RegionKind.TABLES, SIZE) is not None


@pytest.mark.parametrize("length", range(HEADER_OCTETS))
def test_parse_header_truncated_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="no region header"):
        Header.parse(bytes(length))


def test_is_stale_creator_alive_is_not(region: Region) -> None:
    assert not is_stale(region.name)


def test_is_stale_creator_dead_is(region: Region) -> None:
    region.pointer.header.creator_start_ticks += 1  # the same pid, another process
    assert is_stale(region.name)


def test_is_stale_no_header_depends_on_who_makes_it(region: Region) -> None:
    ffi.memmove(region.pointer, bytes(HEADER_OCTETS), HEADER_OCTETS)
    assert not is_stale(region.name)  # its creator holds it: under construction
    region.close()
    assert is_stale(region.name)  # it is dead: what it held has gone with it


def test_is_stale_nothing_there_is_not(instance: str) -> None:
    assert not is_stale(region_name(instance, "ports"))


def test_create_full_shared_memory_is_a_sentence_and_leaves_nothing() -> None:
    script = """
import os, subprocess
from halo_mp.errors import EnvironmentProblem
from halo_mp.shm.region import Region, RegionKind
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", "/dev/shm"], check=True)
fds = len(os.listdir("/proc/self/fd"))
try:
    Region.create("/halo-mp.full.tables", RegionKind.TABLES, 1 << 20, generation=1)
except EnvironmentProblem as error:
    print(error)
assert os.listdir("/dev/shm") == [] and len(os.listdir("/proc/self/fd")) == fds
"""
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "needs 1048576 octets, and /dev/shm has 262144 left" in done.stdout
