# SPDX-License-Identifier: Apache-2.0
"""What clients of the control socket ask, and how they read the answers. No I/O: `Client` and `AsyncClient` share this.

A call is a generator: it yields the requests to send one after the other, is sent each reply, and returns its result.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import msgpack

from halo_mp.control.frame import MAX_FRAME_OCTETS, Message
from halo_mp.control.public import (
    MAX_CHANGES,
    PUBLIC_VERSION,
    CaptureInfo,
    InstanceInfo,
    InterfaceInfo,
    LookupInfo,
    NeighborInfo,
    PingInfo,
    RouteInfo,
    read,
    read_interface,
    read_route,
)
from halo_mp.errors import HaloError

T = TypeVar("T")
Call = Generator[Message, Message, T]
Results = list[str | None]
"""Of several changes: None, or the sentence that says why it was refused."""
Hops = str | Sequence[str]
"""One hop, or several: `10.1.2.254`, `10.9.9.9@0.100*2`, `@1`, `blackhole`, `unreachable`, `prohibit`."""

HELLO: Message = {"type": "hello", "version": PUBLIC_VERSION}
_ENVELOPE_OCTETS = 128  # of a request, around its changes
_PING_FIELDS = len(fields(PingInfo))


class ControlError(HaloError):
    """The instance could not be asked, or did not do what it was asked; `str()` is the sentence that says why."""


class NotReachableError(ControlError):
    """Nobody answers: there is no such instance, it may not be asked by us, or the connection broke."""


class RefusedError(ControlError):
    """The instance has answered that it can not."""


def check_hello(reply: Message) -> None:
    """Raise ControlError unless the server speaks our version."""
    if (version := reply.get("version")) != PUBLIC_VERSION:
        package = reply.get("package", "?")
        raise ControlError(
            f"the instance runs halo-mp {package}, whose control protocol is version {version}; this client "
            f"speaks version {PUBLIC_VERSION}. Use the client of that halo-mp."
        )


def is_answer(message: Message, path: Path) -> bool:
    """Whether a message is what somebody waits for: what we do not know is ignored.

    Raises NotReachableError when it is the server's goodbye.
    """
    if message["type"] == "goodbye":
        raise NotReachableError(f"{path}: {message.get('error', 'the instance closed the connection.')}")
    return message["type"] in ("hello", "reply")


def check_reply(reply: Message) -> Message:
    """Return a reply; raise RefusedError with its sentence if it is a refusal."""
    if reply.get("ok") is not True:
        raise RefusedError(str(reply.get("error", "no reason was given.")))
    return reply


def closed(path: Path) -> NotReachableError:
    """Say that the supervisor has ended, or has died, or has had enough of us."""
    return NotReachableError(f"{path}: the instance closed the connection. halo-mp status says how it is.")


def not_reachable(path: Path, error: OSError) -> NotReachableError:
    """Say what a person can do about it."""
    if isinstance(error, BrokenPipeError | ConnectionResetError):
        return closed(path)
    if isinstance(error, PermissionError):
        hint = "ask as root, or as a member of the instance's --control-group"
    elif isinstance(error, ConnectionRefusedError):
        return NotReachableError(
            f"nobody answers at {path}: the supervisor has died. halo-mp status says what goes on without it; start it "
            "again under the same name, and it takes over."
        )
    elif isinstance(error, FileNotFoundError):
        hint = "is the instance running, and is that its name? halo-mp status says what there is."
        return NotReachableError(f"nobody answers at {path}: {hint}")
    else:
        hint = "the instance may be busy or gone"
    return NotReachableError(f"{path}: {error.strerror or 'no answer in time'}; {hint}.")


def version() -> Call[tuple[str, int]]:
    reply = yield {"type": "version"}
    return str(reply["version"]), int(reply["protocol"])


def show() -> Call[InstanceInfo]:
    reply = yield {"type": "instance.show"}
    return read(InstanceInfo, reply["instance"])


def kcp() -> Call[dict[int, Any]]:
    """Return what the KCP of each worker says, by slot; workers without any are left out."""
    found: dict[int, Any] = {}
    start: int | None = 0
    while start is not None:
        reply = yield {"type": "kcp.list", "start": start}
        if isinstance(reply["kcp"], dict):
            found[int(reply["slot"])] = reply["kcp"]
        start = reply["next"]
    return found


def interfaces() -> Call[list[InterfaceInfo]]:
    """Return all of them."""
    found = yield from _all("interfaces")
    return [read_interface(entry) for entry in found]


def set_interface(
    interface: str,
    *,
    up: bool | None = None,
    mtu: int | None = None,
    forward: bool | None = None,
    proxy_arp: bool | None = None,
    directed_broadcast: bool | None = None,
    redirects: bool | None = None,
) -> Call[None]:
    """Change what is given, and leave the rest."""
    settings = {"up": up, "mtu": mtu, "forward": forward, "proxy_arp": proxy_arp}
    more = {"directed_broadcast": directed_broadcast, "redirects": redirects}
    return done("interfaces.set", interface=interface, **settings, **more)


def add_address(interface: str, address: str, *, primary: bool = False) -> Call[None]:
    """Add `ADDRESS/LENGTH` to an interface; a VLAN that has none yet becomes an interface."""
    return done("addresses.add", interface=interface, address=address, primary=primary)


def delete_address(interface: str, address: str) -> Call[None]:
    """Take `ADDRESS/LENGTH` away."""
    return done("addresses.delete", interface=interface, address=address)


def neighbors(interface: str | None = None) -> Call[list[NeighborInfo]]:
    """Return those of an interface, or all."""
    found = yield from _all("neighbors", **_given(interface=interface))
    return [read(NeighborInfo, entry) for entry in found]


def done(kind: str, **fields: object) -> Call[None]:
    """Ask for something whose reply says no more than that it is done; None is left out."""
    yield {"type": kind, **_given(**fields)}


def add_neighbor(interface: str, address: str, mac: str) -> Call[None]:
    """Add a static one, or change its MAC address."""
    return done("neighbors.add", interface=interface, address=address, mac=mac)


def delete_neighbor(interface: str, address: str) -> Call[None]:
    """Forget one, static or learned."""
    return done("neighbors.delete", interface=interface, address=address)


def flush(interface: str | None = None) -> Call[int]:
    """Forget what was learned, on an interface or on all; return how many neighbors that were."""
    reply = yield {"type": "neighbors.flush", **_given(interface=interface)}
    return int(reply["count"])


def add_route(prefix: str, via: Hops) -> Call[None]:
    """Add a route that is not there yet."""
    return change_route("routes.add", route(prefix, via))


def replace_route(prefix: str, via: Hops) -> Call[None]:
    """Add a route, or put it in the place of the one that is there."""
    return change_route("routes.replace", route(prefix, via))


def delete_route(prefix: str) -> Call[None]:
    """Take a route away."""
    return change_route("routes.delete", prefix)


def add_routes(routes: Iterable[tuple[str, Hops]]) -> Call[Results]:
    """Add routes; return for each None, or the sentence that says why it was refused."""
    return change_routes("routes.add", (route(*each) for each in routes))


def replace_routes(routes: Iterable[tuple[str, Hops]]) -> Call[Results]:
    """Add or replace routes, likewise."""
    return change_routes("routes.replace", (route(*each) for each in routes))


def delete_routes(prefixes: Iterable[str]) -> Call[Results]:
    """Take routes away, likewise."""
    return change_routes("routes.delete", prefixes)


def change_routes(kind: str, changes: Iterable[Any]) -> Call[list[str | None]]:
    """Ask for any number of changes, in as many requests as that takes."""
    results: list[str | None] = []
    for chunk in chunks(changes):
        reply = yield {"type": kind, "prefixes" if kind == "routes.delete" else "routes": chunk}
        results += reply["results"]
    return results


def change_route(kind: str, change: Any) -> Call[None]:
    """Ask for one change. Raises RefusedError."""
    (refusal,) = yield from change_routes(kind, [change])
    if refusal is not None:
        raise RefusedError(refusal)


def routes(within: str | None = None) -> Call[list[RouteInfo]]:
    """Return the routes, or those within a prefix, as `iterate` does."""
    found: list[RouteInfo] = []
    start: int | None = 0
    while start is not None:
        page, start = yield from routes_page(within, start)
        found += page
    return found


def routes_page(within: str | None, start: int) -> Call[tuple[list[RouteInfo], int | None]]:
    reply = yield {"type": "routes.list", "start": start, **_given(within=within)}
    return [read_route(entry) for entry in reply["routes"]], reply["next"]


def lookup(
    address: str,
    *,
    src: str | None = None,
    protocol: int | None = None,
    src_port: int | None = None,
    dst_port: int | None = None,
) -> Call[LookupInfo | None]:
    """Return where a flow to this address goes, None where no route leads there."""
    flow = _given(src=src, protocol=protocol, src_port=src_port, dst_port=dst_port)
    reply = yield {"type": "routes.lookup", "address": address, **flow}
    found = reply["found"]
    return None if found is None else LookupInfo(route=read_route(found["route"]), hop=found["hop"])


def ping(
    address: str,
    *,
    count: int = 4,
    interval_s: float = 1.0,
    timeout_s: float = 1.0,
    size: int = 56,
    df: bool = False,
    ttl: int = 64,
    source: str | None = None,
) -> Call[list[PingInfo]]:
    reply = yield {
        "type": "ping",
        "address": address,
        "count": count,
        "interval_ms": round(1000 * interval_s),
        "timeout_ms": round(1000 * timeout_s),
        "size": size,
        "df": df,
        "ttl": ttl,
        **_given(source=source),
    }
    return [PingInfo(*entry[:_PING_FIELDS]) for entry in reply["outcomes"]]


def capture(
    steps: bytes,
    points: Sequence[str],
    ports: Sequence[int],
    snap: int | None,
    octets: int | None,
    *,
    trace: bool,
) -> Call[Message]:
    where = {} if trace else {"points": list(points), **_given(snap=snap)}
    kind = "trace.start" if trace else "capture.start"
    return (yield {"type": kind, "filter": steps, "ports": list(ports), **where, **_given(octets=octets)})


def capture_info(reply: Message, fds: Sequence[int]) -> CaptureInfo:
    """Return what a capture's reply says, with the descriptors that came with it."""
    return CaptureInfo(
        number=reply["number"],
        rings=dict(zip(reply["slots"], fds, strict=True)),
        ports={number: str(name) for number, name in reply["ports"]},
        hooks={(slot, number): str(name) for slot, number, name in reply["hooks"]},
        refused=_reasons(reply.get("refused", ())),
    )


def capture_refused(number: int) -> Call[dict[int, str]]:
    reply = yield {"type": "capture.show", "number": number}
    return _reasons(reply["refused"])


def _reasons(refused: Iterable[Any]) -> dict[int, str]:
    return {slot: str(reason) for slot, reason in refused}


def ping_seconds(count: int, interval_s: float, timeout_s: float) -> float:
    """Return how long a ping may take."""
    return (count - 1) * interval_s + timeout_s


def subscribe(topic: str, level: str | None, period_s: float | None) -> Call[None]:
    period_ms = None if period_s is None else round(1000 * period_s)
    yield {"type": "subscribe", "topic": topic, **_given(level=level, period_ms=period_ms)}


def route(prefix: str, via: Hops) -> list[Any]:
    """Return a route as requests have it."""
    return [prefix, [via] if isinstance(via, str) else list(via)]


def _all(name: str, **fields: object) -> Call[list[Message]]:
    """Ask for one page after the other."""
    found: list[Message] = []
    start: int | None = 0
    while start is not None:
        reply = yield {"type": f"{name}.list", "start": start, **fields}
        found += reply[name]
        start = reply["next"]
    return found


def chunks(changes: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield changes in lists of which each fits into a request."""
    chunk: list[Any] = []
    octets = _ENVELOPE_OCTETS
    for change in changes:
        size = len(msgpack.packb(change))
        if chunk and (len(chunk) == MAX_CHANGES or octets + size > MAX_FRAME_OCTETS):
            yield chunk
            chunk, octets = [], _ENVELOPE_OCTETS
        chunk.append(change)
        octets += size
    if chunk:
        yield chunk


def _given(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}
