# SPDX-License-Identifier: Apache-2.0
"""A dashboard for Grafana 9 and later, as what JSON can hold. `docs/grafana.json` is its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_SOURCE = {"type": "prometheus", "uid": "${source}"}
_WIDTH, _HEIGHT = 12, 8
_WHO = 'name="$name"'


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph: what it is called, its unit, and its lines, each an expression and a legend."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]


def rate(metric: str, by: str = "") -> str:
    """Return the expression for a sum per second, added up by labels where some are given."""
    inner = f"rate(halo_mp_{metric}_total{{{_WHO}}}[$__rate_interval])"
    return f"sum by ({by}) ({inner})" if by else inner


def share(metric: str, of: float) -> str:
    """Return the expression for a quantile of a histogram."""
    inner = f"rate(halo_mp_{metric}_bucket{{{_WHO}}}[$__rate_interval])"
    return f"histogram_quantile({of}, sum by (le, worker) ({inner}))"


PANELS = (
    Panel(
        "Frames per second",
        "pps",
        ((rate("port_rx_frames"), "port {{port}} in"), (rate("port_tx_frames"), "port {{port}} out")),
    ),
    Panel(
        "Bits per second",
        "bps",
        (
            (f"8 * {rate('port_rx_bytes')}", "port {{port}} in"),
            (f"8 * {rate('port_tx_bytes')}", "port {{port}} out"),
        ),
    ),
    Panel("Drops by reason", "pps", ((f"{rate('drops', 'reason')} > 0", "{{reason}}"),)),
    Panel(
        "Lost before us",
        "pps",
        (
            (rate("port_rx_missed"), "port {{port}} missed"),
            (rate("port_rx_errors"), "port {{port}} errors"),
            (rate("port_rx_no_mbuf"), "port {{port}} no buffer"),
        ),
    ),
    Panel(
        "What devices complain of",
        "pps",
        (
            (
                f'rate(halo_mp_port_xstat_total{{{_WHO}, xstat=~".*(err|drop|discard|miss|out_of_buffer).*"}}'
                "[$__rate_interval])",
                "port {{port}} {{xstat}}",
            ),
        ),
    ),
    Panel("Restarts", "short", ((rate("process_restarts"), "{{process}}"),)),
    Panel("Processors", "percentunit", ((rate("process_cpu_seconds"), "{{process}}"),)),
    Panel("Memory", "bytes", ((f"halo_mp_process_resident_memory_bytes{{{_WHO}}}", "{{process}}"),)),
    Panel(
        "Rx ring",
        "percentunit",
        (
            (
                f'halo_mp_ring_descriptors{{{_WHO}, ring="rx"}} / ignoring (ring) halo_mp_ring_rx_size{{{_WHO}}}',
                "worker {{worker}}",
            ),
        ),
    ),
    Panel("Frames of a burst, median", "short", ((share("worker_burst_frames", 0.5), "worker {{worker}}"),)),
    Panel("Python keeps a worker, 99 %", "s", ((share("worker_lag_seconds", 0.99), "worker {{worker}}"),)),
    Panel(
        "Cycles of a frame",
        "short",
        (
            (
                f"{rate('worker_stage_cycles', 'worker, stage')} / ignoring (stage) group_left "
                f"{rate('worker_timed_frames', 'worker')}",
                "worker {{worker}} {{stage}}",
            ),
        ),
    ),
    Panel("Hooks", "percentunit", ((rate("hook_busy_seconds"), "worker {{worker}} {{hook}}"),)),
    Panel(
        "Restarts and lost devices",
        "short",
        (
            (f"halo_mp_process_restarts_total{{{_WHO}}}", "{{process}}"),
            (f"halo_mp_port_losses_total{{{_WHO}}}", "port {{port}}"),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return {
        "title": "halo-mp",
        "uid": "halo-mp",
        "tags": ["halo-mp", "network"],
        "schemaVersion": 36,
        "version": 1,
        "editable": True,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {"list": [_source_variable(), _name_variable()]},
        "annotations": {"list": []},
        "panels": [*_stats(), *(_graph(number, panel) for number, panel in enumerate(PANELS))],
    }


def _stats() -> list[dict[str, Any]]:
    shown = (
        ("Up", f"halo_mp_up{{{_WHO}}}"),
        ("Well", f"halo_mp_well{{{_WHO}}}"),
        ("Free buffers", f"halo_mp_pool_free_buffers{{{_WHO}}}"),
        ("Neighbors", f"sum(halo_mp_worker_neighbors{{{_WHO}}})"),
    )
    return [
        {
            "id": 100 + number,
            "type": "stat",
            "title": title,
            "datasource": _SOURCE,
            "gridPos": {"h": 4, "w": 6, "x": 6 * number, "y": 0},
            "targets": [_target(0, expression, "")],
            "fieldConfig": {"defaults": {"unit": "short"}, "overrides": []},
            "options": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}},
        }
        for number, (title, expression) in enumerate(shown)
    ]


def _graph(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, 2)
    return {
        "id": 1 + number,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": _WIDTH * column, "y": 4 + _HEIGHT * row},
        "targets": [_target(at, *line) for at, line in enumerate(panel.lines)],
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }


def _target(at: int, expression: str, legend: str) -> dict[str, Any]:
    return {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}


def _source_variable() -> dict[str, Any]:
    return {"name": "source", "type": "datasource", "query": "prometheus", "label": "Source"}


def _name_variable() -> dict[str, Any]:
    return {
        "name": "name",
        "type": "query",
        "label": "Instance",
        "datasource": _SOURCE,
        "query": {"query": "label_values(halo_mp_up, name)", "refId": "names"},
        "refresh": 2,
    }
