# SPDX-License-Identifier: Apache-2.0
"""docs/shared-memory.md says what the layout header and the compiled module say."""

from __future__ import annotations

import re

import pytest

from halo_mp.shm.layout import DROP_NAMES, ffi
from tools import shared_memory_docs as docs

HEADER = (docs.HEADERS / "layout_def.h").read_text()
PAGE = docs.PAGE.read_text()

EXAMPLE = """\
/* About the file. */
enum halo_first {
	A = 1,
};

/* What it is. Writer: the driver, now and then. */
struct halo_one {
	uint32_t plain;   /* a word */
	uint32_t other[2]; /* writer: the worker; of its own */
	/* then more */
};

/* ---- things: of somebody. Writer of everything behind the header: the supervisor ---- */

struct halo_two {
	uint8_t pad[4];
	struct halo_one one;
};

struct halo_three { /* writer: an lcore */
	uint8_t octet;
};
"""


def test_page_is_what_the_generator_makes() -> None:
    assert docs.render(PAGE) == PAGE, "outdated: python tools/shared_memory_docs.py"


@pytest.mark.parametrize(
    "lie", [("| 512 | 256 |", "| 512 | 128 |"), ("| 0 | `rx_ring_full` |", "| 1 | `rx_ring_full` |")]
)
def test_page_that_lies_is_found(lie: tuple[str, str]) -> None:
    assert lie[0] in PAGE
    assert docs.render(PAGE.replace(*lie)) == PAGE


def test_every_struct_and_enum_of_the_header_has_its_table() -> None:
    declared = set(re.findall(r"^((?:struct|enum) \w+) \{", HEADER, re.MULTILINE))
    marked = re.findall(r"<!-- ((?:struct|enum) \w+) -->", PAGE)
    assert sorted(marked) == sorted(declared)


def test_tables_have_every_octet_once() -> None:
    for name in re.findall(r"<!-- struct (\w+) -->", PAGE):
        table = PAGE.split(f"<!-- struct {name} -->")[1].split("<!-- end -->")[0]
        rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \|", table, re.MULTILINE)
        spans = [(int(offset.replace(",", "")), int(octets.replace(",", ""))) for offset, octets in rows]
        end = 0
        for offset, octets in spans:
            # The compiler may align a word; nothing else lies between two fields.
            assert end <= offset < end + 8, (name, offset)
            end = offset + octets
        assert end == ffi.sizeof(f"struct {name}"), name


def test_every_drop_reason_is_there() -> None:
    assert re.findall(r"^\| \d+ \| `(\w+)` \|", PAGE.split("<!-- drops -->")[1], re.MULTILINE) == list(
        DROP_NAMES
    )


def test_writers_come_from_the_nearest_comment() -> None:
    blocks = docs.read_header(EXAMPLE)
    one, two, three = blocks["halo_one"], blocks["halo_two"], blocks["halo_three"]
    assert blocks["halo_first"].text == ""
    assert (one.writer, one.text) == ("the driver", "What it is. Writer: the driver, now and then.")
    assert one.members == (
        docs.Member("plain", "", "a word"),
        docs.Member("other", "the worker", "of its own"),
        docs.Member("", "", "then more"),
    )
    assert (two.writer, three.writer) == ("the supervisor", "an lcore")


def test_header_that_was_not_compiled_is_refused() -> None:
    blocks = docs.read_header(HEADER.replace("uint32_t layout_version;", "uint32_t layout_number;"))
    with pytest.raises(ValueError, match="make setup"):
        list(docs.struct_table(blocks, "halo_region_header"))
