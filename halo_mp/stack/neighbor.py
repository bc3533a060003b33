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
INCOMPLETE   1 s after the third            drop what is held, tell who sent it            FAILED
INCOMPLETE   heard                          learn, deliver what is held                    as below
FAILED       packet to send                 drop it, tell who sent it                      FAILED
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
Learned. Each change that concerns the fast path's copy is a NeighborUpdate.

A neighbor that is watched, as a gateway is, differs in this:

============ ============================== ============================================== ============
(none)       `watch`                        ask by broadcast                               INCOMPLETE
INCOMPLETE   1 s after the third            as above; Forgotten: unreachable               FAILED
FAILED       ``watch_s``                    ask by broadcast                               FAILED
any          heard                          as above; NeighborUp if it was not up          as above
any          would be STALE                 ask by unicast                                 PROBE
PROBE        1 s after the third            Forgotten: unreachable                         FAILED
============ ============================== ============================================== ============

A table is foreign where another worker keeps the neighbors of the port: that one asks, ages and probes, and
its findings come by `adopt` and `forget`. A foreign table asks only for a packet of its own making, or one that
it was handed:

============ ============================== ============================================== ============
any          `adopt`, or heard              learn, deliver what is held                    STALE
STALE        use                            Used                                           REACHABLE
REACHABLE    ``used_s``                                                                    STALE
any with MAC ``foreign_s`` since `adopt`                                                   (none)
============ ============================== ============================================== ============

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

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from halo_mp.stack import arp_exchange
from halo_mp.stack.claims import AddressClaims
from halo_mp.stack.deadlines import Deadlines
from halo_mp.stack.hold_queue import HoldQueue
from halo_mp.stack.interface import Interface
from halo_mp.stack.neighbor_cache import USABILITY, Neighbor, NeighborCache, NeighborEntry, NeighborState
from halo_mp.stack.neighbor_settings import NeighborSettings
from halo_mp.stack.outputs import (
    Deliver,
    Drop,
    Forgotten,
    Learned,
    Loss,
    NeighborOutput,
    NeighborUp,
    NeighborUpdate,
    Undelivered,
    Usability,
    Used,
)
from halo_mp.stack.reasons import (
    ADDRESS_TENTATIVE,
    ARP_REFUSED,
    INTERFACE_DOWN,
    INTERFACE_REMOVED,
    NEIGHBOR_HOLD_FULL,
    NEIGHBOR_UNRESOLVED,
)
from halo_mp.wire import WireError, arp, ethernet, ipv4

REQUEST_INTERVAL_S: Final = 1.0  # RFC 1122 section 2.3.2.1: at most one request a second for each destination
ATTEMPTS: Final = 3
POLL_LIMIT: Final = 1024  # entries handled in one poll; the rest is due at once, in the next


class NeighborTable:
    """The state machine above, for all neighbors of one interface.

    ``shared``: another worker announces and defends the interface's addresses; so it is where the table is
    ``foreign``. ``mirrored`` says whether somebody wants NeighborUpdates. ``proxied`` says whose addresses are
    answered for besides our own. ``drops`` counts what ended here by reason, ``events`` what is worth knowing
    and ended nothing; a host with several tables hands the same counters to all of them.
    """

    def __init__(
        self,
        interface: Interface,
        *,
        rng: random.Random,
        settings: NeighborSettings | None = None,
        shared: bool = False,
        foreign: bool = False,
        mirrored: bool = True,
        proxied: Callable[[Interface, int], bool] | None = None,
        drops: Counter[str] | None = None,
        events: Counter[str] | None = None,
    ) -> None:
        self.interface = interface
        self.foreign = foreign
        self.borrowed_address = 0  # what an unnumbered interface asks and is asked as; 0 is nobody's
        self.drops: Counter[str] = Counter() if drops is None else drops
        self.events: Counter[str] = Counter() if events is None else events
        self._settings = settings or NeighborSettings()
        self._rng = rng
        self._mirrored = mirrored
        self._proxied = proxied
        self._claims = AddressClaims(interface, rng=rng, shared=shared or foreign)
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
        deadlines = [self._deadlines.next(), self._claims.next_deadline()]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

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
            return claim.receive(packet, now)
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
        """Note that the fast path has sent to a neighbor that it had learned; unknown ones are ignored."""
        entry = self._cache.get(address)
        return [] if entry is None or entry.mac is None else self._use(entry, now)

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
            entry.expires_at = now + self._settings.foreign_s
            outputs += self._enter(entry, NeighborState.STALE, entry.expires_at)
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

    def _learned(self, entry: NeighborEntry, mac: bytes, now: float) -> Learned:
        entry.told_at = now
        return Learned(*self.interface.key, entry.address, mac)

    def _come_up(self, entry: NeighborEntry, mac: bytes) -> list[NeighborOutput]:
        if not entry.watched or entry.up:
            return []
        entry.up = True
        return [NeighborUp(*self.interface.key, entry.address, mac)]

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

    def _deliver_held(self, entry: NeighborEntry, mac: bytes, now: float) -> list[NeighborOutput]:
        packets = self._held.release(entry)
        if not packets:
            return []
        return [*self._use(entry, now), *(self._deliver(packet, mac) for packet in packets)]

    def _deliver(self, packet: bytes, mac: bytes) -> Deliver:
        return Deliver(*self.interface.key, packet, mac)

    def _use(self, entry: NeighborEntry, now: float) -> list[NeighborOutput]:
        entry.used = True
        outputs: list[NeighborOutput] = []
        if entry.state is NeighborState.STALE:
            outputs = self._use_stale(entry, now)
        self._cache.place(entry)
        return outputs

    def _use_stale(self, entry: NeighborEntry, now: float) -> list[NeighborOutput]:
        if not self.foreign:
            return self._enter(entry, NeighborState.DELAY, now + self._settings.delay_s)
        until = min(now + self._settings.used_s, entry.expires_at)
        used = Used(*self.interface.key, entry.address)
        return [*self._enter(entry, NeighborState.REACHABLE, until), used]

    def _ask_anew(self, entry: NeighborEntry, now: float) -> list[NeighborOutput]:
        asked = self._enter(entry, NeighborState.INCOMPLETE, now + REQUEST_INTERVAL_S)
        return asked + self._request(entry)

    def _probe(self, entry: NeighborEntry, now: float) -> list[NeighborOutput]:
        outputs = self._enter(entry, NeighborState.PROBE, now + REQUEST_INTERVAL_S)
        return outputs + self._request(entry)

    def _request(self, entry: NeighborEntry) -> list[NeighborOutput]:
        """Ask by unicast where there is a MAC address; ask nobody while no address is ours to ask as."""
        entry.attempts += 1
        sender = self._sender(entry.address)
        if sender is None or not self.interface.up:
            return []
        dst = entry.mac or ethernet.BROADCAST
        return [arp_exchange.request(self.interface, entry.address, sender=sender, dst=dst)]

    def _sender(self, target: int) -> int | None:
        return self._claims.sender(target) if self.interface.addresses else self.borrowed_address

    # What time does

    def _on_deadline(self, entry: NeighborEntry, now: float) -> list[NeighborOutput]:
        match entry.state:
            case NeighborState.REACHABLE:
                return self._become_stale(entry, now)
            case NeighborState.DELAY:
                return self._probe(entry, now)
            case NeighborState.INCOMPLETE | NeighborState.PROBE if entry.attempts < ATTEMPTS:
                self._deadlines.set(entry, now + REQUEST_INTERVAL_S)
                return self._request(entry)
            case NeighborState.INCOMPLETE:
                return self._fail(entry, now)
            case NeighborState.PROBE:
                return self._fail(entry, now) if entry.watched else self._forget(entry, Loss.UNREACHABLE)
            case NeighborState.FAILED if entry.watched:
                self._deadlines.set(entry, now + self._settings.watch_s)
                return self._request(entry)
            case _:
                return self._forget(entry, Loss.AGED)

    def _become_stale(self, entry: NeighborEntry, now: float) -> list[NeighborOutput]:
        if self.foreign:
            if now >= entry.expires_at:
                return self._forget(entry, Loss.AGED)
            return self._enter(entry, NeighborState.STALE, entry.expires_at)
        if entry.watched:
            return self._probe(entry, now)
        return self._enter(entry, NeighborState.STALE, now + self._settings.stale_s)

    def _fail(self, entry: NeighborEntry, now: float) -> list[NeighborOutput]:
        entry.mac = None
        again_s = self._settings.watch_s if entry.watched else self._settings.failed_s
        outputs = self._enter(entry, NeighborState.FAILED, now + again_s)
        if entry.watched and entry.up is not False:
            entry.up = False
            outputs.append(self._forgotten(entry, Loss.UNREACHABLE))
        held = self._held.release(entry)
        outputs += [self._drop(NEIGHBOR_UNRESOLVED, packet) for packet in held]
        return outputs + [Undelivered(packet) for packet in held]

    def _reachable_s(self) -> float:
        spread = self._settings.reachable_spread
        return self._settings.reachable_s * self._rng.uniform(1 - spread, 1 + spread)

    # What the interface's going down does

    def _stop_asking(self) -> list[NeighborOutput]:
        outputs: list[NeighborOutput] = []
        for entry in [entry for entry in self._cache if entry.state is NeighborState.INCOMPLETE]:
            outputs += self._drop_held(entry, INTERFACE_DOWN)
            if not entry.watched:
                outputs += self._forget(entry, Loss.REMOVED)
        return outputs

    def _ask_watched(self, now: float) -> list[NeighborOutput]:
        outputs: list[NeighborOutput] = []
        for entry in [entry for entry in self._cache if entry.watched]:
            outputs += self._ask_anew(entry, now) if entry.mac is None else self._probe(entry, now)
        return outputs

    # Bookkeeping

    def _enter(self, entry: NeighborEntry, state: NeighborState, deadline: float) -> list[NeighborOutput]:
        """Change the state; a new entry, or one that changes its segment, is placed and may evict another."""
        entry.state = state
        entry.attempts = 0
        self._deadlines.set(entry, deadline)
        outputs = self._copied(entry)
        if self._cache.is_in_place(entry):
            return outputs
        evicted = self._cache.place(entry)
        return outputs if evicted is None else outputs + self._forget(evicted, Loss.EVICTED)

    def _copied(self, entry: NeighborEntry) -> list[NeighborOutput]:
        """Tell the fast path, if it was told otherwise."""
        copy = (entry.mac, USABILITY[entry.state])
        if copy == entry.copy or not self._mirrored:
            return []
        entry.copy = copy
        return [NeighborUpdate(*self.interface.key, entry.address, *copy)]

    def _forget(self, entry: NeighborEntry, loss: Loss) -> list[NeighborOutput]:
        """Take an entry out; who had a MAC address was learned, and is reported as forgotten."""
        self._cache.remove(entry)
        self._deadlines.cancel(entry)
        outputs: list[NeighborOutput] = []
        if entry.copy is not None:
            outputs.append(NeighborUpdate(*self.interface.key, entry.address, None, Usability.GONE))
        if entry.mac is not None:
            self.events[f"neighbor_{loss}"] += 1
            if not self.foreign:
                outputs.append(self._forgotten(entry, loss))
        return outputs

    def _forgotten(self, entry: NeighborEntry, loss: Loss) -> Forgotten:
        return Forgotten(*self.interface.key, entry.address, loss)

    def _drop_held(self, entry: NeighborEntry, reason: str) -> list[NeighborOutput]:
        return [self._drop(reason, packet) for packet in self._held.release(entry)]

    def _drop(self, reason: str, octets: bytes) -> Drop:
        self.drops[reason] += 1
        return Drop(self.interface.port, reason, octets)
