# SPDX-License-Identifier: Apache-2.0
"""The configuration of an instance that runs: shown, replaced whole or not at all while packets flow, brought back."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from halo_mp.control.client import Client, RefusedError
from halo_mp.control.public import DiffInfo, socket_path
from tests.proc.conftest import everybody, kill_supervisor
from tests.support import lives
from tests.support.instance import Instance, run_supervisor
from tests.support.namespace import Namespace, wait_until
from tests.support.network import Network
from tests.support.pinger import Pinger

FILE = """
[ports.0]
[ports.1]
[interfaces.0]
addresses = ["10.1.0.1/24"]
[interfaces."0.100"]
addresses = ["10.1.100.1/24"]
[interfaces.1]
addresses = ["10.2.0.1/24"]
[[routes]]
prefix = "default"
via = ["10.1.0.254*2", "10.2.0.254@1"]
[[routes]]
prefix = "192.0.2.0/24"
via = "blackhole"
[[neighbors]]
interface = "1"
address = "10.2.0.9"
mac = "02:00:00:00:00:09"
[memory]
ring_size = 1024
[routing]
routes_file = "routes.txt"
"""
ROUTES = "".join(f"172.16.{number}.0/24 10.1.0.{number % 3 + 2}\n" for number in range(256))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "routes.txt").write_text(ROUTES)
    (tmp_path / "router.toml").write_text(FILE)
    return tmp_path / "router.toml"


@pytest.fixture
def router(namespace: Namespace, file: Path) -> Iterator[Instance]:
    with Instance(namespace, "--config", str(file)) as instance:
        yield instance


@pytest.fixture
def client(router: Instance) -> Iterator[Client]:
    with Client(path=socket_path(router.name)) as made:
        yield made


def routes_of(client: Client) -> set[str]:
    return {
        f"{each.prefix} {sorted(each.hops)}" for each in client.routes.iterate() if each.origin == "static"
    }


def state(client: Client) -> object:
    """Return what an instance is, as far as others can see it."""
    interfaces = sorted(client.interfaces.list(), key=lambda each: each.name)
    return (
        [dataclasses.replace(each, number=0) for each in interfaces],
        routes_of(client),
        sorted(str(each) for each in client.neighbors.list() if each.static),
    )


def change_everything(client: Client) -> None:
    client.addresses.add("0", "10.9.0.1/24", primary=True)
    client.addresses.add("0.7", "10.9.7.1/24")
    client.addresses.delete("1", "10.2.0.1/24")
    client.addresses.add("1", "10.5.0.1/31")
    client.interfaces.set("1", mtu=1300, redirects=True, forward=False)
    client.interfaces.set("0.100", up=False)
    client.neighbors.add("0", "10.9.0.7", "02:00:00:00:00:07")
    client.neighbors.delete("1", "10.2.0.9")
    client.routes.replace("default", ["10.9.0.2", "10.9.7.2*3"])
    client.routes.add("10.8.0.0/16", "@0.7")
    client.routes.delete("172.16.9.0/24")
    client.routes.replace("10.9.7.0/24", "10.9.0.3")  # which waits behind a connected one


def try_again_while_applied(change: Callable[[], object]) -> None:
    """Make a change, which may be refused when an application takes longer than it waits for."""

    def made() -> bool:
        try:
            change()
        except RefusedError as error:
            assert "is being applied at the moment" in str(error)  # noqa: PT017
            return False
        return True

    wait_until(made, timeout_s=60.0, what="a change after an application")


def test_file_of_what_was_changed_starts_the_same(
    namespace: Namespace, router: Instance, client: Client, file: Path
) -> None:
    change_everything(client)
    wanted, text = state(client), client.config.show()
    saved = file.with_name("saved.toml")
    saved.write_text(text)
    router.stop()
    with Instance(namespace, "--config", str(saved), name=router.name) as again, Client(again.name) as asked:
        assert state(asked) == wanted
        assert sorted(asked.config.show().splitlines()) == sorted(text.splitlines())
        assert asked.config.diff(asked.config.stage(text)).count == 0


def test_applied_file_brings_all_of_it_back_and_rollback_too(client: Client) -> None:
    first = client.config.show()
    before = state(client)
    change_everything(client)
    changed = state(client)
    found = client.config.apply(client.config.stage(first))
    assert found.count == len(found.changes) == 14
    assert state(client) == before
    client.config.rollback()
    assert state(client) == changed
    assert client.config.rollback().changes == found.changes
    assert state(client) == before
    assert client.config.reload().count == 0
    assert [each.number for each in client.config.history()] == [1, 2, 3]
    with pytest.raises(RefusedError, match="1 to 3"):
        client.config.rollback(4)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("ring_size = 1024", "ring_size = 2048", "--ring-size: it runs with 1024"),
        ('"10.2.0.1/24"', '"10.1.0.9/24"', "overlap"),
        ('via = "blackhole"', 'via = "10.99.0.1"', "no interface is on a network"),
        ("[ports.1]", "[ports.1]\nmtu = 4000", "--mtu of port 1"),
        ("[ports.1]", "[ports.2]", "--ports"),
    ],
)
def test_file_with_one_thing_that_can_not_be_changes_nothing(
    client: Client, old: str, new: str, sentence: str
) -> None:
    before = state(client)
    text = FILE.replace(old, new).replace("10.1.100.1/24", "10.1.101.1/24")
    with pytest.raises(RefusedError, match=sentence):
        client.config.apply(client.config.stage(text, routes=[]))
    assert state(client) == before
    assert client.config.history() == []


def test_route_that_finds_no_room_takes_all_back(client: Client) -> None:
    before = state(client)
    hops = [f"10.1.{a}.{b}@0" for a in (0, 7) for b in range(40, 250)]
    # More groups of gateways than there is room for.
    many = [(f"172.20.{number}.0/24", hops[:number] + hops[number + 1 :]) for number in range(200)]
    with pytest.raises(RefusedError, match=r"nothing was changed: .* in use"):
        client.config.apply(client.config.stage(client.config.show("settings"), routes=many))
    assert state(client) == before


def test_changes_by_hand_while_a_file_is_applied_come_behind_it(client: Client, router: Instance) -> None:
    many = [
        (f"172.{20 + number // 65536}.{number // 256 % 256}.{number % 256}/32", ["10.1.0.2"])
        for number in range(40_000)
    ]
    candidate = client.config.stage(client.config.show("settings"), routes=many)
    applying = threading.Thread(target=lambda: applied.append(client.config.apply(candidate)))
    applied: list[DiffInfo] = []
    with Client(path=socket_path(router.name), timeout_s=60.0) as by_hand:
        applying.start()
        wait_until(lambda: by_hand.show().routes > 5_000, timeout_s=60.0, what="the first of the routes")
        assert not router.events("config.applied")  # it is in the middle of it
        changes: tuple[Callable[[], object], ...] = (
            lambda: by_hand.addresses.add("0", "10.9.0.1/24"),
            lambda: by_hand.neighbors.add("0", "10.1.0.77", "02:00:00:00:00:77"),
            lambda: by_hand.routes.delete("172.20.0.7/32"),
            lambda: by_hand.routes.add("10.8.0.0/16", "10.9.0.9"),
        )
        for change in changes:
            try_again_while_applied(change)
        applying.join(60.0)
        [found] = applied
        assert found.count == 40_000 + 258  # those that there were go
        assert "10.9.0.1/24" in by_hand.interfaces.list()[0].addresses
        assert "10.1.0.77" in {each.address for each in by_hand.neighbors.list() if each.static}
        prefixes = {each.prefix for each in by_hand.routes.iterate() if each.origin == "static"}
    assert "10.8.0.0/16" in prefixes
    assert "172.20.0.7/32" not in prefixes
    assert len(prefixes) == 40_000


def test_packets_flow_while_addresses_and_gateways_move() -> None:
    with Network("--route", "10.99.0.0/24=10.1.0.2") as network, network.client() as client:
        left, right = network.hosts
        for arguments in (
            ("address", "add", "10.99.0.1/24", "dev", "lo"),
            ("address", "add", "10.1.5.2/24", "dev", "veth1"),
            ("neighbor", "replace", right.router, "lladdr", client.interfaces.list()[1].mac, "dev", "veth1"),
        ):
            right.namespace.run("ip", *arguments)
        one = client.config.show()
        other = one.replace("10.1.0.1/24", "10.1.5.1/24").replace("10.1.0.2", "10.1.5.2")
        workers = everybody(network.instance)
        with Pinger(left.namespace, "10.99.0.1") as pinger:
            for text in (other, one, other, one, other):
                pinger.wait_for_more(20)
                assert client.config.apply(client.config.stage(text)).count == 3
            pinger.wait_for_more(20)
            assert client.routes.lookup("10.99.0.1").hop == "10.1.5.2@1"  # type: ignore[union-attr]
        assert pinger.lost == set()
        assert everybody(network.instance) == workers


def test_reload_by_signal_says_what_came_of_it(router: Instance, client: Client, file: Path) -> None:
    workers = everybody(router)
    file.write_text(FILE.replace("10.1.0.1/24", "10.1.0.30/24") + "[logs]\nstats = 0.2\n")
    router.signal(signal.SIGHUP)
    [applied] = router.wait_for("config.applied")
    assert (applied["by"], applied["changes"]) == ("SIGHUP", 3)
    assert client.interfaces.list()[0].addresses == ("10.1.0.30/24",)
    router.wait_for("stats")
    file.write_text(FILE + "[logs]\nstats = 0\n")
    router.signal(signal.SIGHUP)
    [refused] = router.wait_for("config.refused")
    assert "logs.stats" in refused["reason"]
    assert client.interfaces.list()[0].addresses == ("10.1.0.30/24",)
    assert everybody(router) == workers


@pytest.mark.parametrize("kind", ["directory", "fifo", "nested", "binary", "gone"])
def test_reload_of_what_is_no_file_of_ours_changes_and_ends_nothing(
    router: Instance, client: Client, file: Path, kind: str
) -> None:
    before, workers = state(client), everybody(router)
    file.unlink()
    match kind:
        case "directory":
            file.mkdir()
        case "fifo":
            os.mkfifo(file)  # which nobody writes to
        case "nested":
            file.write_text("a = " + "[" * 100_000)
        case "binary":
            file.write_bytes(os.urandom(4096))
    router.signal(signal.SIGHUP)
    [refused] = router.wait_for("config.refused")
    assert "router.toml" in refused["reason"]
    with pytest.raises(RefusedError, match=r"router\.toml"):
        client.config.reload()
    assert state(client) == before
    assert everybody(router) == workers


def test_successor_is_asked_for_what_was_loaded_last(
    namespace: Namespace, router: Instance, client: Client, file: Path
) -> None:
    workers = everybody(router)
    file.write_text(FILE.replace("10.1.0.1/24", "10.1.0.30/24"))
    assert client.config.reload().count == 2
    client.addresses.add("1", "10.2.5.1/24")
    wanted = client.config.show()
    kill_supervisor(router)
    with (
        Instance(namespace, "--config", str(file), name=router.name) as successor,
        Client(router.name) as asked,
    ):
        assert lives.pid(successor, "driver") == workers[0]
        assert asked.config.show() == wanted
        assert asked.config.reload().changes == ("- address 1 10.2.5.1/24",)


def test_routes_behind_connected_ones_outlive_the_supervisor(
    namespace: Namespace, router: Instance, client: Client, file: Path
) -> None:
    client.routes.replace("10.2.0.0/24", ["10.1.0.3", "10.1.0.4@0*2"])
    client.routes.replace("10.1.100.0/24", "blackhole")
    client.routes.add("10.5.0.0/24", "@0.100")
    client.addresses.add("1", "10.5.0.1/24")  # which comes before what was there
    wanted = client.config.show()
    kill_supervisor(router)
    with (
        Instance(namespace, "--config", str(file), name=router.name) as successor,
        Client(router.name) as asked,
    ):
        successor.wait_for("instance.adopted")
        assert asked.config.show() == wanted
        asked.addresses.delete("1", "10.2.0.1/24")
        asked.addresses.delete("1", "10.5.0.1/24")
        asked.addresses.delete("0.100", "10.1.100.1/24")
        assert routes_of(asked) >= {
            "10.2.0.0/24 ['10.1.0.3@0', '10.1.0.4@0*2']",
            "10.1.100.0/24 ['blackhole']",
            "10.5.0.0/24 ['@0.100']",
        }


def test_rollback_goes_back_to_what_was_before_the_supervisor_died(
    namespace: Namespace, router: Instance, client: Client, file: Path
) -> None:
    before, first = state(client), client.config.show()
    change_everything(client)
    changed = state(client)
    client.config.apply(client.config.stage(first))
    kill_supervisor(router)
    with (
        Instance(namespace, "--config", str(file), name=router.name) as successor,
        Client(router.name) as asked,
    ):
        assert [(each.number, each.changes) for each in asked.config.history()] == [(1, 14)]
        assert state(asked) == before
        asked.config.rollback()
        assert state(asked) == changed
        assert len(asked.config.history()) == 2
        assert successor.stop() == 0
    with Instance(namespace, "--config", str(file), name=router.name), Client(router.name) as asked:
        assert asked.config.history() == []


def test_orphans_with_another_file_are_refused(namespace: Namespace, router: Instance, file: Path) -> None:
    kill_supervisor(router)
    file.write_text(FILE.replace("10.1.0.1/24", "10.1.0.30/24"))
    flags = ["--config", str(file), "--name", router.name, "--spare", "0", "--log-format", "json"]
    assert run_supervisor(namespace, flags).returncode == 4
    file.write_text(FILE)
    with Instance(namespace, "--config", str(file), name=router.name):
        pass
    wait_until(lambda: not router.runtime.exists(), what="the end of it")
