# SPDX-License-Identifier: Apache-2.0
"""`bench capture`: what a filter that lets nothing through costs a worker that forwards, one worker alone."""

from __future__ import annotations

import statistics

from bench.rows import Row, interval
from bench.worker import SCENARIOS, Rig, build, measure
from halo_mp.capture.filter import compile_filter
from halo_mp.shm.capture_ring import MIN_OCTETS, Ring, create_ring
from halo_mp.shm.layout import lib

MOST_RATIO = 1.10
EXPRESSIONS = {"udp": "udp port 53", "tcp": "tcp"}  # the frames are datagrams to another port
_METRICS = {
    ("rx", "udp"): "worker.capture.rx.udp.ratio",
    ("rx", "tcp"): "worker.capture.rx.tcp.ratio",
    ("trace", "udp"): "worker.capture.trace.udp.ratio",
    ("trace", "tcp"): "worker.capture.trace.tcp.ratio",
}
_POINTS = {"rx": lib.HALO_POINT_RX, "trace": lib.HALO_POINT_TRACE}


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
    """Return nanoseconds per frame without and with a filter."""
    without = statistics.median(measure(rig))
    with Ring(create_ring(MIN_OCTETS)) as ring:
        place = rig.fastpath.add_capture(
            ring.pointer, ring.size_octets, steps=steps, points=points, ports=0, snap_octets=256
        )
        with_it = statistics.median(measure(rig))
        rig.fastpath.remove_capture(place)
        assert ring.pointer.records == ring.pointer.lost == 0
    return without, with_it
