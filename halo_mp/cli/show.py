# SPDX-License-Identifier: Apache-2.0
"""`halo-mp show`: what an instance says of itself through its control socket. Whoever may connect may look."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Network

import click

from halo_mp.cli.config_commands import show as show_config
from halo_mp.cli.lazy import AdvisingGroup
from halo_mp.cli.options import interface_argument, json_option, name_option
from halo_mp.cli.output import write_json, write_json_lines, write_pairs, write_table
from halo_mp.cli.show_kcp import kcp
from halo_mp.control.client import Client
from halo_mp.control.public import InstanceInfo, RouteInfo

TABLE_ROUTES = 1000
"""That are sorted. More are written as they come, in columns of a fixed width."""


@click.group(cls=AdvisingGroup)
def show() -> None:
    """Print what an instance has: interfaces, neighbors, routes, its configuration.

    It is asked through its control socket. `halo-mp status` asks nobody, and says how the processes are.
    """


@show.command
@name_option
@json_option
def instance(*, name: str, as_json: bool) -> None:
    """Print the instance as a whole."""
    with Client(name) as client:
        found = client.show()
        admin = bool(client.hello.get("admin"))
    if as_json:
        write_json(found)
        return
    since = datetime.fromtimestamp(found.since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    rows: list[tuple[str, object]] = [
        ("name", found.name),
        ("version", found.version),
        ("supervisor", f"process {found.supervisor_pid}, since {since}"),
        ("ports", found.ports),
        ("workers", found.workers),
        ("routes", f"{found.routes}, in {found.nodes} nodes"),
        ("memory for routes", f"{found.octets >> 10} KiB"),
        *_awaited(found),
        ("you", "may change things" if admin else "may only look"),
    ]
    write_pairs(rows)


def _awaited(found: InstanceInfo) -> Iterator[tuple[str, object]]:
    if found.confirm_until is not None:
        left = max(0, round(found.confirm_until - time.time()))
        yield "confirmation", f"awaited for {left} s; then what {found.confirm_by} has applied is taken back"


@show.command
@name_option
@json_option
def interfaces(*, name: str, as_json: bool) -> None:
    """List the interfaces: addresses, settings, packets."""
    with Client(name) as client:
        found = client.interfaces.list()
    if as_json:
        write_json(found)
        return
    flags = ("forward", "proxy_arp", "directed_broadcast", "redirects")
    write_table(
        ("interface", "state", "addresses", "MAC", "MTU", "rx packets", "tx packets", "does"),
        (
            (
                each.name,
                "up" if each.up else "down",
                each.addresses,
                each.mac,
                each.mtu,
                each.rx_packets,
                each.tx_packets,
                [flag for flag in flags if getattr(each, flag)],
            )
            for each in sorted(found, key=lambda each: tuple(map(int, each.name.split("."))))
        ),
        numbers=("MTU", "rx packets", "tx packets"),
    )


@show.command
@interface_argument(required=False)
@name_option
@json_option
def neighbors(*, interface: str | None, name: str, as_json: bool) -> None:
    """List the neighbors whose MAC address is known, of an interface or of all."""
    with Client(name) as client:
        found = client.neighbors.list(interface)
    if as_json:
        write_json(found)
        return
    rows = (
        (each.interface, each.address, each.mac, "static" if each.static else "learned") for each in found
    )
    write_table(("interface", "address", "MAC", "is"), rows)


@show.command
@click.argument("within", metavar="[PREFIX]", required=False)
@click.option("--static", is_flag=True, help="Only those that somebody asked for.")
@name_option
@json_option
def routes(*, within: str | None, static: bool, name: str, as_json: bool) -> None:
    """List the routes, or those within a PREFIX."""
    with Client(name) as client:
        found = (each for each in client.routes.iterate(within) if each.origin == "static" or not static)
        if as_json:
            write_json_lines(found)
        else:
            _write_routes(found)


def _write_routes(found: Iterator[RouteInfo]) -> None:
    first = list(itertools.islice(found, TABLE_ROUTES + 1))
    if len(first) <= TABLE_ROUTES:
        rows = sorted(first, key=lambda each: IPv4Network(each.prefix))
        write_table(("prefix", "is", "hops"), ((each.prefix, each.origin, each.hops) for each in rows))
        return
    for each in itertools.chain(first, found):
        sys.stdout.write(f"{each.prefix:18}  {each.origin:9}  {', '.join(each.hops)}\n")


@show.command
@click.argument("address")
@click.option("--src", metavar="ADDRESS", help="Of the flow: where it comes from.")
@click.option(
    "--protocol", metavar="N", type=click.IntRange(0, 255), help="Of the flow: 6 is TCP, 17 is UDP."
)
@click.option("--src-port", metavar="N", type=click.IntRange(0, 65535), help="Of the flow, of TCP or UDP.")
@click.option("--dst-port", metavar="N", type=click.IntRange(0, 65535), help="Of the flow, of TCP or UDP.")
@name_option
@json_option
def route(
    *,
    address: str,
    src: str | None,
    protocol: int | None,
    src_port: int | None,
    dst_port: int | None,
    name: str,
    as_json: bool,
) -> int:
    """Print where packets for ADDRESS go: the route, and the hop that this flow takes. Exit code 1: nowhere."""
    with Client(name) as client:
        found = client.routes.lookup(
            address, src=src, protocol=protocol, src_port=src_port, dst_port=dst_port
        )
    if as_json:
        write_json(found)
    elif found is None:
        click.echo(f"No route leads to {address}.")
    else:
        click.echo(f"{address} is in {found.route.prefix} ({found.route.origin}), and goes to {found.hop}.")
    return 1 if found is None else 0


show.add_command(show_config, "config")
show.add_command(kcp)
