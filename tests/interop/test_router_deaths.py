# SPDX-License-Identifier: Apache-2.0
"""Processes of a router die while kernels talk through it: connections go on, and end well."""

from __future__ import annotations

import hashlib
import random
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Self

import pytest

from tests.support import lives
from tests.support.ledger import Ledger
from tests.support.namespace import wait_until
from tests.support.network import Host, Network
from tests.support.pinger import Pinger
from tests.support.station import socket_in

BLOCK = random.Random(4).randbytes(1 << 16)
MORE = 4 << 20  # octets that show that a connection goes on
TIMEOUT_S = 60


class Connection:
    """TCP from one host to another, as fast as it goes, until `finish`. Use as a context manager."""

    def __init__(self, out: Host, into: Host) -> None:
        self._sending = socket_in(out.namespace, socket.AF_INET, socket.SOCK_STREAM)
        with socket_in(into.namespace, socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind((into.address, 0))
            listener.listen()
            self._sending.settimeout(TIMEOUT_S)
            self._sending.connect(listener.getsockname())
            self._receiving, _ = listener.accept()
        self._receiving.settimeout(TIMEOUT_S)
        self._enough = threading.Event()
        self._digests = hashlib.sha256(), hashlib.sha256()
        self._received = 0
        self._threads = [threading.Thread(target=each) for each in (self._send, self._receive)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()
        self._sending.close()
        self._receiving.close()

    def wait_for_more(self) -> None:
        """Wait until more has arrived."""
        before = self._received
        wait_until(lambda: self._received >= before + MORE, timeout_s=TIMEOUT_S, what="more octets")

    def finish(self) -> None:
        """Send no more; fail unless what was sent has arrived, to the end."""
        self._enough.set()
        for thread in self._threads:
            thread.join()
        sent, received = (digest.digest() for digest in self._digests)
        assert sent == received

    def _send(self) -> None:
        while not self._enough.is_set():
            self._sending.sendall(BLOCK)
            self._digests[0].update(BLOCK)
        self._sending.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        while octets := self._receiving.recv(1 << 16):
            self._digests[1].update(octets)
            self._received += len(octets)


@pytest.fixture
def network() -> Iterator[Network]:
    with Network("--reachable-time", "1") as made:
        made.hosts[0].namespace.pinged(made.hosts[1].address)
        yield made


def test_connection_outlives_a_worker_and_the_driver(network: Network) -> None:
    instance, (left, right) = network.instance, network.hosts
    ledger = Ledger(instance, *network.slots)
    with Connection(left, right) as connection:
        deaths: list[tuple[lives.Role, int | None]] = [("worker", 0), ("driver", None), ("worker", 1)]
        for role, slot in deaths:
            connection.wait_for_more()
            old = lives.pid(instance, role, slot)
            lives.kill(old)
            lives.wait_for_successor(instance, role, old, slot, timeout_s=30)
            connection.wait_for_more()
        connection.finish()
    ledger.assert_whole()
    ledger.start_anew()
    left.namespace.pinged(right.address, count=10)
    ledger.assert_balanced()
    network.stop()


def test_dead_supervisor_costs_no_packet_and_no_neighbor(network: Network) -> None:
    """Neighbors are asked again each second or so, and no supervisor is needed for that."""
    instance, (left, right) = network.instance, network.hosts
    with network.client() as client:
        known = {(each.interface, each.address) for each in client.neighbors.list()}
    before = network.settled()
    with Pinger(left.namespace, right.address) as pinger:
        pinger.wait_for_more()
        instance.signal(signal.SIGKILL)
        assert instance.wait() == -signal.SIGKILL
        pinger.wait_for_more(400, timeout_s=30)
        with network.successor() as successor:
            pinger.wait_for_more()
            assert pinger.lost == set()
            assert set(pinger.answered.values()) == {1}
            pinger.stop()
            with network.client() as client:
                assert {(each.interface, each.address) for each in client.neighbors.list()} >= known
            happened = network.settled().since(before)
            assert not happened.drops
            assert happened.worker["forwarded"] >= 2 * 400
            Ledger(successor, *network.slots).assert_balanced()
            assert successor.stop() == 0
