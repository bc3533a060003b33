# SPDX-License-Identifier: Apache-2.0
"""What an interface can be besides an untagged /24: a VLAN, a /31, a /32, proxy ARP, directed broadcasts, down and up.

The kernel here has no VLANs: on them a station sends and hears octets.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from halo_mp.control.client import Client
from halo_mp.wire import arp, icmpv4, ipv4
from tests.support import frames
from tests.support.flows import Asker, Listener, Told, gather, sender
from tests.support.namespace import wait_until
from tests.support.network import Network
from tests.support.station import Heard, Station

VID = 100
TAGGED, ROUTER, UNTAGGED = "10.100.0.2", "10.100.0.1", "10.1.0.2"
TAG = frames.tag(VID)
FLAGS = (
    *("--address", f"0.{VID}={ROUTER}/24"),
    *("--address", "1=10.31.0.0/31", "--address", "1=10.32.0.1/32", "--route", "10.32.0.2/32=@1"),
)
TTL_AT = 8
BROADCAST, PORT = "10.1.0.255", 7000


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network(*FLAGS) as made:
        yield made
        made.stop()


@pytest.fixture
def client(network: Network) -> Iterator[Client]:
    with network.client() as made:
        yield made


@pytest.fixture(autouse=True)
def accounts(network: Network) -> Iterator[None]:
    """Whatever a test does, the accounts balance afterwards."""
    yield
    network.settled()


# ---- VLANs


def is_tagged(frame: Heard, ethertype: int) -> bool:
    return frame.octets[12:16] == TAG and frame.octets[16:18] == ethertype.to_bytes(2, "big")


def asks_for(host: str) -> Callable[[Heard], bool]:
    """Whether it is an ARP request for that host on the VLAN."""
    return lambda frame: (
        is_tagged(frame, frames.ARP)
        and frame.octets[24:26] == b"\0\1"
        and packed(host) == frame.octets[42:46]
    )


def is_from(host: str) -> Callable[[Heard], bool]:
    return lambda frame: frame.ethertype == frames.IPV4 and frame.octets[26:30] == packed(host)


def packed(address: str) -> bytes:
    return socket.inet_aton(address)


def mac_of(client: Client, name: str) -> bytes:
    (found,) = (each.mac for each in client.interfaces.list() if each.name == name)
    return bytes.fromhex(found.replace(":", ""))


def tell(station: Station, asked: Heard) -> None:
    """Answer an ARP request on the VLAN."""
    host = socket.inet_ntoa(asked.octets[42:46])
    reply = frames.arp_packet(
        arp.REPLY, sender_mac=station.mac, sender=host, target=ROUTER, target_mac=asked.src
    )
    station.send(frames.frame(dst=asked.src, src=station.mac, ethertype=frames.ARP, payload=reply, tags=TAG))


@pytest.mark.parametrize(
    ("octets", "host"), [(0, "10.100.0.10"), (1, "10.100.0.11"), (18, "10.100.0.12"), (1472, "10.100.0.13")]
)
def test_tagged_in_untagged_out_and_back(network: Network, client: Client, octets: int, host: str) -> None:
    """Of the host on the VLAN nobody knows anything before; what is short is padded."""
    left, right = (each.namespace for each in network.hosts)
    data = bytes(range(256)) * 6
    request = frames.packet(src=host, dst=UNTAGGED, payload=frames.echo_request(data[:octets]))
    before = network.settled()
    with Station(left, "veth0") as tagged, Station(right, "veth1") as untagged:
        mac = mac_of(client, f"0.{VID}")
        tagged.send(frames.frame(dst=mac, src=tagged.mac, payload=request, tags=TAG).ljust(60, b"\0"))
        (out,) = untagged.listen(is_from(host), what="the request")
        sent_on = frames.mended(frames.changed(request, TTL_AT, b"\x3f"))
        assert out.octets[14:] == sent_on.ljust(46, b"\0")
        (asked,) = tagged.listen(asks_for(host), what="a request for the host")
        tell(tagged, asked)
        (back,) = tagged.listen(lambda frame: is_tagged(frame, frames.IPV4), what="the reply")
    packet = ipv4.parse(back.octets[18:])
    assert (packet.src, packet.dst, packet.ttl) == (*map(ipv4.parse_address, (UNTAGGED, host)), 63)
    reply = icmpv4.parse(packet.payload)
    assert (reply.type, bytes(reply.payload)) == (icmpv4.ECHO_REPLY, data[:octets])
    assert not network.settled().since(before).drops


def test_address_on_the_vlan_answers_there_and_another_vlan_is_nobodys(
    network: Network, client: Client
) -> None:
    left = network.hosts[0].namespace
    before = network.settled()
    with Station(left, "veth0") as tagged:
        client.neighbors.add(f"0.{VID}", TAGGED, tagged.mac.hex(":"))
        request = frames.packet(src=TAGGED, dst=ROUTER, payload=frames.echo_request())
        for tags in (TAG, frames.tag(VID + 1)):
            tagged.send(frames.frame(dst=mac_of(client, "0"), src=tagged.mac, payload=request, tags=tags))
        (back,) = tagged.listen(lambda frame: is_tagged(frame, frames.IPV4), what="the reply")
        assert back.octets[30:38] == packed(ROUTER) + packed(TAGGED)
    client.neighbors.delete(f"0.{VID}", TAGGED)
    assert network.settled().since(before).drops == {"vlan_unknown": 1}


# ---- prefixes


@pytest.mark.parametrize(("ours", "theirs"), [("10.31.0.0", "10.31.0.1"), ("10.32.0.1", "10.32.0.2")])
def test_link_of_two_hosts(network: Network, ours: str, theirs: str) -> None:
    left, right = (host.namespace for host in network.hosts)
    right.run("ip", "address", "add", theirs, "peer", ours, "dev", "veth1")
    before = network.settled()
    assert left.ping(theirs, count=1, options=("-W", "5")) == 1
    assert right.ping(ours, count=1, options=("-W", "5", "-I", theirs)) == 1
    assert left.ping(ours, count=1, options=("-W", "5")) == 1
    assert not network.settled().since(before).drops


# ---- settings


def test_proxy_arp_answers_for_the_other_side_while_it_is_on(network: Network, client: Client) -> None:
    left = network.hosts[0].namespace
    left.run("ip", "route", "add", UNTAGGED, "dev", "veth0")  # as if it were on the link
    try:
        assert left.ping(UNTAGGED, count=1, options=("-W", "1")) == 0
        client.interfaces.set("0", proxy_arp=True)
        left.run("ip", "neigh", "flush", "all")
        left.pinged(UNTAGGED)
        neighbor = left.run("ip", "neigh", "show", UNTAGGED).stdout
        assert mac_of(client, "0").hex(":") in neighbor
        client.interfaces.set("0", proxy_arp=False)
        left.run("ip", "neigh", "flush", "all")
        assert left.ping(UNTAGGED, count=1, options=("-W", "1")) == 0
    finally:
        left.run("ip", "route", "del", UNTAGGED, "dev", "veth0")


def test_directed_broadcast_goes_out_while_it_is_on(network: Network, client: Client) -> None:
    left, right = (host.namespace for host in network.hosts)
    before = network.settled()
    with Listener(right, PORT) as listener, sender(left) as out:

        def drops(count: int) -> bool:
            return network.settled().since(before).drops == {"ipv4_directed_broadcast": count}

        out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        out.sendto(b"off", (BROADCAST, PORT))
        wait_until(lambda: drops(1), what="the drop")
        client.interfaces.set("1", directed_broadcast=True)
        out.sendto(b"on", (BROADCAST, PORT))
        found = gather([listener], 1)
        client.interfaces.set("1", directed_broadcast=False)
        out.sendto(b"off again", (BROADCAST, PORT))
        wait_until(lambda: drops(2), what="the other drop")
        assert [(each.data, each.dst) for each in (*found, *listener.arrived())] == [(b"on", BROADCAST)]


def test_interface_that_is_down_is_unreachable_and_comes_back(network: Network, client: Client) -> None:
    left, right = (host.namespace for host in network.hosts)
    left.pinged(UNTAGGED)
    client.interfaces.set("1", up=False)
    with Asker(left, UNTAGGED) as asker:
        asker.send()
        told = asker.told()
    assert told == Told(icmpv4.UNREACHABLE, icmpv4.NET_UNREACHABLE, "10.0.0.1", 0)
    assert right.ping("10.1.0.1", count=1, options=("-W", "1")) == 0
    assert left.ping("10.0.0.1", count=1, options=("-W", "5")) == 1
    client.interfaces.set("1", up=True)
    before = network.settled()
    assert left.ping(UNTAGGED, count=1, options=("-W", "5")) == 1
    assert right.ping("10.0.0.2", count=1, options=("-W", "5")) == 1
    assert not network.settled().since(before).drops
