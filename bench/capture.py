# SPDX-License-Identifier: Apache-2.0
"""`bench capture`: what a filter that lets nothing through costs: one worker alone, and a router at its full rate."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path

from bench import forward
from bench.instance import Instance
from bench.machine import hugepages
from bench.rows import Row, interval, row_at_most, row_skipped
from bench.worker import REPEATS, SCENARIOS, Rig, build, measure
from halo_mp.capture.filter import compile_filter
from halo_mp.control.capture_client import CaptureClient
from halo_mp.shm.capture_ring import MIN_OCTETS, Ring, create_ring
from halo_mp.shm.layout import lib

MOST_RATIO = 1.10
_TURN = 4  # polls
MOST_PERCENT = 10.0
_MEASURE_S = 0.5
_PAIRS = 6  # in a round
EXPRESSIONS = {"udp": "udp port 53", "tcp": "tcp"}  # the frames are datagrams to another port
_METRICS = {
    ("rx", "udp"): "worker.capture.rx.udp.ratio",
    ("rx", "tcp"): "worker.capture.rx.tcp.ratio",
    ("all", "udp"): "worker.capture.all.udp.ratio",
    ("all", "tcp"): "worker.capture.all.tcp.ratio",
    ("trace", "udp"): "worker.capture.trace.udp.ratio",
    ("trace", "tcp"): "worker.capture.trace.tcp.ratio",
}
_POINTS = {
    "rx": lib.HALO_POINT_RX,
    "all": lib.HALO_POINT_RX | lib.HALO_POINT_TX | lib.HALO_POINT_DROP,
    "trace": lib.HALO_POINT_TRACE,
}


def run(rounds: int) -> list[Row]:
    """Return the ratio of forwarding with a filter to forwarding without, in alternating rounds, and the rate lost."""
    return [*_alone(rounds), *_at_full_rate(rounds)]


def _alone(rounds: int) -> list[Row]:
    rig = build(SCENARIOS[1])
    rows = []
    for point, bits in _POINTS.items():
        for metric, expression in ((_METRICS[point, name], text) for name, text in EXPRESSIONS.items()):
            pairs = [_pair(rig, compile_filter(expression), bits) for _ in range(rounds)]
            ratios = [with_it / without for without, with_it in pairs]
            ratio = statistics.median(ratios)
            rows.append(
                Row(
                    metric=metric,
                    value=ratio,
                    unit="ratio",
                    peer="routed.1",
                    peer_value=statistics.median(without for without, _ in pairs),
                    note=interval(ratios),
                    target=f"<= {MOST_RATIO:g}",
                    met=ratio <= MOST_RATIO,
                )
            )
    return rows


def _pair(rig: Rig, steps: bytes, points: int) -> tuple[float, float]:
    """Return nanoseconds per frame without and with a filter, which take turns after a few polls.

    The first poll of a turn has code and tables that are not in the cache, and slow ones somebody else on the core.
    """
    without: list[float] = []
    with_it: list[float] = []
    with Ring(create_ring(MIN_OCTETS)) as ring:
        for _ in range(REPEATS // 2):
            without += measure(rig, repeats=_TURN)[1:]
            place = rig.fastpath.add_capture(
                ring.pointer, ring.size_octets, steps=steps, points=points, ports=0, snap_octets=256
            )
            with_it += measure(rig, repeats=_TURN)[1:]
            rig.fastpath.remove_capture(place)
        assert ring.pointer.records == ring.pointer.lost == 0
    return statistics.quantiles(without)[0], statistics.quantiles(with_it)[0]


def _at_full_rate(rounds: int) -> list[Row]:
    """Measure the router of `bench forward` with one route."""
    with hugepages(forward.HUGEPAGES) as there:
        if not there:
            return [
                row_skipped(
                    "forward.capture.slower_percent", f"{forward.HUGEPAGES} hugepages of 2 MiB cannot be had"
                )
            ]
        with tempfile.TemporaryDirectory() as directory:
            pcap = Path(directory) / "few.pcap"
            devices = forward.pcap_devices(pcap, forward.FEW_FRAMES, random.Random(forward.SEED))
            with forward.router(devices, ("--route", "default=10.1.0.2")) as instance:
                return [
                    _slower(instance, rounds, metric, trace=trace)
                    for metric, trace in (
                        ("forward.capture.slower_percent", False),
                        ("forward.trace.slower_percent", True),
                    )
                ]


def _slower(instance: Instance, rounds: int, metric: str, *, trace: bool) -> Row:
    """Return by how much the router is slower while a filter waits, at all points of a capture or for a trace."""
    steps = compile_filter(EXPRESSIONS["udp"])
    found = []
    for number in range(rounds * _PAIRS):
        rates: dict[bool, float] = {}
        for waits in (number % 2 == 0, number % 2 == 1):
            with CaptureClient(instance.name) as client:
                if waits:
                    client.capture(steps=steps, trace=trace)
                time.sleep(_MEASURE_S / 10)
                rates[waits] = instance.tx_rate(_MEASURE_S)
        found.append(100 * (1 - rates[True] / rates[False]))
    return row_at_most(metric, statistics.median(found), "%", MOST_PERCENT, note=interval(found))
