# SPDX-License-Identifier: Apache-2.0
"""From a host and a port to an endpoint: on the halo stack inside a worker, on a kernel socket elsewhere.

The event loop's `create_datagram_endpoint` decides which stack it is (a worker's loop knows the halo stack) and
resolves names. On a kernel socket the endpoint then works by batches, on the halo stack by bursts; with `batch=False`,
or on any other transport, by asyncio's own datagrams.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any, Final

from halo_mp.kcp import errors
from halo_mp.kcp.batch import KernelCarrier, adopt, enlarge
from halo_mp.kcp.burst_carrier import BurstCarrier
from halo_mp.kcp.carriers import AsyncioCarrier, StartableCarrier
from halo_mp.kcp.endpoint import MOST_SESSIONS, Acceptor, Endpoint
from halo_mp.kcp.fec_carrier import FecCarrier
from halo_mp.kcp.peers import Address
from halo_mp.kcp.session import Session
from halo_mp.kcp.settings import Settings

ENDPOINTS: Final[weakref.WeakSet[Endpoint]] = weakref.WeakSet()
"""All of this process, for who wants to see what they count."""


async def open_endpoint(
    settings: Settings,
    *,
    local_addr: Address | None = None,
    remote_addr: Address | None = None,
    accept: Acceptor | None = None,
    most_sessions: int = MOST_SESSIONS,
    batch: bool = True,
    **options: Any,
) -> Endpoint:
    """Return an endpoint on a new socket. `options` go to `create_datagram_endpoint`. Raises OSError."""
    loop = asyncio.get_running_loop()
    carrier = await _open_carrier(loop, settings, local_addr, remote_addr, batch=batch, **options)
    try:
        endpoint = Endpoint(loop, carrier, settings, accept=accept, most_sessions=most_sessions)
    except BaseException:
        carrier.close()
        raise
    carrier.start(endpoint)
    ENDPOINTS.add(endpoint)
    return endpoint


async def open_client(
    host: str,
    port: int,
    settings: Settings,
    *,
    conv: int | None = None,
    local_addr: Address | None = None,
    batch: bool = True,
) -> tuple[Endpoint, Session]:
    """Return a session with a server, and the endpoint that ends with it.

    Raises TimeoutError when the server does not answer, OSError, and ValueError for a conv that can not be.
    """
    if (conv is None) == (settings.format == "classic"):
        raise ValueError(
            "classic KCP has no handshake: both sides must be given the same conv=, of 1 to 4294967295"
            if conv is None
            else "in halo's format the server chooses the conv; leave conv= out, or set format='classic'"
        )
    if conv is not None and not 0 <= conv < 1 << 32:
        raise ValueError(f"conv is {conv}; expected 0 to 4294967295")
    endpoint = await open_endpoint(
        settings, local_addr=local_addr, remote_addr=(host, port), most_sessions=1, batch=batch
    )
    try:
        address = endpoint.carrier.transport.get_extra_info("peername")
        if conv is None:
            session = await endpoint.connect(address)
        else:
            session = endpoint.open_session(conv, address, is_client=True)
    except BaseException:
        endpoint.close()
        raise
    endpoint.on_idle = endpoint.close
    return endpoint, session


async def rebind(endpoint: Endpoint, *, local_addr: Address | None = None, batch: bool = True) -> None:
    """Give a client another socket, as after a change of network: its sessions go on, and the server follows.

    Only in halo's format do servers follow. Raises OSError; then all is as it was. When its last session has ended,
    before or meanwhile, that is a SessionEndedError.
    """
    _require_open(endpoint)
    remote = endpoint.carrier.transport.get_extra_info("peername")
    if remote is None:
        raise ValueError(
            "only a client's endpoint can be bound anew; a server's peers know it by its address"
        )
    loop = asyncio.get_running_loop()
    carrier = await _open_carrier(loop, endpoint.settings, local_addr, remote[:2], batch=batch)
    try:
        _require_open(endpoint)
    except errors.SessionEndedError:
        carrier.close()
        raise
    endpoint.replace_carrier(carrier)
    carrier.start(endpoint)


def _require_open(endpoint: Endpoint) -> None:
    if endpoint.is_closed:
        raise errors.ended_here()


async def _open_carrier(
    loop: asyncio.AbstractEventLoop,
    settings: Settings,
    local: Address | None,
    remote: Address | None,
    *,
    batch: bool,
    **options: Any,
) -> StartableCarrier:
    transport, plain = await loop.create_datagram_endpoint(
        lambda: AsyncioCarrier(loop), local_addr=local, remote_addr=remote, **options
    )
    try:
        carrier = _carrier_on(loop, transport, plain, batch=batch)
        return FecCarrier(loop, carrier, settings) if settings.fec_data else carrier
    except BaseException:
        transport.close()
        raise


def _carrier_on(
    loop: asyncio.AbstractEventLoop, transport: Any, plain: AsyncioCarrier, *, batch: bool
) -> StartableCarrier:
    sock = adopt(transport) if batch else None
    if sock is not None:
        return KernelCarrier(loop, sock)
    if batch and hasattr(transport, "receive_bursts"):
        return BurstCarrier(loop, transport)
    if transport.get_extra_info("socket") is not None and not transport.get_extra_info("halo"):
        enlarge(transport.get_extra_info("socket"))
    return plain


__all__ = ["ENDPOINTS", "open_client", "open_endpoint", "rebind"]
