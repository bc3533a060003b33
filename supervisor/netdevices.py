# SPDX-License-Identifier: Apache-2.0
"""The kernel's network devices of this namespace, as rtnetlink(7) tells of them: all of them once, then each change.

The driver listens itself, without pyroute2, whose import would take longer than the start of a port. Anybody may
listen; nothing is ever changed here.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

IFF_UP, IFF_RUNNING = 0x1, 0x40

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP = 0x1 | 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR: devices changed while they were listed
_RTMGRP_LINK = 1
_IFLA_IFNAME = 3
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_RECEIVE_OCTETS = 256 << 10
_BUFFER_OCTETS = 1 << 20
_ATTEMPTS = 5  # to get a whole list, in one call


@dataclass(frozen=True, slots=True)
class NetDevice:
    """A network device of the kernel's."""

    index: int
    name: str
    flags: int

    @property
    def is_up(self) -> bool:
        """Whether somebody has set it up."""
        return bool(self.flags & IFF_UP)

    @property
    def has_link(self) -> bool:
        """Whether frames can pass: it is up and has a carrier."""
        return self.flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING


class NetDevices:
    """Listens from its making to `close`. `receive` calls back for each change, in the kernel's order."""

    def __init__(self, on_gone: Callable[[NetDevice], None], on_change: Callable[[NetDevice], None]) -> None:
        """Ask for all devices; nobody is called back for those. Raises OSError where there is no rtnetlink."""
        self._on_gone = on_gone
        self._on_change = on_change
        self._by_index: dict[int, NetDevice] = {}
        self._listed: set[int] | None = None  # while the kernel lists all of them: which it has named
        self._must_ask = True  # at first, and when we may have missed something
        self._known = False
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)
            self._socket.bind((0, _RTMGRP_LINK))
            self.receive()
        except OSError:
            self._socket.close()
            raise
        self._known = True

    def fileno(self) -> int:
        """Readable when `receive` has something to do."""
        return self._socket.fileno()

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def get(self, index: int) -> NetDevice | None:
        """Return the device of that index as far as it was told of."""
        return self._by_index.get(index)

    def find(self, name: str) -> NetDevice | None:
        """Return the device of that name as far as it was told of."""
        return next((device for device in self._by_index.values() if device.name == name), None)

    def receive(self) -> None:
        """Take in what the kernel has said since the last call."""
        self._drain()
        for _ in range(_ATTEMPTS):
            if not self._must_ask:
                break
            self._ask()
            self._drain()

    def _drain(self) -> None:
        while True:
            try:
                octets = self._socket.recv(_RECEIVE_OCTETS)
            except BlockingIOError:
                return
            except (OSError, MemoryError) as error:
                self._must_ask = True
                if isinstance(error, OSError) and error.errno == errno.ENOBUFS:
                    continue  # we were too slow, and something is lost; the rest can be read
                return
            for kind, flags, body in _messages(octets):
                self._handle(kind, flags, body)

    def _ask(self) -> None:
        self._must_ask, self._listed = False, set()
        body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        request = _HEADER.pack(_HEADER.size + len(body), _RTM_GETLINK, _REQUEST_DUMP, 0, 0) + body
        try:
            self._socket.send(request)
        except OSError:  # no memory for it now
            self._must_ask = True

    def _handle(self, kind: int, flags: int, body: bytes) -> None:
        if kind == _NLMSG_ERROR or flags & _INTERRUPTED:
            self._must_ask = True
        elif kind == _NLMSG_DONE:
            self._end_list()
        elif kind in (_RTM_NEWLINK, _RTM_DELLINK) and (device := parse_device(body)) is not None:
            if kind == _RTM_DELLINK:
                self._remove(device.index)
            else:
                self._add(device)

    def _end_list(self) -> None:
        """Everything that there is was named, unless something was missed meanwhile."""
        if self._listed is not None and not self._must_ask:
            for index in self._by_index.keys() - self._listed:
                self._remove(index)
        self._listed = None

    def _add(self, device: NetDevice) -> None:
        if self._listed is not None:
            self._listed.add(device.index)
        if self._by_index.get(device.index) != device:
            self._by_index[device.index] = device
            if self._known:
                self._on_change(device)

    def _remove(self, index: int) -> None:
        device = self._by_index.pop(index, None)
        if device is not None and self._known:
            self._on_gone(device)


def parse_device(body: bytes) -> NetDevice | None:
    """Return the device that an RTM_NEWLINK or RTM_DELLINK is about; None when it is about a bridge's port."""
    if len(body) < _LINK.size:
        return None
    family, _, index, flags, _ = _LINK.unpack_from(body)
    if family != socket.AF_UNSPEC:
        return None
    name = next((value for kind, value in _attributes(body[_LINK.size :]) if kind == _IFLA_IFNAME), b"")
    return NetDevice(index, name.rstrip(b"\0").decode(errors="replace"), flags)


def _messages(octets: bytes) -> Iterator[tuple[int, int, bytes]]:
    while len(octets) >= _HEADER.size:
        length, kind, flags, *_ = _HEADER.unpack_from(octets)
        if not _HEADER.size <= length <= len(octets):
            return
        yield kind, flags, octets[_HEADER.size : length]
        octets = octets[_aligned(length) :]


def _attributes(octets: bytes) -> Iterator[tuple[int, bytes]]:
    while len(octets) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(octets)
        if not _ATTRIBUTE.size <= length <= len(octets):
            return
        yield kind, octets[_ATTRIBUTE.size : length]
        octets = octets[_aligned(length) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3
