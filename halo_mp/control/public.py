# SPDX-License-Identifier: Apache-2.0
"""The public protocol, version 1: what may be asked at `control.sock`, and the values of the answers.

Frames are those of `halo_mp.control.frame`. A client says `hello`, the server answers with its own; then each message
of the client is a request with an `id`, and is answered by a `reply` with that `id`; who has subscribed is sent a
`notice` now and then (`halo_mp.control.notices`). Interfaces, addresses, prefixes
and hops are written as on the command line: `0.100`, `10.1.2.3/24`, `default`, `10.1.2.254@0.100*2`.
docs/control-protocol.md is the page for who writes a client in another language.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from halo_mp.runtime import ROOT_BASE

T = TypeVar("T")

PUBLIC_VERSION = 1
SOCKET = "control.sock"
MAX_CHANGES = 1024
"""In one request; a frame has to hold them too."""
MAX_CONFIRM_S = 86400
"""For which a confirmation may be awaited."""
MAX_PINGS = 1000
"""Echo requests in one request, likewise."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request: its fields with their types, and what the reply has besides `id` and `ok`."""

    fields: Mapping[str, type]
    reply: tuple[str, ...] = ()
    optional: frozenset[str] = field(default_factory=frozenset)
    changes: bool = False
    """Whether only admins may ask for it."""


def _optional(*names: str) -> frozenset[str]:
    return frozenset(names)


_FLAGS = ("up", "forward", "proxy_arp", "directed_broadcast", "redirects")
_NUMBERS = ("count", "interval_ms", "timeout_ms", "size", "ttl")
_RINGS = ("number", "slots", "ports", "hooks", "refused")
_ADDRESS = {"interface": str, "address": str}

REQUESTS: dict[str, Request] = {
    "version": Request({}, ("version", "protocol")),
    "instance.show": Request({}, ("instance",)),
    "instance.stop": Request({}, changes=True),
    "config.show": Request(
        {"part": str, "start": int}, ("text", "next", "version"), _optional("part", "start")
    ),
    "config.stage": Request(
        {"candidate": int, "file": str, "text": str, "routes": list},
        ("candidate", "results"),
        _optional("candidate", "file", "text", "routes"),
        changes=True,
    ),
    "config.diff": Request({"candidate": int}, ("changes", "count", "restart"), changes=True),
    "config.apply": Request(
        {"candidate": int, "confirm_s": int},
        ("changes", "count", "confirm_until"),
        _optional("confirm_s"),
        changes=True,
    ),
    "config.confirm": Request({}, changes=True),
    "config.rollback": Request({"steps": int}, ("changes", "count"), _optional("steps"), changes=True),
    "config.reload": Request({}, ("changes", "count"), changes=True),
    "config.history": Request({}, ("kept",)),
    "interfaces.list": Request({"start": int}, ("interfaces", "next"), _optional("start")),
    "interfaces.set": Request(
        {"interface": str, "mtu": int, **dict.fromkeys(_FLAGS, bool)},
        optional=_optional("mtu", *_FLAGS),
        changes=True,
    ),
    "addresses.add": Request({**_ADDRESS, "primary": bool}, optional=_optional("primary"), changes=True),
    "addresses.delete": Request(_ADDRESS, changes=True),
    "neighbors.list": Request(
        {"interface": str, "start": int}, ("neighbors", "next"), _optional("interface", "start")
    ),
    "neighbors.add": Request({**_ADDRESS, "mac": str}, changes=True),
    "neighbors.delete": Request(_ADDRESS, changes=True),
    "neighbors.flush": Request({"interface": str}, ("count",), _optional("interface"), changes=True),
    "routes.list": Request({"within": str, "start": int}, ("routes", "next"), _optional("within", "start")),
    "routes.add": Request({"routes": list}, ("results",), changes=True),
    "routes.replace": Request({"routes": list}, ("results",), changes=True),
    "routes.delete": Request({"prefixes": list}, ("results",), changes=True),
    "routes.lookup": Request(
        {"address": str, "src": str, "protocol": int, "src_port": int, "dst_port": int},
        ("found",),
        _optional("src", "protocol", "src_port", "dst_port"),
    ),
    "kcp.list": Request({"start": int}, ("slot", "kcp", "next"), _optional("start")),
    "subscribe": Request(
        {"topic": str, "level": str, "period_ms": int}, optional=_optional("level", "period_ms")
    ),
    "unsubscribe": Request({"topic": str}),
    "ping": Request(
        {"address": str, "source": str, "df": bool, **dict.fromkeys(_NUMBERS, int)},
        ("outcomes",),
        _optional("source", "df", *_NUMBERS),
        changes=True,
    ),
    "capture.start": Request(
        {"filter": bytes, "points": list, "ports": list, "snap": int, "octets": int},
        _RINGS,
        _optional("filter", "points", "ports", "snap", "octets"),
        changes=True,
    ),
    "capture.show": Request({"number": int}, ("refused",)),
    "trace.start": Request(
        {"filter": bytes, "ports": list, "octets": int},
        _RINGS,
        _optional("filter", "ports", "octets"),
        changes=True,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceInfo:
    """An instance as a whole."""

    name: str
    version: str
    supervisor_pid: int
    since: float
    """When this supervisor started; seconds since 1970."""
    ports: int
    workers: int
    routes: int
    nodes: int
    """In use, of the trie that routes are looked up in."""
    nodes_waiting: int
    """That no route needs any more: they are used again when every worker has passed the epoch in which one did."""
    octets: int
    """Of memory that is reserved for routes and trie."""
    confirm_until: float | None = None
    """When the configuration is taken back unless it is confirmed; seconds since 1970. None: it stays."""
    confirm_by: str | None = None
    """Who has applied that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceInfo:
    """An interface as it is at present."""

    name: str
    number: int
    mac: str
    """Empty while its port has never had a device."""
    mtu: int
    addresses: tuple[str, ...]
    """The first is the primary one."""
    up: bool
    forward: bool
    proxy_arp: bool
    directed_broadcast: bool
    redirects: bool
    rx_packets: int = field(default=0, compare=False)
    """IPv4 and ARP that came in by it since the instance started, at all workers, and the octets of their frames."""
    rx_octets: int = field(default=0, compare=False)
    tx_packets: int = field(default=0, compare=False)
    """The same of what was given to its port."""
    tx_octets: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighborInfo:
    """A neighbor whose MAC address is known."""

    interface: str
    address: str
    mac: str
    static: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteInfo:
    """A route. Of what follows from the interfaces' addresses the hop is the link itself, as `@0.100`."""

    prefix: str
    hops: tuple[str, ...]
    origin: str
    """`static`, `connected`, or `local`: an address of ours, or a broadcast address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupInfo:
    """Where packets for an address go."""

    route: RouteInfo
    hop: str
    """The one of its hops that this flow takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffInfo:
    """What another configuration changes, or has changed."""

    changes: tuple[str, ...]
    """A line each, `+` for what comes, `-` for what goes, `~` for what becomes something else; of very many some."""
    count: int
    """Of all of them."""
    restart: tuple[str, ...] = ()
    """What can not change while the instance runs: with any of that nothing is applied."""
    confirm_until: float | None = None
    """When it is taken back unless it is confirmed; seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptInfo:
    """A configuration that can be gone back to."""

    number: int
    """1 is what was there before the last application."""
    until: float
    """When another one took its place; seconds since 1970."""
    by: str
    """Who asked for that: `uid 1000`, or a signal."""
    changes: int
    """Between the two."""


@dataclass(frozen=True, slots=True)
class CaptureInfo:
    """A capture, or a trace, that has begun."""

    number: int
    rings: Mapping[int, int]
    """A descriptor for each slot, which belongs to who asked: see `halo_mp.shm.capture_ring`."""
    ports: Mapping[int, str]
    """The instance's, and their devices."""
    hooks: Mapping[tuple[int, int], str]
    """By slot and number, the names of hooks."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """By slot, why its worker copies nothing; the others do. It may be that one is asked anew once it is replaced."""


@dataclass(frozen=True, slots=True)
class PingInfo:
    """What became of one echo request."""

    outcome: str
    """`reply`, `error` or `timeout`."""
    src: str
    """Whose reply or error it is; empty for an error of the instance itself, and for a time-out."""
    rtt_ns: int
    """From the request to what came back; 0 for a time-out."""
    ttl: int
    """Of the reply."""
    type: int
    """Of the ICMP error, as its code: 3 and 1 for a host that is unreachable, 11 and 0 for a TTL that has run out."""
    code: int
    mtu: int
    """With type 3 and code 4: the most that gets through."""


def read(kind: type[T], entry: Mapping[str, Any]) -> T:
    """Return a value that came: fields that only a newer instance knows are ignored. Raises TypeError."""
    return kind(**{name: value for name, value in entry.items() if name in kind.__dataclass_fields__})  # type: ignore[attr-defined]


def read_interface(entry: Mapping[str, Any]) -> InterfaceInfo:
    """Return an interface that came. Raises KeyError and TypeError."""
    return read(InterfaceInfo, {**entry, "addresses": tuple(entry["addresses"])})


def read_route(entry: Mapping[str, Any]) -> RouteInfo:
    """Return a route that came. Raises KeyError and TypeError."""
    return RouteInfo(prefix=entry["prefix"], hops=tuple(entry["hops"]), origin=entry["origin"])


def socket_path(instance: str) -> Path:
    """Return where an instance listens, or would: root's instances first, then those of our own runtime directory."""
    found = [ROOT_BASE / instance / SOCKET]
    if directory := os.environ.get("XDG_RUNTIME_DIR"):
        found.append(Path(directory) / "halo-mp" / instance / SOCKET)
    return next((path for path in found if os.access(path.parent, os.X_OK) and path.exists()), found[0])
