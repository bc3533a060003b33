# SPDX-License-Identifier: Apache-2.0
"""A flood of what only Python understands, and what the router does for everybody else meanwhile."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from itertools import repeat

import pytest

from tests.support.accounts import tally
from tests.support.flows import send_paced, sender
from tests.support.namespace import Namespace
from tests.support.network import Network
from tests.support.station import socket_in

FLOOD = 60_000
RATE_PPS = 30_000
PINGS = 60
FOR_EXPERIMENTS = 253  # RFC 3692


def udp_socket(namespace: Namespace) -> socket.socket:
    return sender(namespace)


def raw_socket(namespace: Namespace) -> socket.socket:
    return socket_in(namespace, socket.AF_INET, socket.SOCK_RAW, FOR_EXPERIMENTS)


@pytest.mark.parametrize(
    ("made", "dropped"), [(udp_socket, "no_listener"), (raw_socket, "python_busy")], ids=["udp", "unknown"]
)
def test_flooded_by_packets_for_us_forwards_all_the_same(
    made: Callable[[Namespace], socket.socket], dropped: str
) -> None:
    """To a closed port, or of a protocol that only Python can refuse, three times as many as it could look at."""
    with Network() as network:
        near, far = network.hosts
        near.namespace.pinged(far.address)
        before = tally(network.instance, *network.slots)
        with made(near.namespace) as out:
            flood = threading.Thread(
                target=send_paced, args=(out, repeat((near.router, 9), FLOOD), b"halo", RATE_PPS)
            )
            flood.start()
            sent = near.namespace.pinged(far.address, count=PINGS, interval_s=0.03)
            flood.join()
        happened = network.settled().since(before)
        assert happened.drops[dropped] > FLOOD / 4
        assert sent <= 2 * PINGS  # without a bound on Python's share six of seven were lost
        network.stop()
