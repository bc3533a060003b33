# SPDX-License-Identifier: Apache-2.0
"""`halo-mp trace`: the way of packets through the stages of a worker, what was decided and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from halo_mp.cli.options import json_option, name_option
from halo_mp.errors import RuntimeFailure

if TYPE_CHECKING:
    from halo_mp.capture.session import Session
    from halo_mp.capture.way import Names, Step
    from halo_mp.cli.capture import Ended
    from halo_mp.control.client import Client
    from halo_mp.shm.capture_ring import Record


@click.command(short_help="Show what happens to packets, stage by stage, and why.")
@name_option
@json_option
@click.option(
    "-i", "--port", "ports", metavar="N", type=int, multiple=True, help="That came in there; repeatable."
)
@click.option(
    "-n",
    "-c",
    "--count",
    metavar="N",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Of packets.",
)
@click.option(
    "--seconds", metavar="S", type=click.FloatRange(0, min_open=True), help="End after so many seconds."
)
@click.argument("expression", metavar="[FILTER]", nargs=-1)
def trace(
    name: str,
    as_json: bool,
    ports: tuple[int, ...],
    count: int,
    seconds: float | None,
    expression: tuple[str, ...],
) -> None:
    """Show the way of packets that FILTER lets through, in the language of pcap-filter(7): `udp port 53`.

    For each packet there is what it was when it came in, and behind each stage what was decided: its interface, its
    route and next hop, what is known of that neighbor, what hooks made of it, what the Python stack did, or why it was
    dropped. A packet that goes to another worker has a second story there. --json gives an object for each packet, and
    at the end one with `end`: how many were traced and lost, and which workers refused. A worker that refuses is named
    on standard error, too, and the others go on; when all refuse there is no trace, exit code 1.
    """
    from halo_mp.capture.filter import compile_filter
    from halo_mp.capture.session import Session
    from halo_mp.capture.way import Names
    from halo_mp.cli.capture import Ended
    from halo_mp.cli.refusals import Refusals
    from halo_mp.control.capture_client import CaptureClient
    from halo_mp.control.client import Client

    steps = compile_filter(" ".join(expression))
    ended = Ended(seconds)
    with CaptureClient(name) as client, Client(name) as asking:
        names = {each.number: each.name for each in asking.interfaces.list()}
        info = client.capture(steps=steps, ports=ports, trace=True)
        with Session(client, info) as session:
            refusals = Refusals(client, info)
            click.echo(f"tracing at {name}; Ctrl-C ends it.", err=True)
            writer = Writer(session, asking, Names(names, info.hooks), as_json=as_json)
            failure = _run(session, writer, ended, count)
            lost = session.lost
            refusals.look()
    if as_json:
        end = {"packets": writer.count, "lost": lost, "refused": refusals.reasons}
        click.echo(json.dumps({"end": end}))
    click.echo(f"{writer.count} packets traced, {lost} lost for want of room.", err=True)
    for text in refusals.texts():
        click.echo(text, err=True)
    if failure:
        raise failure


def _run(session: Session, writer: Writer, ended: Ended, count: int) -> RuntimeFailure | None:
    """Write until it is time to end; return why the instance went away, if it did."""
    try:
        for batch in session.batches(lambda: ended() or writer.count >= count):
            for slot, record in batch[: count - writer.count]:
                writer.write(slot, record)
    except RuntimeFailure as error:
        return error
    return None


class Writer:
    """Prints ways."""

    def __init__(self, session: Session, client: Client, names: Names, *, as_json: bool) -> None:
        self.count = 0
        self._session = session
        self._client = client
        self._names = names
        self._as_json = as_json

    def write(self, slot: int, record: Record) -> None:
        """Print one."""
        from halo_mp.capture import way
        from halo_mp.capture.text import show_time

        self.count += 1
        found = way.steps(record, slot, self._names)
        time_ns = self._session.time_ns(record)
        if not self._as_json:
            for line in way.tell(record, slot, found, show_time(time_ns), self._route):
                click.echo(line)
            return
        for step in found:
            if step["stage"] == "route" and (route := self._route(step)):
                step["route"] = route
        packet: dict[str, Any] = {
            "time_ns": time_ns,
            "slot": slot,
            "port": record.port,
            "length": record.length,
            "octets": record.octets.hex(),
            "steps": found,
        }
        click.echo(json.dumps(packet))

    def _route(self, step: Step) -> str | None:
        """Say which route the destination has: the instance is asked now, so it may be a newer one."""
        from halo_mp.control.calls import ControlError

        if "dst" not in step:
            return None
        try:
            found = self._client.routes.lookup(step["dst"], src=step["src"])
        except ControlError:
            return None
        if found is None:
            return f"no route to {step['dst']}"
        return f"route {found.route.prefix} ({found.route.origin}) via {', '.join(found.route.hops)}"
