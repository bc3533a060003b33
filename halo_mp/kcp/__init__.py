# SPDX-License-Identifier: Apache-2.0
"""KCP: a reliable transport over datagrams, with asyncio's manners. docs/kcp.md tells how it is used.

Inside a worker its datagrams go by the halo stack, elsewhere by a socket of the kernel; the code is the same.
"""

from halo_mp.kcp.connection import Connection
from halo_mp.kcp.control import EndReason
from halo_mp.kcp.counters import Counters, EndpointCounters, Info
from halo_mp.kcp.errors import RefusedError, SessionEndedError
from halo_mp.kcp.opening import rebind
from halo_mp.kcp.report import report
from halo_mp.kcp.settings import Settings
from halo_mp.kcp.streams import (
    Listener,
    Server,
    connect,
    create_connection,
    create_server,
    listen,
    open_connection,
    start_server,
)
from halo_mp.kcp.transport import KcpTransport

__all__ = [
    "Connection",
    "Counters",
    "EndReason",
    "EndpointCounters",
    "Info",
    "KcpTransport",
    "Listener",
    "RefusedError",
    "Server",
    "SessionEndedError",
    "Settings",
    "connect",
    "create_connection",
    "create_server",
    "listen",
    "open_connection",
    "rebind",
    "report",
    "start_server",
]
