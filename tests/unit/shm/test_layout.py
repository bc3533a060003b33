# SPDX-License-Identifier: Apache-2.0
"""Python's view of the layout against the headers that C compiles."""

import re
from pathlib import Path

from halo_mp.shm.layout import LINE_OCTETS, MAGIC, RegionKind, ffi, size_of

INCLUDE = Path(__file__).parents[3] / "native/include/halo"


def test_magic_is_the_one_of_the_header() -> None:
    found = re.search(r"HALO_MAGIC UINT64_C\((0x[0-9a-f]+)\)", (INCLUDE / "layout.h").read_text())
    assert found is not None
    assert int(found[1], 16) == MAGIC


def test_sizes_that_c_asserts_are_the_ones_that_python_sees() -> None:
    text = (INCLUDE / "layout.h").read_text()
    asserted = re.findall(r"static_assert\(sizeof\(struct (\w+)\) == (\d+),", text)
    assert len(asserted) > 10
    assert {name: size_of(name) for name, _ in asserted} == {name: int(size) for name, size in asserted}


def test_offsets_that_c_asserts_are_the_ones_that_python_sees() -> None:
    asserted = re.findall(
        r"^HALO_AT\((\w+), (\w+), (\d+)\);", (INCLUDE / "layout.h").read_text(), re.MULTILINE
    )
    assert len(asserted) > 5
    for struct, field, offset in asserted:
        assert ffi.offsetof(f"struct {struct}", field) == int(offset)


def test_every_region_starts_with_the_header() -> None:
    for kind in RegionKind:
        assert ffi.offsetof(f"struct {kind.struct}", "header") == 0
    assert size_of("halo_region_header") == LINE_OCTETS


def test_words_of_different_writers_are_two_lines_apart() -> None:
    slot = "struct halo_slot"
    places = [ffi.offsetof(slot, name) for name, _ in ffi.typeof(slot).fields if name != "header"]
    assert all(place % 128 == 0 for place in places[1:])  # behind geometry, which nobody writes
