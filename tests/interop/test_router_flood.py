# SPDX-License-Identifier: Apache-2.0
"""A flood of what only Python understands, and what the router does for everybody else meanwhile."""

from __future__ import annotations

import socket
import threading
from itertools import repeat

import pytest

from tests.support.accounts import tally
from tests.support.flows import send_paced, sender
from tests.support.network import Network

FLOOD = 60_000
RATE_PPS = 30_000
PINGS = 60
NOPS = bytes([1, 1, 1, 1])  # RFC 791


@pytest.mark.parametrize("options", [b"", NOPS], ids=["plain", "options"])
def test_flooded_by_datagrams_for_us_forwards_all_the_same(options: bytes) -> None:
    """To a closed port: C drops those without options, and Python looks at the others as far as its share allows."""
    with Network() as network:
        near, far = network.hosts
        near.namespace.pinged(far.address)
        before = tally(network.instance, *network.slots)
        with sender(near.namespace) as out:
            out.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, options)
            flood = threading.Thread(
                target=send_paced, args=(out, repeat((near.router, 9), FLOOD), b"halo", RATE_PPS)
            )
            flood.start()
            sent = near.namespace.pinged(far.address, count=PINGS, interval_s=0.03)
            flood.join()
        happened = network.settled().since(before)
        assert options or happened.drops["no_listener"] > FLOOD / 4
        assert sent <= 4 * PINGS  # without a bound on Python's share six of seven were lost
        network.stop()
