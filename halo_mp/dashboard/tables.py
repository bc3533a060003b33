# SPDX-License-Identifier: Apache-2.0
"""Frames as tables: cells with a text and what they are sorted by. Pure functions."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from halo_mp.dashboard.feed import Frame, time_of
from halo_mp.dashboard.figures import cores, octets, percent, seconds, si, spark
from halo_mp.dashboard.problems import SENTENCES, has_ended, problems
from halo_mp.shm.load import STAGES
from halo_mp.stats.processes import ProcessStats
from halo_mp.stats.rates import drop_rates, port_rates, seconds_between, slot_rates
from halo_mp.supervisor.status_text import duration

SPARK, LONG_SPARK = 12, 60
EVENTS, SENTENCE = 40, 60  # of the page of problems: its last rows, and its width
_EVENT = re.compile(r"\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d)[.\d]*Z (\w+) +supervisor (.*)")
_RATES = re.compile(r'supervisor stats |"event": ?"stats"')  # --stats-log, which would push out all else


class Cell(NamedTuple):
    """What is shown, and what it is sorted by."""

    text: str
    key: float | str


class Column(NamedTuple):
    """`wide`: only where there is room."""

    title: str
    right: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one kind."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    """What else is to be said, and why there are no rows."""

    def shown(self, *, wide: bool) -> Table:
        """Return it without the columns that there is no room for."""
        kept = [at for at, column in enumerate(self.columns) if wide or not column.wide]
        rows = tuple(tuple(row[at] for at in kept) for row in self.rows)
        return Table(self.name, self.title, tuple(self.columns[at] for at in kept), rows, self.note)

    def filtered(self, text: str) -> Table:
        """Return it with the rows alone that have the text somewhere, in either case."""
        wanted = text.casefold()
        rows = tuple(row for row in self.rows if any(wanted in _searched(cell) for cell in row))
        return Table(self.name, self.title, self.columns, rows, self.note)

    def ordered(self, column: int, *, reverse: bool) -> Table:
        """Return it sorted by a column; equal rows stay as they are."""
        rows = tuple(sorted(self.rows, key=lambda row: _order(row[column].key), reverse=reverse))
        return Table(self.name, self.title, self.columns, rows, self.note)


def _searched(cell: Cell) -> str:
    """Return the text in which a filter looks: of a sentence that has several rows all of it."""
    return (cell.key if isinstance(cell.key, str) and cell.text in cell.key else cell.text).casefold()


def _order(key: float | str) -> tuple[int, float, str]:
    return (1, 0.0, key) if isinstance(key, str) else (0, key, "")


def text(value: object) -> Cell:
    """Return a cell that is sorted by what it shows."""
    return Cell(str(value), str(value))


def number(value: float, show: Callable[[float], str] = si) -> Cell:
    """Return a cell of a number."""
    return Cell(show(value), value)


def headline(frame: Frame) -> str:
    """Return how the instance is, in a line."""
    status, passed = frame.now.status, frame.now.at - frame.now.status.since
    ports = [port_rates(frame.before, frame.now, each) for each in frame.now.ports]
    slots = [slot_rates(frame.before, frame.now, each) for each in frame.now.slots]
    well = "" if status.is_well and status.is_supervised else ", NOT WELL"
    supervised = "" if status.is_supervised else " without a supervisor"
    state = "ended, was up" if has_ended(frame) else f"{status.state}{supervised}"
    received, sent = sum(port.rx_pps for port in ports), sum(port.tx_pps for port in ports)
    dropped = sum(slot.drops_pps for slot in slots)
    return (
        f"{frame.now.instance} {state} {duration(passed)}{well} · "
        f"in {si(received)} pps · out {si(sent)} pps · drops {si(dropped)}/s"
    )


def now(frame: Frame) -> Table:
    """Return what is wrong, and what the supervisor logged last, the newest first."""
    wrong = problem_table(frame)
    events = [line for line in reversed(frame.events) if not _RATES.search(line)][:EVENTS]
    rows = [*wrong.rows, *(row for line in events for row in _event(line))]
    columns = (Column("where or when"), Column("what is wrong, and what the supervisor logged"))
    return Table(wrong.name, wrong.title, columns, tuple(rows), wrong.note)


def problem_table(frame: Frame) -> Table:
    """Return what is wrong, the worst first."""
    found = problems(frame)
    rows = tuple(row for problem in found for row in _wrapped(problem.where, problem.what))
    return Table(
        "now", "Now", (Column("where"), Column("what is wrong")), rows, "" if found else "Nothing is wrong."
    )


def _event(line: str) -> Iterator[tuple[Cell, ...]]:
    match = _EVENT.match(line)
    if match is None:  # as JSON
        return _wrapped("", line)
    at, level, said = match.groups()
    return _wrapped(at, said if level == "INFO" else f"{level} {said}")


def _wrapped(where: str, what: str) -> Iterator[tuple[Cell, ...]]:
    """Yield as many rows as a sentence needs; they are sorted and found together."""
    for at, part in enumerate(textwrap.wrap(what, SENTENCE) or [""]):
        yield Cell("" if at else where, where), Cell(part, what)


def ports(frames: Sequence[Frame]) -> Table:
    """Return the ports of the last of these frames; the others are for the sparklines."""
    columns = (
        Column("port", right=True),
        Column("state"),
        Column("in pps", right=True),
        Column("out pps", right=True),
        Column("in b/s", right=True),
        Column("out b/s", right=True),
        Column("missed/s", right=True),
        Column("in, last seconds"),
        Column("device", wide=True),
        Column("MAC", wide=True),
        Column("frames in", right=True, wide=True),
        Column("frames out", right=True, wide=True),
        Column("errors", right=True, wide=True),
        Column("in, last minute", wide=True),
    )
    frame = frames[-1]
    rows: list[tuple[Cell, ...]] = []
    for port in frame.now.ports.values():
        rates = port_rates(frame.before, frame.now, port.number)
        history = [
            port_rates(each.before, each.now, port.number).rx_pps
            for each in frames[-LONG_SPARK:]
            if port.number in each.now.ports
        ]
        state = port.state if port.state != "started" else "up" if port.link_up else "no link"
        counted = port.counters
        rows.append(
            (
                number(port.number, str),
                text(state),
                number(rates.rx_pps),
                number(rates.tx_pps),
                number(rates.rx_bps),
                number(rates.tx_bps),
                number(rates.missed_pps),
                Cell(spark(history, SPARK), rates.rx_pps),
                text(port.device),
                text(port.mac),
                number(counted["rx_frames"]),
                number(counted["tx_frames"]),
                number(counted["rx_errors"] + counted["tx_errors"]),
                Cell(spark(history, LONG_SPARK), rates.rx_pps),
            )
        )
        if len(port.queues) > 1:
            rows += [_queue(frames, port.number, each, len(columns)) for each in port.queues]
    return Table("ports", "Ports", columns, tuple(rows))


def _queue(frames: Sequence[Frame], port: int, queue: int, width: int) -> tuple[Cell, ...]:
    """Return a row for a queue of a port: what its device counts of it."""

    def rates(frame: Frame) -> tuple[float, float]:
        now = frame.now.ports[port].queues[queue]
        before = frame.before.ports.get(port)
        old = before.queues.get(queue, now) if before else now
        passed = seconds_between(frame.before, frame.now)
        return (now.rx_frames - old.rx_frames) / passed, (now.tx_frames - old.tx_frames) / passed

    there = [each for each in frames if _has(each, port, queue)]
    history = [rates(each)[0] for each in there[-LONG_SPARK:]] or [0.0]
    received, sent = rates(frames[-1])
    row = [Cell("", "")] * width
    row[0] = Cell(f"{port} q{queue}", port + (queue + 1) / 1000)
    row[2], row[3] = number(received), number(sent)
    row[7], row[-1] = Cell(spark(history, SPARK), received), Cell(spark(history, LONG_SPARK), received)
    return tuple(row)


def _has(frame: Frame, port: int, queue: int) -> bool:
    return port in frame.now.ports and queue in frame.now.ports[port].queues


def workers(frame: Frame) -> Table:
    """Return the workers: rings, bursts, what Python takes, cycles."""
    columns = (
        Column("worker", right=True),
        Column("is"),
        Column("in pps", right=True),
        Column("out pps", right=True),
        Column("drops/s", right=True),
        Column("rx ring", right=True),
        Column("peak", right=True, wide=True),
        Column("burst", right=True),
        Column("lag 99%", right=True),
        Column("cycles", right=True),
        Column("ports", wide=True),
        Column("lcore", right=True, wide=True),
        Column("deepest", right=True, wide=True),
        Column("lag max", right=True, wide=True),
        Column("neighbors", right=True, wide=True),
        Column("sockets", right=True, wide=True),
        Column("buffers", right=True, wide=True),
        Column("cycles: " + " ".join(STAGES), wide=True),
    )
    rows = []
    for slot in frame.now.slots.values():
        rates = slot_rates(frame.before, frame.now, slot.number)
        rows.append(
            (
                number(slot.number, str),
                text(slot.place if slot.state == "enabled" else slot.state),
                number(rates.rx_pps),
                number(rates.tx_pps),
                number(rates.drops_pps),
                number(slot.rx_fill / max(1, slot.ring_size), percent),
                number(frame.peaks.get(slot.number, slot.rx_fill)),
                number(rates.burst, lambda value: f"{value:.1f}"),
                number(rates.lag_s, seconds),
                number(sum(rates.cycles.values()), lambda value: f"{value:.0f}" if value else "-"),
                text(",".join(map(str, slot.ports))),
                number(slot.home_lcore, str),
                number(slot.load.rx_depth_max),
                number(slot.load.lag_max_ns / 1e9, seconds),
                number(slot.worker["neighbors"]),
                number(slot.worker["sockets"]),
                number(slot.driver["outstanding"]),
                text(" ".join(f"{rates.cycles[stage]:.0f}" for stage in STAGES if rates.cycles)),
            )
        )
    return Table("workers", "Workers", columns, tuple(rows))


def drops(frame: Frame) -> Table:
    """Return what was dropped, by worker and reason, the most frequent now first."""
    columns = (
        Column("worker", right=True),
        Column("reason"),
        Column("drops/s", right=True),
        Column("drops", right=True),
        Column("share", right=True),
        Column("what it means", wide=True),
    )
    rows, passed = [], seconds_between(frame.before, frame.now)
    for slot in frame.now.slots.values():
        found = slot.drops
        before = frame.before.slots.get(slot.number, slot).drops
        rates, total = drop_rates(before, found, passed), sum(found.values())
        for reason, count in found.items():
            rows.append(
                (
                    number(slot.number, str),
                    text(reason),
                    number(rates.get(reason, 0.0)),
                    number(count),
                    number(count / total, percent),
                    text(SENTENCES.get(reason, "")),
                )
            )
    rows.sort(key=lambda row: (-_float(row[2]), -_float(row[3])))
    return Table("drops", "Drops", columns, tuple(rows), "" if rows else "Nothing was dropped.")


def hooks(frame: Frame) -> Table:
    """Return the hooks of the application."""
    columns = (
        Column("worker", right=True),
        Column("hook"),
        Column("state"),
        Column("packets/s", right=True),
        Column("dropped", right=True),
        Column("rewritten", right=True),
        Column("errors", right=True),
        Column("busy", right=True),
    )
    rows, passed = [], seconds_between(frame.before, frame.now)
    for slot in frame.now.slots.values():
        before = {hook.name: hook for hook in frame.before.slots.get(slot.number, slot).hooks}
        for hook in slot.hooks:
            old = before.get(hook.name, hook)
            rows.append(
                (
                    number(slot.number, str),
                    text(hook.name),
                    text(hook.state),
                    number((hook.packets - old.packets) / passed),
                    number(hook.dropped),
                    number(hook.rewritten),
                    number(hook.errors),
                    number((hook.busy_ns - old.busy_ns) / 1e9 / passed, percent),
                )
            )
    return Table("hooks", "Hooks", columns, tuple(rows), "" if rows else "No worker has a hook.")


def processes(frame: Frame) -> Table:
    """Return the processes."""
    columns = (
        Column("process"),
        Column("pid", right=True),
        Column("state"),
        Column("CPU", right=True),
        Column("on", right=True),
        Column("cores"),
        Column("memory", right=True),
        Column("restarts", right=True),
        Column("for", wide=True),
        Column("switches/s", right=True, wide=True),
        Column("forced/s", right=True, wide=True),
        Column("faults/s", right=True, wide=True),
        Column("major", right=True, wide=True),
        Column("threads", right=True, wide=True),
        Column("files", right=True, wide=True),
        Column("why", wide=True),
    )
    before = {(process.name, process.pid): process for process in frame.processes_before}
    passed = seconds_between(frame.before, frame.now)
    rows = [
        _process(process, before.get((process.name, process.pid), process), passed, frame.now.at)
        for process in frame.processes
    ]
    return Table("processes", "Processes", columns, tuple(rows))


def _process(now: ProcessStats, old: ProcessStats, passed: float, at: float) -> tuple[Cell, ...]:
    def rate(name: str) -> Cell:
        return number((getattr(now, name) - getattr(old, name)) / passed)

    return (
        text(now.name),
        Cell(str(now.pid or "-"), now.pid or 0),
        text(now.state),
        number((now.cpu_s - old.cpu_s) / passed, percent),
        Cell("-" if now.core < 0 else str(now.core), now.core),
        text(cores(now.affinity) or "-"),
        number(now.resident_octets, octets),
        number(now.restarts),
        Cell(duration(at - now.since), at - now.since),
        rate("switches"),
        rate("switches_forced"),
        rate("minor_faults"),
        number(now.major_faults),
        number(now.threads),
        number(now.open_files),
        text(now.note),
    )


def neighbors(frame: Frame) -> Table:
    """Return the neighbors whose MAC address is known."""
    columns = (Column("interface"), Column("address"), Column("MAC"), Column("kind"))
    found = frame.asked.neighbors
    rows = tuple(
        (
            text(each.interface),
            Cell(each.address, _address_key(each.address)),
            text(each.mac),
            text("static" if each.static else "learned"),
        )
        for each in found
    )
    return Table("neighbors", "Neighbors", columns, rows, _why(frame, rows, "No neighbor is known."))


def routes(frame: Frame) -> Table:
    """Return the routes, the first of very many."""
    columns = (Column("prefix"), Column("hops"), Column("origin"))
    rows = tuple(
        (Cell(route.prefix, _address_key(route.prefix)), text(" ".join(route.hops)), text(route.origin))
        for route in frame.asked.routes
    )
    more = f"The first {len(rows)}; there are more." if frame.asked.more_routes else ""
    return Table("routes", "Routes", columns, rows, more or _why(frame, rows, "There is no route."))


def logs(frame: Frame) -> Table:
    """Return what processes logged last, oldest first."""
    rows = tuple((Cell(line, f"{time_of(line)} {at:09}"),) for at, line in enumerate(frame.lines))
    note = "" if rows else "No process has logged anything that is kept."
    return Table("logs", "Logs", (Column("line"),), rows, note)


def everything(frames: Sequence[Frame]) -> Iterable[Table]:
    """Yield all tables of the last of these frames."""
    frame = frames[-1]
    yield problem_table(frame)
    yield ports(frames)
    yield workers(frame)
    yield drops(frame)
    yield processes(frame)
    yield neighbors(frame)
    yield routes(frame)
    yield hooks(frame)
    yield logs(frame)


def _why(frame: Frame, rows: Sequence[object], nothing: str) -> str:
    return frame.asked.problem or ("" if rows else nothing)


def _address_key(value: str) -> str:
    """Return what puts addresses and prefixes in the order of their numbers."""
    address, _, length = ("0.0.0.0/0" if value == "default" else value).partition("/")
    octets_of = address.split(".")
    if len(octets_of) != 4 or not all(octet.isdigit() for octet in octets_of):
        return value
    return ".".join(octet.zfill(3) for octet in octets_of) + f"/{length.zfill(2)}"


def _float(cell: Cell) -> float:
    assert not isinstance(cell.key, str)
    return cell.key
