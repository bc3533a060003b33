# SPDX-License-Identifier: Apache-2.0
"""What is wanted at present: each change, and one sentence for each that can not be."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address

import pytest

from halo_mp.plain import from_plain, to_plain
from halo_mp.supervisor import arguments, config, running
from halo_mp.supervisor.config_model import NeighborConfig
from halo_mp.supervisor.config_values import parse_address, parse_interface
from halo_mp.supervisor.running import RefusedError, Running

Change = Callable[[Running], Running]
MAC = bytes.fromhex("020000000009")


@pytest.fixture
def start() -> Running:
    line = "--ports 0,1 --vlan 0.7 --address 0=10.0.0.1/24 --address 1=10.1.0.1/24 "
    line += "--neighbor 1=10.1.0.9,02:00:00:00:00:09"
    machine = config.Machine(cores=(0, 1), free_pages={})
    return Running.of(config.build(arguments.parse(shlex.split(line)), machine))


def add(interface: str, address: str, *, primary: bool = False) -> Change:
    entry = parse_address(address)
    return partial(running.with_address, key=parse_interface(interface), address=entry, primary=primary)


def delete(interface: str, address: str) -> Change:
    return partial(running.without_address, key=parse_interface(interface), address=parse_address(address))


def neighbor(interface: str, address: str, mac: bytes = MAC) -> NeighborConfig:
    return NeighborConfig(*parse_interface(interface), int(IPv4Address(address)), mac)


def shown(found: Running) -> dict[str, list[str]]:
    return {each.name: [*map(str, each.addresses)] for each in found.interfaces}


def test_addresses_come_last_or_first_and_go(start: Running) -> None:
    found = add("0", "10.0.0.2/24", primary=True)(add("0", "10.2.0.1/31")(start))
    assert shown(found)["0"] == ["10.0.0.2/24", "10.0.0.1/24", "10.2.0.1/31"]
    assert shown(delete("0", "10.0.0.1/24")(found))["0"] == ["10.0.0.2/24", "10.2.0.1/31"]
    assert shown(start)["0"] == ["10.0.0.1/24"]


def test_vlan_that_is_named_first_becomes_an_interface_with_its_ports_settings(start: Running) -> None:
    base = running.with_settings(start, (1, 0), 1500, mtu=1400, forward=False)
    found = add("1.9", "10.9.0.1/24")(base).interface((1, 9))
    assert (found.number, found.mtu, found.forward, found.proxy_arp) == (3, 1400, False, False)


def test_numbers_of_interfaces_stay(start: Running) -> None:
    found = delete("0", "10.0.0.1/24")(add("1.9", "10.9.0.1/24")(start))
    assert [(each.number, each.name) for each in found.interfaces] == [
        (0, "0"),
        (1, "1"),
        (2, "0.7"),
        (3, "1.9"),
    ]


def test_neighbors_are_replaced_and_go(start: Running) -> None:
    other = neighbor("1", "10.1.0.9", MAC[:5] + b"\1")
    found = running.with_neighbor(running.with_neighbor(start, other), neighbor("0", "10.0.0.9"))
    assert found.neighbors == (other, neighbor("0", "10.0.0.9"))
    assert running.without_neighbors(found, [(1, 0, other.address)]).neighbors == found.neighbors[1:]


def test_address_of_a_static_neighbor_that_becomes_ours_ends_it(start: Running) -> None:
    assert add("1", "10.1.0.9/24")(start).neighbors == ()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (add("1", "10.0.0.1/24"), "10.0.0.1 is an address of interface 0 already; delete it there first."),
        (
            add("1", "10.0.0.9/24"),
            "interface 0 is in 10.0.0.0/24 and interface 1 in 10.0.0.0/24, and these overlap",
        ),
        (add("1.9", "10.0.0.9/32"), "interface 0 is in 10.0.0.0/24 and interface 1.9 in 10.0.0.9/32"),
        (add("0", "10.0.0.255/32"), "interface 0 has 10.0.0.1/24, and 10.0.0.255 is a broadcast"),
        (add("0", "10.0.0.0/32", primary=True), "interface 0 has 10.0.0.1/24, and 10.0.0.0 is a broadcast"),
        (add("2", "10.9.0.1/24"), "there is no interface 2; there are 0, 1, 0.7."),
        (add("2.9", "10.9.0.1/24"), "there is no interface 2; there are 0, 1, 0.7."),
        (delete("0.8", "10.0.0.1/24"), "there is no interface 0.8; "),
        (delete("0", "10.0.0.1/25"), "interface 0 has no address 10.0.0.1/25; it has 10.0.0.1/24."),
        (delete("0.7", "10.0.0.1/24"), "interface 0.7 has no address 10.0.0.1/24; it has none."),
        (
            lambda now: running.with_settings(now, (0, 0), 1500, mtu=1501),
            "an MTU of 1501 is not possible on interface 0",
        ),
        (
            lambda now: running.with_settings(now, (0, 0), 1500, mtu=67),
            "an MTU of 67 is not possible on interface 0",
        ),
        (lambda now: running.with_settings(now, (3, 0), 1500, up=False), "there is no interface 3; "),
        (lambda now: running.with_neighbor(now, neighbor("0.9", "10.0.0.9")), "there is no interface 0.9; "),
        (
            lambda now: running.with_neighbor(now, neighbor("0", "10.1.0.1")),
            "10.1.0.1 is an address of our own, on interface 1.",
        ),
    ],
)
def test_refusal_is_one_sentence_and_changes_nothing(start: Running, change: Change, sentence: str) -> None:
    before = Running(start.interfaces, start.neighbors)
    with pytest.raises(RefusedError) as refusal:
        change(start)
    assert str(refusal.value).startswith(sentence)
    assert str(refusal.value).endswith(".")
    assert start == before


def test_room_for_addresses_interfaces_and_neighbors_ends(
    start: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MAX_ADDRESSES", 2)
    with pytest.raises(RefusedError, match="there are 2 addresses already"):
        add("0", "10.3.0.1/24")(start)
    monkeypatch.setattr(running, "MAX_ADDRESSES", 9)
    monkeypatch.setattr(running, "MAX_INTERFACES", 3)
    with pytest.raises(RefusedError, match="there are 3 interfaces already"):
        add("0.8", "10.3.0.1/24")(start)
    monkeypatch.setattr(running, "MAX_NEIGHBORS", 1)
    with pytest.raises(RefusedError, match="there are 1 static neighbors already"):
        running.with_neighbor(start, neighbor("0", "10.0.0.9"))


def test_it_survives_the_state_file(start: Running) -> None:
    assert from_plain(Running, to_plain(start)) == start
