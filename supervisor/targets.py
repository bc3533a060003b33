# SPDX-License-Identifier: Apache-2.0
"""What routes lead to: gateways, groups of them, links and refusals, each once in the FIB however many routes name it.

- A gateway is reached on the interface whose subnet it is in, or on the one that was named with it. While there is
  none, routes behind it answer with unreachable; they stay, and work again when there is one.
- Several gateways make a group: flows are spread over those that are alive (`halo_mp.supervisor.ecmp`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

from halo_mp.shm.fib import FibFullError, FibWriter, RouteEntry, Target, TargetKind
from halo_mp.shm.tables import Interface, InterfaceFlag
from halo_mp.supervisor import ecmp

Verdict = Literal["blackhole", "unreachable", "prohibit"]

MAX_HOPS = 512
MAX_WEIGHT = 256
_VERDICTS = {
    "blackhole": TargetKind.BLACKHOLE,
    "unreachable": TargetKind.UNREACHABLE,
    "prohibit": TargetKind.PROHIBIT,
}


class RouteError(Exception):
    """A change that can not be made; the sentence is for who asked."""


@dataclass(frozen=True, slots=True)
class Hop:
    """A next hop: a gateway's address, or 0 for hosts on the link itself; the interface by number, or None for any."""

    address: int
    interface: int | None = None
    weight: int = 1


Via = tuple[Hop, ...] | Verdict


class Targets:
    """Knows every target of the FIB by what was asked for, and gives back those that no route names any more.

    `is_waited_for` tells of a target that a route names which is not in the FIB at present.
    """

    def __init__(self, fib: FibWriter, is_waited_for: Callable[[int], bool]) -> None:
        self._fib = fib
        self._is_waited_for = is_waited_for
        self._interfaces: Mapping[int, Interface] = {}
        self._by_target: dict[Target, int] = {}
        self._asked: dict[int, Target] = {}  # the same, turned round
        self._by_members: dict[tuple[tuple[int, int], ...], int] = {}
        self._groups_of: dict[int, set[int]] = {}  # target -> groups that it is a member of
        self._dead: set[int] = set()
        self._take_over()

    def follow(self, interfaces: Mapping[int, Interface]) -> None:
        """Find the interfaces of gateways anew."""
        self._interfaces = interfaces
        for target, number in list(self._by_target.items()):
            self._resolve(target, number)

    def set_hops(self, hops: Collection[tuple[int, int]], *, alive: bool) -> list[tuple[int, int]]:
        """Gateways (interface, address) died, or came back, and flows with them; return for which that is news."""
        news: dict[tuple[int, int], None] = {}
        groups: set[int] = set()
        addresses = {address for _, address in hops}
        for target, number in self._by_target.items():
            if target.address not in addresses or (number in self._dead) != alive:
                continue
            hop = self._fib.target(number).interface, target.address
            if target.kind is TargetKind.GATEWAY and hop in hops:
                (self._dead.discard if alive else self._dead.add)(number)
                groups |= self._groups_of.get(number, set())
                news[hop] = None
        self._spread_again(groups)
        return list(news)

    def gateways(self) -> Iterator[tuple[int, int]]:
        """Return the (interface, address) of each gateway that is one of several: worth watching."""
        for number in self._groups_of:
            target = self._fib.target(number)
            if target.kind is TargetKind.GATEWAY:
                yield target.interface, target.address

    def is_alive(self, interface: int, address: int) -> bool:
        """Whether flows are sent to a gateway."""
        return not any(
            (target.interface, target.address) == (interface, address)
            for target in map(self._fib.target, self._dead)
        )

    def number_of(self, via: Via, like: RouteEntry | None = None) -> int:
        """Return the target that `via` means. Raises RouteError."""
        if isinstance(via, str):
            return self.number(Target(_VERDICTS[via]))
        if not 1 <= len(via) <= MAX_HOPS:
            raise RouteError(f"{len(via)} next hops; name 1 to {MAX_HOPS}.")
        weights: dict[int, int] = {}
        for hop in via:
            if not 1 <= hop.weight <= MAX_WEIGHT:
                raise RouteError(f"weight {hop.weight} is not within 1 to {MAX_WEIGHT}.")
            number = self.number(self._target_of(hop))
            weights[number] = weights.get(number, 0) + hop.weight
        if len(weights) == 1:
            return next(iter(weights))
        try:
            return self._group(tuple(weights.items()), like)
        finally:
            for number in weights:
                self.release(number)

    def _target_of(self, hop: Hop) -> Target:
        if hop.interface is not None and hop.interface not in self._interfaces:
            raise RouteError(f"there is no interface {hop.interface} for the next hop.")
        if hop.address == 0:
            if hop.interface is None:
                raise RouteError("a next hop needs an address, or an interface.")
            return Target(TargetKind.CONNECTED, hop.interface, pinned=True)
        if hop.interface is None and not self._is_on_a_link(hop.address):
            raise RouteError(
                f"no interface has the next hop {IPv4Address(hop.address)} on its link; name one that is on a "
                "subnet of ours, or say on which interface it is."
            )
        if any(hop.address == own for entry in self._interfaces.values() for own, _ in entry.addresses):
            raise RouteError(f"the next hop {IPv4Address(hop.address)} is an address of our own.")
        return Target(TargetKind.GATEWAY, hop.interface or 0, hop.address, hop.interface is not None)

    def number(self, target: Target) -> int:
        """Return the number of a target, the one that is there or a new one. Raises RouteError."""
        number = self._by_target.get(target)
        if number is None:
            try:
                number = self._fib.new_target(target)
            except FibFullError as error:
                raise RouteError(f"{error}; delete routes with other next hops first.") from None
            self._by_target[target], self._asked[number] = number, target
            self._resolve(target, number)
        return number

    def _group(self, members: tuple[tuple[int, int], ...], like: RouteEntry | None) -> int:
        number = self._by_members.get(members)
        if number is not None:
            return number
        buckets = [0] * ecmp.bucket_count([weight for _, weight in members])
        if like is not None and self._fib.target(like.target).kind is TargetKind.GROUP:
            before = self._fib.buckets(like.target)
            buckets = before if len(before) >= len(buckets) else buckets
        try:
            number = self._fib.new_group(members, self._spread(buckets, members))
        except FibFullError as error:
            raise RouteError(f"{error}; delete routes with several next hops first.") from None
        self._remember_group(number, members)
        return number

    def _remember_group(self, number: int, members: tuple[tuple[int, int], ...]) -> None:
        self._by_members[members] = number
        for target, _ in members:
            self._groups_of.setdefault(target, set()).add(number)

    def _spread(self, buckets: Sequence[int], members: Sequence[tuple[int, int]]) -> list[int]:
        """Spread over the members that are alive; over all when none is: somebody must notice when one returns."""
        alive = {target: weight for target, weight in members if self._is_usable(target)}
        return ecmp.spread(buckets, alive or dict(members))

    def _is_usable(self, number: int) -> bool:
        return number not in self._dead and self._fib.target(number).kind is not TargetKind.UNREACHABLE

    def _spread_groups_of(self, number: int) -> None:
        self._spread_again(self._groups_of.get(number, ()))

    def _spread_again(self, groups: Iterable[int]) -> None:
        for group in groups:
            buckets = self._spread(self._fib.buckets(group), self._fib.members(group))
            self._fib.set_buckets(group, buckets)

    def _resolve(self, target: Target, number: int) -> None:
        """Find a target's interface anew."""
        if target.kind is TargetKind.GATEWAY:
            wanted = target.interface if target.pinned else self._interface_of(target.address)
        elif target.kind is TargetKind.CONNECTED:
            wanted = target.interface
        else:
            return
        usable = wanted is not None and self._is_up(wanted)
        kind = target.kind if usable else TargetKind.UNREACHABLE
        found = self._fib.target(number)
        if (found.kind, found.interface) != (kind, wanted or 0):
            self._fib.retarget(number, kind, wanted or 0)
            self._dead.discard(number)
            self._spread_groups_of(number)

    def _is_up(self, number: int) -> bool:
        interface = self._interfaces.get(number)
        return interface is not None and bool(interface.flags & InterfaceFlag.UP)

    def _is_on_a_link(self, address: int) -> bool:
        """Tell whether an interface, be it down at present, is on a network with an address."""
        return any(
            length < 32 and (own ^ address) >> (32 - length) == 0
            for interface in self._interfaces.values()
            for own, length in interface.addresses
        )

    def _interface_of(self, address: int) -> int | None:
        """Return the interface that has an address on its link, the one with the longest prefix."""
        found = [
            (length, number)
            for number, interface in self._interfaces.items()
            for own, length in interface.addresses
            if length < 32 and interface.flags & InterfaceFlag.UP and (own ^ address) >> (32 - length) == 0
        ]
        return max(found)[1] if found else None

    def release(self, number: int) -> None:
        """Give a target back that nothing names any more, and its members with it."""
        if self._fib.references(number) or self._groups_of.get(number) or self._is_waited_for(number):
            return
        if self._fib.target(number).kind is TargetKind.GROUP:
            members = self._fib.members(number)
            self._by_members.pop(members, None)
            self._fib.retire(number)
            for member, _ in members:
                self._groups_of[member].discard(number)
                if not self._groups_of[member]:
                    del self._groups_of[member]
                self.release(member)
            return
        asked = self._asked.pop(number, None)
        if asked is not None:  # else it is on its way already
            del self._by_target[asked]
            self._dead.discard(number)
            self._fib.retire(number)

    def _take_over(self) -> None:
        """Learn what a predecessor made."""
        for number in self._fib.targets():
            target = self._fib.target(number)
            if target.kind is TargetKind.GROUP:
                self._remember_group(number, self._fib.members(number))
            elif target.kind is not TargetKind.NONE:
                asked = _asked(target)
                self._by_target[asked], self._asked[number] = number, asked
        for number in [*self._by_members.values(), *self._by_target.values()]:
            self.release(number)

    def via(self, number: int) -> Via:
        """Return what a target means."""
        target = self._fib.target(number)
        if target.kind is TargetKind.GROUP:
            return tuple(self._hop(member, weight) for member, weight in self._fib.members(number))
        for name, kind in _VERDICTS.items():
            if target.kind is kind and not target.address and not target.pinned:
                return _verdict(name)
        return (self._hop(number, 1),)

    def asked(self, number: int) -> Via:
        """Return what was asked for: a gateway has an interface only where one was named with it."""
        if self._fib.target(number).kind is TargetKind.GROUP:
            return tuple(self._asked_hop(member, weight) for member, weight in self._fib.members(number))
        via = self.via(number)
        return via if isinstance(via, str) else (self._asked_hop(number, 1),)

    def _asked_hop(self, number: int, weight: int) -> Hop:
        target = self._asked[number]
        return Hop(target.address, target.interface if target.pinned else None, weight)

    def _hop(self, number: int, weight: int) -> Hop:
        target = self._fib.target(number)
        unresolved = target.kind is TargetKind.UNREACHABLE and not target.pinned
        return Hop(target.address, None if unresolved else target.interface, weight)


def _asked(target: Target) -> Target:
    """Return what was asked for: a gateway without interface may have found one, or lost it."""
    if target.address:
        interface = target.interface if target.pinned else 0
        return Target(TargetKind.GATEWAY, interface, target.address, target.pinned)
    if target.kind is TargetKind.UNREACHABLE and target.pinned:
        return Target(TargetKind.CONNECTED, target.interface, pinned=True)
    return target


def _verdict(name: str) -> Verdict:
    match name:
        case "blackhole" | "unreachable" | "prohibit":
            return name
    raise ValueError(name)
