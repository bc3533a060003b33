# SPDX-License-Identifier: Apache-2.0
"""`halo-mp status`: what `python -m halo_mp.supervisor.status` prints."""

from __future__ import annotations

import click

from halo_mp.cli.options import json_option, name_option


@click.command
@name_option
@json_option
@click.option("--reports", is_flag=True, help="What has died: last log lines and tracebacks, in full.")
def status(*, name: str, as_json: bool, reports: bool) -> int:
    """Print how an instance is: processes, ports, drops, and what has died.

    Nobody is asked: it is read from the instance's files and shared memory, as its user or as root, and works when the
    supervisor hangs or is dead. Exit code 0: all is well; 1: something has failed, is not ready, or has no supervisor;
    3: there is no such instance, or it is not running.
    """
    from halo_mp.supervisor.status import main as look  # help shall not wait for it

    flags = [*(["--json"] if as_json else []), *(["--reports"] if reports else [])]
    return look(["--name", name, *flags])
