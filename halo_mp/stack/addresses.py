# SPDX-License-Identifier: Apache-2.0
"""Which addresses are ours, on whichever interface (the weak host model of RFC 1122 section 3.3.4.2), and from
which of them we speak. RFC 1122 section 3.3.4.3, RFC 1812 sections 4.3.2.4 and 5.2.3.
"""

from collections.abc import Iterable

from halo_mp.stack.interface import Interface, Key


class OwnAddresses:
    """All own addresses and the broadcast addresses of their subnets; replaced whole when interfaces change."""

    def __init__(self, interfaces: Iterable[Interface] = (), *, router_id: int = 0) -> None:
        known = list(interfaces)
        own = [(each, interface) for interface in known for each in interface.addresses]
        self._owner = {each.address: interface.key for each, interface in reversed(own)}
        self._broadcasts = frozenset(
            form for each, _ in own if each.broadcast is not None for form in (each.broadcast, each.network)
        )
        # RFC 1812 section 5.2.3 leaves the choice: one of our addresses, and always the same.
        self.router_id = router_id or (own[0][0].address if own else 0)

    def __contains__(self, address: int) -> bool:
        return address in self._owner

    def owner(self, address: int) -> Key | None:
        """The interface that has the address; of several, the first."""
        return self._owner.get(address)

    def is_broadcast(self, address: int) -> bool:
        """Whether it is the broadcast address of one of our subnets."""
        return address in self._broadcasts

    def source(self, interface: Interface, towards: int) -> int:
        """From which address to speak on an interface: the one whose subnet has ``towards``, else the primary;
        of an unnumbered one, the router's (0 if it has none).
        """
        fitting = [each for each in interface.addresses if each.contains(towards)]
        if fitting:
            return max(fitting, key=lambda each: each.prefix_length).address
        return interface.address or self.router_id
