# SPDX-License-Identifier: Apache-2.0
"""One of our own addresses on a link: probing, announcing and defending it. RFC 5227.

============ ===================================== ==================================== ============
state        event                                 action                               next
============ ===================================== ==================================== ============
IDLE         start, another worker claims it       AddressReady                         SHARED
SHARED       anything heard                        nothing: that worker defends it      SHARED
IDLE         start                                 AddressReady, announce               ANNOUNCING
IDLE         start, probing                        wait 0 to 1 s                        PROBING
PROBING      time                                  probe; 3 of them, 1 to 2 s apart     PROBING
PROBING      2 s after the last probe              AddressReady, announce               ANNOUNCING
PROBING      conflict (probes for it count too)    Conflict, abandoned                  WAITING
ANNOUNCING   2 s                                   announce again                       OWNED
ANNOUNCING,  conflict, none in the last 10 s       Conflict, announce                   unchanged
OWNED        again within 10 s of that             nothing (the table counts it)        unchanged
             the same, and the claim yields        Conflict, abandoned                  WAITING
WAITING      10 s; 60 s after 10 conflicts         wait 0 to 1 s                        PROBING
WAITING      anything heard                        nothing                              WAITING
============ ===================================== ==================================== ============

RFC 5227 section 2.4 leaves the choice. An address that is probed is given up when it is contested twice in
ten seconds (b). One that is configured and only announced is kept (c): a router's address must not go away
because somebody sends two forged packets.

Own frames that come back (the sender is our MAC address) are no conflict. Nothing of a received packet is
kept.
"""

from __future__ import annotations

import random
from enum import Enum, auto
from typing import Final

from halo_mp.stack.arp_exchange import announcement, probe
from halo_mp.stack.interface import Address, Interface
from halo_mp.stack.outputs import AddressReady, Conflict, NeighborOutput, Transmit
from halo_mp.wire import arp, ipv4

PROBE_WAIT_S: Final = 1.0
PROBE_COUNT: Final = 3
PROBE_MIN_S: Final = 1.0
PROBE_MAX_S: Final = 2.0
ANNOUNCE_WAIT_S: Final = 2.0
ANNOUNCE_INTERVAL_S: Final = 2.0
MAX_CONFLICTS: Final = 10
RATE_LIMIT_INTERVAL_S: Final = 60.0
DEFEND_INTERVAL_S: Final = 10.0


class ClaimState(Enum):
    IDLE = auto()
    SHARED = auto()
    PROBING = auto()
    ANNOUNCING = auto()
    OWNED = auto()
    WAITING = auto()


class AddressClaim:
    """The state machine above for one address of an interface."""

    def __init__(
        self, interface: Interface, address: Address, *, rng: random.Random, shared: bool = False
    ) -> None:
        """``shared``: another worker of the same port announces and defends the address, we only use it."""
        self.state = ClaimState.IDLE
        self.conflicts = 0
        self.interface = interface  # may be replaced by one that differs in other things
        self.address = address.address
        self._rng = rng
        self._probe = self._yields = address.probe
        self._shared = shared
        self._probes_sent = 0
        self._contested_at: float | None = None
        self._deadline: float | None = None

    @property
    def usable(self) -> bool:
        """Whether the address may be answered for and sent from."""
        return self.state in (ClaimState.SHARED, ClaimState.ANNOUNCING, ClaimState.OWNED)

    def start(self, now: float) -> list[NeighborOutput]:
        if self._shared:
            self.state = ClaimState.SHARED
            return [AddressReady(*self.interface.key, self.address)]
        if not self._probe:
            return self._take(now)
        self._start_probing(now)
        return []

    def announce(self, now: float) -> list[NeighborOutput]:
        """Announce the address once more, twice as RFC 5227 section 2.3 says: the link was away, and who is on it now
        may know nothing, or wait for an answer that was lost.
        """
        if not self.usable or self.state is ClaimState.SHARED:
            return []
        self.state = ClaimState.ANNOUNCING
        self._deadline = now + ANNOUNCE_INTERVAL_S
        return [announcement(self.interface, self.address)]

    def contradicts(self, packet: arp.ArpPacket) -> bool:
        """Whether the packet shows that another station uses, or is about to use, our address."""
        if packet.sender_mac == self.interface.mac:
            return False
        if packet.sender_address == self.address:
            return True
        is_probe = packet.sender_address == ipv4.UNSPECIFIED and packet.operation == arp.REQUEST
        same = packet.target_address == self.address
        return self.state is ClaimState.PROBING and is_probe and same

    def receive(self, packet: arp.ArpPacket, now: float) -> list[NeighborOutput]:
        """Act on a packet that `contradicts` our claim."""
        if self.state in (ClaimState.IDLE, ClaimState.SHARED, ClaimState.WAITING):
            return []
        self.conflicts += 1
        again = self._contested_at is not None and now - self._contested_at < DEFEND_INTERVAL_S
        if self.state is ClaimState.PROBING or (again and self._yields):
            self._give_up(now)
            return [self._conflict(packet, abandoned=True)]
        if again:
            return []
        self._contested_at = now
        return [self._conflict(packet, abandoned=False), announcement(self.interface, self.address)]

    def poll(self, now: float) -> list[NeighborOutput]:
        """Do what is due."""
        if self._deadline is None or now < self._deadline:
            return []
        if self.state is ClaimState.WAITING:
            self._start_probing(now)
            return []
        if self.state is ClaimState.ANNOUNCING:
            self.state = ClaimState.OWNED
            self._deadline = None
            return [announcement(self.interface, self.address)]
        if self._probes_sent == PROBE_COUNT:
            return self._take(now)
        return [self._send_probe(now)]

    def next_deadline(self) -> float | None:
        return self._deadline

    def _start_probing(self, now: float) -> None:
        self.state = ClaimState.PROBING
        self._probes_sent = 0
        self._deadline = now + self._rng.uniform(0.0, PROBE_WAIT_S)

    def _send_probe(self, now: float) -> Transmit:
        self._probes_sent += 1
        last = self._probes_sent == PROBE_COUNT
        self._deadline = now + (ANNOUNCE_WAIT_S if last else self._rng.uniform(PROBE_MIN_S, PROBE_MAX_S))
        return probe(self.interface, self.address)

    def _take(self, now: float) -> list[NeighborOutput]:
        self.state = ClaimState.ANNOUNCING
        self._deadline = now + ANNOUNCE_INTERVAL_S
        return [AddressReady(*self.interface.key, self.address), announcement(self.interface, self.address)]

    def _give_up(self, now: float) -> None:
        self.state = ClaimState.WAITING
        limited = self.conflicts >= MAX_CONFLICTS
        self._deadline = now + (RATE_LIMIT_INTERVAL_S if limited else DEFEND_INTERVAL_S)

    def _conflict(self, packet: arp.ArpPacket, *, abandoned: bool) -> Conflict:
        return Conflict(*self.interface.key, self.address, packet.sender_mac, abandoned)
