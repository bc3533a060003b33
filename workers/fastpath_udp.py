# SPDX-License-Identifier: Apache-2.0
"""UDP of the native fast path: sockets, and the datagrams that the last poll has parked.

Hot path. Rules: no object per datagram here; parked datagrams and views of them end with `release`, before the next
poll.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Any, Final

from halo_mp.shm.layout import ffi, lib
from halo_mp.shm.sockets import Socket, SocketFlag
from halo_mp.wire.ipv4 import PROTOCOL_UDP
from halo_mp.workers.fastpath import DROP_NUMBERS, FastPath

RECORD: Final = struct.Struct("=QIIIHH")
"""source address << 16 | port, offset of the payload, socket, destination address, octets, interface"""
MOST: Final[int] = lib.HALO_WIDE_BURST
MOST_OWN: Final[int] = lib.HALO_MAX_OWN_SOCKETS

assert RECORD.size == ffi.sizeof("struct halo_datagram")


class DatagramPath:
    """One per process, beside its FastPath."""

    def __init__(self, fastpath: FastPath) -> None:
        self.worker = fastpath.pointer
        self._counters: Any = fastpath.slot.worker
        self._wanted = ffi.new("struct halo_socket *")
        self._number = ffi.new("uint32_t *")
        self.slot = int(fastpath.slot.geometry.slot)
        told = lib.halo_worker_datagrams(self.worker)
        self.told = memoryview(ffi.buffer(told, MOST * RECORD.size))
        """A RECORD for each parked datagram, and what is left of earlier ones behind them."""
        self.pool = ffi.buffer(fastpath.pool, fastpath.pool_octets)
        """A slice of it is bytes."""

    @property
    def count(self) -> int:
        """How many datagrams the last poll has parked."""
        return int(lib.halo_worker_datagram_count(self.worker))

    @property
    def only_socket(self) -> int:
        """The number of the socket that all of them are for; -1: they are for several."""
        return int(lib.halo_worker_datagrams_socket(self.worker))

    def open(self, wanted: Socket) -> int:
        """Open a socket and return its number. Raises OSError: EADDRINUSE when another of ours has the place, or ENFILE
        when MOST_OWN are open.
        """
        number = int(lib.halo_worker_open_socket(self.worker, self._fill(wanted)))
        if number < 0:
            raise OSError(-number, os.strerror(-number))
        return number

    def is_taken(self, wanted: Socket) -> bool:
        """Whether another worker has the place, as far as is known here."""
        return bool(lib.halo_worker_check_socket(self.worker, self._fill(wanted)))

    def close(self, number: int) -> None:
        """Close a socket of ours, if it is open."""
        if self.worker:
            lib.halo_worker_close_socket(self.worker, number)

    def set_options(self, number: int, *, ttl: int, tos: int) -> None:
        """Say what datagrams of a socket are sent with. Raises OSError for impossible values."""
        if self.worker and lib.halo_worker_set_socket(self.worker, number, ttl, tos):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def find(self, datagram: Socket) -> tuple[int | None, int | None]:
        """Return the slot whose worker has the socket for a datagram, and its number if it is ours.

        `datagram` has our address and port as its own, and those of who sent it as the peer's.
        """
        slot = lib.halo_worker_find_socket(self.worker, self._fill(datagram), 0, self._number)
        if slot < 0:
            return None, None
        return slot, int(self._number[0]) if slot == self.slot else None

    def release(self) -> None:
        """End all parked datagrams that are not ended yet."""
        lib.halo_worker_release_datagrams(self.worker)

    def drop(self, index: int, reason: str) -> None:
        """End a parked datagram, counted as dropped."""
        lib.halo_worker_drop_datagram(self.worker, index, DROP_NUMBERS[reason])

    def reply(self, index: int, octets: bytes | None) -> int:
        """Send a parked datagram back in its own buffer, its own octets when None; 0, or a negative errno."""
        if octets is None:
            return int(lib.halo_worker_reply_datagram(self.worker, index, ffi.NULL, 0))
        return int(lib.halo_worker_reply_datagram(self.worker, index, octets, len(octets)))

    def reply_all(self, which: Any, lengths: Any) -> int:
        """Send datagrams back in their buffers as they are; return how many went.

        Both are contiguous buffers: their indices (uint32), and how many octets of payload each has (uint16).
        """
        numbers = ffi.from_buffer("uint32_t[]", which)
        octets = ffi.from_buffer("uint16_t[]", lengths)
        return int(lib.halo_worker_reply_datagrams(self.worker, numbers, octets, len(numbers)))

    def send(self, number: int, to: int, octets: bytes) -> int:
        """Send a datagram to address << 16 | port; 0, or a negative errno.

        EAGAIN: by the Python stack; ENOBUFS: there is no buffer now; EBADF: the socket is closed; EPERM: this is
        another thread than the worker's.
        """
        return int(lib.halo_worker_send_datagram(self.worker, number, to, octets, len(octets)))

    def count_datagrams(self, *, received: int = 0, sent: int = 0) -> None:
        """Count datagrams that went by the Python stack."""
        lib.halo_worker_count_datagrams(self.worker, received, sent)

    def count_drop(self, reason: str) -> None:
        """Count a datagram of ours that ended before it had a buffer."""
        if self.worker:
            lib.halo_worker_count_drop(self.worker, DROP_NUMBERS[reason])

    def detach(self) -> None:
        """Touch the fast path no more: it goes."""
        self.worker = ffi.NULL

    def leave_counters(self) -> None:
        """Count no more: the slot is another worker's soon, and then unmapped."""
        self._counters = None

    def count_error(self) -> None:
        """Count an exception of the application, as long as the slot is ours."""
        if self._counters is not None:
            self._counters.app_errors += 1

    def _fill(self, wanted: Socket) -> Any:
        entry = self._wanted
        entry.address, entry.port = wanted.address, wanted.port
        entry.peer, entry.peer_port = wanted.peer, wanted.peer_port
        entry.protocol, entry.flags = wanted.protocol, wanted.flags
        return entry


def udp_socket(
    address: int, port: int, peer: int = 0, peer_port: int = 0, *, shared: bool = False, slot: int = 0
) -> Socket:
    """Return a UDP socket as the tables have it."""
    return Socket(
        protocol=PROTOCOL_UDP,
        port=port,
        address=address,
        peer_port=peer_port,
        peer=peer,
        slot=slot,
        flags=SocketFlag.SHARED if shared else SocketFlag.NONE,
    )
