# SPDX-License-Identifier: Apache-2.0
"""`halo-mp ping`: echo requests from the instance's stack, not from this machine's kernel."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import click

from halo_mp.cli.options import json_option, name_option
from halo_mp.cli.output import write_json
from halo_mp.control.client import Client
from halo_mp.control.public import MAX_PINGS, PingInfo

TTL_EXCEEDED = 11
MOST_HOPS = 30
LIVE_INTERVAL_S = 0.5
"""From there on each request is asked for by itself, so that its line comes at once."""

REASONS = {
    (3, 0): "network unreachable",
    (3, 1): "host unreachable",
    (3, 4): "too big",
    (3, 13): "prohibited",
    (TTL_EXCEEDED, 0): "time to live exceeded",
}


@click.command
@click.argument("address")
@click.option(
    "-c",
    "--count",
    metavar="N",
    type=click.IntRange(1, MAX_PINGS),
    default=4,
    show_default=True,
    help="Of requests.",
)
@click.option(
    "-i",
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(0.01),
    default=1.0,
    show_default=True,
    help="Between two requests.",
)
@click.option(
    "-W",
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0.001),
    default=1.0,
    show_default=True,
    help="To wait for an answer.",
)
@click.option(
    "-s",
    "--size",
    metavar="OCTETS",
    type=click.IntRange(0, 65507),
    default=56,
    show_default=True,
    help="Octets of data.",
)
@click.option(
    "-t",
    "--ttl",
    metavar="N",
    type=click.IntRange(1, 255),
    default=64,
    show_default=True,
    help="Time to live.",
)
@click.option("--df", is_flag=True, help="Do not fragment.")
@click.option("--source", metavar="ADDRESS", help="One of the instance's; by default as the route suggests.")
@click.option(
    "--trace", is_flag=True, help="Name the routers on the way: one request for each TTL, up to 30."
)
@name_option
@json_option
def ping(
    *,
    address: str,
    count: int,
    interval: float,
    timeout: float,
    size: int,
    ttl: int,
    df: bool,
    source: str | None,
    trace: bool,
    name: str,
    as_json: bool,
) -> int:
    """Ping ADDRESS from the instance. Exit code 0: something answered; 1: nothing did."""
    with Client(name) as client:

        def ask(number: int, hops: int) -> list[PingInfo]:
            return client.ping(
                address,
                count=number,
                interval_s=interval,
                timeout_s=timeout,
                size=size,
                df=df,
                ttl=hops,
                source=source,
            )

        if trace:
            outcomes = _trace(ask)
        elif interval >= LIVE_INTERVAL_S and not as_json:
            outcomes = _live(lambda: ask(1, ttl), count, interval)
        else:
            outcomes = iter(ask(count, ttl))
        found = _write(outcomes, first=1 if trace else 0, as_json=as_json)
    if not trace and not as_json:
        click.echo(summary(found))
    return 0 if any(each.outcome == "reply" for each in found) else 1


def text(outcome: PingInfo) -> str:
    """Return an outcome in words."""
    if outcome.outcome == "timeout":
        return "no answer"
    took = f"{outcome.rtt_ns / 1e6:.3f} ms"
    if outcome.outcome == "reply":
        return f"{outcome.src}  ttl {outcome.ttl}  {took}"
    reason = REASONS.get((outcome.type, outcome.code), f"ICMP {outcome.type}/{outcome.code}")
    mtu = f", at most {outcome.mtu} octets" if outcome.mtu else ""
    return f"{outcome.src or 'here'}: {reason}{mtu}  {took}"


def summary(outcomes: Sequence[PingInfo]) -> str:
    """Return the line below them."""
    times = [each.rtt_ns / 1e6 for each in outcomes if each.outcome == "reply"]
    answered = f"{len(outcomes)} sent, {len(times)} answered"
    if not times:
        return f"{answered}."
    return f"{answered}; {min(times):.3f} ms at least, {statistics.median(times):.3f} median, {max(times):.3f} at most."


def _trace(ask: Callable[[int, int], list[PingInfo]]) -> Iterator[PingInfo]:
    for ttl in range(1, MOST_HOPS + 1):
        [found] = ask(1, ttl)
        yield found
        if found.outcome == "reply" or (found.outcome == "error" and found.type != TTL_EXCEEDED):
            return


def _live(ask: Callable[[], list[PingInfo]], count: int, interval_s: float) -> Iterator[PingInfo]:
    due = time.monotonic()
    for _ in range(count):
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due, time.monotonic()) + interval_s
        yield from ask()


def _write(outcomes: Iterator[PingInfo], *, first: int, as_json: bool) -> list[PingInfo]:
    found: list[PingInfo] = []
    try:
        for number, outcome in enumerate(outcomes, first):
            found.append(outcome)
            if not as_json:
                click.echo(f"{number:2}  {text(outcome)}")
    except KeyboardInterrupt:  # how a person ends it, who wants to know all the same what came of it
        if not found:
            raise
    if as_json:
        write_json(found)
    return found
