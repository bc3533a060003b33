# SPDX-License-Identifier: Apache-2.0
"""Which worker gets a frame: several queues of a port, and several ports on one slot."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from halo_mp.shm.layout import RegionKind
from tests.interop.conftest import is_announcement, is_arp_reply
from tests.support import frames
from tests.support.accounts import balanced, tally, tally_after
from tests.support.instance import Instance
from tests.support.namespace import Namespace, connect, wait_until
from tests.support.station import Heard, Station, socket_in

OURS, PEER = "10.9.0.1", "10.9.0.2"
FLOWS = 64


@dataclass(frozen=True, slots=True)
class TwoQueues:
    """A port with two queues, a worker for each, and who talks to it."""

    driver: str
    instance: Instance
    client: Namespace
    station: Station
    everywhere: Station
    announced: list[Heard]
    ours: str = OURS

    def echo(self, last: int) -> bytes:
        """Return an echo request from a source of its own."""
        request = frames.packet(
            src=f"10.9.0.{last}", dst=self.ours, payload=frames.echo_request(sequence=last)
        )
        return frames.frame(dst=self.announced[0].src, src=self.station.mac, payload=request)


@pytest.fixture(scope="module", params=["net_tap", "net_af_packet"])
def two_queues(request: pytest.FixtureRequest) -> Iterator[TwoQueues]:
    driver: str = request.param
    with Namespace() as namespace, Namespace() as peer:
        for side in (namespace, peer):
            side.silence()
        flags = ["--queues", "2", "--address", f"0={OURS}/24"]
        client = namespace
        if driver != "net_tap":
            connect(namespace, peer, queues=2)
            peer.run("ip", "address", "add", f"{PEER}/24", "dev", "veth0")
            flags += ["--vdev", f"{driver}0,iface=veth0"]
            client = peer
        with Station(client) as everywhere, Instance(namespace, *flags) as instance:
            announced = everywhere.listen(is_announcement, what="an announcement")
            while (
                announced[-1].at - announced[0].at < 1.5
            ):  # the second ones come two seconds after the first
                announced += everywhere.listen(is_announcement, what="a second announcement")
            interface = f"{instance.name}.0" if driver == "net_tap" else "veth0"
            with Station(client, interface) as station:
                yield TwoQueues(driver, instance, client, station, everywhere, announced)
            assert instance.stop() == 0


def received(instance: Instance) -> list[int]:
    """Frames that each of the two slots has received so far."""
    return [slot["driver"]["counters"]["rx_frames"] for slot in balanced(instance, 0, 1)]


def test_each_queue_has_a_worker_of_its_own(two_queues: TwoQueues) -> None:
    slots = balanced(two_queues.instance, 0, 1)
    assert [slot["state"] for slot in slots] == ["enabled"] * 2
    assert slots[0]["worker_pid"] != slots[1]["worker_pid"]
    port = two_queues.instance.ports()["ports"][0]
    assert (port["driver"], port["rx_queues"]) == (two_queues.driver, 2)


def test_many_flows_reach_both_workers(two_queues: TwoQueues) -> None:
    instance = two_queues.instance
    before, at = tally(instance, 0, 1), received(instance)
    for _ in range(FLOWS):
        with socket_in(two_queues.client, socket.AF_INET, socket.SOCK_DGRAM) as flow:
            for _ in range(4):
                flow.sendto(b"flow", (two_queues.ours, 9))
    happened = tally_after(instance, before, 4 * FLOWS, 0, 1)
    assert happened.drops == {"no_listener": 4 * FLOWS}
    share = [now - then for now, then in zip(received(instance), at, strict=True)]
    assert min(share) >= FLOWS, f"a quarter of the frames for the worker with fewer: {share}"


def test_every_ping_is_answered(two_queues: TwoQueues) -> None:
    before = tally(two_queues.instance, 0, 1)
    sent = sum(two_queues.client.pinged(two_queues.ours, size=size) for size in range(0, 1473, 92))
    happened = tally(two_queues.instance, 0, 1).since(before)
    assert happened.worker["echo_replies"] == sent
    assert not happened.drops


def test_pings_of_many_sources_are_answered_by_both_workers(two_queues: TwoQueues) -> None:
    before, at = tally(two_queues.instance, 0, 1), received(two_queues.instance)
    two_queues.station.heard()
    for last in range(100, 100 + FLOWS):
        two_queues.station.send(two_queues.echo(last))
    happened = tally_after(two_queues.instance, before, FLOWS, 0, 1)
    assert happened.worker["echo_replies"] == FLOWS
    answered = {frame.octets[33] for frame in two_queues.station.heard() if frame.ethertype == frames.IPV4}
    assert answered == set(range(100, 100 + FLOWS))
    share = [now - then for now, then in zip(received(two_queues.instance), at, strict=True)]
    assert min(share) >= FLOWS // 4, share


def test_ping_with_options_is_answered_whichever_worker_resolves(two_queues: TwoQueues) -> None:
    """The answer to one worker's ARP request may reach the other: the supervisor passes on what it learns."""
    two_queues.client.pinged(two_queues.ours, count=20, options=("-R",))


def test_request_for_the_address_gets_one_reply(two_queues: TwoQueues) -> None:
    two_queues.station.heard()
    interface = two_queues.station.interface or ""
    detection = two_queues.client.run(
        "arping", "-D", "-I", interface, "-c", "1", "-w", "1", two_queues.ours, check=False
    )
    assert detection.returncode == 1
    tally(two_queues.instance, 0, 1)
    assert len([frame for frame in two_queues.station.heard() if is_arp_reply(frame)]) == 1


def test_answered_flows_stay_with_their_workers(two_queues: TwoQueues) -> None:
    shares = []
    for _ in range(3):
        before, at = tally(two_queues.instance, 0, 1), received(two_queues.instance)
        for last in range(100, 100 + FLOWS):
            two_queues.station.send(two_queues.echo(last))
        tally_after(two_queues.instance, before, FLOWS, 0, 1)
        shares.append([now - then for now, then in zip(received(two_queues.instance), at, strict=True)])
    assert shares[0] == shares[1] == shares[2]
    assert min(shares[0]) > 0


def test_two_workers_announce_as_one_station(two_queues: TwoQueues) -> None:
    """The last of the module: whoever announces has done so by now."""
    later = [frame for frame in two_queues.everywhere.heard() if is_announcement(frame)]
    assert len(two_queues.announced + later) == 2


def test_two_ports_on_one_slot_are_answered_by_one_worker(namespace: Namespace) -> None:
    with Instance(namespace, "--ports", "0,1", "--slot", "0=0,1") as instance:
        sent = sum(namespace.pinged(f"10.77.{port}.1") for port in (0, 1))
        for port in (0, 1):
            namespace.pinged(f"10.77.{port}.1", options=("-R",))
        assert tally(instance).worker["echo_replies"] == sent
        assert len(instance.events("worker.spawned")) == 1
        slot = instance.slot(0)
        assert slot["worker_pid"] == instance.events("worker.spawned")[0]["pid"]
        # The other port's address is not on this link.
        namespace.run("ip", "route", "add", "10.77.1.1/32", "dev", f"{instance.name}.0")
        assert namespace.ping("10.77.1.1", count=1, options=("-W", "0.2")) == 0
        assert instance.stop() == 0


def test_queue_that_feeds_nobody_is_drained_and_counted(namespace: Namespace) -> None:
    namespace.silence()
    with Instance(namespace, "--ports", "0,1", "--slot", "0=0") as instance:
        warnings = [event["text"] for event in instance.events("config.warning")]
        assert any(text.startswith("Port 1 queue 0 feeds no slot") for text in warnings)
        assert namespace.ping("10.77.0.1") == 3
        assert namespace.ping("10.77.1.1", count=2, options=("-W", "0.2")) == 0
        unclaimed = sum(lcore["unclaimed_frames"] for lcore in instance.ports()["lcores"])
        port = instance.ports()["ports"][1]
        assert unclaimed >= 1
        assert port["stats"]["tx_frames"] == 0


def test_two_driver_cores_share_a_port_with_one_transmit_queue(namespace: Namespace) -> None:
    """The second core has no transmit queue on a TAP of one queue: its frames go by way of the first."""
    namespace.silence()
    cores = sorted(os.sched_getaffinity(0))[:2]
    assert len(cores) == 2, "this needs two cores"
    flags = ("--ports", "0,1", "--driver-cores", ",".join(map(str, cores)))
    with Instance(namespace, *flags) as instance:
        assert [slot["home_lcore"] for slot in balanced(instance, 0, 1)] == [0, 1]
        sent = [namespace.pinged(f"10.77.{slot}.1", count=20) for slot in (0, 1)]
        first, second = tally(instance, 0), tally(instance, 1)
        assert [first.worker["echo_replies"], second.worker["echo_replies"]] == sent
        assert (first.driver["tx_sent"], first.driver["tx_passed"]) == (first.worker["tx_frames"], 0)
        assert (second.driver["tx_sent"], second.driver["tx_passed"]) == (0, second.worker["tx_frames"])
        with instance.region("ports", RegionKind.PORTS) as region:
            lcores = [region.pointer.lcore[number] for number in (0, 1)]
            passed = second.driver["tx_passed"]
            wait_until(lambda: lcores[0].passed_sent == passed, what="the passed frames' way out")
            assert lcores[0].passed_in == passed
            assert (lcores[0].passed_dropped, lcores[1].passed_in) == (0, 0)
