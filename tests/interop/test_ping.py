# SPDX-License-Identifier: Apache-2.0
"""Pings that workers send: to kernels, whichever worker the answer comes to; and what becomes of them on the way."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from halo_mp.control.client import AsyncClient, Client, RefusedError
from halo_mp.control.public import PingInfo
from tests.support.accounts import balanced
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, connect, wait_until

KERNEL = "10.77.0.2", "10.77.1.2"
FAST = {"interval_s": 0.01, "timeout_s": 30.0}


@pytest.fixture(scope="module")
def router() -> Iterator[Instance]:
    """Two ports, a worker for each, and one kernel behind both, which forwards."""
    with Namespace() as namespace:
        namespace.silence()
        with Instance(namespace, "--ports", "0,1") as instance:
            namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0")
            namespace.run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0")
            ledger = Ledger(instance, 0, 1)
            yield instance
            ledger.assert_balanced()
            assert instance.stop() == 0


@pytest.fixture
def client(router: Instance) -> Iterator[Client]:
    with Client(path=router.runtime / "control.sock", timeout_s=30.0) as connected:
        yield connected


def sources(outcomes: list[PingInfo]) -> list[tuple[str, str]]:
    return [(each.outcome, each.src) for each in outcomes]


def test_each_request_is_answered_and_timed(client: Client) -> None:
    for kernel in KERNEL:
        found = client.ping(kernel, count=20, **FAST)
        assert sources(found) == [("reply", kernel)] * 20
        assert all(0 < each.rtt_ns < 30e9 and each.ttl == 64 for each in found)


def test_own_address_is_answered_too(client: Client) -> None:
    assert sources(client.ping("10.77.1.1", count=2, **FAST)) == [("reply", "10.77.1.1")] * 2


def test_request_longer_than_the_link_goes_in_fragments_and_comes_back(client: Client) -> None:
    assert sources(client.ping(KERNEL[0], count=2, size=4000, **FAST)) == [("reply", KERNEL[0])] * 2


def test_answer_to_another_worker_is_handed_to_who_asked(router: Instance, client: Client) -> None:
    """What is asked by port 0 as the address of port 1 is answered by port 1, which has another worker."""
    before = balanced(router, 0, 1)
    found = client.ping(KERNEL[0], count=30, source="10.77.1.1", **FAST)
    assert sources(found) == [("reply", KERNEL[0])] * 30
    after = balanced(router, 0, 1)

    def more(slot: int, name: str) -> int:
        then, now = (each[slot]["worker"]["counters"][name] for each in (before, after))
        return int(now - then)

    assert more(1, "tx_handed") >= 30
    assert more(0, "rx_handed") >= 30


def test_two_queues_of_a_port_hand_each_other_what_is_theirs() -> None:
    peers = [f"10.9.0.{last}" for last in range(20, 36)]
    with Namespace() as namespace, Namespace() as peer:
        for side in (namespace, peer):
            side.silence()
        connect(namespace, peer)
        for address in peers:
            peer.run("ip", "address", "add", f"{address}/24", "dev", "veth0")
        flags = ("--queues", "2", "--spread", "software", "--vdev", "net_af_packet0,iface=veth0")
        with Instance(namespace, *flags, "--address", "0=10.9.0.1/24") as instance:

            async def ask() -> list[list[PingInfo]]:
                async def one(address: str) -> list[PingInfo]:
                    async with AsyncClient(path=instance.runtime / "control.sock", timeout_s=30.0) as client:
                        return await client.ping(address, count=4, **FAST)

                return await asyncio.gather(*map(one, peers))

            found = asyncio.run(ask())
            assert [sources(each) for each in found] == [[("reply", address)] * 4 for address in peers]
            slots = balanced(instance, 0, 1)
            assert slots[0]["worker"]["counters"]["rx_handed"] > 0
            assert slots[1]["worker"]["counters"]["tx_handed"] > 0
            Ledger(instance, 0, 1).assert_balanced()
            assert instance.stop() == 0


def test_errors_on_the_way_are_outcomes(router: Instance, client: Client) -> None:
    def outcome(address: str, **settings: int | bool) -> tuple[str, str, int, int, int]:
        [found] = client.ping(address, count=1, timeout_s=30.0, **settings)  # type: ignore[arg-type]
        return found.outcome, found.src, found.type, found.code, found.mtu

    client.routes.add("198.51.100.0/24", via="10.77.0.2")
    client.routes.add("198.51.101.0/24", via="unreachable")
    client.routes.add("198.51.102.0/24", via="prohibit")
    try:
        assert outcome("203.0.113.1") == ("error", "", 3, 0, 0), "no route"
        assert outcome("198.51.101.1") == ("error", "", 3, 1, 0)
        assert outcome("198.51.102.1") == ("error", "", 3, 13, 0)
        assert outcome("10.77.0.99") == ("error", "", 3, 1, 0), "nobody has the address"
        assert outcome(KERNEL[0], size=2000, df=True) == ("error", "", 3, 4, 1500)
        # The kernel behind port 0 is a router, too: without a route of its own, and with a TTL that has run out.
        assert outcome("198.51.100.1") == ("error", KERNEL[0], 3, 0, 0)
        router.namespace.run("ip", "route", "add", "198.51.100.128/25", "via", "10.77.1.1")
        assert outcome("198.51.100.129", ttl=1) == ("error", KERNEL[0], 11, 0, 0)
        assert outcome("10.77.0.2", ttl=1)[:2] == ("reply", KERNEL[0])
    finally:
        client.routes.delete_all(["198.51.100.0/24", "198.51.101.0/24", "198.51.102.0/24"])


def test_silence_is_a_timeout_for_each_request(client: Client) -> None:
    client.routes.add("198.51.100.0/24", via="blackhole")
    try:
        found = client.ping("198.51.100.1", count=5, interval_s=0.01, timeout_s=0.02)
        assert found == [PingInfo("timeout", "", 0, 0, 0, 0, 0)] * 5
    finally:
        client.routes.delete("198.51.100.0/24")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"count": 0}, "count 0 is not within 1 to 1000."),
        ({"count": 1001}, "count 1001 is not within 1 to 1000."),
        ({"interval_s": 0.009}, "interval_ms 9 is not within 10 to 60000."),
        ({"timeout_s": 61.0}, "timeout_ms 61000 is not within 10 to 60000."),
        ({"size": 65508}, "size 65508 is not within 0 to 65507."),
        ({"ttl": 256}, "ttl 256 is not within 1 to 255."),
        ({"source": "10.77.0.2"}, "10.77.0.2 is no address of an interface that is there."),
        ({"source": "x"}, "'x' is not an IPv4 address."),
    ],
)
def test_what_makes_no_sense_is_refused(client: Client, settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        client.ping(KERNEL[0], **settings)  # type: ignore[arg-type]
    assert str(refusal.value) == sentence


def test_address_that_is_no_hosts_is_refused(client: Client) -> None:
    for address in ("224.0.0.1", "127.0.0.1", "10.77.0", ""):
        with pytest.raises(RefusedError):
            client.ping(address)


def test_ping_ends_when_its_client_goes_away(router: Instance) -> None:
    path = router.runtime / "control.sock"

    def sent() -> int:
        return int(router.slot(0)["worker"]["counters"]["originated"])

    async def play() -> int:
        async with AsyncClient(path=path) as leaver, AsyncClient(path=path, timeout_s=30.0) as other:
            before = sent()
            task = asyncio.create_task(leaver.ping(KERNEL[0], count=1000, interval_s=0.02))
            while sent() < before + 10:  # noqa: ASYNC110 - in shared memory
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await other.ping(KERNEL[0], count=5, **FAST)  # told behind the end of the first
            ended = sent()
            await other.ping(KERNEL[0], count=50, interval_s=0.02, timeout_s=30.0)
            return sent() - ended

    assert 50 <= asyncio.run(play()) < 60, "50 of its own, perhaps an ARP request, and not 50 more"


def test_worker_that_dies_meanwhile_is_told(namespace: Namespace) -> None:
    with (
        Instance(namespace) as instance,
        Client(path=instance.runtime / "control.sock", timeout_s=30.0) as client,
        ThreadPoolExecutor() as pool,
    ):
        first = instance.slot()["worker_pid"]
        before = instance.slot()["worker"]["counters"]["originated"]
        asked = pool.submit(client.ping, KERNEL[0], count=1000, interval_s=0.02)
        wait_until(lambda: instance.slot()["worker"]["counters"]["originated"] > before + 5, what="requests")
        os.kill(first, signal.SIGKILL)
        with pytest.raises(RefusedError, match="the worker of slot 0 has ended meanwhile; ask again"):
            asked.result()
        ready = partial(instance.events, "worker.ready")
        wait_until(lambda: any(event.get("pid", first) != first for event in ready()), what="another worker")
        assert sources(client.ping(KERNEL[0], count=1, timeout_s=30.0)) == [("reply", KERNEL[0])]
        assert instance.stop() == 0


def test_port_that_feeds_no_slot_is_not_pinged_from(namespace: Namespace) -> None:
    with (
        Instance(namespace, "--ports", "0,1", "--slot", "0=0") as instance,
        Client(path=instance.runtime / "control.sock") as client,
        pytest.raises(RefusedError, match="port 1, of which no queue feeds a slot: nobody would hear"),
    ):
        client.ping(KERNEL[1])
