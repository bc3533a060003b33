# SPDX-License-Identifier: Apache-2.0
"""The pool's geometry as properties, and its memfd against who would resize it."""

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo_mp.errors import EnvironmentProblem
from halo_mp.shm.layout import CHUNK_OCTETS, HEADROOM_OCTETS, LINE_OCTETS, METADATA_OCTETS, ffi
from halo_mp.shm.pool import PAGE_1G, PAGE_2M, PoolGeometry, PoolMapping, create_pool

geometries = st.builds(
    PoolGeometry, buffer_count=st.integers(1, 200_000), data_octets=st.sampled_from([64, 1500, 2048, 9216])
)


def test_default_stride_is_an_odd_number_of_lines() -> None:
    geometry = PoolGeometry(1000)
    assert geometry.stride_octets == 35 * LINE_OCTETS  # 64 + 128 + 2048 octets
    assert geometry.buffers_per_chunk == 936
    assert geometry.size_octets == 2 * CHUNK_OCTETS


@given(geometries)
def test_stride_holds_the_buffer_in_an_odd_number_of_lines(geometry: PoolGeometry) -> None:
    assert geometry.stride_octets % (2 * LINE_OCTETS) == LINE_OCTETS
    spare = geometry.stride_octets - METADATA_OCTETS - HEADROOM_OCTETS - geometry.data_octets
    assert 0 <= spare < 2 * LINE_OCTETS


@given(geometries, st.data())
def test_offset_and_index_are_each_other_reversed(geometry: PoolGeometry, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, geometry.buffer_count - 1))
    within = data.draw(st.integers(0, geometry.stride_octets - 1))
    start = geometry.offset(index)
    assert geometry.index(start + within) == (index, within)
    assert start // CHUNK_OCTETS == (start + geometry.stride_octets - 1) // CHUNK_OCTETS
    assert start + geometry.stride_octets <= geometry.size_octets
    assert geometry.frame_offset(index) == start + METADATA_OCTETS + HEADROOM_OCTETS


@given(geometries, st.integers(-(2**33), 2**33))
def test_index_any_offset_is_in_its_buffer_or_refused(geometry: PoolGeometry, offset: int) -> None:
    try:
        index, within = geometry.index(offset)
    except ValueError:
        return
    assert 0 <= within < geometry.stride_octets
    assert geometry.offset(index) + within == offset


@pytest.mark.parametrize(
    ("count", "data"), [(0, 2048), (-1, 2048), (2**31, 2048), (100, 63), (1, CHUNK_OCTETS), (2_000_000, 2048)]
)
def test_geometry_impossible_is_refused(count: int, data: int) -> None:
    with pytest.raises(ValueError, match=r"pool|buffer"):
        PoolGeometry(count, data)


@pytest.mark.parametrize("index", [-1, 1000, 2**32])
def test_offset_of_no_buffer_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match="no buffer"):
        PoolGeometry(1000).offset(index)


def test_write_to_fills_the_c_struct() -> None:
    geometry = PoolGeometry(1000)
    filled = ffi.new("struct halo_pool_geometry *")
    geometry.write_to(filled)
    words = struct.unpack("QIIIIII", bytes(ffi.buffer(filled)))
    assert words == (2 * CHUNK_OCTETS, 1000, 936, 2240, 2048, 0, 0)


def test_create_is_reserved_and_can_not_be_resized() -> None:
    geometry = PoolGeometry(1000)
    fd = create_pool(geometry)
    assert os.fstat(fd).st_size == geometry.size_octets
    assert os.fstat(fd).st_blocks * 512 >= geometry.size_octets
    for size in (0, geometry.size_octets - 1, geometry.size_octets + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    os.close(fd)


def test_mapping_two_of_them_see_the_same_octets() -> None:
    geometry = PoolGeometry(1000)
    fd = create_pool(geometry)
    first, second = PoolMapping(fd, geometry.size_octets), PoolMapping(fd, geometry.size_octets)
    os.close(fd)
    offset = geometry.frame_offset(999)
    first.pointer[offset] = 0xA5
    assert second.pointer[offset] == 0xA5
    first.close()
    second.close()
    second.close()


def test_mapping_pool_that_is_too_small_is_refused() -> None:
    fd = create_pool(PoolGeometry(100))
    with pytest.raises(EnvironmentProblem, match=f"has {CHUNK_OCTETS} octets, not {2 * CHUNK_OCTETS}"):
        PoolMapping(fd, 2 * CHUNK_OCTETS)
    os.close(fd)


def test_mapping_memfd_without_seals_is_refused() -> None:
    fd = os.memfd_create("not-sealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, CHUNK_OCTETS)
    with pytest.raises(EnvironmentProblem, match="not sealed"):
        PoolMapping(fd, CHUNK_OCTETS)
    os.close(fd)


def test_mapping_something_else_is_refused() -> None:
    fd = os.open("/dev/null", os.O_RDWR)
    with pytest.raises(EnvironmentProblem, match="no memfd"):
        PoolMapping(fd, CHUNK_OCTETS)
    os.close(fd)


@pytest.mark.parametrize("page", [PAGE_2M, PAGE_1G])
def test_create_hugepages_that_are_not_there_is_a_sentence(page: int) -> None:
    with pytest.raises(EnvironmentProblem, match="hugepages") as caught:
        create_pool(PoolGeometry(1_900_000), page)
    assert "Reserve more" in str(caught.value) or "can not be created" in str(caught.value)
