# SPDX-License-Identifier: Apache-2.0
"""The flags of `python -m halo_mp.supervisor`: their names, what they mean, and what each one costs.

Every value stays the text that was typed: `config.build` turns texts into values, so that everything wrong
with a command line is said at once. `docs/flags.md` is made from here, by
`python -m halo_mp.supervisor.arguments`.
"""

from __future__ import annotations

import argparse
import difflib
import shlex
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import NoReturn

from halo_mp.errors import UsageError
from halo_mp.supervisor import arguments_flags
from halo_mp.supervisor.config_file import FileReader

PROGRAM = "python -m halo_mp.supervisor"

DESCRIPTION = (
    "Starts an instance of halo-mp: one driver process that moves frames between ports and shared memory, "
    "one worker process for each port that runs a protocol stack on them, and this supervisor, which "
    "restarts what dies."
)

EPILOG = """\
examples:
  Two TAP ports that the kernel can ping, at 10.77.0.1 and 10.77.1.1:
    sudo python -m halo_mp.supervisor --ports 0,1
  The same without root, in a network namespace of its own:
    unshare -rn python -m halo_mp.supervisor --ports 0,1
  An existing interface, shared with the kernel:
    sudo python -m halo_mp.supervisor --vdev net_af_packet0,iface=eth1 --address 0=10.1.2.3/24
  A NIC with four queues, a worker on each, two cores that forward:
    sudo python -m halo_mp.supervisor --pci 0000:03:00.0 --queues 4 --driver-cores 0,1 --cores 2-5
  Two ports on one worker, on a machine with few cores:
    sudo python -m halo_mp.supervisor --ports 0,1 --slot 0=0,1

exit codes:
  0  stopped as asked, by Ctrl-C or SIGTERM
  1  failed while running
  2  the flags make no sense
  3  the machine does not allow it: a device, memory, a core or a privilege is missing
  4  an instance of this name is already running
  5  the driver or a worker could not start
  6  forced by a second Ctrl-C or SIGTERM before everything had stopped
Every failure is one or two sentences on stderr that say what to type instead."""


def parser() -> argparse.ArgumentParser:
    """Return the parser that knows every flag; parse() is what reads a command line."""
    made = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [flags]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=_Formatter,
        allow_abbrev=False,
        add_help=False,
    )
    for add in arguments_flags.GROUPS:
        add(made)
    return made


def parse(argv: Sequence[str] | None = None, text: str | None = None) -> argparse.Namespace:
    """Return the flags as texts, by default those of this process; `text` is read as if it stood in --config's file.

    What is not a flag, or lacks its value, is in `.problems`, a list of sentences for `config.build`.
    --help and --version print and exit.
    """
    known = parser()
    words, problems = _joined(known, sys.argv[1:] if argv is None else argv)
    flags = known.parse_args(words)
    if flags.config is not None:
        file = FileReader(flags.config, text)
        problems += file.problems
        flags = known.parse_args(words, _from_file(known, file, words))
    flags.problems = problems
    return flags


def _from_file(known: argparse.ArgumentParser, file: FileReader, words: Sequence[str]) -> argparse.Namespace:
    """Return what a file says, but for the flags among `words`: these count in its place."""
    given = {known._option_string_actions[word.partition("=")[0]].dest for word in words if word[:1] == "-"}
    if file.implies_ports and given & {"pci", "vdev"}:
        given.add("ports")
    return argparse.Namespace(**{name: value for name, value in file.values.items() if name not in given})


def page() -> str:
    """Return docs/flags.md."""
    known = parser()
    lines = ["# Flags", "", "Made by `python -m halo_mp.supervisor.arguments > docs/flags.md`.", ""]
    lines += [DESCRIPTION, ""]
    for group in known._action_groups:
        if group._group_actions:
            lines += [f"## {(group.title or '').capitalize()}", ""]
            lines += [group.description, ""] if group.description else []
            lines += [*_table(group._group_actions), ""]
    for part in EPILOG.split("\n\n"):
        title, *rest = part.split("\n")
        lines += [f"## {title.removesuffix(':').capitalize()}", "", "```", *rest, "```", ""]
    return "\n".join(lines[:-1]) + "\n"


def _table(actions: Sequence[argparse.Action]) -> Iterator[str]:
    yield "| Flag | Meaning | Default |"
    yield "|---|---|---|"
    for action in actions:
        value = f" {action.metavar}" if action.metavar and action.nargs != 0 else ""
        names = ", ".join(f"`{name}{value}`" for name in action.option_strings)
        stated = isinstance(action.default, str) and "%(default)s" in (action.help or "")
        meaning = (action.help or "").replace(" (default %(default)s)", "")
        cells = (names, meaning, f"`{action.default}`" if stated else "")
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


class _Formatter(argparse.HelpFormatter):
    """Keeps the lines of a text that has several, and breaks no line inside of --a-flag."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = text.split("\n")
        if len(lines) == 1:
            lines = self._split_lines(text, width)
        return "\n".join(indent + line for line in lines)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class _Parser(argparse.ArgumentParser):
    """Complains by exception and in sentences."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"These flags make no sense: {message}. {PROGRAM} --help lists what there is.")


def _joined(known: argparse.ArgumentParser, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return words that argparse cannot refuse, and a sentence for each one that it would have refused.

    A flag and its value become one word, which also lets a value start with a dash: --eal --no-telemetry.
    """
    actions = known._option_string_actions
    joined: list[str] = []
    problems: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, _ = word.partition("=")
        action = actions.get(flag)
        if action is None:
            problems.append(_unknown(word, list(actions)))
            while word.startswith("-") and rest and not rest[0].startswith("-"):
                rest.pop(0)  # the value of what is no flag, as far as one can tell
        elif action.nargs == 0 and equals:
            problems.append(f"{word}: {flag} takes no value; write {flag} alone.")
        elif action.nargs is not None or equals:
            joined.append(word)
            if action.nargs == "?" and not equals and rest and not rest[0].startswith("-"):
                joined.append(rest.pop(0))
        elif rest and (rest[0].partition("=")[0] not in actions or _is_for_eal(flag, rest[0])):
            joined.append(f"{flag}={rest.pop(0)}")
        else:
            problems.append(f"{flag} needs a value; write {flag} {action.metavar}, as {PROGRAM} --help says.")
    return joined, problems


def _is_for_eal(flag: str, value: str) -> bool:
    """Tell whether what looks like the next flag is EAL's: it has one of the same name."""
    return flag == "--eal" and value.startswith("--log-level=")


def _unknown(word: str, known: Sequence[str]) -> str:
    shown = shlex.quote(word)
    if not word.startswith("-"):
        return f"{shown} belongs to no flag; several values stand behind commas, or the flag is repeated."
    near = difflib.get_close_matches(word.partition("=")[0], known, n=1)
    hint = f"the nearest is {near[0]}" if near else f"{PROGRAM} --help lists what there is"
    return f"{shown} is not a flag; {hint}."


if __name__ == "__main__":
    sys.stdout.write(page())
