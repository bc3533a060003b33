# SPDX-License-Identifier: Apache-2.0
"""The claims of one interface to its addresses: RFC 5227 for each of them by itself.

While an interface is down it claims nothing; when it is up again each claim begins anew, since another
station may have taken the address meanwhile (RFC 5227 section 2.1).
"""

import random

from halo_mp.stack.address_claim import AddressClaim
from halo_mp.stack.interface import Address, Interface
from halo_mp.stack.outputs import NeighborOutput
from halo_mp.wire import arp


class AddressClaims:
    """A claim for each address. ``shared``: another worker of the port claims them, we only use them."""

    def __init__(self, interface: Interface, *, rng: random.Random, shared: bool) -> None:
        self._interface = interface
        self._rng = rng
        self._shared = shared
        self._claims: dict[Address, AddressClaim] = {}
        self._deadline: float | None = None  # of all claims: looked at far more often than it changes

    def update(self, interface: Interface, now: float) -> list[NeighborOutput]:
        """Claim what is new, go on with what was there, let go of the rest."""
        moved = interface.mac != self._interface.mac
        self._interface = interface
        if not interface.up:
            self._claims.clear()
            return self._noted([])
        before, self._claims = self._claims, {}
        outputs: list[NeighborOutput] = []
        for address in interface.addresses:
            claim = before.get(address)
            if claim is None:
                claim = AddressClaim(interface, address, rng=self._rng, shared=self._shared)
                outputs += claim.start(now)
            claim.interface = interface
            self._claims[address] = claim
        return outputs + self.announce(now) if moved and before else self._noted(outputs)

    def announce(self, now: float) -> list[NeighborOutput]:
        """Announce what is ours once more."""
        return self._noted([out for claim in self._claims.values() for out in claim.announce(now)])

    def is_usable(self, address: int) -> bool:
        """Whether the address may be answered for and sent from."""
        return any(claim.usable and claim.address == address for claim in self._claims.values())

    def sender(self, target: int) -> int | None:
        """The usable address to ask as: the one whose subnet has ``target``, else the first; None without any."""
        usable = [address for address, claim in self._claims.items() if claim.usable]
        fitting = [each for each in usable if each.contains(target)]
        if fitting:
            return max(fitting, key=lambda each: each.prefix_length).address
        return usable[0].address if usable else None

    def contested_by(self, packet: arp.ArpPacket) -> AddressClaim | None:
        """The claim that the packet contradicts."""
        return next((claim for claim in self._claims.values() if claim.contradicts(packet)), None)

    def defend(self, claim: AddressClaim, packet: arp.ArpPacket, now: float) -> list[NeighborOutput]:
        """Act on a packet that contradicts the claim."""
        return self._noted(claim.receive(packet, now))

    def poll(self, now: float) -> list[NeighborOutput]:
        """Do what is due."""
        if self._deadline is None or now < self._deadline:
            return []
        return self._noted([out for claim in self._claims.values() for out in claim.poll(now)])

    def next_deadline(self) -> float | None:
        """When `poll` has something to do."""
        return self._deadline

    def _noted(self, outputs: list[NeighborOutput]) -> list[NeighborOutput]:
        deadlines = (claim.next_deadline() for claim in self._claims.values())
        self._deadline = min((deadline for deadline in deadlines if deadline is not None), default=None)
        return outputs
