# SPDX-License-Identifier: Apache-2.0
"""How an endpoint's datagrams come and go: by any asyncio datagram transport, one by one.

That is the transport of the halo stack inside a worker, or another event loop's. On a kernel socket there is a faster
way, `halo_mp.kcp.batch`. Hot path: per datagram nothing but what is said here.
"""

from __future__ import annotations

import asyncio
import struct
from array import array
from typing import Any, Final, Protocol

from halo_mp._native import ffi, lib
from halo_mp.kcp.control import CONTROL_OCTETS
from halo_mp.kcp.peers import Address, Peers

DATAGRAM: Final = struct.Struct("=QII")
"""`struct halo_kcp_datagram`: where its octets are, how many, of which session."""

MOST_AT_ONCE: Final = 64
"""Datagrams of a turn, where others could still follow."""

assert DATAGRAM.size == ffi.sizeof("struct halo_kcp_datagram")


class Owner(Protocol):
    """What a carrier tells its endpoint."""

    @property
    def has_control(self) -> bool:
        """Whether datagrams of 20 octets are control packets."""

    def take(self, incoming: Any, count: int, control: list[tuple[bytes, Address]]) -> None:
        """Take datagrams in, `struct halo_kcp_incoming *`, and control packets with where they come from."""

    def take_error(self, error: OSError) -> None:
        """Hear what the socket says."""

    def address_of(self, number: int) -> Address | None:
        """Return where a session's datagrams go."""

    def addresses(self) -> set[Address]:
        """Return where datagrams of any session go."""

    def room(self) -> None:
        """It can send again."""

    def lost(self, error: Exception | None) -> None:
        """It is closed, by whomever."""


class Carrier(Protocol):
    """What an endpoint asks of a carrier."""

    @property
    def transport(self) -> Any:
        """Something with `get_extra_info` for sockname, peername, socket and halo."""

    @property
    def by_reference(self) -> bool:
        """Whether it takes an output whose datagrams lie in their sessions, until `send_output` returns."""

    @property
    def is_blocked(self) -> bool:
        """Whether the last output is still on its way, so that there must not be another."""

    def send_output(self, output: Any, group: Any) -> None:
        """Send all datagrams of a `struct halo_kcp_output *`, and clear it, now or when there is room."""

    def send_to(self, octets: bytes, address: Address) -> None:
        """Send one datagram; it may be lost."""

    def forget(self, number: int) -> None:
        """Have output that waits know: that session is no more, and another may have its number."""

    def close(self) -> None:
        """Send and receive no more."""


class StartableCarrier(Carrier, Protocol):
    """A carrier, before it has an endpoint."""

    def start(self, owner: Owner) -> None:
        """Tell an endpoint what comes, from now on."""


class AsyncioCarrier(asyncio.DatagramProtocol):
    """A carrier on an asyncio datagram transport."""

    by_reference = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """The protocol for `create_datagram_endpoint`; then `start`."""
        self.transport: Any = None
        self.is_blocked = False
        self._loop = loop
        self._owner: Owner | None = None
        self._is_connected = False
        self._peers = Peers()
        self._octets: list[bytes] = []
        self._froms: list[bytes] = []
        self._control: list[tuple[bytes, Address]] = []
        self._is_due = False
        self._seen = 0
        self._room = 64
        self._incoming = ffi.new("struct halo_kcp_incoming[]", self._room)

    def start(self, owner: Owner) -> None:
        """Tell an endpoint what comes, from now on."""
        self._owner = owner
        self._is_connected = self.transport.get_extra_info("peername") is not None

    # ---- what asyncio says

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if self._owner is None:
            return  # nobody has sent anything yet, or everybody has left
        if len(data) == CONTROL_OCTETS and self._owner.has_control:
            self._control.append((data, addr))
        else:
            self._octets.append(data)
            self._froms.append(self._peers[addr])
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._deliver)

    def error_received(self, exc: Exception) -> None:
        """Tell it later: asyncio's `sendto` calls this, and who sends is in the middle of something."""
        if isinstance(exc, OSError):
            self._loop.call_soon(self._tell_error, exc)

    def pause_writing(self) -> None:
        self.is_blocked = True

    def resume_writing(self) -> None:
        self.is_blocked = False
        if self._owner is not None:
            self._owner.room()

    def connection_lost(self, exc: Exception | None) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.lost(exc)

    # ---- what the endpoint asks

    def send_output(self, output: Any, group: Any) -> None:
        owner, send = self._owner, self.transport.sendto
        octets = ffi.buffer(output.octets, output.used) if output.used else b""
        start = int(ffi.cast("uintptr_t", output.octets))
        for where, length, number in DATAGRAM.iter_unpack(_datagrams(output)):
            address = None if self._is_connected or owner is None else owner.address_of(number)
            if address is not None or self._is_connected:
                send(octets[where - start : where - start + length], address)
        lib.halo_kcp_output_clear(output)

    def send_to(self, octets: bytes, address: Address) -> None:
        self.transport.sendto(octets, None if self._is_connected else address)

    def forget(self, number: int) -> None:
        """Nothing: what waits has its address."""

    def close(self) -> None:
        self._owner = None
        self.transport.close()

    # ---- private

    def _tell_error(self, error: OSError) -> None:
        if self._owner is not None:
            self._owner.take_error(error)

    def _deliver(self) -> None:
        """Asyncio reads one datagram in each turn of its loop: wait for those that follow at once."""
        waiting = len(self._octets)
        if self._seen < waiting < MOST_AT_ONCE:
            self._seen = waiting
            self._loop.call_soon(self._deliver)
            return
        self._is_due, self._seen = False, 0
        octets, froms, control = self._octets, self._froms, self._control
        self._octets, self._froms, self._control = [], [], []
        if self._owner is None:
            return
        count = len(octets)
        if count > self._room:
            self._room = 2 * count
            self._incoming = ffi.new("struct halo_kcp_incoming[]", self._room)
        joined, peers = b"".join(octets), b"".join(froms)
        lib.halo_kcp_incoming_fill(
            self._incoming,
            ffi.from_buffer(joined),
            ffi.from_buffer("uint32_t[]", array("I", map(len, octets))),
            ffi.cast("struct halo_kcp_peer *", ffi.from_buffer(peers)),
            count,
        )
        self._owner.take(self._incoming, count, control)


def _datagrams(output: Any) -> Any:
    return ffi.buffer(output.datagram, output.count * DATAGRAM.size) if output.count else b""
