# SPDX-License-Identifier: Apache-2.0
"""`halo-mp completion`: what a shell needs to complete commands, options, instances and interfaces."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

HOW = {
    "bash": "halo-mp completion bash > ~/.local/share/bash-completion/completions/halo-mp",
    "zsh": 'halo-mp completion zsh > "${fpath[1]}/_halo-mp"',
    "fish": "halo-mp completion fish > ~/.config/fish/completions/halo-mp.fish",
}


@click.command(epilog="\b\n" + "\n".join(HOW.values()))
@click.argument("shell", type=click.Choice(sorted(HOW)))
def completion(*, shell: str) -> None:
    """Print the script that completes halo-mp in a SHELL; where it goes:"""
    from halo_mp.cli.main import main  # which imports us

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "halo-mp", "_HALO_MP_COMPLETE").source())
