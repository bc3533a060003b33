# SPDX-License-Identifier: Apache-2.0
"""One layout, two languages: what the C compiler says of each struct against what cffi says."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from halo_mp._native import ffi, lib
from halo_mp.shm.layout import DROP_NAMES, DROP_TEXTS

INCLUDE = Path(__file__).resolve().parents[2] / "native" / "include"
HEADERS = [INCLUDE / "halo" / name for name in ("layout_def.h", "packet_def.h")]
COMPILE = ["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", f"-I{INCLUDE}", "-x", "c", "-"]
INCLUDES = "#include <stdio.h>\n#include <halo/layout.h>\n#include <halo/packet_def.h>\n"

Compiler = Callable[[str], list[str]]


def without_comments() -> str:
    text = "".join(path.read_text() for path in HEADERS)
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def structs() -> dict[str, list[str]]:
    """Fields of each struct, in the order of the headers."""
    bodies = re.findall(r"^struct (\w+) \{(.*?)^\};", without_comments(), flags=re.DOTALL | re.MULTILINE)
    return {name: re.findall(r"(\w+)(?:\[\w+\])*;", body) for name, body in bodies}


def constants() -> list[str]:
    bodies = re.findall(r"^enum \w+ \{(.*?)^\};", without_comments(), flags=re.DOTALL | re.MULTILINE)
    return [name for body in bodies for name in re.findall(r"(\w+) = ", body)]


STRUCTS = structs()


@pytest.fixture(scope="module")
def run_c(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """Run the body of a C main() and return the lines it prints."""
    program = tmp_path_factory.mktemp("layout") / "program"

    def run(body: str) -> list[str]:
        source = f"{INCLUDES}int main(void)\n{{\n{body}\treturn 0;\n}}\n"
        subprocess.run([*COMPILE, "-o", str(program)], input=source, text=True, check=True)
        return subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()

    return run


def fields_of(name: str) -> list[tuple[str, Any]]:
    return list(ffi.typeof(f"struct {name}").fields)


def test_headers_are_read_whole() -> None:
    assert len(STRUCTS) > 20
    assert STRUCTS["halo_descriptor"] == ["offset", "length", "port", "flags"]
    assert len(constants()) > 50
    _, declared, _ = ffi.list_types()
    assert set(STRUCTS) <= set(declared)


@pytest.mark.parametrize("name", STRUCTS)
def test_cffi_knows_each_field(name: str) -> None:
    assert [field for field, _ in fields_of(name)] == STRUCTS[name]


def test_each_struct_and_field_lies_where_c_says(run_c: Compiler) -> None:
    body, expected = "", []
    for name in STRUCTS:
        body += f'\tprintf("{name} %zu %zu\\n", sizeof(struct {name}), _Alignof(struct {name}));\n'
        expected.append(f"{name} {ffi.sizeof(f'struct {name}')} {ffi.alignof(f'struct {name}')}")
        for field, info in fields_of(name):
            body += (
                f'\tprintf("{name}.{field} %zu %zu\\n", offsetof(struct {name}, {field}), '
                f"sizeof(((struct {name} *)0)->{field}));\n"
            )
            expected.append(f"{name}.{field} {info.offset} {ffi.sizeof(info.type)}")
    assert run_c(body) == expected


def test_each_constant_has_one_value(run_c: Compiler) -> None:
    names = constants()
    body = "".join(f'\tprintf("{name} %lld\\n", (long long){name});\n' for name in names)
    assert run_c(body) == [f"{name} {getattr(lib, name)}" for name in names]


@pytest.mark.parametrize("name", STRUCTS)
def test_no_struct_has_implicit_padding(name: str) -> None:
    offset = 0
    for field, info in fields_of(name):
        assert info.offset == offset, f"a gap before {field}"
        offset += ffi.sizeof(info.type)
    assert offset == ffi.sizeof(f"struct {name}")


def padding_warnings(text: str) -> str:
    """What gcc says of padding in the shared headers, with `text` behind them."""
    command = [*COMPILE, "-Wpadded", "-fsyntax-only"]
    return subprocess.run(command, input=INCLUDES + text, capture_output=True, text=True, check=False).stderr


def test_the_compiler_pads_nothing() -> None:
    assert padding_warnings("") == ""
    assert "padding" in padding_warnings("struct gap { uint8_t one; uint32_t two; };\n")
    assert "padding" in padding_warnings("struct tail { uint32_t one; uint8_t two; };\n")


def test_drop_reasons_are_the_list_in_its_order(run_c: Compiler) -> None:
    text = (INCLUDE / "halo" / "drop_def.h").read_text()
    listed = re.findall(r'^X\((\w+), "([^"]+)"\)$', text, flags=re.MULTILINE)
    assert len(listed) == len(re.findall(r"^X\(", text, flags=re.MULTILINE))
    assert list(zip(DROP_NAMES, DROP_TEXTS, strict=True)) == listed
    assert len({name for name, _ in listed}) == len(listed) == lib.HALO_DROP_COUNT <= lib.HALO_DROP_LIMIT
    body = "".join(f'\tprintf("%d\\n", HALO_DROP_{name});\n' for name, _ in listed)
    assert run_c(body) == [str(position) for position in range(len(listed))]
    assert [getattr(lib, f"HALO_DROP_{name}") for name, _ in listed] == list(range(len(listed)))
