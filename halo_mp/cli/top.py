# SPDX-License-Identifier: Apache-2.0
"""`halo-mp top`: the dashboard."""

from __future__ import annotations

import argparse

import click

from halo_mp.cli.options import json_option, name_option
from halo_mp.dashboard import __main__ as dashboard


@click.command
@name_option
@click.option("--once", is_flag=True, help="Print all tables as plain text, and end.")
@json_option
@click.option("--web", metavar="ADDRESS:PORT", help=f"Serve it to browsers, as at {dashboard.WEB}.")
@click.option("--web-url", metavar="URL", help="What browsers call it, behind a proxy or under another name.")
@click.option(
    "--web-pages",
    metavar="COUNT",
    type=click.IntRange(1, dashboard.MOST_PAGES),
    default=dashboard.PAGES,
    show_default=True,
    help="Pages that may be open at once, each a process.",
)
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(0, 3600),
    default=1.0,
    show_default=True,
    help="What the rates of --once and --json are over.",
)
def top(
    name: str,
    once: bool,
    as_json: bool,
    web: str | None,
    web_url: str | None,
    web_pages: int,
    interval: float,
) -> int:
    """Watch an instance live: ports, workers, drops, processes, neighbors, routes, hooks, logs.

    Above the tables stands what is wrong now, if anything is. An instance that ends is waited for.

    Keys: 0 shows all that is wrong and the last events, 1 to 8 choose a table, s sorts, r turns the order around,
    / filters, the space bar freezes, comma and full stop step through the last five minutes, Escape goes back to now,
    q quits. Has to run as the user that started the instance, or as root.
    """
    if once + as_json + (web is not None) > 1:
        raise click.UsageError("--once, --json and --web are three ways to show it; choose one.")
    options = {"name": name, "once": once, "json": as_json, "web": web, "interval": interval}
    return dashboard.run(argparse.Namespace(**options, web_url=web_url, web_pages=web_pages))
