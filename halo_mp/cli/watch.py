# SPDX-License-Identifier: Apache-2.0
"""`halo-mp watch`: what happens in an instance, as it happens. Whoever may connect may watch."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import click

from halo_mp.cli.options import json_option, name_option
from halo_mp.cli.output import plain
from halo_mp.control.client import Client, NotReachableError
from halo_mp.control.notices import (
    EVENT_LEVELS,
    MAX_PERIOD_S,
    MIN_PERIOD_S,
    TOPICS,
    EventInfo,
    Notice,
    StatisticsInfo,
)
from halo_mp.control.public import InterfaceInfo, NeighborInfo, RouteInfo

RETRY_S = 0.2


@click.command
@click.argument("topics", nargs=-1, type=click.Choice(TOPICS), metavar="[TOPIC]...")
@click.option(
    "--level",
    type=click.Choice(EVENT_LEVELS),
    default="info",
    show_default=True,
    help="Events from this level on.",
)
@click.option(
    "--period",
    metavar="SECONDS",
    type=click.FloatRange(MIN_PERIOD_S, MAX_PERIOD_S),
    default=1.0,
    show_default=True,
    help="Statistics each so often.",
)
@click.option("--count", metavar="N", type=click.IntRange(1), help="End after N notices.")
@click.option(
    "--timeout", metavar="SECONDS", type=click.FloatRange(0.0), help="End when nothing comes for so long."
)
@click.option("--reconnect", is_flag=True, help="When the supervisor goes, wait for the next one.")
@name_option
@json_option
def watch(
    *,
    topics: Sequence[str],
    level: str,
    period: float,
    count: int | None,
    timeout: float | None,
    reconnect: bool,
    name: str,
    as_json: bool,
) -> None:
    """Print what happens, as it happens: events, neighbors, interfaces, routes, statistics.

    Without a TOPIC it is events: what the supervisor logs of processes, ports, gateways. Of neighbors, interfaces and
    routes it is how they are once they were changed. With --json each notice is a line.
    """
    writer = _Writer()
    chosen = list(dict.fromkeys(topics)) or ["events"]
    try:
        for number, notice in enumerate(_notices(name, chosen, level, period, timeout, again=reconnect), 1):
            if as_json:
                sys.stdout.write(json.dumps(notice, default=plain) + "\n")
            else:
                sys.stdout.writelines(f"{line}\n" for line in writer.lines(notice))
            sys.stdout.flush()
            if number == count:
                return
    except KeyboardInterrupt:
        return  # how a person ends it


def _notices(
    name: str, topics: Sequence[str], level: str, period_s: float, timeout_s: float | None, *, again: bool
) -> Iterator[Notice]:
    client = _connected(name, topics, level, period_s)
    while True:
        try:
            with client:
                yield from client.notices(timeout_s)
                return
        except NotReachableError as error:
            if not again:
                raise
            click.echo(f"halo-mp: {error} Waiting for the next supervisor.", err=True)
        client = _connected_again(name, topics, level, period_s)


def _connected(name: str, topics: Sequence[str], level: str, period_s: float) -> Client:
    client = Client(name)
    try:
        for topic in topics:
            client.subscribe(
                topic,
                level=level if topic == "events" else None,
                period_s=period_s if topic == "statistics" else None,
            )
    except BaseException:
        client.close()
        raise
    return client


def _connected_again(name: str, topics: Sequence[str], level: str, period_s: float) -> Client:
    while True:
        time.sleep(RETRY_S)
        try:
            client = _connected(name, topics, level, period_s)
        except NotReachableError:
            continue
        click.echo("halo-mp: connected again; what happened meanwhile was not told.", err=True)
        return client


class _Writer:
    """Notices as lines for people; rates need the statistics before."""

    def __init__(self) -> None:
        self._before: StatisticsInfo | None = None

    def lines(self, notice: Notice) -> Iterator[str]:
        if notice.missed:
            yield f"{notice.topic}: too much has changed, not all of it is told here"
        yield from map(_event, notice.events)
        for each in notice.changed:
            yield f"{_time(time.time())} {_changed(each)}"
        for gone in notice.gone:
            yield f"{_time(time.time())} {notice.topic.removesuffix('s')} {gone} is gone"
        if notice.statistics is not None:
            yield from self._statistics(notice.statistics)

    def _statistics(self, now: StatisticsInfo) -> Iterator[str]:
        before, self._before = self._before, now
        earlier = {} if before is None else {port.number: port for port in before.ports}
        passed_s = 0.0 if before is None else now.monotonic - before.monotonic
        for port in now.ports:
            old = earlier.get(port.number, port)
            rates = ""
            if passed_s > 0:
                rx, tx = (port.rx_frames - old.rx_frames, port.tx_frames - old.tx_frames)
                rates = f", {rx / passed_s:.0f} and {tx / passed_s:.0f} a second"
            link = "up" if port.link_up else "down"
            yield (
                f"{_time(now.at)} port {port.number} {port.state}, link {link}: "
                f"{port.rx_frames} frames in, {port.tx_frames} out{rates}, {port.rx_missed} missed"
            )
        for slot in now.slots:
            if slot.drops:
                drops = ", ".join(f"{count} {reason}" for reason, count in slot.drops.items())
                yield f"{_time(now.at)} slot {slot.number} drops: {drops}"


def _event(event: EventInfo) -> str:
    fields = " ".join(f"{name}={_word(value)}" for name, value in event.fields.items())
    return f"{_time(event.at)} {event.level:7} {event.event} {fields}".rstrip()


def _word(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return json.dumps(text) if not text.isprintable() or " " in text else text


def _changed(what: NeighborInfo | InterfaceInfo | RouteInfo) -> str:
    match what:
        case NeighborInfo():
            kind = "static" if what.static else "learned"
            return f"neighbor {what.address}@{what.interface} {what.mac} {kind}"
        case InterfaceInfo():
            state = "up" if what.up else "down"
            addresses = " ".join(what.addresses) or "no address"
            return f"interface {what.name} {state} {addresses} mtu {what.mtu}"
    return f"route {what.prefix} {what.origin} {' '.join(what.hops)}"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
