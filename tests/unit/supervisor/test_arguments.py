# SPDX-License-Identifier: Apache-2.0
"""The flags as texts: what argparse would say in its own words is a sentence of ours instead."""

import re
from pathlib import Path

import pytest

import halo_mp
from halo_mp.supervisor import arguments, config

ROOT = Path(__file__).resolve().parents[3]


def test_parse_nothing_gives_defaults_that_build_accepts() -> None:
    flags = arguments.parse([])
    assert flags.problems == []
    built = config.build(flags, config.Machine(cores=(0, 1), free_pages={}))
    assert (built.instance, built.ring_size, built.idle, built.restart_limit) == (
        "default",
        16384,
        "adaptive",
        (5, 10.0),
    )
    assert (built.hang_timeout_s, built.orphan_timeout_s, built.stats_log) == (10.0, 60.0, None)
    assert built.ports[0].promiscuous
    assert (built.rx_checksum, built.tx_checksum, built.tx_only, built.debug_log) == (False,) * 4


def test_parse_separate_and_joined_values_mean_the_same() -> None:
    assert vars(arguments.parse(["--ports", "0,1", "--vdev", "net_null0"])) == vars(
        arguments.parse(["--ports=0,1", "--vdev=net_null0"])
    )


def test_parse_repeated_flag_keeps_every_value() -> None:
    flags = arguments.parse(["--address", "0=10.0.0.1/24", "--address", "0=10.0.0.2/24"])
    assert flags.address == ["0=10.0.0.1/24", "0=10.0.0.2/24"]


@pytest.mark.parametrize("value", ["--no-hpet", "--log-level=lib.eal:debug", "-v", "-d /usr/lib/extra.so"])
def test_parse_eal_value_may_start_with_a_dash(value: str) -> None:
    flags = arguments.parse(["--eal", value, "--ports", "0"])
    assert (flags.eal, flags.ports, flags.problems) == ([value], "0", [])


def test_parse_own_log_level_stays_ours_after_eal() -> None:
    flags = arguments.parse(["--eal", "-v", "--log-level=debug"])
    assert (flags.eal, flags.log_level) == (["-v"], "debug")


@pytest.mark.parametrize(
    ("words", "stats_log"),
    [
        ([], None),
        (["--stats-log"], "1"),
        (["--stats-log", "0.5"], "0.5"),
        (["--stats-log", "--tx-only"], "1"),
    ],
)
def test_parse_stats_log_with_and_without_value(words: list[str], stats_log: str | None) -> None:
    assert arguments.parse(words).stats_log == stats_log


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--prots", "0,1"], "--prots is not a flag; the nearest is --ports."),
        (["--port=0"], "--port=0 is not a flag; the nearest is --ports."),
        (["--qqq"], "--qqq is not a flag; python -m halo_mp.supervisor --help lists what there is."),
        (["-p"], "-p is not a flag; python -m halo_mp.supervisor --help lists what there is."),
        (
            ["--ports", "0", "1"],
            "1 belongs to no flag; several values stand behind commas, or the flag is repeated.",
        ),
        (["--tx-only=yes"], "--tx-only=yes: --tx-only takes no value; write --tx-only alone."),
        (["--promiscuous=no"], "--promiscuous=no: --promiscuous takes no value; write --promiscuous alone."),
        (
            ["--cores"],
            "--cores needs a value; write --cores LIST, as python -m halo_mp.supervisor --help says.",
        ),
        (
            ["--name", "--ports", "0"],
            "--name needs a value; write --name NAME, as python -m halo_mp.supervisor --help says.",
        ),
    ],
)
def test_parse_what_is_no_flag_is_one_sentence(words: list[str], sentence: str) -> None:
    assert arguments.parse(words).problems == [sentence]


def test_parse_collects_problems_and_keeps_the_good_flags() -> None:
    flags = arguments.parse(["--prots", "0", "--queues", "2", "--tx-only=1", "--name"])
    assert len(flags.problems) == 3
    assert flags.queues == "2"


@pytest.mark.parametrize("words", [["--help"], ["-h"]])
def test_help_shows_every_flag_and_every_exit_code(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        arguments.parse(words)
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    for flag in re.findall(r"^\| `(--[a-z-]+)", arguments.page(), re.MULTILINE):
        assert flag in shown
    assert [line.split()[0] for line in shown.splitlines() if re.match(r"  \d  ", line)] == list("0123456")


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        arguments.parse(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"halo-mp {halo_mp.__version__}\n"


def test_help_examples_build() -> None:
    machine = config.Machine(cores=tuple(range(6)), free_pages={})
    lines = [line for line in arguments.EPILOG.splitlines() if "-m halo_mp.supervisor" in line]
    assert len(lines) >= 4
    for line in lines:
        config.build(arguments.parse(line.split("-m halo_mp.supervisor")[1].split()), machine)


def test_page_in_docs_is_the_one_the_parser_makes() -> None:
    made = arguments.page()
    assert (ROOT / "docs" / "flags.md").read_text() == made, (
        "docs/flags.md is old: python -m halo_mp.supervisor.arguments > docs/flags.md"
    )
