# SPDX-License-Identifier: Apache-2.0
"""Two gateways for one prefix: flows are spread, leave a gateway that falls silent, and come back to it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.support.flows import Listener, sender
from tests.support.lives import said
from tests.support.namespace import Namespace, wait_until
from tests.support.network import Network

ANYCAST, PORT = "203.0.113.1", 7000
FLOWS = 64
ROUNDS = 5
PATIENCE_S = 15  # with the default reachable time it takes 18 s at least to find out that a gateway is silent
FLAGS = ("--route", "203.0.113.0/24=10.1.0.2,10.2.0.2", "--reachable-time", "1")

Where = dict[int, int]  # source port -> which of the gateways


@dataclass(frozen=True, slots=True)
class Flows:
    """A socket for each flow, and what the gateways have got."""

    network: Network
    senders: Sequence[socket.socket]
    gateways: Sequence[Listener]

    def sent(self) -> Where:
        """Send one datagram of each flow; return where they arrived, each once and nowhere else."""
        found: list[tuple[int, int]] = []
        for out in self.senders:
            out.sendto(b"halo", (ANYCAST, PORT))

        def all_here() -> bool:
            for number, gateway in enumerate(self.gateways):
                found.extend((each.source[1], number) for each in gateway.arrived())
            return len(found) >= len(self.senders)

        wait_until(all_here, what="a datagram of each flow")
        assert len(found) == len(dict(found)) == len(self.senders)
        return dict(found)

    def sent_until(self, settled: Callable[[Where], bool], *, what: str, stay: set[int]) -> Where:
        """Send until that is so; return where they arrived then. The flows `stay` do not move meanwhile."""
        first = self.sent()
        latest = first

        def arrived() -> bool:
            nonlocal latest
            latest = self.sent()
            assert all(latest[flow] == first[flow] for flow in stay)
            return settled(latest)

        wait_until(arrived, timeout_s=PATIENCE_S, what=what)
        return latest


@pytest.fixture
def flows() -> Iterator[Flows]:
    with Network(*FLAGS, ports=3) as network, ExitStack() as stack:
        left, *gateways = (host.namespace for host in network.hosts)
        for gateway in gateways:
            gateway.run("ip", "address", "add", f"{ANYCAST}/32", "dev", "lo")
        listeners = [stack.enter_context(Listener(gateway, PORT)) for gateway in gateways]
        senders = [stack.enter_context(sender(left)) for _ in range(FLOWS)]
        yield Flows(network, senders, listeners)
        network.stop()


def answer(namespace: Namespace, *, is_on: bool) -> None:
    """Have a kernel answer ARP requests or not; it takes frames and says nothing all the same."""
    namespace.run("ip", "link", "set", "veth1", "arp", "on" if is_on else "off")


def test_flows_leave_a_silent_gateway_and_come_back_and_the_others_never_move(flows: Flows) -> None:
    network = flows.network
    first = flows.sent()
    assert set(first.values()) == {0, 1}, "both gateways have flows"
    for _ in range(ROUNDS):
        assert flows.sent() == first
    stay = {flow for flow, gateway in first.items() if gateway == 1}
    answer(network.hosts[1].namespace, is_on=False)
    flows.sent_until(
        lambda where: set(where.values()) == {1}, what="all flows at the gateway that is left", stay=stay
    )
    network.instance.wait_for("gateway.down")
    (down,) = said(network.instance, "gateway.down")
    assert (down["port"], down["address"]) == (1, "10.1.0.2")
    assert set(flows.sent().values()) == {1}

    answer(network.hosts[1].namespace, is_on=True)
    flows.sent_until(lambda where: where == first, what="everything as it was", stay=stay)
    network.instance.wait_for("gateway.up")
    assert flows.sent() == first
    assert not network.settled().drops
