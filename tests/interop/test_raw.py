# SPDX-License-Identifier: Apache-2.0
"""Raw frames in real workers: from one TAP to another, over a worker's death, and bursts from templates."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import lives
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, wait_until
from tests.support.network import Network
from tests.support.station import Heard, Station, socket_in

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
STATION_MAC, OTHER_MAC = bytes.fromhex("02cc00000001"), bytes.fromhex("02cc00000002")
OURS = 0x88B5  # for local experiments, IEEE 802
FRAMES = 40


def frame(number: int, octets: int = 60) -> bytes:
    """A frame of a protocol that no stack speaks, different for each number."""
    return OTHER_MAC + STATION_MAC + OURS.to_bytes(2, "big") + number.to_bytes(4, "big") + bytes(octets - 18)


def is_ours(heard: Heard) -> bool:
    return heard.ethertype == OURS


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    with Namespace() as made:
        made.silence()
        yield made


def test_direct_example_is_a_wire_and_outlives_its_workers(namespace: Namespace) -> None:
    flags = ("--ports", "0,1", "--app", f"{EXAMPLES / 'direct.py'}:app")
    with Instance(namespace, *flags) as instance:
        instance.wait_for("app.started", count=2)
        names = [f"{instance.name}.{number}" for number in (0, 1)]
        with Station(namespace, names[0]) as left, Station(namespace, names[1]) as right:
            ledger = Ledger(instance, 0, 1)
            cross(left, right)
            cross(right, left)
            ledger.assert_balanced()
            old = lives.pid(instance, "worker", 0)
            lives.kill(old)
            lives.wait_for_successor(instance, "worker", old, 0)
            instance.wait_for("app.started", count=3)
            cross(left, right)
            cross(right, left)
            ledger.assert_whole()
        assert instance.stop() == 0


def cross(sender: Station, receiver: Station) -> None:
    """Send frames of many lengths, and hear them at the other end as they were, in their order."""
    sent = [frame(number, 60 + 36 * number) for number in range(FRAMES)]
    receiver.heard()
    for octets in sent:
        sender.send(octets)
    heard = receiver.listen(is_ours, count=FRAMES, what="frames on the other side")
    assert [each.octets for each in heard] == sent


def test_generator_example_sends_when_it_hears_itself(namespace: Namespace) -> None:
    namespace.run("ip", "link", "add", "gen0", "type", "veth", "peer", "name", "gen1")
    for end in ("gen0", "gen1"):
        namespace.run("ip", "link", "set", end, "up")
    found = generate(namespace, "gen0", "gen1", GENERATOR_PPS="2000", GENERATOR_S="0.5")
    assert "nothing is sent" not in found
    sent, returned, lost = (int(number) for number in re.findall(r"(?:sent|returned|lost) (\d+)", found))
    assert 0 < sent <= 2000 * 0.5 + 2000 * 0.05 + 1
    assert (returned, lost) == (sent, 0)
    namespace.run("ip", "link", "delete", "gen0")


def test_generator_example_sends_nothing_to_others(namespace: Namespace) -> None:
    """Two veths that end elsewhere."""
    for end in ("gen2", "gen3"):
        namespace.run("ip", "link", "add", end, "type", "veth", "peer", "name", f"{end}p")
        namespace.run("ip", "link", "set", end, "up")
        namespace.run("ip", "link", "set", f"{end}p", "up")
    with Station(namespace, "gen2p") as somebody:
        assert "nothing is sent" in generate(namespace, "gen2", "gen3")
        assert len([each for each in somebody.heard() if each.dst == bytes.fromhex("02fe00000001")]) == 1


def generate(namespace: Namespace, out: str, back: str, **environment: str) -> str:
    """Run examples/generator.py between two interfaces until it has said what it found; return that."""
    flags = [
        *("--vdev", f"net_af_packet0,iface={out}", "--vdev", f"net_af_packet1,iface={back}"),
        *("--ports", "0,1", "--slot", "0=0,1", "--app", f"{EXAMPLES / 'generator.py'}:app"),
    ]
    with Instance(namespace, *flags, env=os.environ | environment) as instance:

        def said() -> list[str]:
            return [each["message"] for each in instance.events("log") if "sent" in each["message"]]

        wait_until(said, timeout_s=30, what="the generator's last word")
        assert instance.stop() == 0
        return said()[0]


def test_modifier_example_drops_blanks_and_repeats() -> None:
    with Network("--app", f"{EXAMPLES / 'modifier.py'}:app") as network:
        network.instance.wait_for("app.started", count=2)
        left, right = network.hosts
        assert left.namespace.ping(right.address, count=3) == 3
        sender = socket_in(left.namespace, socket.AF_INET, socket.SOCK_DGRAM)
        receiver = socket_in(right.namespace, socket.AF_INET, socket.SOCK_DGRAM)
        with sender, receiver:
            receiver.bind((right.address, 9999))
            receiver.settimeout(20)
            small, middle, large = (bytes([1]) * octets for octets in (20, 300, 1200))
            for payload in (large, middle, small):
                sender.sendto(payload, (right.address, 9999))
            heard = [receiver.recv(2000) for _ in range(3)]
        assert heard == [middle[:18] + bytes(16) + middle[34:], small, small]
        wait_until(lambda: network.settled().drops.get("hook_drop") == 1, what="the large one's drop")
        network.stop()
