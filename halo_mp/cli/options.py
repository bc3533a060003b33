# SPDX-License-Identifier: Apache-2.0
"""Options that many commands share, so that they are called the same everywhere."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from halo_mp.runtime import ROOT_BASE

NAME_VARIABLE = "HALO_MP_NAME"
DEFAULT_NAME = "default"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")

F = TypeVar("F", bound=Callable[..., Any])


def instance_names() -> list[str]:
    """Return the names of the instances that there are, or of which something is left."""
    bases = [ROOT_BASE]
    if directory := os.environ.get("XDG_RUNTIME_DIR"):
        bases.append(Path(directory) / "halo-mp")
    found: set[str] = set()
    for base in bases:
        try:
            found |= {entry.name for entry in base.iterdir() if entry.is_dir()}
        except OSError:
            continue
    return sorted(found)


def _checked(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not NAME.fullmatch(value):
        raise click.BadParameter(
            f"{value!r} is no name of an instance: those have up to 32 letters, digits, dots, dashes, underscores."
        )
    return value


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in instance_names() if name.startswith(incomplete)]


def name_option(command: F) -> F:
    """Add --name: which instance."""
    return click.option(
        "--name",
        envvar=NAME_VARIABLE,
        default=DEFAULT_NAME,
        show_default=True,
        show_envvar=True,
        callback=_checked,
        shell_complete=_complete,
        metavar="NAME",
        help="Which instance.",
    )(command)


def json_option(command: F) -> F:
    """Add --json: for scripts."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


def interface_argument(*, required: bool = True) -> Callable[[F], F]:
    """Add INTERFACE: a port, or a VLAN of one."""

    def add(command: F) -> F:
        return click.argument("interface", required=required, shell_complete=_complete_interface)(command)

    return add


def _complete_interface(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Ask the instance; nobody who can not be asked is worth a word in the middle of a command line."""
    from halo_mp.control.client import Client, ControlError

    try:
        with Client(
            ctx.params.get("name") or os.environ.get(NAME_VARIABLE, DEFAULT_NAME), timeout_s=1.0
        ) as client:
            return [each.name for each in client.interfaces.list() if each.name.startswith(incomplete)]
    except ControlError:
        return []
