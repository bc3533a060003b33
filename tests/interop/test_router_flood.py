# SPDX-License-Identifier: Apache-2.0
"""A flood of what only Python understands, and what the router does for everybody else meanwhile."""

from __future__ import annotations

import threading
from itertools import repeat

from tests.support.accounts import tally
from tests.support.flows import send_paced, sender
from tests.support.network import Network

FLOOD = 60_000
RATE_PPS = 30_000
PINGS = 60


def test_flooded_by_datagrams_for_us_forwards_all_the_same() -> None:
    """To a closed port of ours, three times as many as Python could look at: most are dropped by their name."""
    with Network() as network:
        near, far = network.hosts
        near.namespace.pinged(far.address)
        before = tally(network.instance, *network.slots)
        with sender(near.namespace) as out:
            flood = threading.Thread(
                target=send_paced, args=(out, repeat((near.router, 9), FLOOD), b"halo", RATE_PPS)
            )
            flood.start()
            sent = near.namespace.pinged(far.address, count=PINGS, interval_s=0.03)
            flood.join()
        happened = network.settled().since(before)
        assert happened.drops["python_busy"] > FLOOD / 4
        assert sent <= 2 * PINGS  # without a bound on Python's share six of seven were lost
        network.stop()
