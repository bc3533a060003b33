# SPDX-License-Identifier: Apache-2.0
"""docs/cli.md, made from the commands themselves: `python -m halo_mp.cli.page > docs/cli.md`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

import click

from halo_mp.cli.main import main

HEAD = """\
# The command line

Made by `python -m halo_mp.cli.page > docs/cli.md`. `halo-mp` runs, watches and changes instances; in a checkout it is
`.venv/bin/halo-mp`. All but `run`, `doctor`, `unit` and `completion` is about an instance that is there: `--name` or
the variable `HALO_MP_NAME` says which one, by default `default`. Tables are for people, and may change; `--json` is
for scripts, with the keys that [their page](json.md) has; those of `config`, `ping` and `watch` are fields of the
[control protocol](control-protocol.md#requests).

| exit code | |
|---|---|
| 0 | done, and all is well |
| 1 | it was refused; or what was looked at is not well, differs, or does not answer |
| 2 | the words make no sense |
| 3 | there is nobody to ask, or the machine does not allow it |
| 130 | interrupted by Ctrl-C |

`halo-mp run` ends with the [exit codes of the supervisor](operating.md#stopping). Every failure is a sentence on
standard error, behind `halo-mp:`, that says what to type next.
"""


def page() -> str:
    """Return docs/cli.md."""
    context = click.Context(main, info_name="halo-mp")
    return HEAD + "".join(_group(main, context, depth=2))


def _group(group: click.Group, context: click.Context, *, depth: int) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        own = click.Context(command, info_name=name, parent=context)
        yield from _command(command, own, depth)
        if isinstance(command, click.Group):
            yield from _group(command, own, depth=depth + 1)


def _command(command: click.Command, context: click.Context, depth: int) -> Iterator[str]:
    yield f"\n{'#' * depth} {context.command_path}\n\n"
    yield f"{_help(command)}\n"
    if isinstance(command, click.Group):
        return
    yield f"\n    {' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n"
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    rows = [row for each in options if "--help" not in each.opts and (row := each.get_help_record(context))]
    if rows:
        yield "\n| option | |\n|---|---|\n"
    for names, meaning in rows:
        cells = (f"`{names}`", " ".join(meaning.split()))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _help(command: click.Command) -> str:
    """Return the text of a command, with what is not to be filled as code."""
    lines = inspect.cleandoc(command.help or "").splitlines()
    found, verbatim = [], False
    for line in lines:
        if line == "\b":
            verbatim = True
            continue
        verbatim = verbatim and bool(line)
        found.append(f"    {line}" if verbatim else line)
    return "\n".join(found)


if __name__ == "__main__":
    sys.stdout.write(page())
