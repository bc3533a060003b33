# SPDX-License-Identifier: Apache-2.0
"""A configuration on condition: without a confirmation in time it is taken back, whoever has died meanwhile."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from halo_mp.control.client import Client, ControlError, RefusedError
from halo_mp.control.public import MAX_CONFIRM_S, socket_path
from halo_mp.supervisor import awaited
from tests.proc.conftest import everybody, kill_supervisor
from tests.support.instance import Instance
from tests.support.namespace import Namespace, wait_until

HALO = (sys.executable, "-m", "halo_mp.cli")
FILE = """
[instance]
spare = 0
[logs]
format = "json"
[ports.0]
[ports.1]
[interfaces.0]
addresses = ["10.1.0.1/24"]
[interfaces.1]
addresses = ["10.2.0.1/24"]
[[routes]]
prefix = "default"
via = "10.1.0.254"
"""
OTHER = FILE.replace("10.1.0.1/24", "10.1.0.30/24").replace('"10.1.0.254"', '"10.2.0.254"')
LONG = 3600


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "router.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def router(namespace: Namespace, file: Path) -> Iterator[Instance]:
    with Instance(namespace, "--config", str(file)) as instance:
        yield instance


@pytest.fixture
def client(router: Instance) -> Iterator[Client]:
    with Client(path=socket_path(router.name)) as made:
        yield made


@pytest.fixture
def other(file: Path) -> Path:
    path = file.with_name("other.toml")
    path.write_text(OTHER)
    return path


def successor_of(router: Instance, file: Path) -> Instance:
    return Instance(router.namespace, "--config", str(file), name=router.name)


def apply(client: Client, text: str, seconds: int) -> float:
    """Apply a file on condition, and return when it is taken back."""
    found = client.config.apply(client.config.stage(text), confirm_s=seconds)
    assert found.confirm_until is not None
    return found.confirm_until


def halo(router: Instance, *words: str, code: int = 0) -> str:
    done = router.namespace.run(*HALO, *words, "--name", router.name, check=False)
    assert done.returncode == code, done
    return str(done.stdout) + str(done.stderr)


def test_confirmed_stays(router: Instance, client: Client, other: Path) -> None:
    before = client.config.show()
    told = halo(router, "config", "apply", str(other), "--confirm", str(LONG))
    assert f"In {LONG} s all of it is taken back, unless: halo-mp config confirm --name {router.name}" in told
    wanted = client.config.show()
    assert wanted != before
    with pytest.raises(RefusedError, match=r"uid 0 has applied still awaits its confirmation, for 3\d\d\d s"):
        client.config.apply(client.config.stage(FILE))
    with pytest.raises(RefusedError, match="halo-mp config confirm keeps that"):
        client.config.reload()
    assert client.config.show() == wanted
    [applied] = router.events("config.applied")
    assert (applied["by"], applied["confirm_s"]) == ("uid 0", LONG)
    assert halo(router, "config", "confirm") == "It stays.\n"
    [confirmed] = router.wait_for("config.confirmed")
    assert confirmed["by"] == "uid 0"
    assert not (router.runtime / awaited.FILE).exists()
    assert client.show().confirm_until is None
    assert "no confirmation is awaited" in halo(router, "config", "confirm", code=1)
    assert client.config.show() == wanted
    assert client.config.apply(client.config.stage(FILE)).count == 3  # nobody waits any more


def test_everybody_who_tells_of_an_instance_tells_of_it(router: Instance, client: Client) -> None:
    assert "confirm" not in halo(router, "status")
    until = apply(client, OTHER, LONG)
    assert LONG - 60 < until - time.time() <= LONG
    found = client.show()
    assert (found.confirm_until, found.confirm_by) == (until, "uid 0")
    assert "confirmation " in halo(router, "show", "instance")

    def status() -> dict[str, object]:
        return dict(json.loads(halo(router, "status", "--json"))["status"])

    wait_until(lambda: status()["confirm_until"] == until, what="it in the status")
    assert status()["confirm_by"] == "uid 0"
    text = " ".join(halo(router, "status").split())
    assert "What uid 0 has applied is taken back in 59 min " in text
    assert f"halo-mp config confirm --name {router.name}." in text
    problems = json.loads(halo(router, "top", "--json", "--interval", "0.1"))["problems"]
    assert any("What uid 0 has applied" in each["what"] and each["is_notice"] for each in problems)


def test_client_dies_and_all_is_taken_back(router: Instance, client: Client, other: Path) -> None:
    workers, before = everybody(router), client.config.show()
    command = (*HALO, "config", "apply", str(other), "--confirm", "5", "--name", router.name)
    with router.namespace.popen(*command, stdout=subprocess.PIPE) as process:
        router.wait_for("config.applied")
        process.send_signal(signal.SIGKILL)
    client.neighbors.add("1", "10.2.0.9", "02:00:00:00:00:09")
    [back] = router.wait_for("config.taken_back", timeout_s=30.0)
    assert (back["by"], back["applied_by"], back["changes"]) == ("no confirmation", "uid 0", 4)
    assert client.config.show() == before
    assert everybody(router) == workers
    assert not (router.runtime / awaited.FILE).exists()
    with pytest.raises(RefusedError, match=r"too late.*config rollback brings it again"):
        client.config.confirm()
    client.config.rollback()
    assert client.interfaces.list()[0].addresses == ("10.1.0.30/24",)
    assert [each.address for each in client.neighbors.list() if each.static] == ["10.2.0.9"]
    assert [each.by for each in client.config.history()] == ["uid 0", "no confirmation", "uid 0"]


def test_rollback_by_hand_does_not_wait(router: Instance, client: Client) -> None:
    before = client.config.show()
    apply(client, OTHER, LONG)
    client.config.rollback()
    assert client.config.show() == before
    [back] = router.wait_for("config.taken_back", timeout_s=30.0)
    assert (back["by"], back["applied_by"]) == ("uid 0", "uid 0")
    assert client.show().confirm_until is None
    assert not (router.runtime / awaited.FILE).exists()


def test_supervisor_dies_and_its_successor_takes_it_back(
    router: Instance, client: Client, file: Path
) -> None:
    workers, before = everybody(router), client.config.show()
    apply(client, OTHER, 5)
    kill_supervisor(router)
    with successor_of(router, file) as successor, Client(router.name) as asked:
        [back] = successor.wait_for("config.taken_back", timeout_s=30.0)
        assert (back["by"], back["applied_by"], back["changes"]) == ("no confirmation", "uid 0", 3)
        assert asked.config.show() == before
        assert everybody(router) == workers


def test_supervisor_dies_and_its_successor_is_told(router: Instance, client: Client, file: Path) -> None:
    until = apply(client, OTHER, LONG)
    wanted = client.config.show()
    kill_supervisor(router)
    assert "What uid 0 has applied is taken back" in " ".join(halo(router, "status", code=1).split())
    with successor_of(router, file), Client(router.name) as asked:
        assert (asked.show().confirm_until, asked.show().confirm_by) == (until, "uid 0")
        assert asked.config.show() == wanted
        asked.config.confirm()
        assert asked.show().confirm_until is None
        assert asked.config.show() == wanted


def test_supervisor_dies_while_it_applies_and_no_half_of_it_stays(
    router: Instance, client: Client, file: Path
) -> None:
    before = client.config.show()
    many = [(f"172.20.{number // 256}.{number % 256}/32", ["10.1.0.2"]) for number in range(40_000)]
    candidate = client.config.stage(client.config.show("settings"), routes=many)

    def wait_for_the_end() -> None:
        with suppress(ControlError):
            client.config.apply(candidate, confirm_s=LONG)

    applying = threading.Thread(target=wait_for_the_end)
    with Client(path=socket_path(router.name), timeout_s=60.0) as looking:
        applying.start()
        wait_until(lambda: looking.show().routes > 5_000, timeout_s=60.0, what="the first of the routes")
        assert not router.events("config.applied")
        kill_supervisor(router)
    applying.join(30.0)
    with successor_of(router, file) as successor, Client(router.name) as asked:
        successor.wait_for("config.taken_back", timeout_s=60.0)
        assert asked.config.show() == before
        assert asked.show().confirm_until is None


def test_what_can_not_be_written_down_is_not_applied(router: Instance, client: Client) -> None:
    before = client.config.show()
    in_the_way = router.runtime / f"{awaited.FILE}.new"
    in_the_way.mkdir()
    with pytest.raises(
        RefusedError, match=r"confirm can not be written \(Is a directory\).*without --confirm"
    ):
        apply(client, OTHER, LONG)
    assert client.config.show() == before
    assert client.show().confirm_until is None
    in_the_way.rmdir()
    apply(client, OTHER, LONG)


def test_what_can_not_be_is_refused_without_a_trace(router: Instance, client: Client) -> None:
    before = client.config.show()
    hops = [f"10.1.{a}.{b}@0" for a in (0, 7) for b in range(40, 250)]
    many = [(f"172.20.{number}.0/24", hops[:number] + hops[number + 1 :]) for number in range(200)]
    candidate = client.config.stage(client.config.show("settings"), routes=many)
    with pytest.raises(RefusedError, match="in use"):  # found as routes are made, behind the file
        client.config.apply(candidate, confirm_s=LONG)
    for seconds in (0, -1, MAX_CONFIRM_S + 1):
        with pytest.raises(RefusedError, match=f"can not be awaited for {seconds} s"):
            apply(client, OTHER, seconds)
    assert client.config.apply(client.config.stage(before), confirm_s=LONG).confirm_until is None
    assert client.show().confirm_until is None
    assert not (router.runtime / awaited.FILE).exists()
    assert client.config.show() == before


def test_what_can_not_be_taken_back_is_said_and_can_be_kept(
    router: Instance, client: Client, file: Path
) -> None:
    apply(client, OTHER, LONG)
    wanted = client.config.show()
    kill_supervisor(router)
    found = awaited.load(router.runtime / awaited.FILE)
    assert found is not None
    config = dataclasses.replace(found.before.wanted.config, instance="other")  # which no instance can become
    foreign = dataclasses.replace(
        found.before, wanted=dataclasses.replace(found.before.wanted, config=config)
    )
    awaited.save(router.runtime / awaited.FILE, dataclasses.replace(found, before=foreign, deadline=0.0))
    with successor_of(router, file) as successor, Client(router.name) as asked:
        [refused] = successor.wait_for("config.not_taken_back")
        assert "an instance named 'other'" in refused["reason"]
        assert asked.show().confirm_until is not None
        asked.config.confirm()
        assert asked.config.show() == wanted
        assert asked.show().confirm_until is None
