# SPDX-License-Identifier: Apache-2.0
"""What the control socket's requests do: from texts to values, to what is published, and back.

Answers are pages: each list says where the `next` begins, so that no request takes long or grows beyond a frame.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import msgpack

import halo_mp
from halo_mp.control.public import InstanceInfo, InterfaceInfo, LookupInfo, NeighborInfo, RouteInfo
from halo_mp.plain import to_plain
from halo_mp.shm.counters import read_interface_counters
from halo_mp.shm.fib import Origin, RouteEntry
from halo_mp.shm.region import Region
from halo_mp.shm.tables import interface_name
from halo_mp.supervisor import running
from halo_mp.supervisor.captures import parse_wanted
from halo_mp.supervisor.config_model import (
    HopConfig,
    InterfaceConfig,
    NeighborConfig,
)
from halo_mp.supervisor.config_routes import parse_hops, parse_prefix, via_of
from halo_mp.supervisor.config_values import parse_address, parse_host, parse_interface, parse_mac
from halo_mp.supervisor.configuration import Configuration
from halo_mp.supervisor.echo import Outcome, Ping
from halo_mp.supervisor.opened import Opened
from halo_mp.supervisor.published import Published
from halo_mp.supervisor.routes import Route
from halo_mp.supervisor.running import RefusedError
from halo_mp.supervisor.targets import Hop, Via

if TYPE_CHECKING:
    from halo_mp.supervisor.feeds import Feeds

PAGE_OCTETS = 32 << 10
"""After which a page ends: a route with as many hops as it can have still fits into the frame."""
SCANNED = 2048
"""Routes that one request looks at: a filter may leave out nearly all of them."""
STOP_DELAY_S = 0.05
_LONGEST_PREFIX = len("255.255.255.255/32")

T = TypeVar("T")
Fields = dict[str, Any]


class PublishedOperations:
    """Operations on what one supervisor publishes. `feeds` is set before anybody asks."""

    feeds: Feeds

    def __init__(
        self,
        published: Published,
        slots: Iterable[Region] = (),
        *,
        configuration: Configuration,
        stop: Callable[[], None],
    ) -> None:
        """`slots`: where workers count; `stop` asks for the end of the instance."""
        self._published = published
        self.configuration = configuration
        self._stop = stop
        self._slots = list(slots)
        self._since = time.time()

    def show(self) -> Fields:
        """Return the instance as a whole."""
        config, usage = self._published.config, self._published.routes.usage()
        awaited = self.configuration.awaited
        found = InstanceInfo(
            name=config.instance,
            version=halo_mp.__version__,
            supervisor_pid=os.getpid(),
            since=self._since,
            ports=len(config.ports),
            workers=len(config.slots),
            routes=usage.routes,
            nodes=usage.nodes,
            nodes_waiting=usage.nodes_waiting,
            octets=usage.octets,
            confirm_until=awaited.until if awaited else None,
            confirm_by=awaited.before.by if awaited else None,
        )
        return {"instance": to_plain(found)}

    def stop(self) -> None:
        """Have the instance stopped, once who asked has the answer."""
        asyncio.get_running_loop().call_later(STOP_DELAY_S, self._stop)

    async def ping(self, address: str, settings: Mapping[str, Any]) -> list[Outcome]:
        """Send echo requests, and return what became of each."""
        source = _parsed(parse_host, settings["source"]) if "source" in settings else 0
        wanted = {**settings, "dst": _parsed(parse_host, address), "source": source}
        return await self._published.echoes.ping(Ping(**wanted))

    async def list_kcp(self, start: int) -> Fields:
        """Return what the KCP of a worker says, of the first from a slot on."""
        return await self._published.kcp.list(start)

    async def capture(self, settings: Mapping[str, Any], *, trace: bool) -> Opened:
        """Begin a capture or a trace; what is returned ends it."""
        ports = self._published.config.ports
        twins = {each.twin.port: each.twin.interface for each in ports if each.twin is not None}
        names = {each.number: each.tap.interface if each.tap else each.device for each in ports} | twins
        wanted = parse_wanted(settings, lambda: set(names), trace=trace)
        captures = self._published.captures
        found = await captures.start(wanted)
        return Opened(
            {
                "number": found.number,
                "slots": list(found.rings),
                "ports": [[number, name] for number, name in sorted(names.items())],
                "hooks": found.hooks,
                "refused": _refused(found.refused),
            },
            fds=list(found.rings.values()),
            close=lambda: captures.end(found),
        )

    def show_capture(self, number: int) -> Fields:
        """Return which workers copy nothing for a capture, and why."""
        return {"refused": _refused(self._published.captures.refused(number))}

    # ---- interfaces and their addresses

    def list_interfaces(self, start: int) -> Fields:
        """Return a page of interfaces."""
        return _page("interfaces", self._published.running.interfaces, start, self.interface)

    async def set_interface(self, interface: str, settings: Mapping[str, Any]) -> None:
        """Change settings of an interface."""
        key = _parsed(parse_interface, interface)
        most = self._most_mtu(key)
        await self._published.change(lambda now: running.with_settings(now, key, most, **settings))

    async def add_address(self, interface: str, address: str, *, primary: bool) -> None:
        """Add an address, and the interface if it is a VLAN without one."""
        key, entry = _parsed(parse_interface, interface), _parsed(parse_address, address)
        await self._published.change(partial(running.with_address, key=key, address=entry, primary=primary))

    async def delete_address(self, interface: str, address: str) -> None:
        """Take an address away."""
        key, entry = _parsed(parse_interface, interface), _parsed(parse_address, address)
        await self._published.change(partial(running.without_address, key=key, address=entry))

    def _most_mtu(self, key: tuple[int, int]) -> int:
        """Return the MTU that an interface's device was started for; a VLAN has no more than its port at present."""
        number, vlan = key
        if vlan:
            return self._published.running.interface((number, 0)).mtu
        return next((port.mtu for port in self._published.config.ports if port.number == number), 0)

    def interface(self, wanted: InterfaceConfig) -> InterfaceInfo:
        """Return an interface as it is."""
        entry = self._published.interfaces.get(wanted.number)
        return InterfaceInfo(
            name=wanted.name,
            number=wanted.number,
            mac=entry.mac.hex(":") if entry else "",
            mtu=entry.mtu if entry else wanted.mtu,
            addresses=tuple(map(str, wanted.addresses)),
            up=wanted.up,
            forward=wanted.forward,
            proxy_arp=wanted.proxy_arp,
            directed_broadcast=wanted.directed_broadcast,
            redirects=wanted.redirects,
            **self._counters(wanted.number),
        )

    def _counters(self, number: int) -> dict[str, int]:
        """Return what all workers together have counted for an interface."""
        total = Counter(rx_packets=0, rx_octets=0, tx_packets=0, tx_octets=0)
        for region in self._slots:
            total.update(read_interface_counters(region, number))
        return total

    # ---- neighbors

    def list_neighbors(self, interface: str | None, start: int) -> Fields:
        """Return a page of neighbors, static ones first."""
        key = None if interface is None else self._key(interface)
        static = [
            (each.port, each.vlan, each.address, each.mac, True) for each in self._published.running.neighbors
        ]
        learned = [(*each, False) for each in self._published.neighbors.all()]
        found = [each for each in (*static, *learned) if key in (None, each[:2])]
        return _page("neighbors", found, start, _neighbor)

    def add_neighbor(self, interface: str, address: str, mac: str) -> None:
        """Make a neighbor static."""
        key = self._key(interface)
        neighbor = NeighborConfig(*key, _parsed(parse_host, address), _parsed(parse_mac, mac))
        self._published.set_static(neighbor, running.with_neighbor(self._published.running, neighbor))

    def delete_neighbor(self, interface: str, address: str) -> None:
        """Forget a neighbor, static or learned."""
        place = (*self._key(interface), _parsed(parse_host, address))
        now = self._published.running
        wanted = running.without_neighbors(now, [place])
        if wanted == now and place not in self._published.neighbors:
            raise RefusedError(f"interface {interface} knows no neighbor {address}.")
        self._published.forget([place], wanted)

    def flush_neighbors(self, interface: str | None) -> int:
        """Forget everything that was learned, on one interface or on all; return how many neighbors that are."""
        key = None if interface is None else self._key(interface)
        places = [each[:3] for each in self._published.neighbors.all() if key in (None, each[:2])]
        self._published.forget(places, self._published.running)
        return len(places)

    def _key(self, interface: str) -> tuple[int, int]:
        """Return the key of an interface that is there."""
        return self._published.running.interface(_parsed(parse_interface, interface)).key

    # ---- routes

    def list_routes(self, within: str | None, start: int) -> Fields:
        """Return a page of routes, or of those within a prefix. It may be empty and not the last."""
        prefix, length = (0, 0) if within is None else _parsed(parse_prefix, within)
        shift = 32 - length
        found: list[Any] = []
        described: dict[
            tuple[int, Origin], tuple[Fields, int]
        ] = {}  # by target: with a few many routes agree
        octets = 0
        for looked_at, (place, entry) in enumerate(self._published.routes.entries(start)):
            if looked_at == SCANNED or octets > PAGE_OCTETS:
                return {"routes": found, "next": place}
            if entry.length < length or entry.prefix >> shift != prefix >> shift:
                continue
            which = entry.target, entry.origin
            if which not in described:
                plain = to_plain(self.route(self._published.routes.describe(entry)))
                described[which] = plain, len(msgpack.packb(plain)) + _LONGEST_PREFIX
            plain, size = described[which]
            found.append({**plain, "prefix": _prefix_text(entry)})
            octets += size
        return {"routes": found, "next": None}

    def change_routes(self, kind: str, changes: Sequence[tuple[str, Sequence[str]]]) -> list[str | None]:
        """Make changes in order; return of each why it was refused, or None."""
        results: list[str | None] = [None] * len(changes)
        wanted: list[tuple[int, tuple[Any, int, int, Via]]] = []
        vias: dict[tuple[str, ...], Via] = {}
        for position, (prefix, hops) in enumerate(changes):
            try:
                place = _parsed(parse_prefix, prefix)
                via: Via = () if kind == "delete" else vias.get(tuple(hops)) or self._via(hops)
            except RefusedError as error:
                results[position] = str(error)
                continue
            vias[tuple(hops)] = via
            wanted.append((position, (cast("Literal['add']", kind), *place, via)))
        outcomes = self._published.routes.change([change for _, change in wanted])
        for (position, _), outcome in zip(wanted, outcomes, strict=True):
            results[position] = outcome
        return results

    def lookup(self, address: str, flow: Mapping[str, Any]) -> Fields | None:
        """Return the route of an address, and the hop that a flow takes."""
        destination = _parsed(_any_address, address)
        route = self._published.routes.lookup(destination)
        if route is None:
            return None
        source = _parsed(_any_address, flow.get("src", "0.0.0.0"))
        numbers = [flow.get(name, 0) for name in ("protocol", "src_port", "dst_port")]
        if not all(0 <= number <= most for number, most in zip(numbers, (0xFF, 0xFFFF, 0xFFFF), strict=True)):
            raise RefusedError("a protocol is a number from 0 to 255, and a port one from 0 to 65535.")
        via = self._published.routes.choose(source, destination, *numbers)
        hop = via if isinstance(via, str) else self._hop(replace(via[0], weight=1))
        return cast("Fields", to_plain(LookupInfo(route=self.route(route), hop=hop)))

    def _via(self, hops: Sequence[str]) -> Via:
        known = self._published.running.interfaces
        return _parsed(lambda texts: via_of(parse_hops(texts), known), hops)

    def route(self, route: Route) -> RouteInfo:
        """Return a route as people see it."""
        origin = "local" if route.local else "static" if route.origin is Origin.STATIC else "connected"
        hops = (route.via,) if isinstance(route.via, str) else tuple(map(self._hop, route.via))
        return RouteInfo(prefix=str(route), hops=hops, origin=origin)

    def _hop(self, hop: Hop) -> str:
        entry = None if hop.interface is None else self._published.interfaces.get(hop.interface)
        port, vlan = entry.key if entry else (None, 0)
        return str(HopConfig(hop.address, port, vlan, hop.weight))


def _refused(reasons: Mapping[int, str]) -> list[list[Any]]:
    return [[slot, reason] for slot, reason in sorted(reasons.items())]


def _prefix_text(entry: RouteEntry) -> str:
    prefix = entry.prefix
    return f"{prefix >> 24}.{prefix >> 16 & 255}.{prefix >> 8 & 255}.{prefix & 255}/{entry.length}"


def _any_address(text: str) -> int:
    try:
        return int(IPv4Address(text))
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv4 address") from None


def _neighbor(entry: tuple[int, int, int, bytes, bool]) -> NeighborInfo:
    port, vlan, address, mac, static = entry
    return NeighborInfo(
        interface=interface_name(port, vlan),
        address=str(IPv4Address(address)),
        mac=mac.hex(":"),
        static=static,
    )


def _parsed(parser: Callable[[Any], T], text: object) -> T:
    """Return what a parser makes of a text that a client sent. Raises RefusedError with its reason."""
    try:
        return parser(text)
    except ValueError as error:
        raise RefusedError(f"{error}.") from None


def _page(name: str, entries: Sequence[T], start: int, show: Callable[[T], object]) -> Fields:
    """Return the entries from `start` on that fit into a page, and where the next one begins."""
    found: list[Any] = []
    octets = 0
    for entry in entries[start:]:
        if octets > PAGE_OCTETS:
            return {name: found, "next": start + len(found)}
        found.append(to_plain(show(entry)))
        octets += len(msgpack.packb(found[-1]))
    return {name: found, "next": None}
