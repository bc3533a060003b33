# SPDX-License-Identifier: Apache-2.0
"""What sessions count: halo's SNMP set, for one session and for an endpoint with all that it ever had."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

from halo_mp._native import ffi, lib


@dataclass(frozen=True, slots=True)
class Counters:
    """`struct halo_kcp_counters`; native/include/halo/kcp_def.h says what each counts. They never go backwards."""

    bytes_sent: int = 0
    bytes_received: int = 0
    in_packets: int = 0
    out_packets: int = 0
    in_segments: int = 0
    out_segments: int = 0
    in_bytes: int = 0
    out_bytes: int = 0
    in_errors: int = 0
    check_errors: int = 0
    retransmitted: int = 0
    fast: int = 0
    early: int = 0
    lost: int = 0
    repeated: int = 0
    strangers: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(*(getattr(self, name) + getattr(other, name) for name in _NAMES))


_NAMES: Final = tuple(field.name for field in fields(Counters))


@dataclass(frozen=True, slots=True)
class Info:
    """`struct halo_kcp_info`: a session as it is now. Windows and queues in segments."""

    conv: int
    end: int
    srtt_ms: int
    rttvar_ms: int
    rto_ms: int
    send_window: int
    receive_window: int
    remote_window: int
    congestion_window: int
    slow_start_threshold: int
    queued: int
    in_flight: int
    unread: int
    held: int
    mss: int
    send_next: int
    send_una: int
    receive_next: int
    octets: int


_INFO_NAMES: Final = tuple(field.name for field in fields(Info))


@dataclass(slots=True)
class EndpointCounters:
    """What an endpoint counts beside its sessions' Counters. They never go backwards, but for `established`."""

    active_opens: int = 0
    passive_opens: int = 0
    established: int = 0
    most_established: int = 0
    ended_dead_link: int = 0
    ended_idle: int = 0
    ended_by_peer: int = 0
    ended_here: int = 0
    ended_refused: int = 0
    migrations: int = 0
    control_in: int = 0
    control_out: int = 0
    control_malformed: int = 0
    """20 octets that are no control packet."""
    fins_ignored: int = 0
    """FIN of no session, or not from its peer."""
    ests_ignored: int = 0
    pings_in: int = 0
    pings_out: int = 0
    pings_ignored: int = 0
    probes_out: int = 0
    unknown_conv: int = 0
    """Datagrams of no session that made none."""
    resets_out: int = 0
    """FIN that answered those."""
    refused_full: int = 0
    """First packets of sessions that there was no room for."""
    errors: int = 0
    """Of the socket."""

    def count_open(self, *, active: bool) -> None:
        """A session was opened."""
        if active:
            self.active_opens += 1
        else:
            self.passive_opens += 1
        self.established += 1
        self.most_established = max(self.most_established, self.established)


def read_counters(kcp: Any) -> Counters:
    """Return those of a `struct halo_kcp *`."""
    found = ffi.new("struct halo_kcp_counters *")
    lib.halo_kcp_counters_read(kcp, found)
    return _emit(found)


def read_group_counters(group: Any) -> Counters:
    """Return the sums of a `struct halo_kcp_group *`."""
    found = ffi.new("struct halo_kcp_counters *")
    lib.halo_kcp_group_counters(group, found)
    return _emit(found)


def read_info(kcp: Any) -> Info:
    """Return how a `struct halo_kcp *` is now."""
    found = ffi.new("struct halo_kcp_info *")
    lib.halo_kcp_info_read(kcp, found)
    return Info(*(int(getattr(found, name)) for name in _INFO_NAMES))


def _emit(found: Any) -> Counters:
    return Counters(*(int(getattr(found, name)) for name in _NAMES))
