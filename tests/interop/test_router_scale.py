# SPDX-License-Identifier: Apache-2.0
"""Ten thousand neighbors on one link, and routes that change under traffic: every datagram arrives."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import pytest

from tests.support import frames
from tests.support.accounts import arrived, tally
from tests.support.flows import Listener, gather, send_paced, sender
from tests.support.namespace import wait_until
from tests.support.network import Network
from tests.support.station import Station

PORT = 7000
NEIGHBORS = [str(IPv4Address("10.1.64.0") + number) for number in range(10_000)]
RATE_PPS = 2000
CHANGED = "198.51.100.1"  # an address of both gateways
GATEWAYS = ("10.1.0.2", "10.2.0.2")
CHANGES = 200
STREAM_PPS = 5000
STREAM = 10_000  # datagrams


# ---- neighbors


def test_ten_thousand_neighbors_get_their_first_datagram_and_both_workers_know_them() -> None:
    with Network(prefix_length=16) as network:
        left, right = network.hosts
        right.namespace.run("ip", "route", "add", "local", "10.1.64.0/18", "dev", "lo")
        left.namespace.pinged(right.address)
        before = network.settled()
        with Listener(right.namespace, PORT) as listener, sender(left.namespace) as out:
            send_paced(out, [(address, PORT) for address in NEIGHBORS], b"halo", RATE_PPS)
            found = gather([listener], len(NEIGHBORS))
            assert Counter(each.dst for each in found) == Counter(NEIGHBORS)
            assert not network.settled().since(before).drops
            with network.client() as client:
                known = {each.address for each in client.neighbors.list("1")}
            assert known == {*NEIGHBORS, right.address}
            forwards_by_itself(network, 0, lambda: send_again(network, out))
            assert len(gather([listener], len(NEIGHBORS))) == len(NEIGHBORS)
            forwards_by_itself(network, 1, lambda: send_from_the_right(network))
        network.stop()


def send_again(network: Network, out: socket.socket) -> None:
    """From the left: the worker of port 0 has them."""
    send_paced(out, [(address, PORT) for address in NEIGHBORS], b"halo", 4 * RATE_PPS)


def send_from_the_right(network: Network) -> None:
    """Back out of the port that they came by: the worker of port 1 has them."""
    before = tally(network.instance, *network.slots)
    right = network.hosts[1]
    with network.client() as client, Station(right.namespace, "veth1") as station:
        (mac,) = (
            bytes.fromhex(each.mac.replace(":", "")) for each in client.interfaces.list() if each.name == "1"
        )
        for count, address in enumerate(NEIGHBORS, 1):
            payload = frames.packet(src=right.address, dst=address, payload=frames.echo_request())
            station.send(frames.frame(dst=mac, src=station.mac, payload=payload))
            if count % 100 == 0:
                wait_until(
                    lambda count=count: arrived(network.instance, before, *network.slots) >= count,
                    what="the frames",
                )


def forwards_by_itself(network: Network, slot: int, send: Callable[[], None]) -> None:
    """Send to all of them by way of one worker: it asks nobody, and hands nothing over."""
    before = tally(network.instance, slot), network.settled()
    send()
    wait_until(
        lambda: tally(network.instance, slot).since(before[0]).worker["forwarded"] >= len(NEIGHBORS),
        what="all sent on",
    )
    happened = network.settled().since(before[1])
    assert not happened.worker["tx_handed"]
    assert not happened.drops


# ---- routes


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """A router with a gateway on each of two ports, and the sender on the first."""
    with Network(*("--route", f"198.51.100.0/24={GATEWAYS[0]}"), ports=3) as made:
        for host in made.hosts[1:]:
            host.namespace.run("ip", "address", "add", f"{CHANGED}/32", "dev", "lo")
            made.hosts[0].namespace.pinged(host.address)
        yield made
        made.stop()


class Stream:
    """Datagrams at a steady rate: every one of them arrives, once, at one of the gateways. Changes go on meanwhile."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._sent = 0

    def during(self, count: int, change: Callable[[int], None]) -> None:
        """Make `count` changes, spread over the stream, and see to it that nothing is lost."""
        before = self._network.settled()
        left, *gateways = (host.namespace for host in self._network.hosts)
        with (
            Listener(gateways[0], PORT) as first,
            Listener(gateways[1], PORT) as second,
            sender(left) as out,
        ):
            thread = threading.Thread(target=send_paced, args=(out, self._to(), b"halo", STREAM_PPS))
            thread.start()
            try:
                for number in range(count):
                    self._wait_for(number * STREAM // count)
                    change(number)
            finally:
                thread.join()
            assert len(gather([first, second], STREAM)) == STREAM
        happened = self._network.settled().since(before)
        assert not happened.drops
        assert happened.worker["forwarded"] == STREAM

    def _to(self) -> Iterator[tuple[str, int]]:
        for self._sent in range(STREAM):
            yield CHANGED, PORT

    def _wait_for(self, sent: int) -> None:
        wait_until(lambda: self._sent >= sent, what="the stream")


def test_route_that_is_replaced_under_traffic_loses_nothing(network: Network) -> None:
    with network.client() as client:
        Stream(network).during(
            CHANGES, lambda number: client.routes.replace("198.51.100.0/24", GATEWAYS[number % 2])
        )
        found = client.routes.lookup(CHANGED)
    assert found is not None
    assert found.hop == f"{GATEWAYS[1]}@2"


def test_covering_route_that_comes_and_goes_does_not_touch_the_longer_one(network: Network) -> None:
    with network.client() as client:

        def change(number: int) -> None:
            if number % 2:
                client.routes.delete("default")
            else:
                client.routes.add("default", GATEWAYS[number // 2 % 2])

        Stream(network).during(CHANGES, change)
