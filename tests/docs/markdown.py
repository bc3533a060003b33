# SPDX-License-Identifier: Apache-2.0
"""As much of Markdown as the pages of this repository use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_FENCED = re.compile(r"^```(?P<info>\w*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n)+")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code; `info` is what stands behind its fence."""

    info: str
    body: str


def blocks(page: str) -> Iterator[Block]:
    """Yield fenced and indented blocks of code, in no particular order."""
    for fenced in _FENCED.finditer(page):
        yield Block(fenced["info"], fenced["body"])
    for indented in _INDENTED.findall(_FENCED.sub("", page)):
        yield Block("", re.sub(r"^ {4}", "", indented, flags=re.MULTILINE))


def spans(page: str) -> list[str]:
    """Return the inline code."""
    return _SPAN.findall(_without_blocks(page))


def code(page: str) -> list[str]:
    """Return every piece of code: inline, and each line of a block."""
    return [*spans(page), *(line for block in blocks(page) for line in block.body.splitlines())]


def prose(page: str) -> str:
    """Return what is no code."""
    return _SPAN.sub("", _without_blocks(page))


def links(page: str) -> list[str]:
    """Return the targets of all links."""
    return _LINK.findall(_SPAN.sub("", _without_blocks(page)))


def anchors(page: str) -> set[str]:
    """Return what a link may name behind #, in the form that hosts make of headings."""
    headings = _HEADING.findall(_FENCED.sub("", page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(page: str, heading: str) -> str:
    """Return the text below a heading, up to the next of its rank or above. Raises ValueError without one."""
    level = len(heading) - len(heading.lstrip("#"))
    start = page.index(f"\n{heading}\n") + len(heading) + 2
    end = re.compile(rf"^#{{1,{level}}} ", re.MULTILINE).search(page, start)
    return page[start : end.start() if end else len(page)]


def rows(text: str) -> list[list[str]]:
    """Return the cells of all tables' rows, headings and rules left out."""
    lines = text.splitlines()
    found = []
    for number, line in enumerate(lines):
        if not line.startswith("|") or re.fullmatch(r"[|\s:-]+", line):
            continue
        if number + 1 < len(lines) and re.fullmatch(r"\|[|\s:-]+", lines[number + 1]):
            continue
        found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def _without_blocks(page: str) -> str:
    return _INDENTED.sub("\n", _COMMENT.sub("", _FENCED.sub("", page)))
