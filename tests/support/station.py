# SPDX-License-Identifier: Apache-2.0
"""A station on a link of a test's namespace: sends any octets, and hears every frame that arrives there.

A packet socket. What the kernel itself sends on the interface is not heard. Tags that the kernel has taken
out of a frame are put back where they stood.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.namespace import Namespace

ETH_P_ALL = 3
_SOL_PACKET, _PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 263, 8, 23
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_VLAN_VALID, _VLAN_TPID_VALID = 1 << 4, 1 << 6
_AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
_RECEIVE_OCTETS = 8 << 20
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Heard:
    """A frame, the interface that it came in by, and when the kernel saw it (CLOCK_REALTIME)."""

    octets: bytes
    interface: str
    at: float

    @property
    def dst(self) -> bytes:
        return self.octets[:6]

    @property
    def src(self) -> bytes:
        return self.octets[6:12]

    @property
    def ethertype(self) -> int:
        return int.from_bytes(self.octets[12:14], "big")


class Station:
    """Use as a context manager. Without an interface it hears all of the namespace, later ones too."""

    def __init__(self, namespace: Namespace, interface: str | None = None) -> None:
        self.interface = interface
        # With a protocol it hears every interface from the start; without, nothing before it is bound to one.
        protocol = 0 if interface else socket.htons(ETH_P_ALL)
        self._socket = socket_in(namespace, socket.AF_PACKET, socket.SOCK_RAW, protocol)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_OCTETS)
        except PermissionError:  # in a user namespace: as much as everybody may have, some hundred frames
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_OCTETS)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        if interface:
            self._socket.bind((interface, ETH_P_ALL))
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def mac(self) -> bytes:
        """The MAC address of the interface."""
        address: bytes = self._socket.getsockname()[4]
        return address

    def send(self, frame: bytes) -> None:
        """Send a frame as it stands, out of the interface."""
        assert self._socket.send(frame) == len(frame)

    def heard(self) -> list[Heard]:
        """Return what has arrived since the last call, without waiting."""
        found = []
        while (frame := self._receive()) is not None:
            found.append(frame)
        return found

    def listen(
        self,
        wanted: Callable[[Heard], bool],
        *,
        count: int = 1,
        timeout_s: float = 10.0,
        what: str = "a frame",
    ) -> list[Heard]:
        """Wait for `count` frames that are wanted and return them; others that come meanwhile are forgotten."""
        deadline = time.monotonic() + timeout_s
        found: list[Heard] = []
        while len(found) < count:
            frame = self._receive()
            if frame is not None:
                found += [frame] if wanted(frame) else []
            elif not select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"{what}: {len(found)} of {count} within {timeout_s:g} s")
        return found

    def close(self) -> None:
        """Leave. May be called twice."""
        self._socket.close()

    def _receive(self) -> Heard | None:
        try:
            octets, ancillary, _, address = self._socket.recvmsg(65536, 256)
        except BlockingIOError:
            return None
        at = 0.0
        for level, kind, data in ancillary:
            if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                octets = _with_tag(octets, data)
            elif (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("=qq", data)
                at = seconds + nanoseconds / 1e9
        return Heard(octets, address[0], at)


def socket_in(namespace: Namespace, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """Return a socket that belongs to a namespace, for good."""
    made: list[socket.socket | OSError] = []

    def make() -> None:
        # The namespace is changed for this thread alone, which then ends.
        try:
            _enter(namespace.path)
            made.append(socket.socket(family, kind, protocol))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def _enter(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(path).open("rb") as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)


def _with_tag(octets: bytes, data: bytes) -> bytes:
    status, _, _, _, _, tci, tpid = _AUXDATA.unpack_from(data)
    if not status & _VLAN_VALID:
        return octets
    tag = struct.pack("!HH", tpid if status & _VLAN_TPID_VALID else 0x8100, tci)
    return octets[:12] + tag + octets[12:]
