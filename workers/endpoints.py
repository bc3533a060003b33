# SPDX-License-Identifier: Apache-2.0
"""Datagram transports on the halo stack, with the manners of asyncio's own over kernel sockets.

What differs: nothing is ever written to a descriptor, so there is none (`fileno` of the socket is -1); names are not
resolved in `sendto`; addresses that make no sense are the caller's error, and do not end the endpoint; datagrams of no
octets are sent, also before Python 3.12; `datagram_received` is looked up once; what waits because buffers are short is
bounded.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections import deque
from collections.abc import Callable
from types import NoneType
from typing import Any, Final

from halo_mp.shm.layout import lib
from halo_mp.wire.ipv4 import parse_address
from halo_mp.workers.fastpath_udp import DatagramPath
from halo_mp.workers.udp import BurstReceiver, HostPort, UdpSockets

HIGH_WATER_OCTETS: Final = 64 * 1024
MOST_WAITING_OCTETS: Final = 1 << 20
RETRY_S: Final = 0.001
"""Until buffers are looked for again that were not there."""
IP_RECVERR: Final = 11
_ADDRESSES_KEPT: Final = 65536
_TTL: Final = 64
_BUFFER_OCTETS: Final = 212992
"""What Linux says of a socket that nobody has set; ours have the ring's room."""
_INT_OCTETS: Final = 4

_send = lib.halo_worker_send_datagram


class Destinations(dict[Any, int]):
    """From the pairs that protocols send to, to address << 16 | port."""

    def __missing__(self, pair: Any) -> int:
        host, port = pair[0], pair[1]
        try:
            address = parse_address(host) if host else 0
        except ValueError:
            raise socket.gaierror(
                socket.EAI_NONAME, f"{host!r} is no IPv4 address; names are not resolved here"
            ) from None
        if port == 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if not 0 <= port < 65536:
            raise OverflowError(f"port {port} is none; ports are 0 to 65535")
        if len(self) >= _ADDRESSES_KEPT:
            self.clear()
        key: int = address << 16 | port
        self[pair] = key
        return key


class HaloSocket:
    """What `get_extra_info("socket")` gives: names and options, no descriptor. As `asyncio.trsock.TransportSocket`."""

    family = socket.AF_INET
    type = socket.SOCK_DGRAM
    proto = socket.IPPROTO_UDP

    def __init__(
        self,
        name: HostPort,
        peer: HostPort | None,
        on_option: Callable[[], None],
        *,
        broadcast: bool = False,
        shared: bool = False,
    ) -> None:
        self._name = name
        self._peer = peer
        self._on_option = on_option
        self._options: dict[tuple[int, int], Any] = {
            (socket.IPPROTO_IP, socket.IP_TTL): _TTL,
            (socket.IPPROTO_IP, socket.IP_TOS): 0,
            (socket.SOL_SOCKET, socket.SO_TYPE): int(self.type),
            (socket.SOL_SOCKET, socket.SO_DOMAIN): int(self.family),
            (socket.SOL_SOCKET, socket.SO_PROTOCOL): self.proto,
            (socket.SOL_SOCKET, socket.SO_RCVBUF): _BUFFER_OCTETS,
            (socket.SOL_SOCKET, socket.SO_SNDBUF): _BUFFER_OCTETS,
            (socket.SOL_SOCKET, socket.SO_BROADCAST): int(broadcast),
            (socket.SOL_SOCKET, socket.SO_REUSEPORT): int(shared),
        }

    def __repr__(self) -> str:
        return f"<HaloSocket laddr={self._name}{'' if self._peer is None else f', raddr={self._peer}'}>"

    def fileno(self) -> int:
        """Return -1: there is none."""
        return -1

    def getsockname(self) -> HostPort:
        """Return our address and port."""
        return self._name

    def getpeername(self) -> HostPort:
        """Return the address and port that it is connected to. Raises OSError when it is not."""
        if self._peer is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self._peer

    def setsockopt(self, level: int, option: int, value: Any = 0, *_: Any) -> None:
        """Set an option. IP_TTL, IP_TOS, IP_RECVERR and SO_BROADCAST do what they say, others are remembered.

        Raises TypeError and OverflowError as sockets do, and OSError for a TTL or TOS that can not be.
        """
        if isinstance(value, (bytes, bytearray, memoryview)) and len(value) <= _INT_OCTETS:
            value = int.from_bytes(value, sys.byteorder, signed=True)
        if isinstance(value, int):
            value.to_bytes(_INT_OCTETS, sys.byteorder, signed=True)  # OverflowError
        elif not isinstance(value, (bytes, bytearray, memoryview, NoneType)):
            raise TypeError(f"a bytes-like object is required, not {type(value).__name__!r}")
        if (level, option, value) == (socket.IPPROTO_IP, socket.IP_TTL, -1):
            value = _TTL  # ip(7): as it was
        before = self._options.get((level, option), 0)
        self._options[level, option] = value
        try:
            self._on_option()
        except OSError:
            self._options[level, option] = before
            raise

    def getsockopt(self, level: int, option: int, buflen: int = 0) -> Any:
        """Return an option as it was set, or 0; as octets when a length is given."""
        value = self._options.get((level, option), 0)
        if buflen and isinstance(value, int):
            return value.to_bytes(_INT_OCTETS, sys.byteorder, signed=True)[:buflen]
        return value

    def gettimeout(self) -> float:
        """Return 0: nothing here blocks."""
        return 0

    def settimeout(self, value: float) -> None:
        """Take 0. Raises ValueError for others, as asyncio's do."""
        if value:
            raise ValueError("settimeout(): only 0 timeout is allowed on transport sockets")

    def setblocking(self, flag: bool) -> None:
        """Take False. Raises ValueError for True, as asyncio's do."""
        if flag:
            raise ValueError("setblocking(): transport sockets cannot be blocking")

    def get_inheritable(self) -> bool:
        """Return False: there is nothing to inherit."""
        return False


class HaloDatagramTransport(asyncio.DatagramTransport):
    """A datagram endpoint of the halo stack."""

    def __init__(
        self,
        sockets: UdpSockets,
        number: int,
        protocol: asyncio.DatagramProtocol,
        *,
        peer: HostPort | None,
        broadcast: bool,
        shared: bool = False,
    ) -> None:
        """Made by `loop.create_datagram_endpoint`, for a socket that is open."""
        name = sockets.name(number)
        self._sockets = sockets
        self._number = number
        self._path = sockets.path
        self._destinations = Destinations()
        self._peer = peer
        self._to = None if peer is None else self._destinations[peer]
        self._socket = HaloSocket(name, peer, self._take_options, broadcast=broadcast, shared=shared)
        self._extra_info = {"sockname": name, "peername": peer, "socket": self._socket, "halo": True}
        super().__init__(self._extra_info)
        self._broadcast = broadcast
        self._ttl, self._tos, self._wants_errors = _TTL, 0, False
        self._closing = False
        self._lost = False
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._waiting_octets = 0
        self._retry: asyncio.TimerHandle | None = None
        self._paused = False
        self._has_bursts = False
        self._high, self._low = HIGH_WATER_OCTETS, HIGH_WATER_OCTETS // 4
        self._protocol = protocol
        sockets.bind(number, self)

    def __repr__(self) -> str:
        state = "closed" if self._lost else "closing" if self._closing else "open"
        return f"<HaloDatagramTransport {state} {self._socket.getsockname()} peer={self._peer}>"

    # ---- what asyncio knows

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol have what comes from now on."""
        self._protocol = protocol  # type: ignore[assignment]
        self._has_bursts = False
        if not self._lost:
            self._sockets.set_receiver(self._number, self._receiver())

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the current protocol."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether it is closing or closed."""
        return self._closing

    def is_reading(self) -> bool:
        """Whether datagrams are received."""
        return not self._closing

    def receive_bursts(self, receiver: BurstReceiver) -> tuple[DatagramPath, int]:
        """Let somebody have what comes, parked, until another protocol is set; what the Python stack puts together, and
        errors, stay the protocol's. Returns by what to send, and the socket's number there.
        """
        self._has_bursts = True
        self._sockets.bind_burst(self._number, receiver)
        return self._path, self._number

    def start(self, waiter: asyncio.Future[None]) -> None:
        """Tell the protocol, then let it have datagrams."""
        self._sockets.loop.call_soon(self._start, waiter)

    def _start(self, waiter: asyncio.Future[None]) -> None:
        self._call(self._protocol.connection_made, self)
        if not self._lost:
            self._sockets.set_receiver(self._number, self._receiver())
        if not waiter.done():
            waiter.set_result(None)

    def sendto(self, data: bytes | bytearray | memoryview, addr: Any = None) -> None:
        """Send a datagram, to the peer of a connected endpoint. Errors go to the protocol's error_received."""
        if type(data) is not bytes:
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
            data = bytes(data)
        to = self._to
        if to is None:
            if addr is None:
                raise ValueError("this endpoint is not connected: sendto() needs an address")
            try:
                to = self._destinations[addr]
            except OSError as error:
                self._tell_error(error)
                return
        elif addr is not None and tuple(addr[:2]) != self._peer:
            raise ValueError(f"Invalid address: must be None or {self._peer}")
        if self._waiting:
            self._wait(to, data)
            return
        # DatagramPath.send without a call of its own: this is what an echo costs.
        result = _send(self._path.worker, self._number, to, data, len(data))
        if result:
            self._send_otherwise(-result, to, data)

    def close(self) -> None:
        """Receive no more; what waits is sent, then connection_lost is called."""
        if self._closing:
            return
        self._closing = True
        self._sockets.set_receiver(self._number, _ignore)
        if not self._waiting:
            self._sockets.loop.call_soon(self._end, None)

    def abort(self) -> None:
        """Close at once; what waits is lost."""
        self._waiting.clear()
        self._waiting_octets = 0
        if not self._closing:
            self.close()
        else:
            self._sockets.loop.call_soon(self._end, None)

    def get_write_buffer_size(self) -> int:
        """Return the octets that wait for a buffer."""
        return self._waiting_octets

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and the high mark of what may wait."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Say at how much that waits the protocol is paused, and at how little it is resumed. Raises ValueError."""
        high = HIGH_WATER_OCTETS if high is None and low is None else 4 * (low or 0) if high is None else high
        low = high // 4 if low is None else low
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._consider_pausing()

    # ---- what the sockets say

    def receive(self, data: bytes, source: HostPort, dst: int) -> None:
        """Give the protocol what came by the Python stack, when bursts are somebody else's; else it is too early."""
        if self._has_bursts and not self._closing:
            self._protocol.datagram_received(data, source)

    def receive_error(self, error: OSError, asked: bool) -> None:
        """Tell the protocol what a datagram met."""
        if self._lost or (asked and not self._wants_errors):
            return
        self._tell_error(error)

    # ---- private

    def _receiver(self) -> Callable[[bytes, HostPort], None]:
        return _ignore if self._closing else self._protocol.datagram_received

    def _take_options(self) -> None:
        options = self._socket.getsockopt
        ttl, tos = options(socket.IPPROTO_IP, socket.IP_TTL), options(socket.IPPROTO_IP, socket.IP_TOS)
        if (ttl, tos) != (self._ttl, self._tos):
            self._sockets.path.set_options(self._number, ttl=int(ttl), tos=int(tos))
            self._ttl, self._tos = int(ttl), int(tos)
        self._wants_errors = bool(options(socket.IPPROTO_IP, IP_RECVERR))
        self._broadcast = bool(options(socket.SOL_SOCKET, socket.SO_BROADCAST))

    def _send_otherwise(self, code: int, to: int, data: bytes) -> None:
        if code == errno.EPERM:
            raise RuntimeError(
                "sendto() was called in another thread than the event loop's, which endpoints are not made for. Write: "
                "loop.call_soon_threadsafe(transport.sendto, data, addr)"
            )
        if code == errno.EAGAIN:
            code = self._send_by_stack(to, data)
        if code == errno.ENOBUFS:
            self._wait(to, data)
        elif code and not self._lost:
            self._tell_error(OSError(code, os.strerror(code)))

    def _send_by_stack(self, to: int, data: bytes) -> int:
        if not self._broadcast and self._sockets.is_broadcast(to >> 16):
            return errno.EACCES
        return self._sockets.send_by_stack(self._number, to, data, ttl=self._ttl, tos=self._tos)

    def _tell_error(self, error: OSError) -> None:
        self._call(self._protocol.error_received, error)

    def _wait(self, to: int, data: bytes) -> None:
        if self._waiting_octets + len(data) > MOST_WAITING_OCTETS:
            self._sockets.path.count_drop("no_spare_buffer")
            return
        self._waiting.append((to, data))
        self._waiting_octets += len(data)
        if self._retry is None:
            self._retry = self._sockets.loop.call_later(RETRY_S, self._send_waiting)
        self._consider_pausing()

    def _send_waiting(self) -> None:
        self._retry = None
        while self._waiting:
            to, data = self._waiting[0]
            code = -self._path.send(self._number, to, data)
            if code == errno.ENOBUFS:
                self._retry = self._sockets.loop.call_later(RETRY_S, self._send_waiting)
                break
            self._waiting.popleft()
            self._waiting_octets -= len(data)
            if code:
                self._send_otherwise(code, to, data)
        self._consider_resuming()
        if self._closing and not self._waiting:
            self._end(None)

    def _consider_pausing(self) -> None:
        if self._waiting_octets > self._high and not self._paused:
            self._paused = True
            self._call(self._protocol.pause_writing)

    def _consider_resuming(self) -> None:
        if self._paused and self._waiting_octets <= self._low:
            self._paused = False
            self._call(self._protocol.resume_writing)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call the protocol; an exception of its costs nothing else."""
        try:
            function(*arguments)
        except BaseException:
            self._sockets.report_error()

    def end(self, error: Exception | None) -> None:
        """The socket is no more, whoever closed it."""
        self._closing = True
        self._waiting.clear()
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = True
        if self._retry is not None:
            self._retry.cancel()
        self._sockets.close(self._number)
        self._call(self._protocol.connection_lost, error)


def _ignore(data: bytes, source: HostPort) -> None:
    """What comes to an endpoint that is closing, or not yet there."""
