# SPDX-License-Identifier: Apache-2.0
"""The neighbor table of one interface: RFC 826, RFC 1122 section 2.3.2, RFC 5227, ageing as in RFC 4861
section 7.3.

============ ============================== ============================================== ============
state        event                          action                                         next
============ ============================== ============================================== ============
(none)       packet to send                 hold it, ask by broadcast                      INCOMPLETE
(none)       ARP to us, request             learn, answer                                  STALE
(none)       ARP to us, reply               learn                                          REACHABLE
(none)       ARP to somebody else           nothing: RFC 826 learns only what is known     (none)
INCOMPLETE   1 s                            ask again; 3 times in all                      INCOMPLETE
INCOMPLETE   1 s after the third            drop what is held                              FAILED
INCOMPLETE   heard                          learn, deliver what is held                    as below
FAILED       packet to send                 drop it                                        FAILED
FAILED       ``failed_s``                                                                  (none)
any with MAC packet to send                 deliver it                                     as "use"
any          heard: reply to us             learn                                          REACHABLE
any          heard otherwise, other MAC     learn                                          STALE
any          heard otherwise, same MAC      nothing                                        unchanged
REACHABLE    ``reachable_s``, spread                                                       STALE
STALE        use                                                                           DELAY
STALE        ``stale_s``                    Forgotten: aged                                (none)
DELAY        ``delay_s``                    ask by unicast                                 PROBE
PROBE        1 s                            ask again; 3 times in all                      PROBE
PROBE        1 s after the third            Forgotten: unreachable; the next packet asks   (none)
                                            by broadcast
STATIC       anything                       never changes, never leaves                    STATIC
============ ============================== ============================================== ============

"Use" is a packet to send, or `touch`: the fast path says that it has sent to that neighbor. "Learn" reports
Learned.

Policy, where the RFCs leave one. A known neighbor may change its MAC address at any time (RFC 826; fail-over
depends on it), but becomes STALE, so that the next use verifies it. Strangers are learned only from our own
subnet. Operations other than request and reply are refused before the table is touched, where RFC 826 would
merge them, and so are senders that nobody can be (`arp_refused`). A sender MAC address that is not the
frame's source is counted, and believed.

Held packets are copies and owned by the table until they come back in a Deliver or a Drop. Bounded: entries,
packets held for one neighbor and in all, unanswered addresses, requests (one a second for each address), work
in one `poll`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Final

from halo_mp.stack import arp_exchange
from halo_mp.stack.address_claim import AddressClaim
from halo_mp.stack.deadlines import Deadlines
from halo_mp.stack.hold_queue import HoldQueue
from halo_mp.stack.interface import Interface
from halo_mp.stack.neighbor_cache import Neighbor, NeighborCache, NeighborEntry, NeighborState
from halo_mp.stack.neighbor_settings import NeighborSettings
from halo_mp.stack.outputs import Deliver, Drop, Forgotten, Learned, Loss, NeighborOutput
from halo_mp.stack.reasons import ADDRESS_TENTATIVE, ARP_REFUSED, NEIGHBOR_HOLD_FULL, NEIGHBOR_UNRESOLVED
from halo_mp.wire import WireError, arp, ethernet, ipv4

REQUEST_INTERVAL_S: Final = 1.0  # RFC 1122 section 2.3.2.1: at most one request a second for each destination
ATTEMPTS: Final = 3
POLL_LIMIT: Final = 1024  # entries handled in one poll; the rest is due at once, in the next


class NeighborTable:
    """The state machine above, for all neighbors of one interface.

    ``drops`` counts what ended here by reason, ``events`` what is worth knowing and ended nothing; a host
    with several tables hands the same counters to all of them.
    """

    def __init__(
        self,
        interface: Interface,
        *,
        rng: random.Random,
        settings: NeighborSettings | None = None,
        probe: bool = False,
        shared: bool = False,
        drops: Counter[str] | None = None,
        events: Counter[str] | None = None,
    ) -> None:
        self.interface = interface
        self.drops: Counter[str] = Counter() if drops is None else drops
        self.events: Counter[str] = Counter() if events is None else events
        self._settings = settings or NeighborSettings()
        self._rng = rng
        self._claim = AddressClaim(interface, rng=rng, probe=probe, yields=probe, shared=shared)
        self._cache = NeighborCache(
            capacity=self._settings.capacity, pending_capacity=self._settings.pending_capacity
        )
        self._held = HoldQueue(
            per_neighbor=self._settings.held_per_neighbor, in_all=self._settings.held_in_all
        )
        self._deadlines: Deadlines[NeighborEntry] = Deadlines()

    def __len__(self) -> int:
        return len(self._cache)

    def __iter__(self) -> Iterator[Neighbor]:
        """All neighbors, in no particular order; the table must not change meanwhile."""
        return (entry.snapshot() for entry in self._cache)

    @property
    def address_is_usable(self) -> bool:
        """Whether the interface's address may be answered for and sent from."""
        return self._claim.usable

    @property
    def held_count(self) -> int:
        """Packets that wait for a neighbor."""
        return len(self._held)

    def lookup(self, address: int) -> Neighbor | None:
        """What is known of a neighbor; changes nothing."""
        entry = self._cache.get(address)
        return None if entry is None else entry.snapshot()

    def start(self, now: float) -> list[NeighborOutput]:
        """Begin to announce the interface's address, or to probe for it."""
        return self._claim.start(now)

    def announce(self, now: float) -> list[NeighborOutput]:
        """Announce the interface's address once more, after its link was away."""
        return self._claim.announce(now)

    def next_deadline(self) -> float | None:
        """When `poll` has something to do."""
        deadlines = [self._deadlines.next(), self._claim.next_deadline()]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def poll(self, now: float) -> list[NeighborOutput]:
        """Do what is due, at most `POLL_LIMIT` neighbors of it."""
        outputs = self._claim.poll(now)
        for entry in self._deadlines.take_due(now, POLL_LIMIT):
            outputs += self._on_deadline(entry, now)
        return outputs

    def receive(self, packet: arp.ArpPacket, source_mac: bytes, now: float) -> list[NeighborOutput]:
        """Act on an ARP packet that came in a frame from ``source_mac``; WireError when it is refused."""
        if packet.sender_mac != source_mac:
            self.events["arp_source_mismatch"] += 1
        if arp_exchange.is_refused(self.interface, packet):
            raise WireError(ARP_REFUSED)
        if self._claim.contradicts(packet):
            self.events["address_conflict"] += 1
            return self._claim.receive(packet, now)
        to_us = self._claim.usable and packet.target_address == self.interface.address
        outputs = self._merge(packet, now, to_us=to_us)
        if to_us and packet.operation == arp.REQUEST:
            outputs.append(arp_exchange.reply(self.interface, packet))
        return outputs

    def resolve(self, address: int, packet: bytes, now: float) -> list[NeighborOutput]:
        """Send ``packet`` to the neighbor: a Deliver now, or later, or a Drop."""
        if not self._claim.usable:
            return [self._drop(ADDRESS_TENTATIVE, packet)]
        entry = self._cache.get(address)
        if entry is None:
            return self._resolve_new(address, packet, now)
        if entry.state is NeighborState.INCOMPLETE:
            return self._hold(entry, packet)
        if entry.mac is None:
            return [self._drop(NEIGHBOR_UNRESOLVED, packet)]
        self._use(entry, now)
        return [self._deliver(packet, entry.mac)]

    def touch(self, address: int, now: float) -> None:
        """Note that the fast path has sent to a neighbor that it had learned; unknown ones are ignored."""
        entry = self._cache.get(address)
        if entry is not None and entry.mac is not None:
            self._use(entry, now)

    def adopt(self, address: int, mac: bytes, now: float) -> list[NeighborOutput]:
        """Take over what another worker has just learned on the same link; nothing is reported as learned."""
        if not arp_exchange.is_plausible(self.interface, address, mac):
            self.events["neighbor_adopt_refused"] += 1
            return []
        entry = self._cache.get(address) or NeighborEntry(address, NeighborState.INCOMPLETE)
        entry.told_at = now
        return [out for out in self._hear(entry, mac, now, answered=True) if not isinstance(out, Learned)]

    def set_static(self, address: int, mac: bytes, now: float) -> list[NeighborOutput]:
        """Configure a neighbor, over what may have been learned; ValueError for an impossible one."""
        if not arp_exchange.is_plausible(self.interface, address, mac):
            raise ValueError(f"{ipv4.format_address(address)} {mac.hex(':')} cannot be a neighbor")
        entry = self._cache.get(address) or NeighborEntry(address, NeighborState.STATIC)
        entry.state = NeighborState.STATIC
        entry.mac = mac
        self._deadlines.cancel(entry)
        self._cache.place(entry)
        return [self._learned(entry, mac, now), *self._deliver_held(entry, mac, now)]

    def remove(self, address: int) -> list[NeighborOutput]:
        """Forget a neighbor, a static one too; the next packet to it asks anew."""
        entry = self._cache.get(address)
        if entry is None:
            return []
        outputs: list[NeighborOutput] = self._drop_held(entry)
        return outputs + self._forget(entry, Loss.REMOVED)

    # What is heard

    def _merge(self, packet: arp.ArpPacket, now: float, *, to_us: bool) -> list[NeighborOutput]:
        """RFC 826's reception: update who is known; add who is not only when the packet is for us."""
        address = packet.sender_address
        if address == ipv4.UNSPECIFIED:
            return []
        entry = self._cache.get(address)
        if entry is None:
            if not to_us or not self.interface.contains(address):
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
        if answered:
            outputs += self._enter(entry, NeighborState.REACHABLE, now + self._reachable_s())
        elif changed:
            outputs += self._enter(entry, NeighborState.STALE, now + self._settings.stale_s)
        if changed or (answered and self._may_tell(entry, now)):
            outputs.append(self._learned(entry, mac, now))
        return outputs + self._deliver_held(entry, mac, now)

    def _may_tell(self, entry: NeighborEntry, now: float) -> bool:
        """Confirmations are reported too: with several queues, the answer to one worker reaches another."""
        return entry.told_at is None or now - entry.told_at >= REQUEST_INTERVAL_S

    def _learned(self, entry: NeighborEntry, mac: bytes, now: float) -> Learned:
        entry.told_at = now
        return Learned(*self.interface.key, entry.address, mac)

    # What is sent

    def _resolve_new(self, address: int, packet: bytes, now: float) -> list[NeighborOutput]:
        if not self.interface.is_neighbor(address):
            return [self._drop(NEIGHBOR_UNRESOLVED, packet)]
        if not self._cache.has_room_for_pending:
            return [self._drop(NEIGHBOR_HOLD_FULL, packet)]
        entry = NeighborEntry(address, NeighborState.INCOMPLETE)
        outputs = self._enter(entry, NeighborState.INCOMPLETE, now + REQUEST_INTERVAL_S)
        return outputs + self._hold(entry, packet) + self._request(entry)

    def _hold(self, entry: NeighborEntry, packet: bytes) -> list[NeighborOutput]:
        dropped = self._held.hold(entry, packet)
        return [] if dropped is None else [self._drop(NEIGHBOR_HOLD_FULL, dropped)]

    def _deliver_held(self, entry: NeighborEntry, mac: bytes, now: float) -> list[NeighborOutput]:
        packets = self._held.release(entry)
        if packets:
            self._use(entry, now)
        return [self._deliver(packet, mac) for packet in packets]

    def _deliver(self, packet: bytes, mac: bytes) -> Deliver:
        return Deliver(*self.interface.key, packet, mac)

    def _use(self, entry: NeighborEntry, now: float) -> None:
        entry.used = True
        if entry.state is NeighborState.STALE:
            self._enter(entry, NeighborState.DELAY, now + self._settings.delay_s)
        self._cache.place(entry)

    def _request(self, entry: NeighborEntry) -> list[NeighborOutput]:
        """Ask by unicast where there is a MAC address; ask nobody while our own address is not ours."""
        entry.attempts += 1
        if not self._claim.usable:
            return []
        return [arp_exchange.request(self.interface, entry.address, entry.mac or ethernet.BROADCAST)]

    # What time does

    def _on_deadline(self, entry: NeighborEntry, now: float) -> list[NeighborOutput]:
        match entry.state:
            case NeighborState.REACHABLE:
                return self._enter(entry, NeighborState.STALE, now + self._settings.stale_s)
            case NeighborState.DELAY:
                outputs = self._enter(entry, NeighborState.PROBE, now + REQUEST_INTERVAL_S)
                return outputs + self._request(entry)
            case NeighborState.INCOMPLETE | NeighborState.PROBE if entry.attempts < ATTEMPTS:
                self._deadlines.set(entry, now + REQUEST_INTERVAL_S)
                return self._request(entry)
            case NeighborState.INCOMPLETE:
                return self._fail(entry, now)
            case NeighborState.PROBE:
                return self._forget(entry, Loss.UNREACHABLE)
            case _:
                return self._forget(entry, Loss.AGED)

    def _fail(self, entry: NeighborEntry, now: float) -> list[NeighborOutput]:
        outputs = self._enter(entry, NeighborState.FAILED, now + self._settings.failed_s)
        return outputs + self._drop_held(entry)

    def _reachable_s(self) -> float:
        spread = self._settings.reachable_spread
        return self._settings.reachable_s * self._rng.uniform(1 - spread, 1 + spread)

    # Bookkeeping

    def _enter(self, entry: NeighborEntry, state: NeighborState, deadline: float) -> list[NeighborOutput]:
        """Change the state; a new entry, or one that changes its segment, is placed and may evict another."""
        entry.state = state
        entry.attempts = 0
        self._deadlines.set(entry, deadline)
        if self._cache.is_in_place(entry):
            return []
        evicted = self._cache.place(entry)
        return [] if evicted is None else self._forget(evicted, Loss.EVICTED)

    def _forget(self, entry: NeighborEntry, loss: Loss) -> list[NeighborOutput]:
        """Take an entry out; who had a MAC address was learned, and is reported as forgotten."""
        self._cache.remove(entry)
        self._deadlines.cancel(entry)
        if entry.mac is None:
            return []
        self.events[f"neighbor_{loss}"] += 1
        return [Forgotten(*self.interface.key, entry.address, loss)]

    def _drop_held(self, entry: NeighborEntry) -> list[NeighborOutput]:
        return [self._drop(NEIGHBOR_UNRESOLVED, packet) for packet in self._held.release(entry)]

    def _drop(self, reason: str, octets: bytes) -> Drop:
        self.drops[reason] += 1
        return Drop(self.interface.port, reason, octets)
