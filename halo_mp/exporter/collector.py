# SPDX-License-Identifier: Apache-2.0
"""Snapshots as metric families, by the naming conventions of Prometheus: base units, `_total` for sums.

Each has the label `name`, the instance's. Counters keep their own names, octets become bytes: `worker.rx_octets` of
docs/shared-memory.md is `halo_mp_worker_rx_bytes_total`. Those that were never counted are there with 0, drops too.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from halo_mp import __version__
from halo_mp.errors import HaloError
from halo_mp.exporter import texts
from halo_mp.shm.counters import INTERFACE_COUNTERS
from halo_mp.shm.load import BURST_BOUNDS, LAG_BOUNDS_NS, HookStats
from halo_mp.stats.model import GAUGES, PortStats, SlotStats, Snapshot
from halo_mp.stats.processes import ProcessStats, read_processes
from halo_mp.stats.reader import Reader
from halo_mp.stats.totals import Totals

_STAGES = {0: "ingress", 1: "forward", 2: "egress"}


class Families:
    """Families of one collection by name, made when they are first needed."""

    def __init__(self) -> None:
        self.instance = ""
        """Whose samples are being added."""
        self._made: dict[str, Metric] = {}

    def count(self, name: str, value: float, **labels: object) -> None:
        """Add a sample of a sum; `name` is without prefix and `_total`."""
        self._family(CounterMetricFamily, name, labels).add_metric(self._values(labels), value)

    def gauge(self, name: str, value: float, **labels: object) -> None:
        """Add a sample of what there is now."""
        self._family(GaugeMetricFamily, name, labels).add_metric(self._values(labels), value)

    def histogram(
        self, name: str, bounds: Iterable[float], counts: Iterable[int], total: float, **labels: object
    ) -> None:
        """Add a distribution; it has one count more than bounds."""
        seen, buckets = 0, []
        for bound, count in zip((*map(repr, map(float, bounds)), "+Inf"), counts, strict=True):
            seen += count
            buckets.append((bound, float(seen)))
        family = self._family(HistogramMetricFamily, name, labels)
        family.add_metric(self._values(labels), buckets=buckets, sum_value=total)

    def info(self, name: str, what: dict[str, str], **labels: object) -> None:
        """Add texts; `name` is without `_info`."""
        self._family(InfoMetricFamily, name, labels).add_metric(self._values(labels), what)

    def all(self) -> Iterator[Metric]:
        """Yield them."""
        yield from self._made.values()

    def _family(self, kind: type, name: str, labels: Mapping[str, object]) -> Any:
        if name not in self._made:
            self._made[name] = kind(f"halo_mp_{name}", texts.help_of(name), labels=["name", *labels])
        return self._made[name]

    def _values(self, labels: Mapping[str, object]) -> list[str]:
        return [self.instance, *map(str, labels.values())]


class InstanceCollector(Collector):
    """Reads instances whenever it is asked. Of one that does not run there is `halo_mp_up` 0 and nothing else."""

    def __init__(self, instances: Iterable[str], base: Path | None = None) -> None:
        self._watched = {name: _Watched(name, base) for name in instances}
        self._turn = threading.Lock()  # the server answers each scrape in a thread of its own

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what there is depends on the instances."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the families of what there is now."""
        families = Families()
        with self._turn:
            for name, watched in self._watched.items():
                families.instance = name
                watched.add_to(families)
        yield from families.all()

    def close(self) -> None:
        """Unmap what was read. May be called twice."""
        with self._turn:
            for watched in self._watched.values():
                watched.close()


class _Watched:
    """One instance."""

    def __init__(self, instance: str, base: Path | None) -> None:
        self._instance = instance
        self._base = base
        self._reader: Reader | None = None
        self._forget()
        self._generation = 0

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _forget(self) -> None:
        """Count from zero."""
        self._processes: defaultdict[str, Totals] = defaultdict(Totals)
        self._restarts: defaultdict[str, Totals] = defaultdict(Totals)
        self._pids: dict[str, int] = {}
        self._xstats: defaultdict[int, Totals] = defaultdict(Totals)

    def add_to(self, family: Families) -> None:
        started = time.perf_counter()
        snapshot = self._read()
        family.gauge("up", snapshot is not None)
        if snapshot is None:
            return
        if snapshot.generation != self._generation:
            self._generation = snapshot.generation
            self._forget()
        add_snapshot(family, snapshot)
        for port in snapshot.ports.values():
            self._add_xstats(family, port)
        for process in read_processes(snapshot.status):
            self._add_process(family, process)
        family.gauge("exporter_read_seconds", time.perf_counter() - started)

    def _read(self) -> Snapshot | None:
        try:
            if self._reader is None:
                self._reader = Reader(self._instance, base=self._base)
            return self._reader.read()
        except HaloError:
            self.close()
            return None

    def _add_xstats(self, family: Families, port: PortStats) -> None:
        """Add what its driver counts besides; the sums go on when the device is opened again.

        A NIC has hundreds, most of which never count anything: those are left out.
        """
        for name, value in self._xstats[port.number].update(port.xstats).items():
            if value:
                family.count("port_xstat", value, port=port.number, xstat=name)

    def _add_process(self, family: Families, process: ProcessStats) -> None:
        """Add a process; its sums go on when another one takes its place."""
        counted = {
            "cpu_ns": round(process.cpu_s * 1e9),
            "voluntary": process.switches,
            "involuntary": process.switches_forced,
            "minor": process.minor_faults,
            "major": process.major_faults,
        }
        totals = self._processes[process.name]
        if process.pid is not None and process.pid != self._pids.get(process.name):
            self._pids[process.name] = process.pid
            totals.restarted()
        sums = totals.update(counted if process.pid else {})
        # A supervisor that took over counts from zero.
        restarts = self._restarts[process.name].update({"restarts": process.restarts})
        who = {"process": process.name}
        family.gauge("process_up", process.pid is not None, **who)
        family.count("process_restarts", restarts["restarts"], **who)
        family.count("process_cpu_seconds", sums.get("cpu_ns", 0) / 1e9, **who)
        family.gauge("process_resident_memory_bytes", process.resident_octets, **who)
        family.gauge("process_threads", process.threads, **who)
        family.gauge("process_open_fds", process.open_files, **who)
        for kind in ("voluntary", "involuntary"):
            family.count("process_context_switches", sums.get(kind, 0), **who, kind=kind)
        for kind in ("minor", "major"):
            family.count("process_page_faults", sums.get(kind, 0), **who, kind=kind)


def add_snapshot(family: Families, snapshot: Snapshot) -> None:
    """Add everything but processes."""
    family.info("instance", {"version": __version__, "state": snapshot.status.state})
    family.gauge("well", snapshot.status.is_well and snapshot.status.is_supervised)
    family.gauge("start_time_seconds", snapshot.status.since)
    family.gauge("pool_free_buffers", snapshot.pool_free)
    family.gauge("pool_withheld_buffers", snapshot.withheld)
    for port in snapshot.ports.values():
        _add_port(family, port)
    for slot in snapshot.slots.values():
        _add_slot(family, slot)
    for interface in snapshot.interfaces.values():
        for name in INTERFACE_COUNTERS:
            family.count(_unit(f"interface_{name}"), getattr(interface, name), interface=interface.name)
        family.gauge("interface_up", interface.up, interface=interface.name)
    for lcore in snapshot.lcores:
        for name, value in lcore.items():
            if name not in ("lcore", "place"):
                family.count(f"lcore_{name}", value, lcore=lcore["lcore"])


def _add_port(family: Families, port: PortStats) -> None:
    where = {"port": port.number}
    for name, value in port.counters.items():
        family.count(_unit(f"port_{name}"), value, **where)
    family.info("port", {"device": port.device, "driver": port.driver, "mac": port.mac}, **where)
    family.gauge("port_up", port.state == "started", **where)
    family.gauge("port_link_up", port.link_up, **where)
    family.gauge("port_speed_bytes", port.speed_mbps * 125_000, **where)
    family.gauge("port_mtu_bytes", port.mtu, **where)
    for number, queue in port.queues.items():
        for name in ("rx_frames", "rx_octets", "tx_frames", "tx_octets"):
            family.count(_unit(f"port_queue_{name}"), getattr(queue, name), **where, queue=number)


def _add_slot(family: Families, slot: SlotStats) -> None:
    where = {"worker": slot.number}
    for side, counters in (("worker", slot.worker), ("driver", slot.driver)):
        for name, value in counters.items():
            add = family.gauge if name in GAUGES else family.count
            add(_unit(f"{side}_{name}"), value, **where)
    for reason, count in slot.worker_drops.items():
        family.count("drops", count + slot.driver_drops[reason], **where, reason=reason)
    for ring, fill in (("rx", slot.rx_fill), ("tx", slot.tx_fill), ("spare", slot.spare_fill)):
        family.gauge("ring_descriptors", fill, **where, ring=ring)
    family.gauge("ring_rx_size", slot.ring_size, **where)
    _add_load(family, slot)
    for hook in slot.hooks:
        _add_hook(family, hook, where)


def _add_load(family: Families, slot: SlotStats) -> None:
    load, where = slot.load, {"worker": slot.number}
    family.gauge("ring_rx_depth_max", load.rx_depth_max, **where)
    family.gauge("worker_lag_max_seconds", load.lag_max_ns / 1e9, **where)
    family.count("worker_timed_frames", load.timed_frames, **where)
    for stage, cycles in load.cycles.items():
        family.count("worker_stage_cycles", cycles, **where, stage=stage)
    family.histogram("worker_burst_frames", BURST_BOUNDS, load.bursts, slot.worker["rx_frames"], **where)
    bounds = (bound / 1e9 for bound in LAG_BOUNDS_NS)
    family.histogram("worker_lag_seconds", bounds, load.lags, load.lag_ns / 1e9, **where)


def _add_hook(family: Families, hook: HookStats, where: Mapping[str, object]) -> None:
    which = {**where, "hook": hook.name, "stage": _STAGES.get(hook.stage, hook.stage)}
    family.gauge("hook_active", hook.state == "active", **which)
    for name in ("calls", "packets", "dropped", "rewritten", "errors"):
        family.count(f"hook_{name}", getattr(hook, name), **which)
    family.count("hook_busy_seconds", hook.busy_ns / 1e9, **which)


def _unit(name: str) -> str:
    return name.replace("octets", "bytes")
