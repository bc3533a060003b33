# SPDX-License-Identifier: Apache-2.0
"""A carrier on a datagram endpoint of the halo stack: a whole burst for each turn (native/kcp/parked.c).

The endpoint is one of a worker's event loop, which offers `receive_bursts`. What its fast path does not do, it does as
for any protocol: datagrams that the Python stack puts together, neighbors that are not known yet, errors. Hot path: no
Python per datagram; what is parked ends with the turn.
"""

from __future__ import annotations

import asyncio
import errno
from typing import Any, Final

from halo_mp._native import ffi, lib
from halo_mp.kcp.carriers import AsyncioCarrier, Owner
from halo_mp.kcp.peers import PEER, Address, unpack

RETRY_S: Final = 0.001
"""Until buffers are looked for again that were not there."""
_LEAST_ROOM: Final = 256


class BurstCarrier(AsyncioCarrier):
    """Made for a transport that has `receive_bursts`."""

    by_reference = True

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: Any) -> None:
        self._output: Any = None
        super().__init__(loop)
        self._parked = ffi.new("struct halo_kcp_parked *")
        self._outgoing_room = _LEAST_ROOM
        self._outgoing = ffi.new("struct halo_outgoing[]", self._outgoing_room)
        self._next = self._end = 0
        self._error = ffi.new("int32_t *")
        self._retry: asyncio.TimerHandle | None = None
        self._path: Any = None
        self._number = 0
        self.bursts = self.datagrams = self.waits = 0
        """That came, what was in them; and how often buffers were short."""
        transport.set_protocol(self)
        self.connection_made(transport)

    @property
    def is_blocked(self) -> bool:
        """Whether output waits, here or in the endpoint."""
        return self._is_paused or self._output is not None

    @is_blocked.setter
    def is_blocked(self, paused: bool) -> None:
        self._is_paused = paused

    @property
    def counters(self) -> dict[str, int]:
        """Bursts that came, and datagrams in them; waits for buffers to send from."""
        return {"bursts": self.bursts, "received": self.datagrams, "waits": self.waits}

    def start(self, owner: Owner) -> None:
        """Tell an endpoint what comes, from now on."""
        super().start(owner)
        self._path, self._number = self.transport.receive_bursts(self)
        self._pool = ffi.from_buffer("uint8_t[]", self._path.pool)

    # ---- what the worker says

    def receive_burst(self, told: Any, number: int) -> None:
        """Take what is parked for us."""
        owner, path, parked = self._owner, self._path, self._parked
        if owner is None:
            return
        if self._output is not None:  # time has passed: there may be buffers
            self._try_again()
        lib.halo_kcp_parked_find(
            parked,
            lib.halo_worker_datagrams(path.worker),
            path.count,
            number,
            self._pool,
            int(owner.has_control),
        )
        self.bursts += 1
        self.datagrams += parked.count + parked.control_count
        control = [self._control_packet(i) for i in range(parked.control_count)]
        owner.take(parked.incoming, parked.count, control)

    def _control_packet(self, i: int) -> tuple[bytes, Address]:
        one = self._parked.control[i]
        return ffi.buffer(one.octets, one.length)[:], unpack(
            ffi.buffer(ffi.addressof(one, "peer"), PEER.size)[:]
        )

    # ---- what the endpoint asks

    def send_output(self, output: Any, group: Any) -> None:
        if output.count > self._outgoing_room:
            self._outgoing_room = 2 * output.count
            self._outgoing = ffi.new("struct halo_outgoing[]", self._outgoing_room)
        self._output, self._next = output, 0
        try:
            self._end = int(lib.halo_kcp_outgoing_fill(self._outgoing, output, group))
            self._go_on()
            if self._output is not None:
                lib.halo_kcp_output_keep(output, self._next)
                self._end = int(lib.halo_kcp_outgoing_fill(self._outgoing, output, group))
        except BaseException:
            self._output = None  # what is left may lie in sessions, which go on
            raise

    def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._output = None
        super().close()

    # ---- private

    def _go_on(self) -> None:
        """Send what is left; when buffers are short, the rest a moment later."""
        while self._next < self._end:
            self._next += int(
                lib.halo_worker_send_datagrams(
                    self._path.worker,
                    self._number,
                    self._outgoing + self._next,
                    self._end - self._next,
                    self._error,
                )
            )
            if self._error[0] == -errno.ENOBUFS:
                self.waits += 1
                self._retry = self._loop.call_later(RETRY_S, self._try_again)
                return
            if self._error[0]:
                self._send_otherwise(self._outgoing[self._next])
                self._next += 1
        lib.halo_kcp_output_clear(self._output)
        self._output = None

    def _send_otherwise(self, one: Any) -> None:
        """By the Python stack, as the endpoint knows how; or it knows why not."""
        address = unpack(PEER.pack(4, one.to & 0xFFFF, 0, (one.to >> 16).to_bytes(4, "big").ljust(16, b"\0")))
        self.transport.sendto(ffi.buffer(one.octets, one.length)[:], None if self._is_connected else address)

    def _try_again(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._output is None:
            return
        self._go_on()
        if not self.is_blocked and self._owner is not None:
            self._owner.room()
