# SPDX-License-Identifier: Apache-2.0
"""Words that make sense and words that make none, without an instance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from halo_mp.cli import main as cli
from halo_mp.cli.output import write_table
from halo_mp.cli.page import page
from halo_mp.cli.run import with_name

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def no_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("HALO_MP_NAME", raising=False)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.run(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("words", [("--help",), (), ("-h",)])
def test_help_lists_every_command_and_imports_none(words: tuple[str, ...]) -> None:
    program = (
        "import sys; from halo_mp.cli.main import run; run(sys.argv[1:]); "
        "found = [name for name in sys.modules if name.startswith('halo_mp.') and 'cli.' in name]; "
        "print(sorted(found), any(name.split('.')[0] in ('rich', 'msgpack', 'cffi') for name in sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    last = found.stdout.splitlines()[-1]
    assert last == "['halo_mp.cli.lazy', 'halo_mp.cli.main'] False"
    for name in cli.COMMANDS:
        assert f"\n  {name} " in found.stdout + found.stderr


@pytest.mark.parametrize("name", [*cli.COMMANDS])
def test_each_command_is_there_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "run":  # its help is the supervisor's
        return
    code, text, error = said(capsys, name, "--help")
    assert (code, error) == (0, "")
    assert text.startswith(f"Usage: halo-mp {name}")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["sow"], 2, "there is no command 'sow'; the nearest is show."),
        (["zzzz"], 2, "there is no command 'zzzz'; there are run, stop, "),
        (["show", "interface"], 2, "there is no command 'interface'; the nearest is interfaces."),
        (["status", "--nmae", "x"], 2, "No such option"),
        (["show", "interfaces", "--name", "a/b"], 2, "'a/b' is no name of an instance"),
        (["ping"], 2, "Missing argument 'ADDRESS'"),
        (["ping", "10.1.2.3", "--count", "0"], 2, "0 is not in the range"),
        (["set", "interface", "0"], 2, "there is nothing to set"),
        (["set", "route", "default"], 2, "write either the hops of the route"),
        (["set", "route", "default", "10.0.0.1", "--delete"], 2, "write either the hops of the route"),
        (["set", "neighbor", "0", "10.0.0.1"], 2, "write either the neighbor's MAC address"),
        (["set", "address", "0", "10.0.0.1/24", "--delete", "--primary"], 2, "contradict each other"),
        (["config", "show", "--routes", "--no-routes"], 2, "leave nothing"),
        (["show", "routes", "--name", "gone"], 3, "nobody answers at "),
        (["config", "apply", "x.toml", "--name", "gone"], 3, "nobody answers at "),
        (["stop", "--name", "gone"], 3, "there is no instance 'gone'"),
        (["top", "--once", "--json"], 2, "three ways to show it; choose one."),
        (["top", "--name", "gone", "--once"], 3, "Instance 'gone' is not running"),
        (["top", "--name", "gone", "--web", "nowhere"], 2, "write an address and a port"),
        (["top", "--name", "gone", "--web", "a:²"], 2, "write an address and a port"),
        (["top", "--web-pages", "0"], 2, "0 is not in the range 1<=x<=1000"),
    ],
)
def test_words_that_make_no_sense_are_answered_with_advice(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, sentence: str
) -> None:
    found, text, error = said(capsys, *words)
    assert (found, text) == (code, "")
    assert error.startswith("halo-mp: ")
    assert sentence in error
    assert all(line.startswith("halo-mp: ") for line in error.splitlines())


def test_name_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HALO_MP_NAME", "edge7")
    assert "edge7" in said(capsys, "show", "instance")[2]
    assert with_name(["--ports", "0"]) == ["--ports", "0", "--name", "edge7"]
    assert with_name(["--name=x"]) == ["--name=x"]


def test_status_of_nobody_is_that_of_the_status_module(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, error = said(capsys, "status", "--name", "gone")
    assert (code, error) == (3, "")
    assert text.startswith("There is no instance 'gone'.")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_that_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = said(capsys, "completion", shell)
    assert code == 0
    assert "_HALO_MP_COMPLETE" in text


def test_completion_in_bash_knows_commands_and_instances(tmp_path: Path) -> None:
    (tmp_path / "halo-mp" / "edge7").mkdir(parents=True)
    program = [sys.executable, "-c", "from halo_mp.cli.main import run; run()"]

    def completed(*words: str) -> list[str]:
        variables = {
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
            "_HALO_MP_COMPLETE": "bash_complete",
        }
        found = subprocess.run(
            program, env={**os.environ, **variables}, capture_output=True, text=True, check=True
        )
        return [line.partition(",")[2] for line in found.stdout.splitlines()]

    assert completed("halo-mp", "co") == ["completion", "config"] or completed("halo-mp", "co") == [
        "config",
        "completion",
    ]
    assert "edge7" in completed("halo-mp", "show", "routes", "--name", "edge")
    assert completed("halo-mp", "run", "--con") == ["--config", "--control-group"]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("run --config rou", "a file"),
        ("doctor --config rou", "a file"),
        ("config apply rou", "a file"),
        ("show config --no", "--no-routes"),
        ("run --ports 0 --ring", "--ring-size"),
    ],
)
def test_script_for_bash_completes(tmp_path: Path, words: str, wanted: str) -> None:
    program = tmp_path / "halo-mp"
    program.write_text(f"#!{sys.executable}\nfrom halo_mp.cli.main import run\nrun()\n")
    program.chmod(0o755)
    script = (
        'source <(halo-mp completion bash); compopt() { [ "$2" = default ] && echo a file; }; '
        f"COMP_WORDS=(halo-mp {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
        '_halo_mp_completion halo-mp "${COMP_WORDS[-1]}"; echo "${COMPREPLY[@]}"'
    )
    found = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == wanted


@pytest.mark.parametrize("words", ["--help", "show --help", "doctor", "unit", "completion bash", "status"])
@pytest.mark.parametrize(
    ("redirection", "code", "sentence"),
    [
        (">/dev/full", 1, "halo-mp: standard output can not be written: No space left on device.\n"),
        ("| exec 0<&-", 0, ""),
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
    ],
)
def test_output_that_nobody_takes_costs_no_traceback(
    words: str, redirection: str, code: int, sentence: str
) -> None:
    program = f"{sys.executable} -m halo_mp.cli {words}"
    if words == "status" and ">&-" in redirection:
        code = 3  # nobody is there
    if redirection.startswith("|"):  # a reader that is gone before anything is written
        program = f"( sleep 0.2; exec {program} )"
    found = subprocess.run(
        ["bash", "-c", f"{program} {redirection}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stderr) == (code, sentence)


TABLE = (
    ("name", "count", "addresses"),
    [("0", 7, ("10.1.0.1/24", "10.2.0.1/24")), ("0.100", 12345, ())],
)


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (
            None,
            ["name   count  addresses", "0          7  10.1.0.1/24, 10.2.0.1/24", "0.100  12345  -"],
        ),
        (
            38,
            ["name   count  addresses", "0          7  10.1.0.1/24, 10.2.0.1/24", "0.100  12345  -"],
        ),
        (
            37,
            [
                "name   count",
                "0          7",
                "  addresses: 10.1.0.1/24, 10.2.0.1/24",
                "0.100  12345",
                "  addresses: -",
            ],
        ),
        (
            11,
            [
                "name",
                "0",
                "  count: 7;",
                "    addresses:",
                "    10.1.0.1/24,",
                "    10.2.0.1/24",
                "0.100",
                "  count: 12345;",
                "    addresses: -",
            ],
        ),
    ],
)
def test_table_breaks_no_word_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    columns: int | None,
    lines: list[str],
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: columns is not None)
    monkeypatch.setenv("COLUMNS", str(columns or 20))
    write_table(*TABLE, numbers=["count"])
    assert capsys.readouterr().out.splitlines() == lines


def test_page_is_up_to_date() -> None:
    assert (ROOT / "docs/cli.md").read_text() == page(), (
        "docs/cli.md is old: python -m halo_mp.cli.page > docs/cli.md"
    )


@pytest.mark.parametrize("user", [None, "daemon"])
def test_unit_is_one_that_systemd_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], user: str | None
) -> None:
    code, text, _ = said(capsys, "unit", *(["--user", user] if user else []), "--directory", str(tmp_path))
    assert code == 0
    assert f"ExecStart={sys.executable} -m halo_mp.supervisor --config {tmp_path}/%i.toml --name %i\n" in text
    assert ("User=daemon\n" in text) == bool(user)
    # Not 4: orphans that may not be taken over end by themselves, and then somebody has to forward.
    assert "\nRestartPreventExitStatus=2\n" in text
    assert "\nStartLimitIntervalSec=0\n" in text
    file = tmp_path / "halo-mp@.service"
    file.write_text(text)
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")


def test_doctor_looks_and_prints_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = said(capsys, "doctor", "--json")
    found = json.loads(text)
    assert {entry["topic"] for entry in found} >= {
        "halo-mp",
        "DPDK",
        "shared memory",
        "memory",
        "cores",
        "NICs",
        "TAPs",
    }
    assert code == any(entry["level"] == "failure" for entry in found)
    assert all(entry["commands"] for entry in found if entry["level"] in ("note", "warning", "failure"))


def test_doctor_says_why_a_configuration_can_not_start_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "router.toml"
    file.write_text("[cores]\nworkers = [1000]\n[ports.0]\n")
    code, text, _ = said(capsys, "doctor", "--config", str(file), "--no-all")
    assert code == 1
    assert "FAIL  configuration: --cores: there is no core 1000" in text
    file.write_text("[cores]\nworker = 1\n")
    assert "the nearest is workers" in " ".join(said(capsys, "doctor", "--config", str(file))[1].split())
