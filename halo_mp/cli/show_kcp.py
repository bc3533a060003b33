# SPDX-License-Identifier: Apache-2.0
"""`halo-mp show kcp`: the KCP endpoints and sessions of an instance's workers."""

from __future__ import annotations

from typing import Any

import click

from halo_mp.cli.options import json_option, name_option
from halo_mp.cli.output import write_json, write_table
from halo_mp.control.client import Client

_ENDPOINT = (
    "worker",
    "address",
    "stack",
    "format",
    "is a",
    "sessions",
    "opened",
    "in",
    "out",
    "sent again",
    "refused",
)
_SESSION = (
    "worker",
    "conv",
    "peer",
    "state",
    "rtt ms",
    "rto ms",
    "window",
    "in flight",
    "unread",
    "in",
    "out",
    "again",
)


@click.command
@name_option
@json_option
def kcp(*, name: str, as_json: bool) -> None:
    """List the KCP endpoints and sessions of the workers. Of very many, some."""
    with Client(name) as client:
        found = client.kcp()
    if as_json:
        write_json(found)
        return
    endpoints = [(slot, each) for slot, report in found.items() for each in report["endpoints"]]
    write_table(_ENDPOINT, (_endpoint(slot, each) for slot, each in endpoints), numbers=_ENDPOINT[5:])
    sessions = [(slot, each) for slot, report in found.items() for each in report["sessions"]]
    if sessions:
        click.echo()
        write_table(_SESSION, (_session(slot, each) for slot, each in sessions), numbers=_SESSION[4:])
    left_out = sum(report["left_out"] for report in found.values())
    if left_out:
        click.echo(f"{left_out} more sessions are not listed.")


def _endpoint(slot: int, each: dict[str, Any]) -> tuple[object, ...]:
    counters, totals, handshakes = each["counters"], each["totals"], each["handshakes"]
    return (
        slot,
        _place(each["address"]),
        each["stack"],
        each["format"],
        each["role"],
        each["sessions"],
        counters["active_opens"] + counters["passive_opens"],
        totals["in_packets"],
        totals["out_packets"],
        totals["retransmitted"],
        counters["refused_full"]
        + counters["unknown_conv"]
        + handshakes["syns_refused"]
        + handshakes["pending_evicted"],
    )


def _session(slot: int, each: dict[str, Any]) -> tuple[object, ...]:
    info, counters = each["info"], each["counters"]
    return (
        slot,
        f"{each['conv']:#x}",
        _place(each["peer"]),
        each["state"],
        info["srtt_ms"],
        info["rto_ms"],
        min(info["congestion_window"] or info["send_window"], info["send_window"]),
        info["in_flight"],
        info["unread"],
        counters["in_packets"],
        counters["out_packets"],
        counters["retransmitted"],
    )


def _place(address: list[Any]) -> str:
    return f"{address[0]}:{address[1]}" if len(address) > 1 else "?"
