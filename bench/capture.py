# SPDX-License-Identifier: Apache-2.0
"""`bench capture`: what a filter that lets nothing through costs a worker that forwards, one worker alone."""

from __future__ import annotations

import statistics

from bench.rows import Row, interval
from bench.worker import REPEATS, SCENARIOS, Rig, build, measure
from halo_mp.capture.filter import compile_filter
from halo_mp.shm.capture_ring import MIN_OCTETS, Ring, create_ring
from halo_mp.shm.layout import lib

MOST_RATIO = 1.10
_TURN = 4  # polls
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
    """Return the ratio of forwarding with a filter to forwarding without, in alternating rounds."""
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
