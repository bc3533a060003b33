# SPDX-License-Identifier: Apache-2.0
"""`halo-mp run`: become the supervisor of an instance."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from halo_mp.cli.options import NAME_VARIABLE


class _Run(click.Command):
    """Completes the supervisor's flags, which click does not know."""

    def shell_complete(self, _ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the flags that begin like this."""
        from halo_mp.supervisor.arguments import parser

        known = [flag for action in parser()._actions for flag in action.option_strings]
        return [CompletionItem(flag) for flag in known if flag.startswith(incomplete)]


def _complete_file(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


@click.command(
    cls=_Run,
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED, shell_complete=_complete_file)
def run(*, flags: Sequence[str]) -> None:
    """Start an instance and stay in the foreground.

    The flags are those of the supervisor, --help lists them.
    """
    os.execv(sys.executable, [sys.executable, "-m", "halo_mp.supervisor", *with_name(flags)])


def with_name(flags: Sequence[str]) -> list[str]:
    """Return the flags, with the name of the environment where they have none."""
    words = list(flags)
    name = os.environ.get(NAME_VARIABLE)
    if name and not any(word == "--name" or word.startswith("--name=") for word in words):
        words += ["--name", name]
    return words
