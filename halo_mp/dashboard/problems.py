# SPDX-License-Identifier: Apache-2.0
"""What is wrong with an instance at a moment, as sentences that say where. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from halo_mp.dashboard.feed import Frame
from halo_mp.dashboard.figures import percent, si
from halo_mp.shm.layout import DROP_NAMES, DROP_TEXTS
from halo_mp.stats.model import PortStats
from halo_mp.stats.rates import drop_rates, seconds_between
from halo_mp.stats.status_model import PortStatus, ProcessStatus, ReportLine
from halo_mp.supervisor.status_text import awaited_text, duration

RECENT_S = 300.0  # for which a death is news
FULL = 0.8  # of a ring
DROPS_SHOWN = 5
SENTENCES = dict(zip(DROP_NAMES, DROP_TEXTS, strict=True))
"""What each reason means."""
OURS = frozenset(
    {
        "rx_ring_full",
        "rx_slot_disabled",
        "rx_slot_bound",
        "rx_multi_segment",
        "rx_no_buffer",
        "tx_bad_offset",
        "tx_bad_length",
        "tx_bad_owner",
        "tx_bad_port",
        "tx_bad_action",
        "tx_bad_slot",
        "tx_port_full",
        "tx_port_down",
        "tx_lcore_full",
        "tx_hand_full",
        "bad_descriptor",
        "no_interface",
        "reassembly_full",
        "tx_ring_full",
        "no_spare_buffer",
        "stack_error",
        "punt_lost",
        "rx_lcore_full",
        "copy_no_buffer",
        "python_busy",
        "hook_error",
        "hook_quarantined",
        "raw_queue_full",
        "inject_full",
    }
)
"""Drops for which the instance or its application is to blame, and not what came in."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong."""

    where: str
    """`supervisor`, `worker 0`, `port 1`, `pool`."""
    what: str
    """A sentence."""
    is_notice: bool = False
    """It may be as it should: drops that others are to blame for."""


def problems(frame: Frame) -> tuple[Problem, ...]:
    """Return what is wrong, the worst first; nothing when all is well."""
    found = (*_supervisor(frame), *_processes(frame), *_ports(frame), *_slots(frame), *_deaths(frame))
    return (*found, *_drops(frame))


def has_ended(frame: Frame) -> bool:
    """Whether nobody is left, nor anybody who would start somebody."""
    return not frame.now.status.is_supervised and not any(
        each.is_alive for each in frame.now.status.processes
    )


def _supervisor(frame: Frame) -> Iterator[Problem]:
    status = frame.now.status
    if has_ended(frame):
        yield Problem(
            "instance",
            "It has ended, and not in order. The next start under this name removes what it has left; halo-mp stop "
            "does so, too.",
        )
    elif not status.is_supervised:
        yield Problem(
            "supervisor",
            "It is dead. Driver and workers go on until --orphan-timeout: start it again with the same flags, and it "
            "takes over.",
        )
    elif status.state != "up":
        yield Problem("supervisor", f"The instance is {status.state}.")
    if text := awaited_text(status, frame.now.at):
        yield Problem("supervisor", text, is_notice=True)


def _processes(frame: Frame) -> Iterator[Problem]:
    if has_ended(frame):
        return
    of_status = {process.name: process for process in frame.now.status.processes}
    for process in frame.processes:
        known = of_status.get(process.name)
        if known is None or process.state == "ready":
            continue
        since = duration(frame.now.at - process.since)
        if process.state == "failed":
            yield Problem(process.name, _failed(known, frame.now.at))
        elif process.state == "gone":
            if frame.now.status.is_supervised:
                yield Problem(process.name, "It is dead, and not started again yet.")
            elif process.role != "spare":  # which has nothing to do without a supervisor
                yield Problem(process.name, "It is dead, and nobody starts it again.")
        else:
            yield Problem(process.name, f"It is {process.state}, for {since}.")


def _failed(process: ProcessStatus, now: float) -> str:
    due = "" if process.retry_at is None else f" Next try in {duration(process.retry_at - now)}."
    return f"It has failed: {process.failed_because or 'it ended too often'}.{due}"


def _ports(frame: Frame) -> Iterator[Problem]:
    told = {port.number: port for port in frame.now.status.ports}
    for port in frame.now.ports.values():
        where = f"port {port.number}"
        if port.state != "started":
            yield Problem(where, _absent(port, told[port.number]))
            continue
        if not port.link_up:
            yield Problem(where, f"{port.device} has no link.")
        for name, sentence in _LOSSES.items():
            rate = _rate(frame, port, name)
            if rate > 0:
                yield Problem(where, sentence.format(si(rate)))


_LOSSES = {
    "rx_missed": "Its device had no descriptor for {}/s frames: the driver comes too late to take them.",
    "rx_no_mbuf": "{}/s times no buffer was free to receive into: see --pool-size.",
    "rx_errors": "{}/s frames came in broken: look at cable and peer.",
    "tx_errors": "{}/s frames could not be sent by its device.",
}


def _absent(port: PortStats, told: PortStatus) -> str:
    if port.state == "failed":
        return f"{told.failed_because or f'{port.device} is gone'}; it is looked for."
    return f"It is {port.state}: no driver has {port.device}."


def _rate(frame: Frame, port: PortStats, name: str) -> float:
    before = frame.before.ports.get(port.number)
    old = port.counters[name] if before is None else before.counters[name]
    return max(0, port.counters[name] - old) / seconds_between(frame.before, frame.now)


def _slots(frame: Frame) -> Iterator[Problem]:
    if frame.now.pool_free == 0 and frame.now.driver_pid:
        yield Problem("pool", "No buffer is free: see --pool-size, and who holds so many (workers, buffers).")
    for slot in frame.now.slots.values():
        where = f"worker {slot.number}"
        share = frame.peaks.get(slot.number, slot.rx_fill) / max(1, slot.ring_size)
        if share >= FULL:
            yield Problem(
                where, f"Its rx ring was {percent(min(share, 1.0))} full: it is slower than its port."
            )
        for hook in slot.hooks:
            if hook.state == "quarantined":
                yield Problem(
                    where, f"Its hook {hook.name!r} is not asked any more: it failed {si(hook.errors)} times."
                )


def _deaths(frame: Frame) -> Iterator[Problem]:
    recent: dict[str, list[ReportLine]] = {}
    for report in frame.now.status.reports:
        if frame.now.at - report.ended_at < RECENT_S:
            recent.setdefault(report.name, []).append(report)
    for name, reports in recent.items():
        said = f"It {reports[-1].reason} {duration(frame.now.at - reports[-1].ended_at)} ago"
        more = f"; it ended {len(reports)} times in five minutes" if len(reports) > 1 else ""
        yield Problem(_short(name), f"{said}{more}.")


def _short(name: str) -> str:
    """Return `the worker of slot 0` as `worker 0`."""
    return name.removeprefix("the ").replace(" of slot", "")


def _drops(frame: Frame) -> Iterator[Problem]:
    """Yield the reasons that drop now, ours first, and of each kind the most frequent."""
    rates: defaultdict[str, float] = defaultdict(float)
    where: dict[str, list[int]] = {}
    passed = seconds_between(frame.before, frame.now)
    for slot in frame.now.slots.values():
        before = frame.before.slots.get(slot.number, slot).drops
        for reason, rate in drop_rates(before, slot.drops, passed).items():
            rates[reason] += rate
            where.setdefault(reason, []).append(slot.number)
    shown = sorted(rates.items(), key=lambda each: -each[1])
    for ours in (True, False):
        for reason, rate in [each for each in shown if (each[0] in OURS) == ours][:DROPS_SHOWN]:
            yield Problem(_workers(where[reason]), f"{reason} {si(rate)}/s: {SENTENCES[reason]}.", not ours)


def _workers(numbers: Sequence[int]) -> str:
    return f"worker {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} workers"
