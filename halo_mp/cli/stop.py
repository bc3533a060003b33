# SPDX-License-Identifier: Apache-2.0
"""`halo-mp stop`: end an instance in order, or clear up after one that was not."""

from __future__ import annotations

import asyncio
import os
import select
import signal

import click

from halo_mp.cli.options import name_option
from halo_mp.errors import EnvironmentProblem, RuntimeFailure


@click.command
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="To wait for the end.",
)
@name_option
def stop(*, name: str, timeout: float) -> None:
    """End an instance: workers, driver, TAPs, sockets and memory go, in this order, and nothing stays behind.

    It returns when that is done. Of an instance whose supervisor is dead, what lives is ended and what is left removed.
    Exit code 3: there is none of that name.
    """
    descriptor = _ask(name, min(max(timeout, 0.5), 5.0))
    if descriptor is None:
        asyncio.run(_clear(name))
        click.echo(f"Instance {name!r} had no supervisor; what was left of it is gone.")
        return
    try:
        ended, _, _ = select.select([descriptor], [], [], timeout)
    finally:
        os.close(descriptor)
    if not ended:
        raise RuntimeFailure(
            f"instance {name!r} has not ended after {timeout:g} s; type halo-mp stop again to end it at once."
        )
    click.echo(f"Instance {name!r} has stopped.")


def _ask(name: str, patience_s: float) -> int | None:
    """Ask the supervisor to stop; return its pidfd, None if there is no supervisor. Raises HaloError."""
    from halo_mp.control.client import Client, NotReachableError  # help does not wait for these
    from halo_mp.runtime import runtime_base
    from halo_mp.supervisor.status_reader import Verdict, look

    try:
        with Client(name, timeout_s=patience_s) as client:
            descriptor = os.pidfd_open(client.show().supervisor_pid)
            client.stop()
            return descriptor
    except NotReachableError as error:
        there = look(runtime_base(), name)
        if there.verdict is Verdict.UNKNOWN:
            raise EnvironmentProblem(f"there is no instance {name!r}; {error}") from None
    if there.pid is None:
        return None
    descriptor = os.pidfd_open(there.pid)
    signal.pidfd_send_signal(descriptor, signal.SIGTERM)  # it starts, stops already, or does not answer
    return descriptor


async def _clear(name: str) -> None:
    """Do what the next start of this name would do first."""
    from halo_mp.supervisor import leftovers
    from halo_mp.supervisor.instance import Instance

    instance = Instance.acquire(name)
    try:
        await leftovers.clean(instance)
    finally:
        instance.release()
