# SPDX-License-Identifier: Apache-2.0
"""A carrier on a UDP socket of the kernel: many datagrams for each system call (native/kcp/batch.c).

The socket is the one that asyncio has made, by a descriptor of our own: what asyncio knows about names, options and
errors stays its affair, and its transport is closed. The event loop must have `add_reader`, as all on Linux have.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any, Final

from halo_mp._native import ffi, lib
from halo_mp.kcp.carriers import Owner
from halo_mp.kcp.peers import PEER, Address, unpack

ROUNDS: Final = 8
"""Receives in one turn of the event loop, at most."""
SOCKET_BUFFER_OCTETS: Final = 4 << 20
_ALL: Final = lib.HALO_KCP_OFFLOAD_GRO | lib.HALO_KCP_OFFLOAD_GSO
_KEPT: Final = 4096
_NOBODY: Final = lib.HALO_KCP_NO_SESSION & 0xFFFFFFFF
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
"""Beyond the system's bounds, for who may."""


class _SocketInfo:
    """`get_extra_info` of who has a socket and no transport."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what asyncio's transports have under these names."""
        try:
            match name:
                case "sockname":
                    return self._socket.getsockname()
                case "peername":
                    return self._socket.getpeername()
        except OSError:
            return default
        return self._socket if name == "socket" else default


class KernelCarrier:
    """A carrier on a kernel socket, which is its own from now on."""

    by_reference = True

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, *, offloads: int = _ALL) -> None:
        """Raises MemoryError."""
        sock.setblocking(False)
        enlarge(sock)
        self.transport = _SocketInfo(sock)
        self.is_blocked = False
        self._is_connected = self.transport.get_extra_info("peername") is not None
        self._loop = loop
        self._socket = sock
        self._owner: Owner | None = None
        batch = lib.halo_kcp_batch_create(sock.fileno(), self._is_connected, offloads)
        if batch == ffi.NULL:
            raise MemoryError("no memory for the datagrams of a socket")
        self._batch = ffi.gc(batch, lib.halo_kcp_batch_free)
        self._incoming = lib.halo_kcp_batch_incoming(batch)
        self._control = lib.halo_kcp_batch_control(batch)
        self._error = ffi.new("int32_t *")
        self._output: Any = None
        self._group: Any = None
        self._from = 0
        self._addresses: dict[bytes, Address] = {}

    @property
    def counters(self) -> dict[str, int]:
        """System calls, and the datagrams that they moved."""
        found = lib.halo_kcp_batch_counters(self._batch)
        return {name: int(getattr(found, name)) for name in _COUNTERS}

    @property
    def offloads(self) -> int:
        """Which of HALO_KCP_OFFLOAD_ are in use."""
        return int(lib.halo_kcp_batch_offloads(self._batch))

    def start(self, owner: Owner) -> None:
        """Tell an endpoint what comes, from now on."""
        self._owner = owner
        self._loop.add_reader(self._socket.fileno(), self._receive)

    def send_output(self, output: Any, group: Any) -> None:
        self._output, self._group, self._from = output, group, 0
        self._go_on()
        if self._output is not None:
            lib.halo_kcp_output_keep(output, self._from)
            self.is_blocked = True
            self._loop.add_writer(self._socket.fileno(), self._on_room)

    def send_to(self, octets: bytes, address: Address) -> None:
        try:
            if self._is_connected:
                self._socket.send(octets)
            else:
                self._socket.sendto(octets, address)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._tell_error(error)

    def forget(self, number: int) -> None:
        """What waits for it has no address then, and is not delivered: whoever gets the number must not get that."""
        if self._output is None:
            return
        for i in range(self._from, self._output.count):
            if self._output.datagram[i].session == number:
                self._output.datagram[i].session = _NOBODY

    def close(self) -> None:
        if self._owner is None and self._socket.fileno() < 0:
            return
        self._owner = None
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()

    # ---- private

    def _receive(self) -> None:
        control = 0 if self._owner is None else int(self._owner.has_control)
        for _ in range(ROUNDS):
            if self._owner is None:
                return
            count = int(lib.halo_kcp_batch_receive(self._batch, control))
            if count == -errno.EAGAIN:
                return
            if count < 0:
                self._owner.take_error(OSError(-count, os.strerror(-count)))
                continue
            self._owner.take(self._incoming, count, self._control_packets())
            if not lib.halo_kcp_batch_more(self._batch):
                return

    def _control_packets(self) -> list[tuple[bytes, Address]]:
        found = []
        for i in range(lib.halo_kcp_batch_control_count(self._batch)):
            one = self._control[i]
            found.append((ffi.buffer(one.octets, one.length)[:], self._address(ffi.addressof(one, "peer"))))
        return found

    def _address(self, peer: Any) -> Address:
        octets = ffi.buffer(peer, PEER.size)[:]
        address = self._addresses.get(octets)
        if address is None:
            if len(self._addresses) >= _KEPT:
                self._addresses.clear()
            address = self._addresses[octets] = unpack(octets)
        return address

    def _go_on(self) -> None:
        """Send what is left of the output; when nothing is, it is cleared."""
        sent = int(lib.halo_kcp_batch_send(self._batch, self._output, self._from, self._group, self._error))
        if self._error[0]:
            self._tell_error(OSError(self._error[0], os.strerror(self._error[0])))
        if sent >= 0:
            self._from += sent
            if self._from >= self._output.count:
                lib.halo_kcp_output_clear(self._output)
                self._output = None

    def _on_room(self) -> None:
        self._go_on()
        if self._output is None:
            self._loop.remove_writer(self._socket.fileno())
            self.is_blocked = False
            if self._owner is not None:
                self._owner.room()

    def _tell_error(self, error: OSError) -> None:
        """Later: who sends is in the middle of something."""
        self._loop.call_soon(self._tell_now, error)

    def _tell_now(self, error: OSError) -> None:
        if self._owner is not None:
            self._owner.take_error(error)


_COUNTERS: Final = ("receive_calls", "send_calls", "received", "sent", "truncated", "undelivered")


def enlarge(sock: Any) -> None:
    """Ask for buffers that hold what comes in a turn of Python's; as much as the system allows."""
    for forced, option in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, SOCKET_BUFFER_OCTETS)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_OCTETS)


def adopt(transport: Any) -> socket.socket | None:
    """Take the socket of a datagram transport of asyncio, which is closed; None when it is none of the kernel's."""
    sock = transport.get_extra_info("socket")
    if transport.get_extra_info("halo") or sock is None or sock.fileno() < 0:
        return None
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    own = socket.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
    transport.abort()
    return own
