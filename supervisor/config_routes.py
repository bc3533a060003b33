# SPDX-License-Identifier: Apache-2.0
"""Static routes: how they are written, in flags, files and on the control socket, and whether they can be.

    PREFIX=HOP[,HOP...]      a flag
    PREFIX HOP [HOP...]      a line of a file; commas between hops are good too
    HOP: ADDRESS[@PORT[.VLAN]][*WEIGHT], @PORT[.VLAN] for hosts on the link itself, or one of blackhole,
         unreachable, prohibit alone

A file may have as many lines as the FIB has room for, so its loop does little for each.
"""

from __future__ import annotations

import socket
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address
from typing import get_args

from halo_mp.errors import UsageError
from halo_mp.shm.fib import Columns
from halo_mp.shm.layout import lib
from halo_mp.shm.tables import interface_name
from halo_mp.supervisor.config_model import (
    HopConfig,
    HopKind,
    InterfaceConfig,
    NeighborConfig,
    RouteConfig,
)
from halo_mp.supervisor.config_open import open_file
from halo_mp.supervisor.config_reader import FlagReader
from halo_mp.supervisor.config_values import neighbor, parse_host, parse_interface, refusal
from halo_mp.supervisor.targets import MAX_HOPS, MAX_WEIGHT, Hop, Via

ON_LINK = 0
"""Address of the hop that is the destination itself."""

MAX_ROUTES = int(lib.HALO_MAX_ROUTES)
ENDS = tuple(kind for kind in get_args(HopKind) if kind != "gateway")

_EXAMPLE = "10.0.0.0/8=10.1.2.254"
_LENGTHS = {str(length): length for length in range(33)}
_HOST_BITS = [(1 << 32 - length) - 1 for length in range(33)]


class RouteList:
    """Routes in little memory: 9 octets for each, and one copy of each different list of hops."""

    def __init__(self) -> None:
        self.read_s = 0.0  # that reading them took
        self.columns = Columns(array("I"), array("B"), array("I"))
        self._hops: list[tuple[HopConfig, ...]] = []
        self._numbers: dict[tuple[HopConfig, ...], int] = {}

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def hops(self) -> Sequence[tuple[HopConfig, ...]]:
        """Every different list of hops, by the numbers of the third column."""
        return self._hops

    def __iter__(self) -> Iterator[tuple[int, int, tuple[HopConfig, ...]]]:
        hops, columns = self._hops, self.columns
        for prefix, length, which in zip(columns.prefixes, columns.lengths, columns.which, strict=True):
            yield prefix, length, hops[which]

    def append(self, prefix: int, length: int, hops: tuple[HopConfig, ...]) -> None:
        """Add a route behind the others."""
        self.append_numbered(prefix, length, self.number(hops))

    def number(self, hops: tuple[HopConfig, ...]) -> int:
        """Return what `append_numbered` calls these hops."""
        found = self._numbers.setdefault(hops, len(self._hops))
        if found == len(self._hops):
            self._hops.append(hops)
        return found

    def append_numbered(self, prefix: int, length: int, number: int) -> None:
        """Add a route to hops that have a number."""
        self.columns.prefixes.append(prefix)
        self.columns.lengths.append(length)
        self.columns.which.append(number)


def parse_prefix(text: str) -> tuple[int, int]:
    """Return (prefix, length) of `ADDRESS/LENGTH`, `ADDRESS` for one host, or `default`.

    Raises ValueError with the reason.
    """
    if text == "default":
        return 0, 0
    address, slash, digits = text.partition("/")
    length = _LENGTHS.get(digits) if slash else 32
    try:
        prefix = int.from_bytes(socket.inet_pton(socket.AF_INET, address), "big")
    except (OSError, ValueError):
        prefix = None
    if prefix is None or length is None:
        raise ValueError(f"{text!r} is not a prefix, such as 10.0.0.0/8 or default")
    if prefix & _HOST_BITS[length]:
        network = f"{IPv4Address(prefix & ~_HOST_BITS[length])}/{length}"
        raise ValueError(
            f"{text} has bits set behind its first {length}; {network} is the network that it is in"
        )
    return prefix, length


def parse_hops(texts: Sequence[str]) -> tuple[HopConfig, ...]:
    """Return the hops of one route. Raises ValueError with the reason."""
    hops = tuple(map(parse_hop, texts))
    if not hops:
        raise ValueError("a route needs a hop")
    if len(hops) > MAX_HOPS:
        raise ValueError(f"{len(hops)} hops are too many for one route, at most {MAX_HOPS}")
    if len(hops) > 1 and (ends := [hop.kind for hop in hops if hop.kind != "gateway"]):
        raise ValueError(f"{ends[0]} stands alone, not among other hops")
    seen: set[tuple[int, int | None, int]] = set()
    for hop, text in zip(hops, texts, strict=True):
        place = hop.address, hop.port, hop.vlan
        if place in seen:
            raise ValueError(f"the hop {text.partition('*')[0]} is named twice; give it a weight instead")
        seen.add(place)
    return hops


def parse_hop(text: str) -> HopConfig:
    """Return one hop. Raises ValueError with the reason."""
    for end in ENDS:
        if text == end:
            return HopConfig(kind=end)
    rest, star, share = text.partition("*")
    weight = int(share) if share.isascii() and share.isdecimal() and len(share) < 5 else 0
    if star and not 1 <= weight <= MAX_WEIGHT:
        raise ValueError(f"{share!r} is not a weight from 1 to {MAX_WEIGHT}")
    address, at, name = rest.partition("@")
    try:
        gateway = parse_host(address) if address or not at else ON_LINK
    except ValueError as error:
        ends = ", ".join(ENDS)
        raise ValueError(f"{error}, and the hop {text!r} none of {ends} either") from None
    port, vlan = parse_interface(name) if at else (None, 0)
    return HopConfig(gateway, port, vlan, weight if star else 1)


def via_of(hops: Sequence[HopConfig], interfaces: Iterable[InterfaceConfig]) -> Via:
    """Return hops as the routes know them. Raises ValueError when an interface is not there."""
    if hops[0].kind != "gateway":
        return hops[0].kind
    numbers = {each.key: each.number for each in interfaces}
    found = []
    for hop in hops:
        number = None if hop.port is None else numbers.get((hop.port, hop.vlan))
        if hop.port is not None and number is None:
            raise ValueError(f"there is no interface {interface_name(hop.port, hop.vlan)} for the hop {hop}")
        found.append(Hop(hop.address, number, hop.weight))
    return tuple(found)


class HopChecker:
    """Tells whether gateways can be reached by the interfaces that there are."""

    def __init__(self, interfaces: Iterable[InterfaceConfig]) -> None:
        self._interfaces = {each.key: each for each in interfaces}
        self._ours = {entry.address for each in self._interfaces.values() for entry in each.addresses}

    def problem(self, hop: HopConfig) -> str:
        """Say why it can not be one, or nothing."""
        if hop.kind != "gateway":
            return ""
        address = IPv4Address(hop.address)
        if hop.address in self._ours:
            return f"the hop {address} is an address of our own"
        if hop.port is None:
            if self.interface(hop) is None:
                return f"no interface is on a network with {address}; write {address}@PORT to say where it is"
            return ""
        if (hop.port, hop.vlan) not in self._interfaces:
            return f"the hop {hop} is on interface {interface_name(hop.port, hop.vlan)}, which is not there"
        return ""

    def interface(self, hop: HopConfig) -> InterfaceConfig | None:
        """Return the interface that a gateway is behind: the one that is named, or that is on a network with it."""
        if hop.port is not None:
            return self._interfaces.get((hop.port, hop.vlan))
        for each in self._interfaces.values():
            if any(
                entry.first <= hop.address <= entry.last
                for entry in each.addresses
                if entry.prefix_length < 32
            ):
                return each
        return None


def plan_routes(reader: FlagReader, interfaces: Sequence[InterfaceConfig]) -> tuple[RouteConfig, ...]:
    """Return the routes of --route."""
    checker = HopChecker(interfaces)
    known = reader.sound("--ports", "--pci", "--vdev", "--address", "--vlan")
    found: dict[tuple[int, int], RouteConfig] = {}
    for route in reader.each("--route", _route):
        problem = next(filter(None, map(checker.problem, route.hops)), "") if known else ""
        if problem:
            reader.refuse("--route", f"--route {route}=...: {problem}.")
        elif (route.prefix, route.length) in found:
            reader.refuse(
                "--route", f"--route: {route} is named twice; write its hops in one, behind commas."
            )
        found[route.prefix, route.length] = route
    return tuple(found.values())


def plan_neighbors(reader: FlagReader, interfaces: Sequence[InterfaceConfig]) -> tuple[NeighborConfig, ...]:
    """Return the neighbors of --neighbor."""
    ours = {entry.address for each in interfaces for entry in each.addresses}
    keys = {each.key for each in interfaces}
    found: dict[tuple[int, int, int], NeighborConfig] = {}
    for each in reader.each("--neighbor", neighbor):
        name, address = interface_name(each.port, each.vlan), IPv4Address(each.address)
        place = (each.port, each.vlan, each.address)
        if not reader.sound("--ports", "--pci", "--vdev", "--address", "--vlan"):
            continue
        if (each.port, each.vlan) not in keys:
            reader.refuse(
                "--neighbor", f"--neighbor: there is no interface {name}; it is made by --address {name}=..."
            )
        elif each.address in ours:
            reader.refuse("--neighbor", f"--neighbor {name}={address},...: that is an address of our own.")
        elif place in found:
            reader.refuse(
                "--neighbor", f"--neighbor: {address} is named twice for interface {name}; name it once."
            )
        found[place] = each
    return tuple(found.values())


def _route(flag: str, text: str) -> RouteConfig:
    """Return the route of `PREFIX=HOP[,HOP...]`."""
    prefix, equals, hops = text.partition("=")
    if not equals or not hops:
        raise refusal(flag, text, "expected a prefix, '=' and hops", _EXAMPLE)
    try:
        return RouteConfig(
            *parse_prefix(prefix.strip()), parse_hops([hop.strip() for hop in hops.split(",")])
        )
    except ValueError as error:
        raise refusal(flag, text, str(error), _EXAMPLE) from None


def load_routes(
    path: str, interfaces: Iterable[InterfaceConfig], taken: Iterable[RouteConfig] = ()
) -> RouteList:
    """Return the routes of a file. Raises UsageError with file and line; `taken` are routes that may not come again."""
    begin = time.monotonic()
    try:
        with open_file(path, errors="replace") as lines:
            found = _read_routes(
                path, lines, HopChecker(interfaces), {(each.prefix, each.length) for each in taken}
            )
    except OSError as error:
        raise UsageError(f"--routes-file {path}: it can not be read: {error.strerror}.") from None
    found.read_s = time.monotonic() - begin
    return found


def _read_routes(
    path: str, lines: Iterable[str], checker: HopChecker, taken: set[tuple[int, int]]
) -> RouteList:
    found = RouteList()
    numbers: dict[str, int] = {}  # what stands behind a prefix -> number of the hops: mostly there are few
    seen = {prefix << 6 | length for prefix, length in taken}
    inet_pton, from_bytes, family = socket.inet_pton, int.from_bytes, socket.AF_INET
    for line, text in enumerate(lines, 1):
        words = text.split(None, 1)
        if not words or words[0][0] == "#":
            continue
        try:
            try:  # what most lines look like
                address, _, digits = words[0].partition("/")
                prefix, length = from_bytes(inet_pton(family, address), "big"), _LENGTHS[digits]
                number = numbers[words[1]]
            except (OSError, KeyError, IndexError, ValueError):
                prefix, length = parse_prefix(words[0].partition("#")[0])
                number = numbers[words[-1]] = found.number(_hops_of_line(words, checker))
            if prefix & _HOST_BITS[length]:
                parse_prefix(words[0])
            key = prefix << 6 | length
            if key in seen:
                raise ValueError(f"{words[0]} was there before; write all its hops in one line")
            if len(found) == MAX_ROUTES:
                raise ValueError(f"there are more than {MAX_ROUTES} routes, for which there is no room")
        except ValueError as error:
            raise UsageError(f"{path}, line {line}: {error}.") from None
        seen.add(key)
        found.append_numbered(prefix, length, number)
    return found


def _hops_of_line(words: Sequence[str], checker: HopChecker) -> tuple[HopConfig, ...]:
    rest = words[1].partition("#")[0] if len(words) > 1 and "#" not in words[0] else ""
    hops = parse_hops(rest.replace(",", " ").split())
    if problem := next(filter(None, map(checker.problem, hops)), ""):
        raise ValueError(problem)
    return hops
