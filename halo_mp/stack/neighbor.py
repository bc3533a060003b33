# SPDX-License-Identifier: Apache-2.0
"""The neighbor table of one interface: what is heard, what is sent, what is configured. RFC 826, RFC 1122 section
2.3.2, RFC 1027, RFC 5227. The states of a neighbor are in `halo_mp.stack.neighbor_states`.

Policy, where the RFCs leave one. A known neighbor may change its MAC address at any time (RFC 826; fail-over
depends on it), but becomes STALE, so that the next use verifies it. Strangers are learned only from our own
subnets. Operations other than request and reply are refused before the table is touched, where RFC 826 would
merge them, and so are senders that nobody can be (`arp_refused`). A sender MAC address that is not the
frame's source is counted, and believed.

Held packets are copies and owned by the table until they come back in a Deliver or a Drop. Bounded: entries,
packets held for one neighbor and in all, unanswered addresses, requests (one a second for each address), work
in one `poll`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from halo_mp.stack import arp_exchange
from halo_mp.stack.interface import Interface
from halo_mp.stack.neighbor_cache import Neighbor, NeighborEntry, NeighborState
from halo_mp.stack.neighbor_states import REQUEST_INTERVAL_S, NeighborStates
from halo_mp.stack.outputs import Forgotten, Learned, Loss, NeighborOutput, Undelivered
from halo_mp.stack.reasons import (
    ADDRESS_TENTATIVE,
    ARP_REFUSED,
    INTERFACE_DOWN,
    INTERFACE_REMOVED,
    NEIGHBOR_HOLD_FULL,
    NEIGHBOR_UNRESOLVED,
)
from halo_mp.wire import WireError, arp, ipv4

POLL_LIMIT: Final = 1024  # entries handled in one poll; the rest is due at once, in the next


class NeighborTable(NeighborStates):
    """All neighbors of one interface."""

    def __len__(self) -> int:
        return len(self._cache)

    def __iter__(self) -> Iterator[Neighbor]:
        """All neighbors, in no particular order; the table must not change meanwhile."""
        return (entry.snapshot() for entry in self._cache)

    @property
    def held_count(self) -> int:
        """Packets that wait for a neighbor."""
        return len(self._held)

    def is_usable(self, address: int) -> bool:
        """Whether an address of the interface may be answered for and sent from."""
        return self._claims.is_usable(address)

    def knows(self, address: int) -> bool:
        """Whether a packet to this neighbor would leave at once."""
        entry = self._cache.get(address)
        return entry is not None and entry.mac is not None

    def lookup(self, address: int) -> Neighbor | None:
        """What is known of a neighbor; changes nothing."""
        entry = self._cache.get(address)
        return None if entry is None else entry.snapshot()

    def is_up(self, address: int) -> bool | None:
        """What was last reported of a neighbor that is watched; None for nothing."""
        entry = self._cache.get(address)
        return None if entry is None else entry.up

    def start(self, now: float) -> list[NeighborOutput]:
        """Begin to announce the interface's addresses, or to probe for them."""
        return self._claims.update(self.interface, now)

    def update(self, interface: Interface, now: float) -> list[NeighborOutput]:
        """Go on with another form of the same interface. What is learned stays, if it can be a neighbor still."""
        was_up, self.interface = self.interface.up, interface
        outputs = self._claims.update(interface, now)
        for entry in [entry for entry in self._cache if not interface.is_neighbor(entry.address)]:
            outputs += self.remove(entry.address)
        if not interface.up:
            outputs += self._stop_asking()
        elif not was_up:
            outputs += self._ask_watched(now)
        return outputs

    def close(self) -> list[NeighborOutput]:
        """End with the interface: what is held and what is known goes."""
        outputs: list[NeighborOutput] = []
        for entry in list(self._cache):
            outputs += self._drop_held(entry, INTERFACE_REMOVED)
            outputs += self._forget(entry, Loss.REMOVED)
        return outputs

    def announce(self, now: float) -> list[NeighborOutput]:
        """Announce the interface's addresses once more, after its link was away."""
        return self._claims.announce(now)

    def next_deadline(self) -> float | None:
        """When `poll` has something to do."""
        neighbors, claims = self._deadlines.next(), self._claims.next_deadline()
        if neighbors is None or claims is None:
            return claims if neighbors is None else neighbors
        return min(neighbors, claims)

    def poll(self, now: float) -> list[NeighborOutput]:
        """Do what is due, at most `POLL_LIMIT` neighbors of it."""
        outputs = self._claims.poll(now)
        for entry in self._deadlines.take_due(now, POLL_LIMIT):
            outputs += self._on_deadline(entry, now)
        return outputs

    def receive(self, packet: arp.ArpPacket, source_mac: bytes, now: float) -> list[NeighborOutput]:
        """Act on an ARP packet that came in a frame from ``source_mac``; WireError when it is refused."""
        if packet.sender_mac != source_mac:
            self.events["arp_source_mismatch"] += 1
        if arp_exchange.is_refused(self.interface, packet):
            raise WireError(ARP_REFUSED)
        if claim := self._claims.contested_by(packet):
            self.events["address_conflict"] += 1
            return self._claims.defend(claim, packet, now)
        to_us = self._answers_to(packet.target_address)
        outputs = self._merge(packet, now, to_us=to_us)
        if packet.operation == arp.REQUEST and (to_us or self._is_proxied(packet)):
            outputs.append(arp_exchange.reply(self.interface, packet))
        return outputs

    def resolve(self, address: int, packet: bytes, now: float) -> list[NeighborOutput]:
        """Send ``packet`` to the neighbor: a Deliver now, or later, or a Drop."""
        if not self.interface.up:
            return [self._drop(INTERFACE_DOWN, packet)]
        entry = self._cache.get(address)
        if entry is None:
            return self._resolve_new(address, packet, now)
        if entry.state is NeighborState.INCOMPLETE:
            return self._hold(entry, packet)
        if entry.mac is None:
            return [self._drop(NEIGHBOR_UNRESOLVED, packet), Undelivered(packet)]
        return [*self._use(entry, now), self._deliver(packet, entry.mac)]

    def touch(self, address: int, now: float) -> list[NeighborOutput]:
        """Note that the fast path has sent to a neighbor that it had learned; unknown ones are ignored.

        Of another worker's neighbors it tells no more often than they are to be reported.
        """
        entry = self._cache.get(address)
        if entry is None or entry.mac is None:
            return []
        entry.used_at = None
        return self._use(entry, now)

    def adopt(self, address: int, mac: bytes, now: float) -> list[NeighborOutput]:
        """Take over what another worker has just learned on the same link; nothing is reported as learned."""
        if not arp_exchange.is_plausible(self.interface, address, mac):
            self.events["neighbor_adopt_refused"] += 1
            return []
        entry = self._cache.get(address) or NeighborEntry(address, NeighborState.INCOMPLETE)
        entry.told_at = now
        return [out for out in self._hear(entry, mac, now, answered=True) if not isinstance(out, Learned)]

    def forget(self, address: int) -> list[NeighborOutput]:
        """Take over that another worker has forgotten a neighbor; whoever is being asked for here is kept."""
        entry = self._cache.get(address)
        if entry is None or entry.state in (NeighborState.INCOMPLETE, NeighborState.STATIC):
            return []
        return [
            out for out in self._forget(entry, Loss.REMOVED) if not isinstance(out, Forgotten)
        ]  # whoever told us knows

    def set_static(self, address: int, mac: bytes, now: float) -> list[NeighborOutput]:
        """Configure a neighbor, over what may have been learned; ValueError for an impossible one."""
        if not arp_exchange.is_plausible(self.interface, address, mac):
            raise ValueError(f"{ipv4.format_address(address)} {mac.hex(':')} cannot be a neighbor")
        entry = self._cache.get(address) or NeighborEntry(address, NeighborState.STATIC)
        entry.state = NeighborState.STATIC
        entry.mac = mac
        self._deadlines.cancel(entry)
        self._cache.place(entry)
        outputs = [self._learned(entry, mac, now), *self._copied(entry)]
        return outputs + self._come_up(entry, mac) + self._deliver_held(entry, mac, now)

    def remove(self, address: int) -> list[NeighborOutput]:
        """Forget a neighbor, a static one too; the next packet to it asks anew."""
        entry = self._cache.get(address)
        if entry is None:
            return []
        return self._drop_held(entry, NEIGHBOR_UNRESOLVED) + self._forget(entry, Loss.REMOVED)

    def watch(self, address: int, now: float) -> list[NeighborOutput]:
        """Keep a neighbor known without traffic, and report when it comes and goes. Another worker's is not."""
        if self.foreign or not self.interface.is_neighbor(address):
            return []
        entry = self._cache.get(address) or NeighborEntry(address, NeighborState.INCOMPLETE)
        if entry.watched:
            return []
        entry.watched = True
        self._cache.place(entry)
        if entry.mac is None:
            return self._ask_anew(entry, now)
        outputs = self._come_up(entry, entry.mac)
        return outputs + self._probe(entry, now) if entry.state is NeighborState.STALE else outputs

    def unwatch(self, address: int, now: float) -> list[NeighborOutput]:
        """Let a neighbor age as all others do."""
        entry = self._cache.get(address)
        if entry is None or not entry.watched:
            return []
        entry.watched, entry.up = False, None
        evicted = self._cache.place(entry)
        if entry.state is NeighborState.FAILED:
            self._deadlines.set(entry, now + self._settings.failed_s)
        return [] if evicted is None else self._forget(evicted, Loss.EVICTED)

    # What is heard

    def _answers_to(self, address: int) -> bool:
        """An interface without addresses answers for the one that it speaks as."""
        if not self.interface.addresses:
            return address == self.borrowed_address != ipv4.UNSPECIFIED
        return self._claims.is_usable(address)

    def _is_proxied(self, packet: arp.ArpPacket) -> bool:
        """RFC 1027, but never to one who asks whether an address is free, or says that it has it (RFC 5227)."""
        if not self.interface.proxy_arp or self._proxied is None:
            return False
        if packet.sender_address in (ipv4.UNSPECIFIED, packet.target_address):
            return False
        return self._proxied(self.interface, packet.target_address)

    def _merge(self, packet: arp.ArpPacket, now: float, *, to_us: bool) -> list[NeighborOutput]:
        """RFC 826's reception: update who is known; add who is not only when the packet is for us."""
        address = packet.sender_address
        if address == ipv4.UNSPECIFIED:
            return []
        entry = self._cache.get(address)
        if entry is None:
            stranger = not self.interface.contains(address) or self.interface.is_local(address)
            if not to_us or stranger:
                return []
            entry = NeighborEntry(address, NeighborState.INCOMPLETE)
        answered = to_us and packet.operation == arp.REPLY and packet.target_mac == self.interface.mac
        return self._hear(entry, packet.sender_mac, now, answered=answered)

    def _hear(self, entry: NeighborEntry, mac: bytes, now: float, *, answered: bool) -> list[NeighborOutput]:
        changed = mac != entry.mac
        if entry.state is NeighborState.STATIC:
            if changed:
                self.events["neighbor_static_kept"] += 1
            return []
        if changed and entry.mac is not None:
            self.events["neighbor_moved"] += 1
        entry.mac = mac
        outputs: list[NeighborOutput] = []
        if self.foreign:
            outputs += self._enter(entry, NeighborState.STALE, now + self._settings.foreign_s)
        elif answered:
            outputs += self._enter(entry, NeighborState.REACHABLE, now + self._reachable_s())
        elif changed:
            outputs += self._become_stale(entry, now)
        if changed or (answered and self._may_tell(entry, now)):
            outputs.append(self._learned(entry, mac, now))
        return outputs + self._come_up(entry, mac) + self._deliver_held(entry, mac, now)

    def _may_tell(self, entry: NeighborEntry, now: float) -> bool:
        """Confirmations are reported too: with several queues, the answer to one worker reaches another."""
        return entry.told_at is None or now - entry.told_at >= REQUEST_INTERVAL_S

    # What is sent

    def _resolve_new(self, address: int, packet: bytes, now: float) -> list[NeighborOutput]:
        if self._sender(address) is None:
            return [self._drop(ADDRESS_TENTATIVE, packet)]
        if not self.interface.is_neighbor(address):
            return [self._drop(NEIGHBOR_UNRESOLVED, packet), Undelivered(packet)]
        if not self._cache.has_room_for_pending:
            return [self._drop(NEIGHBOR_HOLD_FULL, packet)]
        entry = NeighborEntry(address, NeighborState.INCOMPLETE)
        asked = self._ask_anew(entry, now)
        return self._hold(entry, packet) + asked

    def _hold(self, entry: NeighborEntry, packet: bytes) -> list[NeighborOutput]:
        dropped = self._held.hold(entry, packet)
        return [] if dropped is None else [self._drop(NEIGHBOR_HOLD_FULL, dropped)]

    # What the interface's going down does

    def _stop_asking(self) -> list[NeighborOutput]:
        outputs: list[NeighborOutput] = []
        for entry in [entry for entry in self._cache if entry.state is NeighborState.INCOMPLETE]:
            outputs += self._drop_held(entry, INTERFACE_DOWN)
            if not entry.watched:
                outputs += self._forget(entry, Loss.REMOVED)
        for entry in self._cache:
            entry.up = None  # who chooses among gateways begins anew too, and must hear of each again
        return outputs

    def _ask_watched(self, now: float) -> list[NeighborOutput]:
        outputs: list[NeighborOutput] = []
        for entry in [
            each for each in self._cache if each.watched and each.state is not NeighborState.STATIC
        ]:
            outputs += self._ask_anew(entry, now) if entry.mac is None else self._probe(entry, now)
        return outputs
