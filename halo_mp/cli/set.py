# SPDX-License-Identifier: Apache-2.0
"""`halo-mp set`: changes of a running instance, through its control socket, while packets flow.

What is changed so is known to a supervisor that takes over, and gone when the instance ends; `halo-mp config save`
writes it down.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

import click

from halo_mp.cli.lazy import AdvisingGroup
from halo_mp.cli.options import interface_argument, name_option
from halo_mp.control.client import Client
from halo_mp.errors import UsageError


@click.group("set", cls=AdvisingGroup)
def set_() -> None:
    """Change a running instance: interfaces, addresses, neighbors, routes.

    Packets flow on. `halo-mp config save FILE` keeps what was changed for the next start.
    """


@set_.command
@interface_argument()
@click.option("--up/--down", default=None, help="Whether it receives and sends.")
@click.option(
    "--mtu",
    metavar="OCTETS",
    type=int,
    help="At most what its port was started with; of a VLAN, what its port has.",
)
@click.option("--forward/--no-forward", default=None, help="Whether what comes in there may go on elsewhere.")
@click.option(
    "--proxy-arp/--no-proxy-arp", default=None, help="Answer ARP for what is routed out of another one."
)
@click.option(
    "--directed-broadcast/--no-directed-broadcast", default=None, help="Send broadcasts for its networks."
)
@click.option("--redirects/--no-redirects", default=None, help="Send ICMP redirects.")
@name_option
def interface(*, interface: str, name: str, **settings: bool | int | None) -> None:
    """Change settings of an INTERFACE, such as 0 or 0.100."""
    if all(value is None for value in settings.values()):
        raise UsageError("there is nothing to set; name a setting, such as --mtu 1400 or --down.")
    with Client(name) as client:
        client.interfaces.set(interface, **settings)  # type: ignore[arg-type]


@set_.command
@interface_argument()
@click.argument("address")
@click.option("--primary", is_flag=True, help="Put it before the others.")
@click.option("--delete", is_flag=True, help="Take it away.")
@name_option
def address(*, interface: str, address: str, primary: bool, delete: bool, name: str) -> None:
    """Add an ADDRESS, such as 10.1.2.3/24, to an INTERFACE, or take it away. A VLAN becomes an interface by it."""
    if delete and primary:
        raise UsageError("--delete and --primary contradict each other; leave one of them out.")
    with Client(name) as client:
        if delete:
            client.addresses.delete(interface, address)
        else:
            client.addresses.add(interface, address, primary=primary)


@set_.command
@interface_argument()
@click.argument("address")
@click.argument("mac", required=False)
@click.option("--delete", is_flag=True, help="Forget it, static or learned.")
@name_option
def neighbor(*, interface: str, address: str, mac: str | None, delete: bool, name: str) -> None:
    """Make a neighbor static, with its MAC, or forget it."""
    if delete == bool(mac):
        raise UsageError("write either the neighbor's MAC address, such as 02:00:00:00:00:09, or --delete.")
    with Client(name) as client:
        if mac:
            client.neighbors.add(interface, address, mac)
        else:
            client.neighbors.delete(interface, address)


@set_.command("flush-neighbors")
@interface_argument(required=False)
@name_option
def flush_neighbors(*, interface: str | None, name: str) -> None:
    """Forget all neighbors that were learned, on an INTERFACE or on all."""
    with Client(name) as client:
        count = client.neighbors.flush(interface)
    click.echo(f"{count} neighbor{'' if count == 1 else 's'} forgotten.")


@set_.command
@click.argument("prefix")
@click.argument("hops", metavar="[HOP]...", nargs=-1)
@click.option("--new", is_flag=True, help="Refuse when there is a route to PREFIX already.")
@click.option("--delete", is_flag=True, help="Take the route away.")
@name_option
def route(*, prefix: str, hops: Sequence[str], new: bool, delete: bool, name: str) -> None:
    """Add a route or replace it.

    PREFIX is as 10.0.0.0/8 or default; a HOP is ADDRESS[@PORT[.VLAN]][*WEIGHT], or blackhole, unreachable or prohibit
    alone.
    """
    if delete == bool(hops):
        raise UsageError("write either the hops of the route, such as 10.1.2.254, or --delete.")
    with Client(name) as client:
        if delete:
            client.routes.delete(prefix)
        elif new:
            client.routes.add(prefix, hops)
        else:
            client.routes.replace(prefix, hops)


@set_.command
@click.argument("file", type=click.File("r", encoding="utf-8", errors="replace"))
@click.option("--delete", is_flag=True, help="Take them away; hops in the file do not matter.")
@name_option
def routes(*, file: TextIO, delete: bool, name: str) -> int:
    """Add or replace the routes of a FILE, a line each: PREFIX HOP [HOP...]; - is standard input.

    Each is done for itself. Exit code 1: some were refused, and each of those is said.
    """
    lines = list(_lines(file))
    with Client(name) as client:
        if delete:
            results = client.routes.delete_all(words[0] for _, words in lines)
        else:
            results = client.routes.replace_all((words[0], words[1:]) for _, words in lines)
    refused = [
        f"line {number}: {sentence}"
        for (number, _), sentence in zip(lines, results, strict=True)
        if sentence is not None
    ]
    sys.stderr.writelines(f"halo-mp: {sentence}\n" for sentence in refused)
    click.echo(f"{len(results) - len(refused)} done, {len(refused)} refused.")
    return 1 if refused else 0


def _lines(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(file, 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if words:
            yield number, words
