# SPDX-License-Identifier: Apache-2.0
"""A client's handshakes, one at a time: a server knows those that are pending by their address alone.

`handshake.ClientHandshake` says what is sent and when; here it gets its datagrams, its clock and its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from halo_mp.kcp import errors
from halo_mp.kcp.control import ControlPacket
from halo_mp.kcp.handshake import ClientHandshake, ClientState
from halo_mp.kcp.peers import Address, is_same


class _Shaking(NamedTuple):
    """The handshake of this moment."""

    handshake: ClientHandshake
    server: Address
    news: asyncio.Event


class Dialer:
    """Asks servers for sessions. An endpoint's, which passes on what comes in."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        send: Callable[[ControlPacket, Address], None],
        is_used: Callable[[int], bool],
    ) -> None:
        """`is_used` tells whether there is a session of that conv already."""
        self._loop = loop
        self._send = send
        self._is_used = is_used
        self._lock = asyncio.Lock()
        self._shaking: _Shaking | None = None
        self._refusal: OSError | None = None
        self._is_closed = False

    async def ask(self, server: Address, timeout_s: float) -> int:
        """Return the conv that a server has chosen. Raises TimeoutError, OSError."""
        async with self._lock:
            handshake = ClientHandshake(now=self._loop.time(), timeout_s=timeout_s, is_used=self._is_used)
            self._shaking, self._refusal = _Shaking(handshake, server, asyncio.Event()), None
            try:
                await self._shake_hands(self._shaking)
            finally:
                self._shaking = None
        if handshake.conv is None:
            raise TimeoutError(
                f"no KCP server at {server[0]} port {server[1]} has answered {handshake.tries} SYNs in "
                f"{timeout_s:g} s; look at its address, its format, and what is between"
            )
        return handshake.conv

    def take_est(self, packet: ControlPacket, address: Address) -> bool:
        """Take an answer; return whether it is one to us."""
        shaking = self._shaking
        if shaking is None:
            return False
        if not shaking.handshake.receive(packet, from_server=is_same(address, shaking.server)):
            return False
        shaking.news.set()
        return True

    def refuse(self, error: OSError) -> None:
        """Be told that nobody is there."""
        if self._shaking is not None:
            self._refusal = error
            self._shaking.news.set()

    def close(self) -> None:
        """Ask no more: the socket is closed."""
        self._is_closed = True
        if self._shaking is not None:
            self._shaking.news.set()

    async def _shake_hands(self, shaking: _Shaking) -> None:
        handshake = shaking.handshake
        while handshake.state is ClientState.CONNECTING and not self._is_closed:
            if (packet := handshake.poll(self._loop.time())) is not None:
                self._send(packet, shaking.server)
            deadline = handshake.next_deadline()
            if deadline is None:
                return
            try:
                async with asyncio.timeout_at(deadline):
                    await shaking.news.wait()
            except TimeoutError:
                continue
            if self._refusal is not None:
                raise errors.refused(self._refusal)
        if self._is_closed:
            raise errors.ended_here()
