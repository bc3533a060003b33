# SPDX-License-Identifier: Apache-2.0
"""Ports on an interface that the kernel has already, a veth, pinged from its other end: af_packet and af_xdp."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.interop.conftest import is_announcement
from tests.support import frames
from tests.support.accounts import balanced, buffers, tally, tally_after
from tests.support.instance import Instance
from tests.support.namespace import Namespace, connect, wait_until
from tests.support.station import Station
from tests.support.unprivileged import IN_FIRST_USER_NAMESPACE

SIZES = (0, 1, 7, 8, 55, 56, 57, 1471, 1472)
OURS, PEER = "10.9.0.1", "10.9.0.2"
MODES = {"net_af_packet": "direct"} | ({"net_af_xdp": "copy"} if IN_FIRST_USER_NAMESPACE else {})


@dataclass(frozen=True, slots=True)
class Veth:
    """An instance on one end of a veth, the kernel and a station on the other."""

    driver: str
    instance: Instance
    peer: Namespace
    station: Station
    mac: bytes


@pytest.fixture(params=list(MODES), scope="module")
def veth(request: pytest.FixtureRequest) -> Iterator[Veth]:
    driver: str = request.param
    with Namespace() as namespace, Namespace() as peer:
        cable(namespace, peer)
        device = ("--vdev", f"{driver}0,iface=veth0", "--address", f"0={OURS}/24")
        with Station(peer, "veth0") as station, Instance(namespace, *device) as instance:
            first, second = station.listen(is_announcement, count=2, what="announcements")
            assert first.octets == second.octets == frames.announcement(mac=first.src, address=OURS)
            yield Veth(driver, instance, peer, station, first.src)
            assert instance.stop() == 0


def cable(namespace: Namespace, peer: Namespace, *, queues: int = 1) -> None:
    """Join two namespaces in which the kernels say nothing of their own accord; the peer's has an address."""
    for side in (namespace, peer):
        side.silence()
    connect(namespace, peer, queues=queues)
    peer.run("ip", "address", "add", f"{PEER}/24", "dev", "veth0")


def test_pinged_by_the_other_end_answers_every_size(veth: Veth) -> None:
    before, pool = tally(veth.instance), buffers(veth.instance)
    sent = sum(veth.peer.pinged(OURS, size=size) for size in SIZES)
    happened = tally(veth.instance).since(before)
    assert happened.worker["echo_replies"] == sent
    assert happened.driver["tx_sent"] == happened.worker["tx_frames"]
    assert not happened.drops
    wait_until(lambda: buffers(veth.instance) == pool, what="all buffers back")


def test_pinged_with_options_answers_from_python(veth: Veth) -> None:
    before = tally(veth.instance)
    sent = veth.peer.pinged(OURS, options=("-R",))
    assert tally(veth.instance).since(before).worker["punted"] >= sent


def test_flooded_answers_everything(veth: Veth) -> None:
    before = tally(veth.instance)
    sent = veth.peer.pinged(OURS, count=500, interval_s=0.002)
    happened = tally(veth.instance).since(before)
    assert happened.worker["echo_replies"] == sent
    assert not happened.drops


def test_fragments_are_answered(veth: Veth) -> None:
    """A packet socket of net_af_packet gets what the kernel has put together, if it fits a frame of its ring."""
    reassembled = veth.driver == "net_af_packet"
    before = tally(veth.instance)
    sent = veth.peer.pinged(OURS, size=1600)
    happened = tally(veth.instance).since(before)
    assert happened.driver["tx_sent"] >= 2 * sent
    assert happened.worker["punted"] >= (1 if reassembled else 2) * sent
    assert not happened.drops
    if reassembled:
        before = tally(veth.instance)
        assert veth.peer.ping(OURS, size=3000, count=1, options=("-W", "0.1")) == 0
        assert tally_after(veth.instance, before, 1).drops == {"ipv4_total_length": 1}
    else:
        veth.peer.pinged(OURS, size=8000)


def test_started_tells_what_the_device_is(veth: Veth) -> None:
    port = veth.instance.ports()["ports"][0]
    assert (port["driver"], port["device"]) == (veth.driver, f"{veth.driver}0")
    assert port["mode"] == MODES[veth.driver]
    assert (port["state"], port["mtu"], port["link_up"]) == ("started", 1500, True)
    assert port["mac"] == veth.mac, "no kernel answers under this MAC address, so our stack may"


def test_tagged_frames_belong_to_nobody(veth: Veth) -> None:
    """The kernel takes the tag out of a frame for a packet socket; it must not get lost."""
    echo = frames.packet(src=PEER, dst=OURS, payload=frames.echo_request())
    for vid, drops, answers in ((5, {"vlan_unknown": 1}, 0), (4095, {"vlan_unknown": 1}, 0), (0, {}, 1)):
        before = tally(veth.instance)
        veth.station.heard()
        tags = frames.tag(vid, priority=3)
        veth.station.send(frames.frame(dst=veth.mac, src=veth.station.mac, payload=echo, tags=tags))
        happened = tally_after(veth.instance, before, 1)
        assert (happened.drops, happened.worker["echo_replies"]) == (drops, answers), vid


def test_after_everything_the_accounts_balance(veth: Veth) -> None:
    [slot] = balanced(veth.instance)
    assert slot["worker"]["drops"]["stack_error"] == 0
    lcore = veth.instance.ports()["lcores"][0]
    assert lcore["naps"] > 0, "no fd says that a frame is there, so the driver naps"
    assert lcore["sleeps"] == 0


def test_port_without_address_answers_nothing(namespace: Namespace, peer: Namespace) -> None:
    cable(namespace, peer)
    with (
        Station(peer, "veth0") as station,
        Instance(namespace, "--vdev", "net_af_packet0,iface=veth0") as instance,
    ):
        mac = instance.ports()["ports"][0]["mac"]
        before = tally(instance)
        for address in ("0.0.0.0", "255.255.255.255", OURS):
            echo = frames.packet(src=PEER, dst=address, payload=frames.echo_request())
            station.send(frames.frame(dst=mac, src=station.mac, payload=echo))
        request = frames.arp_packet(1, sender_mac=station.mac, sender=PEER, target=OURS)
        station.send(
            frames.frame(dst=frames.BROADCAST, src=station.mac, ethertype=frames.ARP, payload=request)
        )
        happened = tally_after(instance, before, 4)
        assert happened.worker["tx_frames"] == 0
        assert sum(happened.drops.values()) + happened.worker["consumed"] == 4
        assert station.heard() == []


def test_mtu_that_the_device_refuses_is_a_sentence(namespace: Namespace, peer: Namespace) -> None:
    cable(namespace, peer)
    flags = ("--vdev", "net_af_packet0,iface=veth0", "--address", f"0={OURS}/24", "--mtu", "9000")
    with Instance(namespace, *flags, wait=False) as instance:
        assert instance.wait() == 5
        instance.stop()
        said = instance.text()
    assert "port 0 (net_af_packet0): MTU 9000 is refused" in said
    assert "change --mtu" in said
    assert "Traceback" not in said


@pytest.mark.skipif(not IN_FIRST_USER_NAMESPACE, reason="no XDP here: test_unprivileged.py has the refusal")
def test_mtu_that_the_device_takes_is_used(namespace: Namespace, peer: Namespace) -> None:
    cable(namespace, peer)
    for side in (namespace, peer):
        side.run("ip", "link", "set", "veth0", "mtu", "3000")
    flags = ("--vdev", "net_af_xdp0,iface=veth0", "--address", f"0={OURS}/24", "--mtu", "3000")
    with Instance(namespace, *flags):
        for size in (56, 1472, 1473, 2020, 2972):
            peer.pinged(OURS, size=size)


def test_small_mtu_is_used(namespace: Namespace, peer: Namespace) -> None:
    cable(namespace, peer)
    flags = ("--vdev", "net_af_packet0,iface=veth0", "--address", f"0={OURS}/24", "--mtu", "576")
    with Instance(namespace, *flags) as instance:
        assert "mtu 576" in namespace.run("ip", "link", "show", "veth0").stdout
        assert instance.ports()["ports"][0]["mtu"] == 576
        peer.run("ip", "link", "set", "veth0", "mtu", "576")
        peer.pinged(OURS, size=548)
