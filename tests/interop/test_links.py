# SPDX-License-Identifier: Apache-2.0
"""Interfaces that go down, come back or are deleted under a port: the port follows, the others never notice."""

from __future__ import annotations

from tests.support.accounts import balanced, tally
from tests.support.instance import Instance
from tests.support.namespace import Namespace, connect, wait_until

FLAPS = 5


def test_tap_that_goes_down_and_up_answers_again(namespace: Namespace) -> None:
    namespace.silence()
    with Instance(namespace, "--ports", "0,1") as instance:
        interface = f"{instance.name}.0"
        for _ in range(FLAPS):
            namespace.run("ip", "link", "set", interface, "down")
            namespace.pinged("10.77.1.1", count=1)
            namespace.run("ip", "link", "set", interface, "up")
            namespace.pinged("10.77.0.1", count=1)
        namespace.run("ip", "link", "set", interface, "down")
        wait_until(
            lambda: not instance.ports()["ports"][0]["link_up"], what="a port that says that it is down"
        )
        assert instance.ports()["ports"][1]["link_up"]
        for slot in balanced(instance, 0, 1):
            assert slot["driver"]["counters"]["resets"] == 0


def test_veth_that_goes_down_and_up_answers_again(namespace: Namespace, peer: Namespace) -> None:
    for side in (namespace, peer):
        side.silence()
    connect(namespace, peer)
    peer.run("ip", "address", "add", "10.9.0.2/24", "dev", "veth0")
    with Instance(
        namespace, "--vdev", "net_af_packet0,iface=veth0", "--address", "0=10.9.0.1/24"
    ) as instance:
        for side in (peer, namespace):
            for _ in range(FLAPS):
                side.run("ip", "link", "set", "veth0", "down")
                side.run("ip", "link", "set", "veth0", "up")
                peer.pinged("10.9.0.1", count=1)
        assert not tally(instance).drops


def test_deleted_tap_leaves_the_other_port_alone_and_is_made_again(namespace: Namespace) -> None:
    namespace.silence()
    with Instance(namespace, "--ports", "0,1") as instance:
        namespace.pinged("10.77.0.1")
        namespace.run("ip", "link", "delete", f"{instance.name}.0")
        sent = namespace.pinged("10.77.1.1", count=20)
        assert tally(instance, 1).worker["echo_replies"] == sent
        instance.wait_for("port.returned")
        namespace.pinged("10.77.0.1")
        assert instance.stop() == 0
