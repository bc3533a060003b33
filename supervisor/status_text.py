# SPDX-License-Identifier: Apache-2.0
"""The status of an instance and its reports as text for people: 80 columns, no colours. Pure functions.

Log lines and tracebacks in a report are as long as they are.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime

from halo_mp.stats.status_model import PortStatus, ProcessStatus, Status
from halo_mp.supervisor.reports import Report
from halo_mp.supervisor.status_reader import Found, Verdict

WIDTH = 80


def text(found: Found, names: Sequence[str], now: float) -> str:
    """Return what a person should read of an instance; `names` are those that there are."""
    lines = textwrap.wrap(_headline(found, names, now), WIDTH)
    if found.status is not None and found.verdict is not Verdict.DEAD:
        lines += textwrap.wrap(awaited_text(found.status, now), WIDTH)
        lines += ["", *_processes(found, found.status, now), "", *_ports(found.status.ports)]
        lines += ["", *_counters(found)]
    if found.reports:
        lines += ["", *_report_lines(found.reports)]
    return "\n".join(lines) + "\n"


def reports_text(reports: Sequence[Report]) -> str:
    """Return reports in full, the latest first."""
    return "\n".join("\n".join(_report(report)) + "\n" for report in reversed(reports))


def duration(seconds: float) -> str:
    """Return a time span in two units at most: `2 h 3 min`."""
    whole = max(0, round(seconds))
    for unit, size, smaller, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small} {smaller}"
    return f"{whole} s"


def moment(at: float) -> str:
    """Return a point in time as the log has it, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def awaited_text(status: Status, now: float) -> str:
    """Return the sentence about a confirmation that is awaited; empty when none is."""
    if status.confirm_until is None:
        return ""
    left = f"in {duration(status.confirm_until - now)}" if status.confirm_until > now else "now"
    return (
        f"What {status.confirm_by} has applied is taken back {left}, unless it is confirmed: halo-mp config confirm "
        f"--name {status.instance}."
    )


def _headline(found: Found, names: Sequence[str], now: float) -> str:
    name, status = found.name, found.status
    match found.verdict:
        case Verdict.UNKNOWN:
            there = f"There is: {', '.join(names)}." if names else "Nor is there any other."
            return f"There is no instance {name!r}. {there}"
        case Verdict.DEAD:
            return (
                f"Instance {name!r} is not running. It was not stopped in order: the next start under this name "
                "removes what it has left."
            )
        case Verdict.STARTING:
            return f"Instance {name!r} is starting as process {found.pid}."
        case Verdict.ORPHANED:
            return (
                f"Instance {name!r} is running without a supervisor: that is dead, and {', '.join(found.alive)} "
                f"{'go' if len(found.alive) > 1 else 'goes'} on until --orphan-timeout. Start it again with the same "
                "flags and the same file, and it takes over. What follows is the last that the dead one knew."
            )
    assert status is not None
    since = f"since {moment(status.since)} ({duration(now - status.since)}), supervisor {found.pid}"
    return f"Instance {name!r} is {status.state} {since}."


def _processes(found: Found, status: Status, now: float) -> list[str]:
    rows = [["process", "pid", "state", "for", "restarts"]]
    notes: list[list[str]] = [[]]
    for process in status.processes:
        state = process.state
        gone = found.verdict is Verdict.ORPHANED and not process.is_alive
        rows.append(
            [
                process.name,
                str(process.pid or "-"),
                "gone" if gone else state,
                duration(now - process.since),
                str(process.restarts),
            ]
        )
        notes.append(_note(process, now))
    lines = _table(rows)
    return [line for row, note in zip(lines, notes, strict=True) for line in (row, *note)]


def _note(process: ProcessStatus, now: float) -> list[str]:
    """Return why a process has failed and when it is tried again."""
    if process.failed_because is None:
        return []
    due = "" if process.retry_at is None else f"; next try in {duration(process.retry_at - now)}"
    return _indented(f"{process.failed_because}{due}")


def _ports(ports: Sequence[PortStatus]) -> list[str]:
    rows = [["port", "device", "driver", "MAC", "MTU", "link", "state"]]
    rows += [
        [
            str(port.number),
            port.device,
            port.driver or "-",
            port.mac or "-",
            str(port.mtu),
            "up" if port.link_up else "down",
            port.state,
        ]
        for port in ports
    ]
    notes: list[list[str]] = [[], *(_port_note(port) for port in ports)]
    return [line for row, note in zip(_table(rows), notes, strict=True) for line in (row, *note)]


_SPREAD_BY = {"hardware": "its device", "software": "the driver"}


def _port_note(port: PortStatus) -> list[str]:
    """Return why a port has failed, who spreads its frames over several queues, and where the kernel's share is."""
    notes = []
    if port.state == "failed" and port.failed_because is not None:
        notes.append(f"{port.failed_because}; it is looked for")
    elif port.spread:
        by = _SPREAD_BY.get(port.spread, "it")
        notes.append(f"{port.queues} queues, spread in {port.spread} by {by}")
    if port.kernel:
        notes.append(f"the kernel has its share on {port.kernel}")
    return [line for note in notes for line in _indented(note)]


def _counters(found: Found) -> list[str]:
    if found.counters_missing is not None:
        return textwrap.wrap(f"No counters: {found.counters_missing}", WIDTH)
    rows = [["port", "frames in", "frames out", "dropped"]]
    notes: list[list[str]] = [[]]
    for number, counters in found.counters.items():
        dropped = sum(counters.drops.values())
        rows.append([str(number), str(counters.frames_in), str(counters.frames_out), str(dropped)])
        names = ", ".join(f"{name} {count}" for name, count in counters.drops.items())
        notes.append(_indented(names) if names else [])
    return [line for row, note in zip(_table(rows), notes, strict=True) for line in (row, *note)]


def _report_lines(reports: Sequence[Report]) -> list[str]:
    count = f"{len(reports)} reports" if len(reports) > 1 else "1 report"
    lines = [f"{count} of processes that ended though nobody asked; --reports has all of it:"]
    for report in reports[-5:]:
        said = f"{moment(report.ended_at)} {_who(report)} {report.failure or report.reason}"
        lines += textwrap.wrap(said, WIDTH, initial_indent="  ", subsequent_indent="    ")
    return lines


def _who(report: Report) -> str:
    return f"{report.name} (pid {report.pid})" if report.pid else report.name


def _report(report: Report) -> list[str]:
    lived = "" if report.lived_s is None else f" after {report.lived_s:.1f} s"
    lines = textwrap.wrap(f"{_who(report)} {report.reason}", WIDTH)
    lines += _indented(
        f"{moment(report.ended_at)}{lived}, of which it did its work for {report.useful_s:.1f} s. {_then(report)}"
    )
    if report.failure:
        lines += _indented(f"It said: {report.failure}")
    if report.silence:
        lines += _indented(report.silence)
    if report.traceback:
        lines += ["  Traceback:", *(f"    {line}" for line in report.traceback.splitlines())]
    if report.lines:
        lines += ["  Last log lines:", *(f"    {line}" for line in report.lines)]
    if not report.lines and not report.traceback:
        lines += _indented(
            "It left no log line and no traceback: it ended before its log was set up. What it may have said stands on "
            "the supervisor's standard error."
        )
    return lines


def _then(report: Report) -> str:
    """Return what the supervisor did about it."""
    before = f"{report.restarts} restart{'' if report.restarts == 1 else 's'} before"
    if report.failed:
        return f"Ended too often ({before}): tried again {report.restart_in_s:.1f} s later."
    return f"Restarted at once ({before})."


def _indented(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
