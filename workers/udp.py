# SPDX-License-Identifier: Apache-2.0
"""The UDP sockets of one worker: who opens them, what comes to them, what they send, and what the supervisor is told.

Datagrams come parked from the fast path, or whole from the Python stack (fragments, options, our own to ourselves), and
go out by the fast path where it knows how, else by the stack. A socket is used at once; whether another worker was
faster the supervisor knows, and says soon.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import random
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from halo_mp import logs
from halo_mp.control.messages import chunks
from halo_mp.shm.sockets import Socket
from halo_mp.stack.outputs import IcmpError, Received
from halo_mp.wire import icmpv4, udp
from halo_mp.wire.ipv4 import PROTOCOL_UDP, Ipv4Packet, format_address
from halo_mp.wire.octets import WireError
from halo_mp.workers.fastpath import FastPath
from halo_mp.workers.fastpath_udp import RECORD, DatagramPath, udp_socket

FIRST_EPHEMERAL: Final = 32768
LAST_EPHEMERAL: Final = 60999
ANSWER_S: Final = 1.0
"""For the supervisor to say whether a socket may be opened; without one, what is known here has to do."""
MOST_PAYLOAD_OCTETS: Final = 65507
_ADDRESSES_KEPT: Final = 65536
_TRACEBACKS_PER_S: Final = 1.0
_WORDS: Final = RECORD.size // 4
_SOCKET: Final = 3
"""Of the words of a RECORD, the socket's number."""

# Of icmp(7) and the kernel's table of errors: errno, and whether a connected socket hears of it unasked.
_UNREACHABLE: Final = {
    0: (errno.ENETUNREACH, False),
    1: (errno.EHOSTUNREACH, False),
    2: (errno.ENOPROTOOPT, True),
    3: (errno.ECONNREFUSED, True),
    4: (errno.EMSGSIZE, False),
    5: (errno.EOPNOTSUPP, False),
    6: (errno.ENETUNREACH, True),
    7: (errno.EHOSTDOWN, True),
    8: (errno.ENONET, True),
    9: (errno.ENETUNREACH, True),
    10: (errno.EHOSTUNREACH, True),
    11: (errno.ENETUNREACH, False),
    12: (errno.EHOSTUNREACH, False),
    13: (errno.EHOSTUNREACH, True),
    14: (errno.EHOSTUNREACH, True),
    15: (errno.EHOSTUNREACH, True),
}

log = logs.get("worker")

HostPort = tuple[str, int]
Record = tuple[int, int, int, int, int, int]
"""As `fastpath_udp.RECORD` has it."""


class Addresses(dict[int, HostPort]):
    """From address << 16 | port to the pair that protocols see, made once for each peer that is heard of."""

    def __missing__(self, key: int) -> HostPort:
        if len(self) >= _ADDRESSES_KEPT:
            self.clear()
        pair = self[key] = (format_address(key >> 16), key & 0xFFFF)
        return pair


class Endpoint(Protocol):
    """Who gets what comes to a socket."""

    def receive(self, data: bytes, source: HostPort, dst: int) -> None:
        """Take a datagram that the Python stack has received, or any while it has no receiver."""

    def receive_error(self, error: OSError, asked: bool) -> None:
        """Hear that a datagram could not be delivered. `asked`: only who has asked for such errors shall hear."""

    def end(self, error: Exception | None) -> None:
        """The socket is closed, by somebody else."""


class ParkedReceiver(Protocol):
    """Who gets datagrams parked, one by one; what it does not end is released."""

    def receive_parked(self, index: int, record: Record) -> None:
        """Take a datagram."""


class BurstReceiver(Protocol):
    """Who gets all datagrams of a poll at once, parked; what it does not end is released."""

    def receive_burst(self, told: bytearray, number: int) -> None:
        """Take those of a socket from the records of all."""


class StackSide(Protocol):
    """What the host of the Python stack does for sockets."""

    def send_packet(self, packet: Ipv4Packet) -> None:
        """Send a packet of ours; what comes of it, perhaps at once, is for `receive_error`."""

    def source_for(self, packet: Ipv4Packet) -> int:
        """Return the address that a packet without one would be sent from; 0: it can not be sent."""

    def is_own(self, address: int) -> bool:
        """Whether an interface has the address."""

    def is_broadcast(self, address: int) -> bool:
        """Whether it means all stations of a link."""


class UdpSockets:
    """All sockets of one worker."""

    def __init__(
        self,
        fastpath: FastPath,
        loop: asyncio.AbstractEventLoop,
        slot: int,
        slots: Iterable[int],
        stack: StackSide,
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        """`tell` gives a message to the supervisor, without waiting for it."""
        self.path = DatagramPath(fastpath)
        self.loop = loop
        self._slot = slot
        order = sorted({*slots, slot})
        self._share = order.index(slot), len(order)
        self._stack = stack
        self._tell = tell
        self._rng = random.Random()
        self.addresses = Addresses()
        self._open: dict[int, Socket] = {}
        self._endpoints: dict[int, Endpoint] = {}
        self._receivers: dict[int, Callable[[bytes, HostPort], None]] = {}
        self._parked: dict[int, ParkedReceiver] = {}
        self._bursts: dict[int, BurstReceiver] = {}
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._quiet_until = 0.0

    # ---- opening and closing

    def open(
        self, address: int, port: int, peer: int = 0, peer_port: int = 0, *, shared: bool = False
    ) -> int:
        """Open a socket, with a port of its own choice for 0, and return its number. Raises OSError."""
        if port:
            return self._open_one(udp_socket(address, port, peer, peer_port, shared=shared, slot=self._slot))
        for port in self._ephemeral_ports():
            try:
                return self._open_one(
                    udp_socket(address, port, peer, peer_port, shared=shared, slot=self._slot)
                )
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    async def confirm(self, number: int) -> None:
        """Wait until the other workers know of a socket. OSError when one of them has its place: it is closed.

        Who is cancelled meanwhile closes it.
        """
        future = self._waiting.get(number)
        if future is None:
            return
        try:
            async with asyncio.timeout(ANSWER_S):
                accepted = await future
        except TimeoutError:  # the supervisor is away: it is told again when there is one
            accepted = number in self._open and not self.path.is_taken(self._open[number])
        finally:
            self._waiting.pop(number, None)
        if not accepted:
            self.close(number)
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    def bind(self, number: int, endpoint: Endpoint) -> None:
        """Let an endpoint have what comes to a socket by the Python stack, and hear of errors."""
        self._endpoints[number] = endpoint

    def set_receiver(self, number: int, receive: Callable[[bytes, HostPort], None]) -> None:
        """Let this function have all datagrams."""
        if number in self._open:
            self._bursts.pop(number, None)
            self._receivers[number] = receive

    def bind_parked(self, number: int, receiver: ParkedReceiver) -> None:
        """Let somebody have datagrams parked."""
        self._parked[number] = receiver

    def bind_burst(self, number: int, receiver: BurstReceiver) -> None:
        """Let somebody have datagrams parked, all of a poll at once."""
        self._receivers.pop(number, None)
        self._bursts[number] = receiver

    def close(self, number: int) -> None:
        """Close a socket; what is parked for it is dropped."""
        if self._open.pop(number, None) is None:
            return
        self.path.close(number)
        for table in (self._endpoints, self._receivers, self._parked, self._bursts, self._waiting):
            table.pop(number, None)
        self._tell({"type": "sockets.close", "numbers": [number]})

    def name(self, number: int) -> HostPort:
        """Return a socket's own address and port."""
        entry = self._open[number]
        return format_address(entry.address), entry.port

    def introduce(self) -> None:
        """Tell a supervisor that is new to us what is open."""
        first = True
        for chunk in chunks(_emit(number, entry) for number, entry in self._open.items()):
            self._tell({"type": "sockets.open", "first": first, "sockets": [list(each) for each in chunk]})
            first = False
        if first:
            self._tell({"type": "sockets.open", "first": True, "sockets": []})

    def answer(self, numbers: Iterable[int], *, accepted: bool) -> None:
        """The supervisor says which sockets may stay open."""
        for number in numbers:
            future = self._waiting.get(number)
            if future is not None and not future.done():
                future.set_result(accepted)
            elif not accepted and number in self._open:
                name, port = self.name(number)
                log.warning("socket.refused", address=name, udp_port=port)
                self._end(number, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))

    def leave(self) -> None:
        """Touch the fast path no more. Nobody is told: sockets end with their worker."""
        self.path.detach()
        self._tell = _tell_nobody
        for number in list(self._open):
            self._end(number, None)
        self.path.leave_counters()

    # ---- where things are

    def is_own(self, address: int) -> bool:
        """Whether an interface has the address."""
        return self._stack.is_own(address)

    def is_broadcast(self, address: int) -> bool:
        """Whether it means all stations of a link."""
        return self._stack.is_broadcast(address)

    def source_towards(self, address: int) -> int:
        """Return which of our addresses speaks to a station; 0: no route of ours leads there."""
        if self.is_broadcast(address):
            return 0
        return self._stack.source_for(Ipv4Packet(src=0, dst=address, protocol=PROTOCOL_UDP, payload=b""))

    # ---- what comes in

    def handle_parked(self) -> None:
        """Give what the last poll has parked to whom it is for."""
        path = self.path
        told = bytearray(path.told[: path.count * RECORD.size])
        try:
            if not self._bursts or self._handle_bursts(told):
                self._handle_each(told)
        finally:
            path.release()

    def _handle_each(self, told: bytearray) -> None:
        receivers, addresses, pool = self._receivers, self.addresses, self.path.pool
        for index, record in enumerate(RECORD.iter_unpack(told)):
            source, offset, number, _, length, _ = record
            receive = receivers.get(number)
            try:
                if receive is not None:
                    receive(pool[offset : offset + length], addresses[source])
                elif number not in self._bursts:
                    self._handle_parked(index, record)
            except BaseException:  # costs that datagram
                self.report_error()

    def _handle_parked(self, index: int, record: Record) -> None:
        parked = self._parked.get(record[2])
        if parked is None:
            self.path.drop(index, "socket_closed")
        else:
            parked.receive_parked(index, record)

    def _handle_bursts(self, told: bytearray) -> bool:
        """Return whether there are datagrams for others too."""
        only = self.path.only_socket
        numbers = {only} if only >= 0 else set(memoryview(told).cast("I")[_SOCKET::_WORDS])
        others = False
        for number in numbers:
            receiver = self._bursts.get(number)
            if receiver is None:
                others = True
                continue
            try:
                receiver.receive_burst(told, number)
            except BaseException:  # costs what it did not end
                self.report_error()
        return others

    def report_error(self) -> None:
        """Count the exception that is being handled, and log it unless one was logged a moment ago.

        Of whatever kind: CancelledError and SystemExit must not end the work on a poll either. Only without memory
        nothing goes on.
        """
        if isinstance(sys.exception(), MemoryError):
            raise
        self.path.count_error()
        now = self.loop.time()
        if now >= self._quiet_until:
            self._quiet_until = now + 1 / _TRACEBACKS_PER_S
            log.exception("protocol.error")

    def owner_of(self, protocol: int, address: int, port: int, peer: int, peer_port: int) -> int | None:
        """Return the slot whose worker has the socket; a `halo_mp.stack.local_delivery.OwnerOf`."""
        if protocol != PROTOCOL_UDP:
            return None
        return self.path.find(udp_socket(address, port, peer, peer_port))[0]

    def receive(self, received: Received) -> None:
        """Take a whole datagram from the Python stack."""
        packet = received.packet
        try:
            datagram = udp.parse(packet.payload, src=packet.src, dst=packet.dst)
        except WireError:  # the stack has looked
            return
        number = self._number_of(packet.dst, datagram.dst_port, packet.src, datagram.src_port)
        if number is None:
            return
        self.path.count_datagrams(received=1)
        source = self.addresses[packet.src << 16 | datagram.src_port]
        # Two of our own sockets may talk to each other by here: not deeper and deeper into the stack of calls.
        self.loop.call_soon(self._receive_one, number, bytes(datagram.payload), source, packet.dst)

    def _receive_one(self, number: int, data: bytes, source: HostPort, dst: int) -> None:
        receive, endpoint = self._receivers.get(number), self._endpoints.get(number)
        try:
            if receive is not None:
                receive(data, source)
            elif endpoint is not None:
                endpoint.receive(data, source, dst)
        except BaseException:
            self.report_error()

    def receive_error(self, error: IcmpError) -> None:
        """Tell a socket that what it sent did not get through."""
        about = error.about
        octets = bytes(about.payload[:4])
        src_port, dst_port = int.from_bytes(octets[:2], "big"), int.from_bytes(octets[2:], "big")
        number = self._number_of(about.src, src_port, about.dst, dst_port)
        endpoint = self._endpoints.get(-1 if number is None else number)
        if number is None or endpoint is None:
            return
        code, hard = errno_of(error)
        ours = error.src == 0  # the stack itself says so, as the kernel's sendto() would
        asked = not ours and not (hard and self._open[number].peer)
        self.loop.call_soon(endpoint.receive_error, OSError(code, os.strerror(code)), asked)

    def _number_of(self, address: int, port: int, peer: int, peer_port: int) -> int | None:
        return self.path.find(udp_socket(address, port, peer, peer_port))[1]

    # ---- what goes out

    def send_by_stack(self, number: int, to: int, data: bytes, *, ttl: int = 64, tos: int = 0) -> int:
        """Send a datagram by the Python stack; 0 or the errno that says why it can not be."""
        entry = self._open.get(number)
        if entry is None:
            return errno.EBADF
        if len(data) > MOST_PAYLOAD_OCTETS:
            return errno.EMSGSIZE
        packet = Ipv4Packet(
            src=entry.address, dst=to >> 16, protocol=PROTOCOL_UDP, payload=b"", ttl=ttl, tos=tos
        )
        src = entry.address or self._stack.source_for(packet)
        if not src:
            return errno.ENETUNREACH
        datagram = udp.UdpDatagram(entry.port, to & 0xFFFF, data)
        payload = datagram.emit(src=src, dst=packet.dst)
        self.path.count_datagrams(sent=1)
        self._stack.send_packet(
            Ipv4Packet(src=src, dst=packet.dst, protocol=PROTOCOL_UDP, payload=payload, ttl=ttl, tos=tos)
        )
        return 0

    # ---- private

    def _end(self, number: int, error: OSError | None) -> None:
        """End a socket that its endpoint has not closed."""
        endpoint = self._endpoints.get(number)
        self.close(number)
        if endpoint is not None:
            endpoint.end(error)

    def _open_one(self, wanted: Socket) -> int:
        number = self.path.open(wanted)
        self._open[number] = wanted
        self._waiting[number] = self.loop.create_future()
        self._tell({"type": "sockets.open", "sockets": [list(_emit(number, wanted))]})
        return number

    def _ephemeral_ports(self) -> Iterable[int]:
        """All ports that are this worker's to choose, from a random one on: no two workers choose the same."""
        first, step = self._share
        ports = range(FIRST_EPHEMERAL + first, LAST_EPHEMERAL + 1, step)
        start = self._rng.randrange(len(ports))
        return itertools.chain(ports[start:], ports[:start])


def errno_of(error: IcmpError) -> tuple[int, bool]:
    """Return the errno that Linux has for an ICMP error, and whether a connected socket hears of it unasked."""
    if error.type == icmpv4.UNREACHABLE:
        return _UNREACHABLE.get(error.code, (errno.EHOSTUNREACH, True))
    if error.type == icmpv4.PARAMETER_PROBLEM:
        return errno.EPROTO, True
    return errno.EHOSTUNREACH, False


def _tell_nobody(message: dict[str, Any]) -> None:
    """The worker has left."""


def _emit(number: int, entry: Socket) -> tuple[int, int, int, int, int, int, int]:
    return (
        number, entry.address, entry.port, entry.peer, entry.peer_port, entry.protocol, int(entry.flags)
    )  # fmt: skip
