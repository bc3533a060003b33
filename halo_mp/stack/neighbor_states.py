# SPDX-License-Identifier: Apache-2.0
"""The states of the neighbors of one interface, and what use and time do to them. RFC 826, RFC 1122 section
2.3.2, ageing as in RFC 4861 section 7.3. What is heard and sent is in `halo_mp.stack.neighbor`.

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
STALE        use, none for ``used_s``       Used                                           STALE
STALE        ``foreign_s`` since `adopt`                                                   (none)
============ ============================== ============================================== ============
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Final

from halo_mp.stack import arp_exchange
from halo_mp.stack.claims import AddressClaims
from halo_mp.stack.deadlines import Deadlines
from halo_mp.stack.hold_queue import HoldQueue
from halo_mp.stack.interface import Interface
from halo_mp.stack.neighbor_cache import USABILITY, NeighborCache, NeighborEntry, NeighborState
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
from halo_mp.stack.reasons import NEIGHBOR_UNRESOLVED
from halo_mp.wire import ethernet

REQUEST_INTERVAL_S: Final = 1.0  # RFC 1122 section 2.3.2.1: at most one request a second for each destination
ATTEMPTS: Final = 3


class NeighborStates:
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

    # What is learned and used

    def _learned(self, entry: NeighborEntry, mac: bytes, now: float) -> Learned:
        entry.told_at = now
        return Learned(*self.interface.key, entry.address, mac)

    def _come_up(self, entry: NeighborEntry, mac: bytes) -> list[NeighborOutput]:
        if not entry.watched or entry.up:
            return []
        entry.up = True
        return [NeighborUp(*self.interface.key, entry.address, mac)]

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
        if self.foreign:
            outputs = self._report_use(entry, now)
        elif entry.state is NeighborState.STALE:
            outputs = self._enter(entry, NeighborState.DELAY, now + self._settings.delay_s)
        self._cache.place(entry)
        return outputs

    def _report_use(self, entry: NeighborEntry, now: float) -> list[NeighborOutput]:
        if entry.used_at is not None and now - entry.used_at < self._settings.used_s:
            return []
        entry.used_at = now
        return [Used(*self.interface.key, entry.address)]

    # What is asked

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
        usability = USABILITY[entry.state]
        if self.foreign and entry.mac is not None:
            usability = Usability.REPORT
        copy = (entry.mac, usability)
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
