# SPDX-License-Identifier: Apache-2.0
"""What this process's endpoints and sessions say of themselves, as plain values: for who shows it, here or elsewhere.

    {"endpoints": [{"address": ["0.0.0.0", 4000], "stack": "halo", "format": "halo", "role": "server",
                    "counters": {...}, "totals": {...}, "handshakes": {...}, "sessions": 3}],
     "sessions": [{"endpoint": 0, "conv": 1, "peer": ["10.0.0.2", 5000], "state": "open", "info": {...},
                   "counters": {...}}],
     "left_out": 0}

Read now and then: it walks what there is, and tells no more than it is asked for. Each entry is less than a kilobyte.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from halo_mp.kcp.endpoint import Endpoint
from halo_mp.kcp.opening import ENDPOINTS
from halo_mp.kcp.session import Session

MOST_ENDPOINTS: Final = 16
MOST_SESSIONS: Final = 40
"""Told by default: both together are less than a message of 64 KiB."""


def report(most_sessions: int = MOST_SESSIONS, most_endpoints: int = MOST_ENDPOINTS) -> dict[str, Any]:
    """Return what there is: endpoints, servers first, and their sessions, until there are so many."""
    endpoints = sorted((each for each in ENDPOINTS if not each.is_closed), key=_order)
    there = sum(len(each.sessions) for each in endpoints)
    sessions: list[dict[str, Any]] = []
    for number, endpoint in enumerate(endpoints[:most_endpoints]):
        room = most_sessions - len(sessions)
        sessions += [_session(number, each) for each in list(endpoint.sessions.values())[:room]]
    return {
        "endpoints": [_endpoint(each) for each in endpoints[:most_endpoints]],
        "sessions": sessions,
        "left_out": there - len(sessions),
    }


def _order(endpoint: Endpoint) -> tuple[bool, list[str]]:
    return not endpoint.is_server, [str(each) for each in _name(endpoint)]


def _name(endpoint: Endpoint) -> list[Any]:
    return list(endpoint.carrier.transport.get_extra_info("sockname") or ())[:2]


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "address": _name(endpoint),
        "stack": "halo" if endpoint.carrier.transport.get_extra_info("halo") else "kernel",
        "format": endpoint.settings.format,
        "role": "server" if endpoint.is_server else "client",
        "counters": asdict(endpoint.counters),
        "totals": asdict(endpoint.totals),
        "handshakes": asdict(endpoint.pending.counters),
        "sessions": len(endpoint.sessions),
    }


def _session(endpoint: int, session: Session) -> dict[str, Any]:
    return {
        "endpoint": endpoint,
        "conv": session.conv,
        "peer": list(session.address)[:2],
        "state": session.state.name.lower(),
        "info": asdict(session.info),
        "counters": asdict(session.counters),
    }
