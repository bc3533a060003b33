# SPDX-License-Identifier: Apache-2.0
"""Fills the tables of docs/shared-memory.md: `python tools/shared_memory_docs.py`, or with --check to compare only.

The page is prose with marks, and what stands between two marks is made here:

    <!-- struct halo_slot_life -->  ...  <!-- end -->

Offsets and sizes come from the compiled module, as every process sees them; words come from the comments of
native/include/halo/layout_def.h and drop_def.h. A writer is the nearest that the header names: behind the field, above
the struct that the field is made of, above the struct, above the section.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halo_mp.shm.layout import CHUNK_OCTETS, DROP_NAMES, DROP_TEXTS, LINE_OCTETS, ffi
from halo_mp.shm.pool import PoolGeometry
from halo_mp.shm.slot import SlotGeometry

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/shared-memory.md"
HEADERS = ROOT / "native/include/halo"

_MARK = re.compile(
    r"<!-- (?P<kind>struct|enum|drops|geometry)(?: (?P<name>\w+))? -->\n.*?<!-- end -->", re.DOTALL
)
_TOP = re.compile(
    r"/\*(?P<comment>.*?)\*/|^(?P<kind>struct|enum) (?P<name>\w+) \{(?P<body>.*?)^\};",
    re.DOTALL | re.MULTILINE,
)
_MEMBER = re.compile(r"/\*(?P<comment>.*?)\*/|(?P<name>\w+)(?:\[\w+\])*(?: = [^,;]+)?[;,]", re.DOTALL)
_WRITER = re.compile(r"[Ww]riter(?: of everything behind the header)?: (?P<who>[^,;.()]+)[,;.]?\s*")
_DROP_GROUP = re.compile(r"^/\* (?P<group>[^*\n]*?) \*/$|^X\((?P<name>\w+),", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Member:
    """A field or a constant; without a name, a remark that stands on a line of its own."""

    name: str
    writer: str
    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """A struct or an enum of the header."""

    name: str
    writer: str
    text: str
    members: tuple[Member, ...]


def read_header(source: str) -> dict[str, Block]:
    """Return the structs and enums of a header by name."""
    found: dict[str, Block] = {}
    section = above = ""
    above_ends = 0
    for match in _TOP.finditer(source):
        if match["comment"] is not None:
            above, above_ends = _words(match["comment"]), match.end()
            if above.startswith("----"):
                section, above = _writer(above)[0], ""
            continue
        # What stands above the first is about the file.
        own = above if found and not source[above_ends : match.start()].strip() else ""
        found[match["name"]] = _block(match["name"], own, match["body"], section)
        above = ""
    return found


def _block(name: str, above: str, body: str, section: str) -> Block:
    members: list[Member] = []
    inside = above
    for match in _MEMBER.finditer(body):
        if match["name"]:
            members.append(Member(match["name"], "", ""))
            continue
        words = _words(match["comment"])
        line_before = body[: match.start()].rpartition("\n")[2]
        if "\n" not in body[: match.start()]:
            inside = words  # behind the opening brace
        elif line_before.strip():
            writer, text = _writer(words)
            members[-1] = Member(members[-1].name, writer, text)
        else:
            members.append(Member("", "", words))
    return Block(name, _writer(inside)[0] or section, inside, tuple(members))


def _words(comment: str) -> str:
    """Return a comment as one line of Markdown."""
    text = " ".join(line.strip().lstrip("*").strip() for line in comment.strip().splitlines())
    return " ".join(text.split()).replace("<", "&lt;").replace("*", "\\*")


def _writer(words: str) -> tuple[str, str]:
    """Return who writes, and the words without that."""
    match = _WRITER.search(words)
    return (match["who"].strip(" -"), words[: match.start()] + words[match.end() :]) if match else ("", words)


def struct_table(blocks: dict[str, Block], name: str) -> Iterator[str]:
    """Yield the lines of a struct's table, with a column for the writer unless all fields have one."""
    block, kind = blocks[name], ffi.typeof(f"struct {name}")
    rows = list(_rows(blocks, block, dict(kind.fields)))
    writers = {row.writer for row in rows if row.field and not row.padding}
    head = [f"`struct {name}`, {ffi.sizeof(kind):,} octets.", _sentence(block.text)]
    if len(writers) == 1 and "riter" not in block.text:
        head += [f"Writer: {writer}." for writer in writers if writer]
    yield " ".join(words for words in head if words)
    yield ""
    several = len(writers) > 1
    yield "| offset | octets | field |" + (" writer |" if several else "") + " |"
    yield "|--:|--:|---|" + ("---|" if several else "") + "---|"
    for row in rows:
        writer = f" {_cell(row.writer)} |" if several else ""
        yield f"| {row.offset} | {row.octets} | {row.field} |{writer} {_cell(row.text)} |"


@dataclass(frozen=True, slots=True)
class _Row:
    text: str
    offset: str = ""
    octets: str = ""
    field: str = ""
    writer: str = ""
    padding: bool = False


def _rows(blocks: dict[str, Block], block: Block, fields: dict[str, Any]) -> Iterator[_Row]:
    if [member.name for member in block.members if member.name] != list(fields):
        raise ValueError(f"struct {block.name} is not what the compiled module has: make setup builds it")
    for member in block.members:
        if not member.name:
            yield _Row(f"*{member.text}*")
            continue
        field = fields[member.name]
        padding = member.name.startswith(("pad", "reserved"))
        writer = member.writer or _writer_of_type(blocks, field.type) or block.writer
        yield _Row(
            member.text if not padding else "*not used*",
            offset=f"{field.offset:,}",
            octets=f"{ffi.sizeof(field.type):,}",
            field=f"`{_declaration(field.type, member.name)}`",
            writer="" if padding else writer,
            padding=padding,
        )


def _writer_of_type(blocks: dict[str, Block], kind: Any) -> str:
    inner = kind.item if kind.kind == "array" else kind
    block = blocks.get(inner.cname.removeprefix("struct "))
    if block is None or block.name == "halo_pool_geometry":
        return ""
    if block.writer:
        return block.writer
    return "see there" if any(member.writer for member in block.members) else ""


def _declaration(kind: Any, name: str) -> str:
    base, bracket, rest = kind.cname.partition("[")
    return f"{base} {name}{bracket}{rest}"


def enum_table(blocks: dict[str, Block], name: str) -> Iterator[str]:
    """Yield the lines of an enum's table, in the order of the header."""
    block, values = blocks[name], ffi.typeof(f"enum {name}").relements
    yield f"`enum {name}`. {_sentence(block.text)}".rstrip()
    yield ""
    yield "| constant | value | |"
    yield "|---|--:|---|"
    for member in block.members:
        if member.name:
            yield f"| `{member.name}` | {values[member.name]} | {_cell(member.text)} |"
        else:
            yield f"| | | *{_cell(member.text)}* |"


def drop_table(source: str) -> Iterator[str]:
    """Yield the lines of the table of drop reasons: the compiled list, under the headings of its header."""
    groups: dict[str, str] = {}
    group = ""
    for match in _DROP_GROUP.finditer(source):
        if match["name"] and group:
            groups[match["name"]], group = group, ""
        group = match["group"] or group
    yield "| index | reason | |"
    yield "|--:|---|---|"
    for index, (name, text) in enumerate(zip(DROP_NAMES, DROP_TEXTS, strict=True)):
        if name in groups:
            yield f"| | | *{_cell(groups[name])}* |"
        yield f"| {index} | `{name}` | {_cell(text)} |"


def geometry_table() -> Iterator[str]:
    """Yield what the geometry comes to for a few sizes of frame, and of ring."""
    yield "| data octets | stride | lines | buffers in a chunk | octets left over |"
    yield "|--:|--:|--:|--:|--:|"
    for data in (2048, 4096, 9664):
        pool = PoolGeometry(1, data)
        left = CHUNK_OCTETS - pool.buffers_per_chunk * pool.stride_octets
        lines = pool.stride_octets // LINE_OCTETS
        yield f"| {data:,} | {pool.stride_octets:,} | {lines} | {pool.buffers_per_chunk} | {left:,} |"
    yield ""
    yield "| rx entries | buffer bound | tx entries | spare entries | rx at | tx at | spare at | region |"
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|"
    for ring in (1024, 16384, 65536):
        slot = SlotGeometry(0, PoolGeometry(1), ring)
        sizes = (
            slot.buffer_bound,
            slot.tx_size,
            slot.spare_size,
            slot.rx_offset,
            slot.tx_offset,
            slot.spare_offset,
        )
        yield "| " + " | ".join(f"{size:,}" for size in (ring, *sizes, slot.size_octets)) + " |"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ":")) or not text else ".")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").strip()


def render(page: str) -> str:
    """Return the page with everything between marks made anew.

    Raises KeyError for a mark that names nothing, ValueError where header and compiled module differ.
    """
    blocks = read_header((HEADERS / "layout_def.h").read_text())
    drops = (HEADERS / "drop_def.h").read_text()
    makers: dict[str, Callable[[str], Iterator[str]]] = {
        "struct": lambda name: struct_table(blocks, name),
        "enum": lambda name: enum_table(blocks, name),
        "drops": lambda _: drop_table(drops),
        "geometry": lambda _: geometry_table(),
    }

    def fill(match: re.Match[str]) -> str:
        head = match[0].partition("\n")[0]
        return "\n".join([head, "", *makers[match["kind"]](match["name"] or ""), "", "<!-- end -->"])

    return _MARK.sub(fill, page)


def main() -> int:
    """Rewrite the page, or tell whether it has to be."""
    parser = argparse.ArgumentParser(
        prog="tools/shared_memory_docs.py", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 if the page is outdated"
    )
    check = parser.parse_args().check
    old = PAGE.read_text()
    new = render(old)
    if old == new:
        return 0
    if check:
        sys.stderr.write(f"{PAGE} is outdated: python tools/shared_memory_docs.py\n")
        return 1
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
