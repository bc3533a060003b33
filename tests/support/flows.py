# SPDX-License-Identifier: Apache-2.0
"""UDP between kernels: datagrams that are counted where they arrive, and errors as the sender is told of them."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from tests.support.namespace import Namespace, wait_until
from tests.support.station import socket_in

_IP_PKTINFO, _IP_RECVERR = 8, 11
_IP_MTU_DISCOVER, _IP_PMTUDISC_DONT, _IP_PMTUDISC_PROBE = 10, 0, 3
_SO_RCVBUFFORCE = 33
_RECEIVE_OCTETS = 32 << 20
_ERROR = struct.Struct("=IBBBBII")  # struct sock_extended_err: errno, origin, type, code, pad, info, data
_ORIGIN_ICMP = 2
_LOOK_S = 0.1  # how often a listener looks whether it is wanted any more
_BURST = 20  # datagrams between two looks at the clock


class Told(NamedTuple):
    """An ICMP error as a socket gets it: the next hop's MTU is 0 where none was told."""

    type: int
    code: int
    by: str
    mtu: int


class Datagram(NamedTuple):
    """What arrived, from whom, and at which of the receiver's addresses."""

    data: bytes
    source: tuple[str, int]
    dst: str


class Listener:
    """A UDP port of a kernel, on all its addresses. What comes is taken from it at once. Use as a context manager."""

    def __init__(self, namespace: Namespace, port: int) -> None:
        self._socket = socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_OCTETS)
        except PermissionError:  # in a user namespace: as much as everybody may have, some hundred datagrams
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_OCTETS)
        self._socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._socket.bind(("0.0.0.0", port))
        self._socket.settimeout(_LOOK_S)
        self._arrived: deque[Datagram] = deque()
        self._enough = threading.Event()
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._reader.join()
        self._socket.close()

    def arrived(self) -> list[Datagram]:
        """Return what has come since the last call."""
        return [self._arrived.popleft() for _ in range(len(self._arrived))]

    def _read(self) -> None:
        while not self._enough.is_set():
            try:
                data, ancillary, _, source = self._socket.recvmsg(65536, 64)
            except TimeoutError:
                continue
            [(_, _, info)] = ancillary
            self._arrived.append(Datagram(data, source, socket.inet_ntoa(info[8:12])))


def gather(listeners: Sequence[Listener], count: int) -> list[Datagram]:
    """Wait until so many datagrams have arrived; return them."""
    found: list[Datagram] = []

    def enough() -> bool:
        found.extend(each for listener in listeners for each in listener.arrived())
        return len(found) >= count

    wait_until(enough, timeout_s=20, what=f"{count} datagrams")
    return found


def sender(namespace: Namespace, *, port: int = 0) -> socket.socket:
    """Return a UDP socket that lets its packets be fragmented."""
    made = socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
    made.bind(("0.0.0.0", port))
    return made


def send_paced(out: socket.socket, to: Iterable[tuple[str, int]], data: bytes, rate_pps: float) -> None:
    """Send one datagram to each address, no faster than that: time without the processor is not made up for."""
    at = time.monotonic()
    for number, address in enumerate(to):
        if number % _BURST == 0:
            time.sleep(max(0.0, at - time.monotonic()))
            at = max(at, time.monotonic()) + _BURST / rate_pps
        out.sendto(data, address)


class Asker:
    """A connected UDP socket that is told of ICMP errors."""

    def __init__(self, namespace: Namespace, address: str, port: int = 9) -> None:
        self._socket = sender(namespace)
        self._socket.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        self._socket.connect((address, port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes = b"halo") -> None:
        """Send a datagram."""
        self._socket.send(data)

    def forbid_fragments(self) -> None:
        """Send with DF from now on, however long the datagrams are and whatever the kernel knows of the path."""
        self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)

    def told(self, *, timeout_s: float = 15.0) -> Told | None:
        """Return the first error that comes in that time, None when none does."""
        poll = select.poll()
        poll.register(self._socket, 0)  # POLLERR comes by itself
        if not poll.poll(timeout_s * 1000):
            return None
        _, ancillary, _, _ = self._socket.recvmsg(2048, 512, socket.MSG_ERRQUEUE)
        [(_, _, octets)] = ancillary
        _, origin, kind, code, _, info, _ = _ERROR.unpack_from(octets)
        assert origin == _ORIGIN_ICMP
        return Told(kind, code, socket.inet_ntoa(octets[_ERROR.size + 4 : _ERROR.size + 8]), info)
