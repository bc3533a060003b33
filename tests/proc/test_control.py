# SPDX-License-Identifier: Apache-2.0
"""The control socket of an instance that runs: what is asked for happens under traffic, and stays for the next one."""

from __future__ import annotations

import asyncio
import grp
import pwd
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from halo_mp.control.client import AsyncClient, Client, NotReachableError, RefusedError
from halo_mp.shm.layout import RegionKind
from halo_mp.supervisor.checks_privileges import in_first_user_namespace
from halo_mp.wire import ipv4
from tests.proc.conftest import ADDRESSES, assert_answered, everybody, kill_supervisor, start_again
from tests.support import frames, lives
from tests.support.instance import Instance, run_supervisor
from tests.support.namespace import Namespace, wait_until
from tests.support.pinger import Pinger
from tests.support.station import Station

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/routes.py"


def client_of(instance: Instance) -> Client:
    return Client(path=instance.runtime / "control.sock", timeout_s=30.0)


def kernel_addresses(instance: Instance, port: int) -> set[str]:
    """Return the addresses of the kernel's side of a port."""
    words = instance.namespace.run("ip", "-4", "-brief", "address", "show", f"{instance.name}.{port}").stdout
    return {word for word in words.split() if "/" in word}


def test_addresses_come_and_go_under_traffic(pair: Instance) -> None:
    namespace = pair.namespace
    with Pinger(namespace, ADDRESSES[0]) as pinger, client_of(pair) as client:
        pinger.wait_for_more()
        client.addresses.add("0", "10.88.0.1/24")
        assert kernel_addresses(pair, 0) == {"10.77.0.2/24", "10.88.0.2/24"}
        client.addresses.add("0", "10.88.0.2/24")  # which the kernel's side has to leave
        assert kernel_addresses(pair, 0) == {"10.77.0.2/24", "10.88.0.3/24"}
        assert [each.addresses for each in client.interfaces.list()] == [
            ("10.77.0.1/24", "10.88.0.1/24", "10.88.0.2/24"),
            ("10.77.1.1/24",),
        ]
        for address in ("10.88.0.1/24", "10.88.0.2/24"):
            client.addresses.delete("0", address)
        assert kernel_addresses(pair, 0) == {"10.77.0.2/24"}
        with pytest.raises(RefusedError, match=r"10\.77\.1\.1 is an address of interface 1 already"):
            client.addresses.add("0", "10.77.1.1/24")
        pinger.wait_for_more()
        assert pinger.lost == set()
        [pinged, _] = client.interfaces.list()
        assert pinged.rx_packets >= pinged.tx_packets - 20 > 0  # each answered, and some announcements
        assert pinged.rx_octets >= 98 * pinged.tx_packets - 98 * 20


def test_routes_come_and_go_under_traffic(pair: Instance) -> None:
    with Pinger(pair.namespace, ADDRESSES[0]) as pinger, client_of(pair) as client:
        pinger.wait_for_more()
        client.routes.add("10.0.0.0/8", via="10.77.0.2")
        with pytest.raises(RefusedError, match=r"there is a route to 10\.0\.0\.0/8 already"):
            client.routes.add("10.0.0.0/8", via="10.77.0.2")
        client.routes.replace("default", via=["10.77.0.2*3", "10.77.1.2"])
        many = [(f"11.{i >> 8}.{i & 255}.0/24", "10.77.1.2") for i in range(5000)]
        assert set(client.routes.add_all(many)) == {None}
        found = {each.prefix: each for each in client.routes.iterate()}
        assert len(found) == 5002 + 2 * 4  # each network, our address in it, and its two broadcast addresses
        assert found["0.0.0.0/0"].hops == ("10.77.0.2@0*3", "10.77.1.2@1")
        assert (found["10.77.1.0/24"].origin, found["10.77.1.0/24"].hops) == ("connected", ("@1",))
        assert found["10.77.0.1/32"].origin == "local"
        assert len(client.routes.list(within="11.2.0.0/16")) == 256
        found_route = client.routes.lookup("11.0.7.9")
        assert found_route is not None
        assert (found_route.route.prefix, found_route.hop) == ("11.0.7.0/24", "10.77.1.2@1")
        flows = [
            client.routes.lookup("8.8.8.8", src="10.77.0.2", protocol=17, src_port=port, dst_port=53)
            for port in range(64)
        ]
        assert {flow.hop for flow in flows if flow} == {"10.77.0.2@0", "10.77.1.2@1"}
        with pytest.raises(RefusedError, match="a port one from 0 to 65535"):
            client.routes.lookup("8.8.8.8", dst_port=65536)
        results = client.routes.delete_all([*(prefix for prefix, _ in many), "12.0.0.0/8", "x"])
        assert set(results[:-2]) == {None}
        assert results[-2:] == [
            "there is no route to 12.0.0.0/8.",
            "'x' is not a prefix, such as 10.0.0.0/8 or default.",
        ]
        pinger.wait_for_more()
        assert pinger.lost == set()
        [pinged, _] = client.interfaces.list()
        assert pinged.rx_packets >= pinged.tx_packets - 20 > 0  # each answered, and some announcements
        assert pinged.rx_octets >= 98 * pinged.tx_packets - 98 * 20


def test_routes_with_as_many_hops_as_there_can_be_come_in_pages(pair: Instance) -> None:
    """Each of them is a third of a page, and all are long: what a page has room for is counted in octets."""
    hops = [f"192.168.{i >> 8}.{i & 255}@1*250" for i in range(2, 514)]
    prefixes = {f"10.{i}.0.0/16" for i in range(30)}
    with client_of(pair) as client:
        assert set(client.routes.add_all([(prefix, hops) for prefix in prefixes])) == {None}
        found = {each.prefix: each.hops for each in client.routes.iterate(within="10.0.0.0/11")}
        assert found.keys() == prefixes
        assert all(sorted(each) == sorted(hops) for each in found.values())
        with pytest.raises(RefusedError, match="513 hops are too many for one route"):
            client.routes.add("11.0.0.0/8", [*hops, "10.77.1.2"])
        assert set(client.routes.delete_all(prefixes)) == {None}


def test_address_for_whose_routes_there_is_no_room_is_not_there(pair: Instance) -> None:
    with client_of(pair) as client:
        before, many = client.interfaces.list(), 65_536  # gateways, of which each is a target
        via = [f"20.{i >> 16}.{i >> 8 & 255}.{i & 255}@0" for i in range(1, 1 + many)]
        results = client.routes.add_all([(f"30.{i >> 8}.{i & 255}.0/24", via[i]) for i in range(many)])
        assert "all 65535 targets are in use" in str(results[-1])
        for address in ("10.99.0.1/24", "10.99.1.1/24"):
            with pytest.raises(RefusedError, match="all 65535 targets are in use"):
                client.addresses.add("0.7", address)
        assert client.interfaces.list() == before
        client.addresses.add("0", "10.99.0.1/24")  # an interface that is there has all it needs
        client.routes.delete_all([f"30.0.{i}.0/24" for i in range(16)])
        client.addresses.add("0.7", "10.99.1.1/24")
        assert_answered(pair.namespace, *ADDRESSES)


def test_interface_that_is_down_is_silent_until_it_is_up(pair: Instance) -> None:
    with Pinger(pair.namespace, ADDRESSES[1]) as other, client_of(pair) as client:
        other.wait_for_more()
        client.interfaces.set("0", up=False)
        assert pair.namespace.ping(ADDRESSES[0], count=2, options=("-W", "0.2")) == 0
        assert client.routes.lookup("10.77.0.9") is None
        client.interfaces.set("0", up=True)
        assert_answered(pair.namespace, ADDRESSES[0])
        other.wait_for_more()
        assert other.lost == set()


def test_neighbors_are_static_or_learned_and_forgotten(pair: Instance) -> None:
    namespace = pair.namespace
    with client_of(pair) as client:
        namespace.run("ip", "neigh", "flush", "all")
        assert_answered(namespace, *ADDRESSES)  # the kernel has asked who we are, and so said who it is
        wait_until(lambda: len(client.neighbors.list()) == 2, what="what both workers have learned")
        learned = {each.interface: each for each in client.neighbors.list()}
        assert [learned[name].address for name in ("0", "1")] == ["10.77.0.2", "10.77.1.2"]
        assert not any(each.static for each in learned.values())
        client.neighbors.add("0", "10.77.0.2", learned["0"].mac)
        assert [each.static for each in client.neighbors.list(interface="0")] == [True]
        assert client.neighbors.flush() == 1
        assert [each.address for each in client.neighbors.list()] == ["10.77.0.2"]
        client.neighbors.delete("0", "10.77.0.2")
        with pytest.raises(RefusedError, match=r"interface 0 knows no neighbor 10\.77\.0\.2\."):
            client.neighbors.delete("0", "10.77.0.2")
        assert_answered(namespace, *ADDRESSES)


def test_flags_and_changes_are_known_to_the_next_supervisor(namespace: Namespace) -> None:
    flags = ("--vlan", "1.9", "--route", "default=10.77.0.2", "--neighbor", "1=10.77.1.7,02:00:00:00:00:07")
    with Instance(namespace, "--ports", "0,1", *flags, "--ecmp-seed", "7") as instance:
        assert_answered(namespace, *ADDRESSES, count=1)
        with instance.region("fib", RegionKind.FIB) as fib:
            assert fib.pointer.hash_seed == 7
        children = everybody(instance)
        with client_of(instance) as client:
            client.addresses.add("0", "10.88.0.1/24")
            client.addresses.add("0.7", "10.99.0.1/31")
            client.interfaces.set("0.7", mtu=1400, proxy_arp=True)
            client.interfaces.set("1", redirects=True)
            client.neighbors.add("0", "10.77.0.9", "02:00:00:00:00:09")
            client.neighbors.delete("1", "10.77.1.7")
            client.routes.add("192.0.2.0/24", via=["10.88.0.9", "10.99.0.0"])
            interfaces, routes = client.interfaces.list(), client.routes.list()
            static = [each for each in client.neighbors.list() if each.static]
            seed = client.show()
        assert [each.name for each in interfaces] == ["0", "1", "1.9", "0.7"]
        assert [(each.address, each.interface) for each in static] == [("10.77.0.9", "0")]
        with Pinger(namespace, ADDRESSES[1]) as pinger:
            pinger.wait_for_more()
            kill_supervisor(instance)
            with (
                start_again(instance, *flags, "--ecmp-seed", "7") as successor,
                client_of(successor) as client,
            ):
                assert everybody(successor) == children
                assert client.interfaces.list() == interfaces
                assert client.routes.list() == routes
                assert [each for each in client.neighbors.list() if each.static] == static
                assert client.show().supervisor_pid != seed.supervisor_pid
                client.addresses.delete("0", "10.88.0.1/24")
                client.addresses.add("0.7", "10.99.1.1/24", primary=True)
                [changed] = [each for each in client.interfaces.list() if each.name == "0.7"]
                assert (changed.number, changed.addresses) == (3, ("10.99.1.1/24", "10.99.0.1/31"))
                assert kernel_addresses(successor, 0) == {"10.77.0.2/24"}
                pinger.wait_for_more()
                assert pinger.lost == set()
                pinger.stop()
                assert successor.stop() == 0


def test_successor_finds_gateways_though_nothing_has_changed(namespace: Namespace) -> None:
    with Instance(namespace, "--ports", "0,1") as instance:
        assert_answered(namespace, *ADDRESSES, count=1)
        kill_supervisor(instance)
        with start_again(instance) as successor, client_of(successor) as client:
            client.routes.add("192.0.2.0/24", via="10.77.0.9")
            client.routes.add("192.0.3.0/24", via="10.77.1.9@1")
            found = {each.prefix: each.hops for each in client.routes.list(within="192.0.2.0/23")}
            assert found == {"192.0.2.0/24": ("10.77.0.9@0",), "192.0.3.0/24": ("10.77.1.9@1",)}
            assert successor.stop() == 0


def test_gateway_that_died_before_the_supervisor_gets_its_flows_back(namespace: Namespace) -> None:
    with Instance(namespace, "--ports", "0,1") as instance, client_of(instance) as client:
        assert_answered(namespace, *ADDRESSES, count=1)
        client.routes.add("192.0.2.0/24", via=["10.77.0.2", "10.77.0.9"])
        [down] = instance.wait_for("gateway.down")
        kill_supervisor(instance)
        with start_again(instance) as successor, client_of(successor) as other:
            [again] = successor.wait_for("gateway.down")
            assert again["address"] == down["address"] == "10.77.0.9"

            def taken() -> set[str]:
                flows = [other.routes.lookup("192.0.2.1", src=f"10.77.0.{i}") for i in range(1, 64)]
                return {flow.hop for flow in flows if flow and flow.hop}

            assert taken() == {"10.77.0.2@0"}
            namespace.run("ip", "address", "add", "10.77.0.9/24", "dev", f"{successor.name}.0")
            successor.wait_for("gateway.up")
            assert taken() == {"10.77.0.2@0", "10.77.0.9@0"}
            assert successor.stop() == 0


def test_routes_file_is_loaded_once(namespace: Namespace, tmp_path: Path) -> None:
    file = tmp_path / "routes.txt"
    file.write_text("".join(f"20.{i >> 8}.{i & 255}.0/24 10.77.0.{2 + i % 3}\n" for i in range(20_000)))
    with Instance(namespace, "--ports", "0,1", "--routes-file", str(file)) as instance:
        [loaded] = instance.events("routes.loaded")
        assert (loaded["routes"], loaded["refused"]) == (20_000, 0)
        with client_of(instance) as client:
            client.routes.delete("20.0.0.0/24")
            assert client.show().routes == 19_999 + 2 * 4
        kill_supervisor(instance)
        with start_again(instance, "--routes-file", str(file)) as successor, client_of(successor) as client:
            assert client.show().routes == 19_999 + 2 * 4
            assert not successor.events("routes.loaded")
            assert successor.stop() == 0


def test_socket_is_for_its_group_and_goes_with_the_instance(namespace: Namespace) -> None:
    with Instance(namespace) as instance:
        path = instance.runtime / "control.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_gid == 0

        async def ask() -> None:
            async with AsyncClient(path=path) as client:
                assert client.hello["admin"]
                assert (await client.show()).name == instance.name
                assert [each.name for each in await client.interfaces.list()] == ["0"]

        asyncio.run(ask())
        with client_of(instance) as client:
            assert instance.stop() == 0
            with pytest.raises(NotReachableError, match="the instance ends"):
                client.show()
        with pytest.raises(NotReachableError, match="is the instance running"):
            client_of(instance)


def test_members_of_the_group_may_ask_and_nobody_else(namespace: Namespace) -> None:
    daemon, nobody = grp.getgrnam("daemon").gr_gid, pwd.getpwnam("nobody")
    if not in_first_user_namespace():  # with one user there is no group but ours
        ended = run_supervisor(namespace, ("--control-group", "daemon"))
        assert "can not be listened at: Invalid argument" in ended.stderr
        return
    with Instance(namespace, "--control-group", "daemon") as instance:
        asked = [sys.executable, str(EXAMPLE), "--name", instance.name, "add", "10.0.0.0/8", "10.77.0.2"]
        for groups, sentence in (([], "--control-group"), ([daemon], "")):
            done = subprocess.run(
                asked,
                user=nobody.pw_uid,
                group=nobody.pw_gid,
                extra_groups=groups,
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode == 0) == (sentence == "")
            assert sentence in done.stderr
        with client_of(instance) as client:
            assert client.routes.lookup("10.1.1.1") is not None


AS_A_WORKER = """
import asyncio, sys
from pathlib import Path
from halo_mp.control.client import AsyncClient
from halo_mp.shm.layout import lib

uid, gid = map(int, sys.argv[2:])
assert lib.halo_drop_privileges(uid, gid, False) == 0 or lib.halo_drop_privileges(uid, gid, True) == 0

async def main():
    async with AsyncClient(path=Path(sys.argv[1]), timeout_s=30.0) as client:
        [interface] = await client.interfaces.list()
        await client.addresses.add(interface.name, "10.88.0.1/24")
        await client.interfaces.set(interface.name, redirects=True)
        await client.neighbors.add(interface.name, "10.88.0.7", "02:00:00:00:00:07")
        await client.routes.add("10.0.0.0/8", via="10.88.0.7")
        assert [each.address for each in await client.neighbors.list() if each.static] == ["10.88.0.7"]
        routes = [each async for each in client.routes.iterate() if each.origin == "static"]
        assert [each.hops for each in routes] == [("10.88.0.7@0",)]
        print((await client.routes.lookup("10.1.1.1")).hop)

asyncio.run(main())
"""


def test_program_in_a_worker_with_a_user_of_its_own_may_ask(namespace: Namespace) -> None:
    """What a worker is: its user and group, no capability, no other group, and an event loop."""
    user = ("--user", "daemon") if in_first_user_namespace() else ()  # else there is no user but ours
    with Instance(namespace, *user) as instance:
        [worker, *_] = lives.threads(lives.pid(instance, "worker", 0))
        ids = [worker[name].split()[0] for name in ("Uid", "Gid")]
        path = str(instance.runtime / "control.sock")
        done = namespace.run(sys.executable, "-c", AS_A_WORKER, path, *ids, check=False)
        assert (done.returncode, done.stdout) == (0, "10.88.0.7@0\n"), done.stderr
        with client_of(instance) as client:
            [interface] = client.interfaces.list()
            assert interface.redirects
            assert interface.addresses == ("10.77.0.1/24", "10.88.0.1/24")
        assert instance.stop() == 0


def test_program_in_a_worker_that_is_nobody_may_not(namespace: Namespace) -> None:
    if not in_first_user_namespace():  # there is no nobody
        return
    with Instance(namespace) as instance:
        [worker, *_] = lives.threads(lives.pid(instance, "worker", 0))
        ids = [worker[name].split()[0] for name in ("Uid", "Gid")]
        path = str(instance.runtime / "control.sock")
        done = namespace.run(sys.executable, "-c", AS_A_WORKER, path, *ids, check=False)
        assert (
            "Permission denied; ask as root, or as a member of the instance's --control-group" in done.stderr
        )


def test_vlan_answers_at_its_addresses_and_at_those_that_come(namespace: Namespace) -> None:
    flags = ("--address", "0.100=10.1.100.1/24", "--address", "0.100=10.1.101.1/32")
    tag = frames.tag(100)
    with Instance(namespace, *flags) as instance, client_of(instance) as client:
        assert kernel_addresses(instance, 0) == set(), "on VLANs the kernel's side is the operator's"
        [_, ours] = client.interfaces.list()
        with Station(namespace, f"{instance.name}.0") as station:

            def answers(address: str) -> None:
                ends = {"dst": bytes.fromhex(ours.mac.replace(":", "")), "src": station.mac}
                request = frames.packet(src="10.1.100.2", dst=address, payload=frames.echo_request())
                station.send(frames.frame(**ends, tags=tag, payload=request))
                own = ipv4.parse_address(address).to_bytes(4, "big")
                station.listen(
                    lambda heard: heard.octets[12:16] == tag and heard.octets[30:34] == own, what=address
                )

            answers("10.1.100.1")
            answers("10.1.101.1")
            client.addresses.add("0.100", "10.1.102.1/31")
            answers("10.1.102.1")
            client.addresses.delete("0.100", "10.1.101.1/32")
            [_, changed] = client.interfaces.list()
            assert changed.addresses == ("10.1.100.1/24", "10.1.102.1/31")
        assert instance.stop() == 0


def test_group_that_is_not_there_is_a_sentence(namespace: Namespace) -> None:
    ended = run_supervisor(namespace, ("--control-group", "no-such-group"))
    assert ended.returncode == 3
    assert "--control-group no-such-group: there is no such group." in ended.stderr


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("10.0.0.0/8 10.77.0.2\n10.0.0.0/8 10.77.0.3\n", "line 2: 10.0.0.0/8 was there before"),
        (None, "it can not be read: No such file or directory"),
    ],
)
def test_routes_file_that_makes_no_sense_ends_the_start(
    namespace: Namespace, tmp_path: Path, text: str | None, sentence: str
) -> None:
    file = tmp_path / "routes.txt"
    if text is not None:
        file.write_text(text)
    ended = run_supervisor(namespace, ("--routes-file", str(file)))
    assert ended.returncode == 2
    assert sentence in ended.stderr
