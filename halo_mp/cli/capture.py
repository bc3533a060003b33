# SPDX-License-Identifier: Apache-2.0
"""`halo-mp capture`: frames at rx, tx and drop, into pcapng files, or as lines."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from halo_mp.cli.options import name_option
from halo_mp.errors import RuntimeFailure

if TYPE_CHECKING:
    from halo_mp.capture.output import Output, Pipe
    from halo_mp.capture.session import Session
    from halo_mp.cli.refusals import Refusals
    from halo_mp.shm.capture_ring import Record

POINTS = ("rx", "tx", "drop")
_MEBI = 1 << 20


class Points(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """`rx,tx,drop`."""

    name = "points"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Return the names."""
        names = [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value)
        for name in names:
            if name not in POINTS:
                self.fail(f"there is no point {name!r}; there are rx, tx and drop.", param, ctx)
        return names


@click.command(short_help="Copy frames at rx, tx or drop into pcapng files.")
@name_option
@click.option("-i", "--port", "ports", metavar="N", type=int, multiple=True, help="Of this port; repeatable.")
@click.option("--point", "points", type=Points(), default="rx,tx,drop", show_default=True, help="Where.")
@click.option(
    "-s", "--snap", metavar="OCTETS", type=click.IntRange(0, 16384), help="Of each frame; 0, default: all."
)
@click.option("-c", "--count", metavar="N", type=click.IntRange(1), help="End after so many frames.")
@click.option(
    "--seconds", metavar="S", type=click.FloatRange(0, min_open=True), help="End after so many seconds."
)
@click.option(
    "-w", "--write", "path", metavar="FILE", help="pcapng to a file or a FIFO; - is standard output."
)
@click.option("--rotate-size", metavar="MIB", type=click.FloatRange(0, min_open=True), help="A file's most.")
@click.option("--rotate-seconds", metavar="S", type=click.FloatRange(0, min_open=True), help="A file's time.")
@click.option("--keep", metavar="N", type=click.IntRange(1), help="Of rotated files, the latest so many.")
@click.option(
    "--buffer", metavar="MIB", type=click.IntRange(1, 1024), default=4, show_default=True, help="Per worker."
)
@click.argument("expression", metavar="[FILTER]", nargs=-1)
def capture(
    name: str,
    ports: tuple[int, ...],
    points: list[str],
    snap: int | None,
    count: int | None,
    seconds: float | None,
    path: str | None,
    rotate_size: float | None,
    rotate_seconds: float | None,
    keep: int | None,
    buffer: int,
    expression: tuple[str, ...],
) -> None:
    """Copy frames that FILTER lets through, in the language of pcap-filter(7): `udp port 53`.

    rx is a frame as a worker got it, tx as it leaves, drop as it was when a worker dropped it, with the reason as a
    comment. What the driver drops has no worker, and is only counted. Without -w there is a line for each. It ends with
    Ctrl-C, or after --count or --seconds, and then says what it could not keep up with. A worker that refuses is
    named on standard error and in the file, and the others go on; when all refuse there is no capture, exit code 1.
    """
    from halo_mp.capture.filter import compile_filter
    from halo_mp.capture.output import Pipe, is_pipe
    from halo_mp.capture.session import Session
    from halo_mp.cli.refusals import Refusals
    from halo_mp.control.capture_client import CaptureClient

    snap = snap or None
    rotated = rotate_size is not None or rotate_seconds is not None
    if path is None and (rotated or keep is not None):
        raise click.UsageError("without -w there is no file to rotate; name one.")
    if keep is not None and not rotated:
        raise click.UsageError("--keep is of rotated files; add --rotate-size or --rotate-seconds.")
    if path == "-" and sys.stdout.isatty():
        raise click.UsageError("-w - is no text for a terminal: pipe it into a reader, or leave -w out.")
    steps = compile_filter(" ".join(expression))
    ended = Ended(seconds)
    with CaptureClient(name) as client:
        pipe = None
        if path is not None and not rotated and is_pipe(path):
            if path != "-":
                click.echo(f"waiting for somebody who reads {path}; Ctrl-C ends it.", err=True)
            pipe = Pipe(path, ended)
        info = client.capture(steps=steps, points=points, ports=ports, snap=snap, octets=buffer * _MEBI)
        with Session(client, info) as session:
            refusals = Refusals(client, info)
            writer = (
                Lines(session)
                if path is None
                else File(session, refusals, pipe or path, snap, rotate_size, rotate_seconds, keep)
            )
            click.echo(f"capturing at {', '.join(points)} of {name}; Ctrl-C ends it.", err=True)
            failure = _run(session, writer, refusals, ended, count)
            lost = session.lost
    click.echo(f"{writer.count} frames captured, {lost} lost for want of room.", err=True)
    for text in refusals.texts():
        click.echo(text, err=True)
    if failure:
        raise failure


class Ended:
    """Whether it is time to end: by SIGINT, SIGTERM, or the clock."""

    def __init__(self, seconds: float | None) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def __call__(self) -> bool:
        """Return whether it is."""
        return self._asked or (self._deadline is not None and time.monotonic() >= self._deadline)


class Lines:
    """A line for each frame."""

    def __init__(self, session: Session) -> None:
        self.count = 0
        self._session = session

    def write(self, record: Record) -> None:
        """Print one."""
        from halo_mp.capture.text import describe, show_time

        self.count += 1
        port = record.tx_port if record.reason is None and record.tx_port is not None else record.port
        where = f"{_point(record):4} {'-' if port is None else port}"
        end = f" [{record.reason}]" if record.reason else ""
        when = show_time(self._session.time_ns(record))
        click.echo(f"{when} {where} {describe(record.octets)}, {record.length} octets{end}")

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Nothing is left open."""


class File:
    """pcapng."""

    def __init__(
        self,
        session: Session,
        refusals: Refusals,
        target: str | Pipe,
        snap: int | None,
        rotate_size: float | None,
        rotate_seconds: float | None,
        keep: int | None,
    ) -> None:
        """`target` is a file, the first of a row of them, or a pipe that is open."""
        import halo_mp
        from halo_mp.capture import pcapng
        from halo_mp.capture.output import Rotated, Stream
        from halo_mp.shm.capture_ring import drop_text

        self.count = 0
        self._session = session
        self._refusals = refusals
        self._packet = pcapng.packet
        self._interfaces = pcapng.interfaces_of(session.info.ports)
        self._drop_text = drop_text
        self._statistics = pcapng.statistics
        first = pcapng.section(
            f"halo-mp {halo_mp.__version__}", (each for _, each in self._interfaces.values()), snap or 0
        )
        self._output: Output
        if not isinstance(target, str):
            self._output = target
            target.write(first)
            target.flush()
        elif rotate_size is None and rotate_seconds is None:
            self._output = Stream(target, first)
        else:
            size = None if rotate_size is None else int(rotate_size * _MEBI)
            self._output = Rotated(
                target, first, self._last, size_octets=size, seconds=rotate_seconds, keep=keep
            )

    def write(self, record: Record) -> None:
        """Write one. What was dropped belongs to the port that it came in by."""
        self.count += 1
        leaves = _point(record) == "tx"
        interface = self._interfaces.get(record.tx_port if leaves else record.port, self._interfaces[None])[0]
        comment = f"dropped: {record.reason}: {self._drop_text(record.reason)}" if record.reason else ""
        time_ns = self._session.time_ns(record)
        self._output.write(
            self._packet(
                interface, time_ns, record.octets, record.length, inbound=not leaves, comment=comment
            )
        )

    def flush(self) -> None:
        """Let who reads live see it."""
        self._output.flush()

    def close(self) -> None:
        """Write the end."""
        self._output.close(self._last())

    def _last(self) -> bytes:
        lost = self._session.lost
        comments = self._refusals.texts()
        if lost:
            comments.insert(0, f"{lost} frames, of all ports together, were lost for want of room")
        return self._statistics(time.time_ns(), lost, comments)


def _point(record: Record) -> str:
    return {1: "rx", 2: "tx", 4: "drop"}.get(record.point, "?")


def _run(
    session: Session,
    writer: Lines | File,
    refusals: Refusals,
    ended: Callable[[], bool],
    count: int | None,
) -> RuntimeFailure | None:
    """Write until it is time to end; return why the instance went away, if it did."""
    failure = None
    try:
        for batch in session.batches(ended):
            for _, record in batch:
                if writer.count == count:
                    break
                writer.write(record)
            writer.flush()
            if writer.count == count:
                break
    except RuntimeFailure as error:
        failure = error
    refusals.look()
    writer.close()
    return failure
