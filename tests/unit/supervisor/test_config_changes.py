# SPDX-License-Identifier: Apache-2.0
"""From one configuration to another: what changes, what can not, and what both have."""

from __future__ import annotations

import shlex

import pytest

from halo_mp.supervisor import arguments, config
from halo_mp.supervisor.config_changes import LINE, TOLD, plan, told, united
from halo_mp.supervisor.config_model import Config, Machine
from halo_mp.supervisor.running import RefusedError, Running

MACHINE = Machine(cores=(0, 1, 2, 3), free_pages={})
BASE = "--ports 0,1 --address 0=10.1.0.1/24 --address 1=10.2.0.1/24 --neighbor 0=10.1.0.9,02:00:00:00:00:09"


def built(flags: str) -> Config:
    return config.build(arguments.parse(shlex.split(flags)), MACHINE)


def changes(wanted: str, *, base: str = BASE) -> tuple[tuple[str, ...], tuple[str, ...]]:
    started = built(base)
    found = plan(started, Running.of(started), built(wanted))
    return found.changes, found.restart


def test_the_same_changes_nothing() -> None:
    assert changes(BASE) == ((), ())


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        ("--address 0=10.1.5.1/24", ["+ address 0 10.1.5.1/24"]),
        ("--address 0.7=10.7.0.1/24", ["+ interface 0.7", "+ address 0.7 10.7.0.1/24"]),
        ("--vlan 1.8 --down 1.8", ["+ interface 1.8", "~ interface 1.8 up: true -> false"]),
        ("--mtu 0=1400", ["~ interface 0 mtu: 1500 -> 1400"]),
        (
            "--redirects 1 --proxy-arp 0",
            ["~ interface 0 proxy_arp: false -> true", "~ interface 1 redirects: false -> true"],
        ),
        ("--neighbor 1=10.2.0.9,02:00:00:00:00:08", ["+ neighbor 1 10.2.0.9 02:00:00:00:00:08"]),
        ("--stats-log 5 --log-level debug", ["~ logs.level: info -> debug", "~ logs.stats: none -> 5.0"]),
        (
            "--hang-timeout 20 --restart-limit 6/10",
            ["~ instance.hang_timeout: 10.0 -> 20.0", "~ instance.restart_limit: 5/10.0 -> 6/10.0"],
        ),
    ],
)
def test_what_may_change_is_told(flags: str, lines: list[str]) -> None:
    assert changes(f"{BASE} {flags}") == (tuple(lines), ())


def test_what_goes_is_told_the_other_way_round() -> None:
    more = f"{BASE} --address 0.7=10.7.0.1/24 --neighbor 1=10.2.0.9,02:00:00:00:00:08"
    assert changes(BASE, base=more) == (("- interface 0.7", "- neighbor 1 10.2.0.9"), ())
    other = BASE.replace("00:09", "00:0a")
    assert changes(other)[0] == ("~ neighbor 0 10.1.0.9 02:00:00:00:00:0a",)


def test_another_primary_address_is_told() -> None:
    two = "--address 0=10.1.0.1/24 --address 0=10.1.5.1/24"
    turned = "--address 0=10.1.5.1/24 --address 0=10.1.0.1/24"
    assert changes(turned, base=two)[0] == ("~ order of the addresses of 0: 10.1.5.1/24, 10.1.0.1/24",)


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        ("--ring-size 64", "--ring-size"),
        ("--mtu 1=1600", "--mtu of port 1"),
        ("--mac 0=02:00:00:00:00:01", "--mac of port 0"),
        ("--spare 3", "--spare"),
        ("--icmp-rate 5", "--icmp-rate"),
        ("--idle poll", "--idle"),
        ("--log-format json", "--log-format"),
        ("--ports 0,1,2", "--ports"),
    ],
)
def test_what_can_not_change_is_told_by_its_flag(flags: str, flag: str) -> None:
    _, restart = changes(f"{BASE} {flags}")
    assert any(phrase.startswith(f"{flag}:") for phrase in restart), restart


def test_interfaces_keep_their_numbers_and_new_ones_get_free_ones() -> None:
    started = built(f"{BASE} --vlan 0.5 --vlan 0.9")
    found = plan(started, Running.of(started), built(f"{BASE} --vlan 0.3 --vlan 0.9"))
    before = {each.name: each.number for each in started.interfaces}
    after = {each.name: each.number for each in found.running.interfaces}
    assert {name: after[name] for name in ("0", "1", "0.9")} == {
        name: before[name] for name in ("0", "1", "0.9")
    }
    assert after["0.3"] not in before.values()


def test_another_instance_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"named 'other', .* --name other, or take the name out"):
        changes(f"{BASE} --name other")


def test_united_has_the_addresses_of_both() -> None:
    before, wanted = (
        built(f"{BASE} --vlan 0.5"),
        built("--ports 0,1 --address 0=10.1.5.1/24 --address 1=10.2.0.1/24"),
    )
    both = united(Running.of(before), Running.of(wanted))
    found = {each.name: [*map(str, each.addresses)] for each in both.interfaces}
    assert found == {"0": ["10.1.5.1/24", "10.1.0.1/24"], "1": ["10.2.0.1/24"], "0.5": []}


def test_united_of_what_contradicts_itself_is_what_is_wanted() -> None:
    before = built(BASE)
    wanted = built("--ports 0,1 --address 1=10.1.0.2/24 --address 0=10.2.0.2/24")
    assert united(Running.of(before), Running.of(wanted)) == Running.of(wanted)


def test_told_is_bounded() -> None:
    assert told(["a", "b"]) == ["a", "b"]
    assert told(["a"], 5) == ["a", "and 4 more"]
    assert len(told(["x"] * 1000)) == TOLD + 1
    for letter in "x\u20ac":
        many = told([letter * 10_000] * 1000)
        assert many[-1] == f"and {1000 - len(many) + 1} more"
        assert max(map(len, many)) == LINE + 3
        assert sum(len(line.encode()) for line in many) < 26 << 10
