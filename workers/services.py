# SPDX-License-Identifier: Apache-2.0
"""UDP services of the application (`@app.udp`): its functions get datagrams in their buffers, one by one or by bursts.

Hot path for form burst. Rules: nothing per datagram but what NumPy does; columns are copies of what C says of
datagrams, so that one who keeps them keeps no shared memory.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from halo_mp.app.udp import Datagram, UdpService
from halo_mp.errors import HaloError
from halo_mp.wire.ipv4 import format_address, parse_address
from halo_mp.workers.fastpath import FastPath
from halo_mp.workers.udp import HostPort, Record, UdpSockets

if TYPE_CHECKING:
    from halo_mp.app import udp_burst


class Services:
    """The services of one worker."""

    def __init__(self, sockets: UdpSockets, fastpath: FastPath) -> None:
        self._sockets = sockets
        self._fastpath = fastpath

    async def start(self, services: Iterable[UdpService]) -> None:
        """Open their sockets. Raises HaloError with a sentence when one can not be had."""
        for service in services:
            try:
                number = self._open(service)
                await self._sockets.confirm(number)
            except OSError as error:
                raise HaloError(_refusal(service, error)) from None

    def _open(self, service: UdpService) -> int:
        if service.address is not None and not self._sockets.is_own(service.address):
            raise OSError(errno.EADDRNOTAVAIL, "")
        number = self._sockets.open(service.address or 0, service.port, shared=service.shared)
        self._sockets.bind(number, self._receiver(service, number))
        return number

    def _receiver(self, service: UdpService, number: int) -> _Service:
        if service.form == "datagram":
            single = _DatagramService(service, number, self._sockets, self._fastpath)
            self._sockets.bind_parked(number, single)
            return single
        burst = _BurstService(service, number, self._sockets, self._fastpath)
        self._sockets.bind_burst(number, burst)
        return burst


class _Service:
    """What both forms have in common; a `halo_mp.app.udp.Parked`."""

    def __init__(self, service: UdpService, number: int, sockets: UdpSockets, fastpath: FastPath) -> None:
        self.function = service.function
        self._number = number
        self._sockets = sockets
        self._path = sockets.path
        self._fastpath = fastpath
        self._pool = memoryview(self._path.pool)

    def view(self, offset: int, length: int) -> memoryview:
        """Return octets of the pool, writable."""
        return self._pool[offset : offset + length]

    def reply(self, index: int, octets: bytes | None) -> bool:
        """Send a datagram back; False when it does not fit, or was sent or dropped before."""
        return self._path.reply(index, octets) == 0

    def reply_all(self, which: Any, lengths: Any) -> int:
        """Send datagrams back as they are; return how many went."""
        return self._path.reply_all(which, lengths)

    def drop(self, index: int) -> None:
        """Count a datagram as dropped by the application."""
        self._path.drop(index, "app_drop")

    def send(self, octets: bytes, address: int, port: int) -> bool:
        """Send a datagram from the service's socket; False when it was dropped, which is counted."""
        result = self._path.send(self._number, address << 16 | port, octets)
        if result == -errno.EAGAIN:
            return self._sockets.send_by_stack(self._number, address << 16 | port, octets) == 0
        if result == -errno.ENOBUFS:
            self._path.count_drop("no_spare_buffer")
        return result == 0

    def receive_error(self, error: OSError, asked: bool) -> None:
        """A service hears of no errors."""

    def receive(self, data: bytes, source: HostPort, dst: int) -> None:
        """Take a datagram that the Python stack has put together: it is in no buffer."""
        raise NotImplementedError

    def end(self, error: Exception | None) -> None:
        """The socket is closed."""


class _DatagramService(_Service):
    def receive_parked(self, index: int, record: Record) -> None:
        """Show the function a datagram."""
        datagram = Datagram(self, index, record, self._fastpath.burst_ns)
        try:
            self.function(datagram)
        finally:
            datagram._end()

    def receive(self, data: bytes, source: HostPort, dst: int) -> None:
        """Show the function a datagram that the Python stack has put together: it is in no buffer."""
        whole = _Whole(self, data, source)
        record = (whole.to, 0, self._number, dst, len(data), 0)
        datagram = Datagram(whole, 0, record, self._fastpath.burst_ns)
        try:
            self.function(datagram)
        finally:
            datagram._end()


class _BurstService(_Service):
    def __init__(self, service: UdpService, number: int, sockets: UdpSockets, fastpath: FastPath) -> None:
        super().__init__(service, number, sockets, fastpath)
        self._bursts, self._np = _load_bursts(service)
        self._octets = self._np.frombuffer(self._pool, dtype="u1")

    def receive_burst(self, told: bytearray, number: int) -> None:
        """Show the function those of its socket."""
        np = self._np
        records = np.frombuffer(told, dtype=self._bursts.RECORD)
        mine = records["socket"] == number
        count = int(np.count_nonzero(mine))
        if count == len(records):
            indices = np.arange(count, dtype="u4")
        else:
            indices = mine.nonzero()[0].astype("u4")
            records = records[indices]
        if count:
            self._show(self._bursts.DatagramBurst(self, records, indices, self._octets))

    def receive(self, data: bytes, source: HostPort, dst: int) -> None:
        """Show the function a burst of one datagram that the Python stack has put together: it is in no buffer."""
        whole = _Whole(self, data, source)
        record = (source[1], whole.to >> 16, 0, self._number, dst, len(data), 0)
        records = self._np.array([record], dtype=self._bursts.RECORD)
        octets = self._np.frombuffer(whole.octets, dtype="u1")
        self._show(self._bursts.DatagramBurst(whole, records, self._np.zeros(1, dtype="u4"), octets))

    def _show(self, burst: udp_burst.DatagramBurst) -> None:
        try:
            self.function(burst)
        finally:
            burst._end()


class _Whole:
    """A datagram outside of all buffers; a `halo_mp.app.udp.Parked`."""

    def __init__(self, service: _Service, data: bytes, source: HostPort) -> None:
        self.octets = bytearray(data)
        self.to = parse_address(source[0]) << 16 | source[1]
        self._service = service

    def view(self, offset: int, length: int) -> memoryview:
        """Return its octets, writable."""
        return memoryview(self.octets)[offset : offset + length]

    def reply(self, index: int, octets: bytes | None) -> bool:
        """Send it back."""
        return self.send(bytes(self.octets) if octets is None else octets, self.to >> 16, self.to & 0xFFFF)

    def reply_all(self, which: Any, lengths: Any) -> int:
        """Send it back, if it is chosen."""
        return sum(self.reply(0, bytes(self.octets[: int(length)])) for length in lengths)

    def drop(self, index: int) -> None:
        """It is counted already, as received."""

    def send(self, octets: bytes, address: int, port: int) -> bool:
        """Send another."""
        return self._service.send(octets, address, port)


def _load_bursts(service: UdpService) -> tuple[Any, Any]:
    try:
        import numpy

        from halo_mp.app import udp_burst
    except ImportError:
        raise HaloError(
            f"the UDP service {service.name} asks for form='burst', which needs NumPy, and there is none; type: "
            "pip install 'halo-mp[numpy]'"
        ) from None
    return udp_burst, numpy


def _refusal(service: UdpService, error: OSError) -> str:
    where = f"{'any address' if service.address is None else format_address(service.address)}, port {service.port}"
    if error.errno == errno.EADDRINUSE:
        why = (
            "another socket has that place. Choose another port, or let both say reuse_port=True; one in each worker "
            "needs that too"
        )
    elif error.errno == errno.EADDRNOTAVAIL:
        why = "no interface has that address. Leave the address out to have them all, or see --address"
    else:
        why = error.strerror or str(error)
    return f"the UDP service {service.name} can not be opened at {where}: {why}."
