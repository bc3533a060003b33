# SPDX-License-Identifier: Apache-2.0
"""The router as kernels around it see it: who answers, where packets go, which errors come, and how long they may be.

left 10.0.0.2 --- 10.0.0.1 router 10.1.0.1 -- 1400 -- 10.1.0.2 right 10.200.0.1 --- 10.200.0.2 far
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from halo_mp.wire.icmpv4 import (
    ADMINISTRATIVELY_PROHIBITED,
    FRAGMENTATION_NEEDED,
    HOST_UNREACHABLE,
    NET_UNREACHABLE,
    PORT_UNREACHABLE,
    UNREACHABLE,
)
from tests.support.flows import Asker, Listener, Told, gather, sender
from tests.support.namespace import Namespace, connect, wait_until
from tests.support.network import Host, Network
from tests.support.station import Heard, Station, socket_in
from tests.support.unprivileged import IN_FIRST_USER_NAMESPACE

DRIVERS = ["net_af_packet", *(["net_af_xdp"] if IN_FIRST_USER_NAMESPACE else [])]
NEAR, OTHER, FAR = "10.0.0.1", "10.1.0.1", "10.200.0.2"
LEFT, RIGHT, SILENT, UNROUTED = "10.0.0.2", "10.1.0.2", "10.1.0.77", "192.0.2.1"
SMALL = 1400
FLAGS = (
    *("--mtu", f"1={SMALL}", "--route", "10.200.0.0/24=10.1.0.2"),
    *("--route", "198.51.100.0/26=unreachable", "--route", "198.51.100.64/26=prohibit"),
    *("--route", "198.51.100.128/26=blackhole"),
)
DATA = os.urandom(4 << 20)
SECONDS = 2  # that iperf3 sends


@dataclass(frozen=True, slots=True)
class Path:
    """The instance and the kernels along the path."""

    driver: str
    network: Network
    left: Host
    right: Host
    far: Namespace

    def forget(self) -> None:
        """Have nobody know anybody's MAC address any more, nor anything of paths."""
        for host in (self.left, self.right):
            host.namespace.run("ip", "neigh", "flush", "all")
            host.namespace.run("ip", "route", "flush", "cache")
        with self.network.client() as client:
            client.neighbors.flush()
        assert not self.neighbors()

    def neighbors(self) -> set[str]:
        """Return whom the router knows."""
        with self.network.client() as client:
            return {neighbor.address for neighbor in client.neighbors.list()}


@pytest.fixture(scope="module", params=DRIVERS)
def path(request: pytest.FixtureRequest) -> Iterator[Path]:
    with Network(*FLAGS, driver=request.param, mtus=(1500, SMALL)) as network, Namespace() as far:
        left, right = network.hosts
        far.silence()
        connect(right.namespace, far, name="veth9")
        right.namespace.run("ip", "address", "add", "10.200.0.1/24", "dev", "veth9")
        right.namespace.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        far.run("ip", "address", "add", f"{FAR}/24", "dev", "veth9")
        far.run("ip", "route", "add", "default", "via", "10.200.0.1")
        yield Path(request.param, network, left, right, far)
        network.stop()


@pytest.fixture(autouse=True)
def accounts(path: Path) -> Iterator[None]:
    """Whatever a test does, the accounts balance afterwards."""
    yield
    path.network.settled()


# ---- who answers, and where packets go


def test_first_packet_between_strangers_is_not_lost(path: Path) -> None:
    for host, address in ((path.left, RIGHT), (path.right, LEFT), (path.left, FAR)):
        path.forget()
        before = path.network.settled()
        assert host.namespace.ping(address, count=1, options=("-W", "5")) == 1
        assert not path.network.settled().since(before).drops


def test_pings_both_ways_are_forwarded_in_c(path: Path) -> None:
    before = path.network.settled()
    sent = path.left.namespace.pinged(RIGHT, count=100, interval_s=0.002)
    sent += path.right.namespace.pinged(LEFT, count=100, interval_s=0.002)
    happened = path.network.settled().since(before)
    assert happened.worker["forwarded"] == 2 * sent
    assert not happened.drops


def test_every_address_of_the_router_answers_on_either_side(path: Path) -> None:
    before = path.network.settled()
    sent = sum(
        host.namespace.pinged(address) for host in (path.left, path.right) for address in (NEAR, OTHER)
    )
    happened = path.network.settled().since(before)
    assert happened.worker["echo_replies"] == sent
    assert not happened.worker["forwarded"]


def test_traceroute_names_every_hop(path: Path) -> None:
    for namespace, dst, hops in (
        (path.left.namespace, FAR, [NEAR, RIGHT, FAR]),
        (path.far, LEFT, ["10.200.0.1", OTHER, LEFT]),
    ):
        for how in ("--udp", "--icmp"):
            output = namespace.run("traceroute", "-n", how, "-q", "1", "-N", "1", "-w", "5", dst).stdout
            assert re.findall(r"^ *\d+  (\S+)", output, re.MULTILINE) == hops, output


# ---- who is told what


def test_closed_port_of_the_router_refuses_a_connection(path: Path) -> None:
    with sender(path.left.namespace) as out:
        out.settimeout(10)
        for address in (NEAR, OTHER):
            out.connect((address, 9))
            out.send(b"halo")
            with pytest.raises(ConnectionRefusedError):
                out.recv(100)


@pytest.mark.parametrize(
    ("address", "code", "drop"),
    [
        (UNROUTED, NET_UNREACHABLE, "ipv4_no_route"),
        ("198.51.100.1", HOST_UNREACHABLE, "ipv4_unreachable"),
        ("198.51.100.65", ADMINISTRATIVELY_PROHIBITED, "ipv4_prohibited"),
        (OTHER, PORT_UNREACHABLE, "no_listener"),
    ],
)
def test_unreachable_destination_is_told_with_its_code(
    path: Path, address: str, code: int, drop: str
) -> None:
    before = path.network.settled()
    with Asker(path.left.namespace, address) as asker:
        asker.send()
        assert asker.told() == Told(UNREACHABLE, code, NEAR, 0)
    assert path.network.settled().since(before).drops == {drop: 1}


def test_blackhole_is_silent(path: Path) -> None:
    before = path.network.settled()
    with Asker(path.left.namespace, "198.51.100.129") as asker:
        asker.send()
        wait_until(lambda: path.network.settled().since(before).drops, what="the drop")
        path.left.namespace.pinged(RIGHT)
        assert asker.told(timeout_s=0) is None
    assert path.network.settled().since(before).drops == {"ipv4_blackhole": 1}


def test_host_that_does_not_answer_is_told_after_three_requests(path: Path) -> None:
    asked = socket.inet_aton(SILENT)

    def is_request(frame: Heard) -> bool:
        return frame.ethertype == 0x0806 and frame.octets[38:42] == asked

    def is_error(frame: Heard) -> bool:
        return frame.octets[23:24] == b"\1" and frame.octets[34:36] == bytes((UNREACHABLE, HOST_UNREACHABLE))

    before = path.network.settled()
    with (
        Station(path.right.namespace, "veth1") as right,
        Station(path.left.namespace, "veth0") as left,
        Asker(path.left.namespace, SILENT) as asker,
    ):
        for _ in range(2):
            asker.send()
        assert asker.told() == Told(UNREACHABLE, HOST_UNREACHABLE, NEAR, 0)
        requests = [frame.at for frame in right.heard() if is_request(frame)]
        told = [frame.at for frame in left.heard() if is_error(frame)]
    assert len(requests) == 3
    # Each request is given a second, less what timers and clocks of two processes differ by.
    assert told[0] - requests[0] >= 2.9
    assert path.network.settled().since(before).drops == {"neighbor_unresolved": 2}


# ---- how long packets may be


def test_ping_that_is_too_long_is_told_the_mtu(path: Path) -> None:
    path.forget()
    for address in (RIGHT, FAR):
        output = path.left.namespace.run(
            *("ping", "-n", "-M", "do", "-c", "1", "-W", "5", "-s", "1472", address), check=False
        ).stdout
        assert f"From {NEAR} icmp_seq=1 Frag needed and DF set (mtu = {SMALL})" in output
        assert f"mtu {SMALL}" in path.left.namespace.run("ip", "route", "get", address).stdout
        assert path.left.namespace.ping(address, size=SMALL - 28, options=("-M", "do")) == 3


def test_datagram_that_is_too_long_is_told_the_mtu(path: Path) -> None:
    path.forget()
    before = path.network.settled()
    with Asker(path.left.namespace, FAR) as asker:
        asker.forbid_fragments()
        asker.send(bytes(1472))
        assert asker.told() == Told(UNREACHABLE, FRAGMENTATION_NEEDED, NEAR, SMALL)
    assert path.network.settled().since(before).drops == {"ipv4_too_big": 1}


def test_longer_datagrams_that_may_be_fragmented_arrive_whole(path: Path) -> None:
    """A packet socket of net_af_packet gets what the kernel has put together, if it fits a frame of its ring."""
    path.left.namespace.pinged(FAR)  # what waits for a neighbor is bounded
    before = path.network.settled()
    sizes = (1372, 1373, 1472, 1473, *((1900,) if path.driver == "net_af_packet" else (8000, 40000)))
    sent = [os.urandom(size) for size in sizes]
    with Listener(path.far, 7000) as listener, sender(path.left.namespace) as out:
        for data in sent:
            out.sendto(data, (FAR, 7000))
        received = [each.data for each in gather([listener], len(sent))]
    assert sorted(received, key=len) == sent
    assert not path.network.settled().since(before).drops


@pytest.mark.parametrize("direction", ["there", "back"])
def test_tcp_finds_the_mtu_of_the_path(path: Path, direction: str) -> None:
    """Both ends have links of 1500, so it is a router that has to say what fits in between."""
    path.forget()
    before = path.network.settled()
    ends = [(path.left.namespace, LEFT), (path.far, FAR)]
    out, into = ends if direction == "there" else ends[::-1]
    assert transfer(out, into) == hashlib.sha256(DATA).digest()
    drops = path.network.settled().since(before).drops
    assert bool(drops["ipv4_too_big"]) == (direction == "there")
    assert drops.keys() <= {"ipv4_too_big"}


def transfer(out: tuple[Namespace, str], into: tuple[Namespace, str]) -> bytes:
    """Send DATA by TCP; return the hash of what came there."""
    digest = hashlib.sha256()
    with (
        socket_in(into[0], socket.AF_INET, socket.SOCK_STREAM) as listener,
        socket_in(out[0], socket.AF_INET, socket.SOCK_STREAM) as sending,
    ):
        listener.bind((into[1], 0))
        listener.listen()
        sending.settimeout(20)
        sending.connect(listener.getsockname())
        receiving, _ = listener.accept()

        def receive() -> None:
            with receiving:
                receiving.settimeout(20)
                while octets := receiving.recv(1 << 16):
                    digest.update(octets)

        thread = threading.Thread(target=receive)
        thread.start()
        sending.sendall(DATA)
        sending.shutdown(socket.SHUT_WR)
        thread.join(30)
    return digest.digest()


# ---- how much


@pytest.mark.parametrize("how", [(), ("--udp", "--length", "1200", "--bitrate", "20M")], ids=["tcp", "udp"])
def test_iperf3_both_ways_at_once_is_forwarded_in_c(path: Path, how: tuple[str, ...]) -> None:
    before = path.network.settled()
    server = path.right.namespace.popen("iperf3", "-s", "-1", "-B", RIGHT)
    try:
        listens = ("ss", "-Hltn", "sport", "=", ":5201")
        wait_until(lambda: path.right.namespace.run(*listens).stdout, what="a server that listens")
        client = ("iperf3", "-c", RIGHT, "-t", str(SECONDS), "--bidir", "--json", *how)
        said = json.loads(path.left.namespace.run(*client).stdout)
        assert server.wait(10) == 0
    finally:
        server.kill()
        server.wait()
    assert "error" not in said
    there, back = (said["end"][f"sum_received{where}"] for where in ("", "_bidir_reverse"))
    assert there["bytes"] > 0
    assert back["bytes"] > 0
    happened = path.network.settled().since(before).worker
    octets = there["bytes"] + back["bytes"]
    assert happened["forwarded"] >= octets // SMALL
    assert happened["punted"] <= happened["forwarded"] // 100
