# SPDX-License-Identifier: Apache-2.0
"""`bench chain`: what a hook costs in a worker alone, before it does anything: native ones, and a poll that comes back.

As in `bench worker`, without driver and second core. Each way through the fast path is measured without a hook and with
one at each stage that it has: a native one that does nothing, a native filter on three fields, and one of Python's
that does nothing, so that its cost is that of parking bursts of up to 512 packets.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from bench import worker
from bench.rows import Row, interval
from halo_mp.app.verdict import Stage
from halo_mp.shm.layout import ffi, lib
from halo_mp.workers.fastpath import PollReason
from halo_mp.workers.fastpath_hooks import FastPathHooks

WAYS = {
    "macswap": ("alone", (Stage.INGRESS, Stage.EGRESS)),
    "forward": ("routed.1", tuple(Stage)[:3]),
}
HOOKS: dict[str, str | None] = {
    "nothing": "halo_bench_hook_nothing",
    "filter": "halo_bench_hook_filter",
    "parked": None,
}


def run(rounds: int) -> list[Row]:
    """Return nanoseconds per frame of 60 octets for each way, stage and hook, and the ratio to none in the round."""
    rigs: dict[str, worker.Rig] = {}
    polls: dict[str, Callable[[worker.Rig], None] | None] = {}
    for way, (scenario, stages) in WAYS.items():
        rigs[f"{way}.none"] = worker.build(_scenario(scenario))
        polls[f"{way}.none"] = None
        for stage in stages:
            for hook, function in HOOKS.items():
                name = f"{way}.{stage.name.lower()}.{hook}"
                rigs[name] = worker.build(_scenario(scenario))
                _add(rigs[name], stage, function)
                polls[name] = _poll_through if function is None else None
    costs: dict[str, list[float]] = {name: [] for name in rigs}
    for _ in range(rounds):
        for name, rig in rigs.items():
            costs[name].append(statistics.median(worker.measure(rig, polls[name])))
    return [_row(name, costs) for name in costs]


def _scenario(name: str) -> worker.Scenario:
    return next(each for each in worker.SCENARIOS if each.name == name)


def _add(rig: worker.Rig, stage: Stage, function: str | None) -> None:
    address = 0 if function is None else int(ffi.cast("uintptr_t", ffi.addressof(lib, function)))
    FastPathHooks(rig.fastpath).add("bench", stage, function=address)


def _poll_through(rig: worker.Rig) -> None:
    """As many bursts as a poll of native hooks would have, each of them parked once."""
    left = rig.slot.rx.producer - rig.slot.rx.consumer
    for _ in range(max(1, left // 2 // lib.HALO_WIDE_BURST)):
        if rig.fastpath.poll(0) & PollReason.HOOK:
            rig.fastpath.poll(0)


def _row(name: str, costs: dict[str, list[float]]) -> Row:
    ours, none = costs[name], costs[f"{name.split('.')[0]}.none"]
    ratios = [its / each for each, its in zip(ours, none, strict=True)]
    return Row(
        metric=f"chain.{name}.ns_per_frame",
        value=statistics.median(ours),
        unit="ns",
        peer="none",
        peer_value=statistics.median(none),
        note=f"of the rate without: {interval(ratios)}",
    )
