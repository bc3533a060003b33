# SPDX-License-Identifier: Apache-2.0
"""The C tests of native/tests, built here: as they are, and with the sanitizers of gcc."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "native"
WARNINGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror"]
FLAVOURS = {
    "plain": ["-O2"],
    "sanitized": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    # ThreadSanitizer does not follow fences, and says so; what it checks here are the rings' acquires and releases.
    "threads": ["-O1", "-g", "-fsanitize=thread", "-Wno-tsan"],
}
INCLUDES = [f"-I{NATIVE / folder}" for folder in ("include", "fastpath", "kcp")]
FASTPATH = sorted((NATIVE / "fastpath").glob("*.c"))
KCP = sorted((NATIVE / "kcp").glob("*.c"))
MEMORY = [NATIVE / "tests" / name for name in ("check.c", "memory.c")]
RIG = [NATIVE / "tests" / name for name in ("rig.c", "frames.c", "check.c")]
SOURCES = {
    "ring_test": [NATIVE / "tests" / "check.c", NATIVE / "fastpath" / "bench.c"],
    "ring_stress": [],
    "flow_test": [NATIVE / "tests" / "check.c"],
    "fastpath_test": [*RIG, *FASTPATH],
    "hook_chain_test": [*RIG, *FASTPATH],
    "hook_settle_test": [*RIG[1:], *FASTPATH],
    "forward_test": [*RIG, *FASTPATH],
    "route_test": [*RIG, *FASTPATH],
    "twin_test": [*RIG, *FASTPATH],
    "input_test": [*RIG, *FASTPATH],
    "socket_test": [*RIG, *FASTPATH],
    "raw_test": [*RIG, *FASTPATH],
    "blast_test": [*RIG, *FASTPATH],
    "worker_test": [*RIG, *FASTPATH],
    "kcp_fec_test": [NATIVE / "tests" / "check.c", *KCP],
    "kcp_core_test": [*MEMORY, *KCP],
    "kcp_group_test": [*MEMORY, *KCP],
    "kcp_fuzz_test": [NATIVE / "tests" / "check.c", *KCP],
    "capture_test": [*RIG, *FASTPATH],
}
# What a program is linked with beyond the rest.
FAILING = ["-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc"]
LINK = {"kcp_core_test": FAILING, "kcp_group_test": FAILING}
TIMEOUT_S = 180

Build = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("native")

    def gcc(flavour: str, *arguments: str | Path) -> None:
        command = ["gcc", *WARNINGS, *FLAVOURS[flavour], "-pthread", *INCLUDES, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    @cache
    def compile_one(source: Path, flavour: str) -> Path:
        out = folder / f"{source.parent.name}-{source.stem}-{flavour}.o"
        gcc(flavour, "-c", source, "-o", out)
        return out

    @cache
    def link(program: str, flavour: str) -> Path:
        out = folder / f"{program}-{flavour}"
        sources = [NATIVE / "tests" / f"{program}.c", *SOURCES[program]]
        gcc(
            flavour,
            *(compile_one(source, flavour) for source in sources),
            "-o",
            out,
            "-lm",
            *LINK.get(program, []),
        )
        return out

    return link


def run(program: Path, *arguments: str) -> str:
    """Run to the end; what it says is shown when it fails."""
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_program_is_run() -> None:
    programs = [path.stem for path in (NATIVE / "tests").glob("*.c") if "int main(" in path.read_text()]
    assert sorted(programs) == sorted(SOURCES)


@pytest.mark.parametrize("flavour", ["plain", "sanitized"])
@pytest.mark.parametrize("program", [each for each in SOURCES if each != "ring_stress"])
def test_rows(build: Build, program: str, flavour: str) -> None:
    output = run(build(program, flavour))
    assert ", 0 failed" in output


@pytest.mark.parametrize(
    ("flavour", "mode", "count"),
    [
        ("plain", "processes", 10_000_000),
        ("sanitized", "processes", 2_000_000),
        ("threads", "threads", 1_000_000),
    ],
)
def test_ring_under_stress(build: Build, flavour: str, mode: str, count: int) -> None:
    output = run(build("ring_stress", flavour), mode, str(count))
    assert f"producer: {count} descriptors" in output
    assert f"consumer: {count} descriptors" in output
