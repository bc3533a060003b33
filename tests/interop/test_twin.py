# SPDX-License-Identifier: Apache-2.0
"""A port that is shared with the kernel: both answer for their own addresses, by one NIC and one MAC.

Where the port is an af_packet device, the kernel sees each frame on the interface below as well. Its addresses are not
there but on the twin; arp_ignore and rp_filter keep it from answering for them below, as docs/operating.md says.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.conftest import is_announcement, is_arp_reply
from tests.support import frames
from tests.support.accounts import balanced, buffers, tally, tally_after
from tests.support.instance import Instance
from tests.support.lives import kill, pid, wait_for_successor
from tests.support.namespace import Namespace, connect, wait_until
from tests.support.pinger import Pinger
from tests.support.station import Heard, Station, socket_in
from tests.support.unprivileged import IN_FIRST_USER_NAMESPACE

OURS, KERNELS, PEER = "10.9.0.1", "10.9.0.9", "10.9.0.2"
DATA = os.urandom(1 << 20)


@dataclass(frozen=True, slots=True)
class Shared:
    driver: str
    instance: Instance
    namespace: Namespace  # of the instance, and of the kernel that shares its port
    peer: Namespace
    station: Station  # at the peer
    twin: str
    mac: bytes  # of both


@contextmanager
def sharing(
    namespace: Namespace, peer: Namespace, driver: str, *flags: str, kernel: str = "0"
) -> Iterator[Shared]:
    """An instance that shares its port with the kernel of its namespace, after all announcements."""
    connect(namespace, peer)
    for side in (namespace, peer):
        side.silence()
    for which in ("all", "veth0"):
        namespace.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv4/conf/{which}/arp_ignore")
        namespace.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv4/conf/{which}/rp_filter")
    peer.run("ip", "address", "add", f"{PEER}/24", "dev", "veth0")
    device = ("--vdev", f"{driver}0,iface=veth0", "--address", f"0={OURS}/24")
    with (
        Station(peer, "veth0") as station,
        Instance(namespace, *device, "--kernel", kernel, *flags) as instance,
    ):
        (said, _) = station.listen(is_announcement, count=2, what="announcements")
        twin = f"{instance.name}k0"
        namespace.run("ip", "address", "add", f"{KERNELS}/24", "dev", twin)
        yield Shared(driver, instance, namespace, peer, station, twin, said.src)


DRIVERS = ["net_af_packet", *(["net_af_xdp"] if IN_FIRST_USER_NAMESPACE else [])]


@pytest.fixture(scope="module", params=DRIVERS)
def shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    with Namespace() as namespace, Namespace() as peer, sharing(namespace, peer, request.param) as running:
        yield running
        assert running.instance.stop() == 0


def link(namespace: Namespace, interface: str) -> str:
    return namespace.run("ip", "-o", "link", "show", interface, check=False).stdout


def transfer(sender: tuple[Namespace, str], receiver: tuple[Namespace, str]) -> bytes:
    """Send DATA by TCP to a listener; return what came there."""
    received = bytearray()
    with (
        socket_in(receiver[0], socket.AF_INET, socket.SOCK_STREAM) as listener,
        socket_in(sender[0], socket.AF_INET, socket.SOCK_STREAM) as out,
    ):
        listener.bind((receiver[1], 0))
        listener.listen()
        listener.settimeout(20)

        def receive() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(20)
                while octets := connection.recv(65536):
                    received.extend(octets)

        thread = threading.Thread(target=receive)
        thread.start()
        out.settimeout(20)
        out.bind((sender[1], 0))
        out.connect(listener.getsockname())
        out.sendall(DATA)
        out.shutdown(socket.SHUT_WR)
        thread.join(30)
    return bytes(received)


def exactly(connection: socket.socket, octets: int) -> bytes:
    """Wait for so many octets."""
    found = b""
    while len(found) < octets:
        more = connection.recv(octets - len(found))
        assert more, "the other side has closed"
        found += more
    return found


def digest(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


def test_both_have_one_mac_and_the_twin_is_up(shared: Shared) -> None:
    assert shared.mac.hex(":") in link(shared.namespace, shared.twin)
    assert ",UP," in link(shared.namespace, shared.twin)
    assert shared.mac.hex(":") in link(shared.namespace, "veth0")


@pytest.mark.parametrize("size", [56, 1472, 8000])
def test_each_answers_its_own_pings(shared: Shared, size: int) -> None:
    if size > 1472 and shared.driver == "net_af_packet":
        size = 1472  # it gets what the kernel has put together, and that is too long for it
    for address in (OURS, KERNELS):
        shared.peer.pinged(address, count=1)
    before = tally(shared.instance)
    ours = shared.peer.pinged(OURS, size=size)
    pieces = -(-(size + 8) // 1480)
    happened = tally_after(shared.instance, before, ours * pieces)
    assert happened.worker["consumed" if pieces > 1 else "echo_replies"] >= ours
    assert not happened.drops
    before = tally(shared.instance)
    kernels = shared.peer.pinged(KERNELS, size=size)
    happened = tally_after(shared.instance, before, 2 * kernels * pieces)
    assert happened.worker["echo_replies"] == 0
    assert happened.worker["tx_frames"] >= 2 * kernels * pieces
    assert not happened.drops


def test_kernel_pings_the_peer(shared: Shared) -> None:
    shared.namespace.pinged(PEER, options=("-I", shared.twin))


def test_one_arp_reply_for_each(shared: Shared) -> None:
    for address in (OURS, KERNELS):
        before = tally(shared.instance)
        shared.station.heard()
        request = frames.arp_packet(1, sender_mac=shared.station.mac, sender=PEER, target=address)
        shared.station.send(
            frames.frame(dst=frames.BROADCAST, src=shared.station.mac, payload=request, ethertype=frames.ARP)
        )
        (reply,) = shared.station.listen(is_arp_reply, what=f"a reply for {address}")
        assert reply.octets[22:28] == shared.mac
        tally_after(shared.instance, before, 1 if address == OURS else 2)
        assert not [frame for frame in shared.station.heard() if is_arp_reply(frame)]


def test_requests_for_nobody_are_answered_by_nobody(shared: Shared) -> None:
    before = tally(shared.instance)
    shared.station.heard()
    request = frames.arp_packet(1, sender_mac=shared.station.mac, sender=PEER, target="10.9.0.77")
    shared.station.send(
        frames.frame(dst=frames.BROADCAST, src=shared.station.mac, payload=request, ethertype=frames.ARP)
    )
    happened = tally_after(shared.instance, before, 1)
    assert (happened.worker["tx_frames"], happened.worker["punted"], happened.worker["copies"]) == (1, 0, 0)


def test_announcement_reaches_both(shared: Shared) -> None:
    mac = bytes.fromhex("020000000077")
    entry = ("10.9.0.77", "lladdr", "02:00:00:00:00:01", "nud", "stale", "dev", shared.twin)
    shared.namespace.run("ip", "neigh", "replace", *entry)
    before = tally(shared.instance)
    announcement = frames.arp_packet(1, sender_mac=mac, sender="10.9.0.77", target="10.9.0.77")
    shared.station.send(
        frames.frame(dst=frames.BROADCAST, src=mac, payload=announcement, ethertype=frames.ARP)
    )
    happened = tally_after(shared.instance, before, 1)
    assert (happened.worker["copies"], happened.worker["punted"]) == (1, 1)
    assert happened.worker["consumed"] + sum(happened.drops.values()) == 1
    wait_until(
        lambda: mac.hex(":") in shared.namespace.run("ip", "neigh", "show", "10.9.0.77").stdout,
        what="the kernel's new neighbor",
    )


def test_somebody_elses_claim_of_our_address_is_answered(shared: Shared) -> None:
    """Defended, by one who is there; the kernel hears of it, too."""
    mac = bytes.fromhex("020000000066")
    before = tally(shared.instance)
    claim = frames.arp_packet(1, sender_mac=mac, sender=OURS, target="10.9.0.70")
    shared.station.send(frames.frame(dst=frames.BROADCAST, src=mac, payload=claim, ethertype=frames.ARP))
    shared.station.listen(is_announcement, what="a defence")
    happened = tally_after(shared.instance, before, 1)
    assert (happened.worker["copies"], happened.worker["punted"]) == (1, 1)


def test_tcp_with_the_kernel_works_both_ways(shared: Shared) -> None:
    before = tally(shared.instance)
    ends = (shared.peer, PEER), (shared.namespace, KERNELS)
    for sender, receiver in (ends, ends[::-1]):
        assert digest(transfer(sender, receiver)) == digest(DATA)
    happened = tally(shared.instance).since(before)
    assert happened.worker["punted"] <= 4, "ARP alone"
    assert not happened.drops


@pytest.mark.parametrize(
    ("ethertype", "tags", "dst"),
    [
        (0x86DD, b"", None),
        (0x88CC, b"", bytes.fromhex("0180c200000e")),
        (0x88B5, b"", frames.BROADCAST),
        (0x88B5, b"", bytes.fromhex("020000000055")),
        (frames.IPV4, frames.tag(5), None),
        (frames.ARP, frames.tag(5), frames.BROADCAST),
    ],
)
def test_frames_that_are_none_of_ours_pass_unchanged_both_ways(
    shared: Shared, ethertype: int, tags: bytes, dst: bytes | None
) -> None:
    data = os.urandom(100)

    def is_it(frame: Heard) -> bool:
        return frame.octets.endswith(data)

    payload = frames.packet(src=PEER, dst=OURS, payload=data) if ethertype == frames.IPV4 else data
    with Station(shared.namespace, shared.twin) as kernel:
        there = frames.frame(
            dst=dst or shared.mac, src=shared.station.mac, payload=payload, ethertype=ethertype, tags=tags
        )
        shared.station.send(there)
        (heard,) = kernel.listen(is_it, what="the frame")
        assert heard.octets == there
        back = frames.frame(
            dst=dst or shared.station.mac, src=shared.mac, payload=payload, ethertype=ethertype, tags=tags
        )
        shared.station.heard()
        kernel.send(back)
        (heard,) = shared.station.listen(is_it, what="the answer")
        assert heard.octets == back
    balanced(shared.instance)


def test_broken_packets_are_the_kernels_when_they_are_for_it(shared: Shared) -> None:
    before = tally(shared.instance)
    with Station(shared.namespace, shared.twin) as kernel:
        for dst in (KERNELS, OURS):
            packet = bytearray(frames.packet(src=PEER, dst=dst, payload=frames.echo_request()))
            packet[10] ^= 0xFF  # of the header's checksum
            shared.station.send(frames.frame(dst=shared.mac, src=shared.station.mac, payload=bytes(packet)))
        happened = tally_after(shared.instance, before, 2)
        assert happened.drops == {"ipv4_checksum": 1}
        (heard,) = [frame for frame in kernel.heard() if frame.ethertype == frames.IPV4]
        assert heard.octets[30:34] == socket.inet_aton(KERNELS)


def test_status_says_where_the_kernel_is(shared: Shared) -> None:
    command = (sys.executable, "-m", "halo_mp.supervisor.status", "--name", shared.instance.name)
    said = shared.namespace.run(*command).stdout
    assert f"the kernel has its share on {shared.twin}" in said


def test_every_buffer_is_back(shared: Shared) -> None:
    first = buffers(shared.instance)
    shared.peer.pinged(KERNELS, count=20)
    assert buffers(shared.instance) == first


def test_twin_survives_the_driver_and_is_gone_at_the_end(namespace: Namespace, peer: Namespace) -> None:
    with sharing(namespace, peer, "net_af_packet", kernel=f"0={OURS}") as shared:
        instance, before = shared.instance, link(namespace, shared.twin).split(":")[0]
        with Pinger(peer, KERNELS) as kernels, Pinger(peer, OURS) as ours:
            for role, slot in (("driver", None), ("worker", 0)):
                for pinger in (kernels, ours):
                    pinger.wait_for_more()
                old = pid(instance, role, slot)
                kill(old)
                wait_for_successor(instance, role, old, slot)
                for pinger in (kernels, ours):
                    pinger.wait_for_more()
                assert link(namespace, shared.twin).split(":")[0] == before, "the very same interface"
                assert shared.mac.hex(":") in link(namespace, shared.twin)
            namespace.run("ip", "link", "del", shared.twin)
            instance.wait_for("port.returned")
            wait_until(lambda: shared.mac.hex(":") in link(namespace, shared.twin), what="the twin's MAC")
            namespace.run("ip", "address", "add", f"{KERNELS}/24", "dev", shared.twin)
            for pinger in (kernels, ours):
                pinger.wait_for_more()
        assert instance.stop() == 0
        assert not link(namespace, shared.twin)


def commands(page: str, first: str) -> list[str]:
    """Return the lines of the block of a page that begins with this one."""
    (block,) = [block for block in page.split("\n\n") if block.startswith(f"    {first}")]
    return [line.strip() for line in block.splitlines()]


def test_lines_of_the_page_move_an_address_and_back_under_a_connection(
    namespace: Namespace, peer: Namespace
) -> None:
    """As docs/operating.md has them, with eth0 and halok0 under the names that they have here."""
    page = (Path(__file__).parents[2] / "docs/operating.md").read_text()
    there = commands(page, "ip address add 192.0.2.10/24 dev halok0")
    back = commands(page, "sysctl -w net.ipv6.conf.eth0.disable_ipv6=0")
    connect(namespace, peer)
    for side in (namespace, peer):
        side.silence()
    namespace.run("ip", "address", "add", "192.0.2.10/24", "dev", "veth0")
    namespace.run("ip", "route", "add", "default", "via", "192.0.2.1")
    peer.run("ip", "address", "add", "192.0.2.1/24", "dev", "veth0")
    peer.run("ip", "address", "add", "198.51.100.1/32", "dev", "lo")
    with (
        socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM) as listener,
        socket_in(peer, socket.AF_INET, socket.SOCK_STREAM) as near,
        socket_in(peer, socket.AF_INET, socket.SOCK_STREAM) as far,
    ):
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        far.bind(("198.51.100.1", 0))  # by way of the default route
        connections = []
        for each in (near, far):
            each.settimeout(20)
            each.connect(("192.0.2.10", listener.getsockname()[1]))
            connections.append(listener.accept()[0])
        with ExitStack() as open_ends:
            for each in connections:
                open_ends.enter_context(each).settimeout(20)

            def is_alive() -> None:
                for one, other in zip((near, far), connections, strict=True):
                    for sender, receiver in ((one, other), (other, one)):
                        word = os.urandom(5000)
                        sender.sendall(word)
                        assert exactly(receiver, len(word)) == word

            is_alive()
            device = ("--vdev", "net_af_packet0,iface=veth0", "--address", "0=192.0.2.20/24", "--kernel", "0")
            with Instance(namespace, *device) as instance:
                is_alive()
                for lines in (there, back):
                    for line in lines:
                        said = line.replace("eth0", "veth0").replace("halok0", f"{instance.name}k0")
                        namespace.run(*said.split())
                        is_alive()
                    assert peer.ping("192.0.2.20") == 3
                    assert peer.ping("192.0.2.10") == 3
                    listed = namespace.run("ip", "route", "get", "198.51.100.1").stdout
                    assert (f"{instance.name}k0" in listed) == (lines is there)
                assert instance.stop() == 0
            is_alive()


def test_two_workers_share_the_port_with_the_kernel(namespace: Namespace, peer: Namespace) -> None:
    """Frames for the kernel come to either worker and go to the twin; what the kernel sends comes by the first."""
    sources = [f"10.9.0.{last}" for last in range(100, 116)]
    with sharing(namespace, peer, "net_af_packet", "--queues", "2", "--spread", "software") as shared:
        for source in sources:
            peer.run("ip", "address", "add", f"{source}/24", "dev", "veth0")
        before = [tally(shared.instance, slot) for slot in (0, 1)]
        for address in (OURS, KERNELS):
            for source in sources:
                peer.pinged(address, count=1, options=("-I", source))
        balanced(shared.instance, 0, 1)
        first, second = (tally(shared.instance, slot).since(before[slot]) for slot in (0, 1))
        assert first.worker["echo_replies"] + second.worker["echo_replies"] == len(sources)
        assert second.worker["echo_replies"] >= 1
        assert second.worker["tx_frames"] >= 2 * second.worker["echo_replies"], "as many went to the kernel"
        assert first.worker["tx_frames"] >= 2 * len(sources)
        assert not first.drops
        assert not second.drops
        assert shared.instance.stop() == 0
