# SPDX-License-Identifier: Apache-2.0
"""The saved configuration: there and back, what differs, and what nobody wrote."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import pytest

from halo_mp.plain import from_plain, to_plain
from halo_mp.supervisor import arguments, config
from halo_mp.supervisor.config_model import Config, Machine
from halo_mp.supervisor.desired import CHANGEABLE, differences, with_changes

MACHINE = Machine(cores=(0, 1, 2, 3), free_pages={})
RICH = (
    "--vdev net_tap0 --vdev net_null1 --address 0=10.0.0.1/24 --mtu 1400 --mac 1=02:00:00:00:00:01 --macswap 0=1 "
    "--route default=10.0.0.2*2,10.0.0.3 --neighbor 0=10.0.0.9,02:00:00:00:00:09 --vlan 1.5 --mtu 1.5=1300 "
    "--macswap 1=0 --slot 0=0 --slot 1=1 --cores 1,2 --driver-cores 0,3 --stats-log 0.5 --user nobody --eal -v"
)


def build(*flags: str, machine: Machine = MACHINE) -> Config:
    """Return the configuration of these flags on a machine with four cores and no hugepages."""
    return config.build(arguments.parse(flags), machine)


@pytest.mark.parametrize("flags", [(), ("--ports", "0,1"), tuple(RICH.split())])
def test_configuration_survives_the_file(flags: tuple[str, ...]) -> None:
    built = build(*flags)
    octets = msgpack.packb(to_plain(built))
    assert from_plain(Config, msgpack.unpackb(octets, strict_map_key=False)) == built


@pytest.mark.parametrize(
    "change",
    [
        {"ports": 3},
        {"ports": [{"number": 0}]},
        {"ring_size": "16384"},
        {"ring_size": True},
        {"restart_limit": [5]},
        {"macswap": [0, 1]},
        {"hugepages": "2M"},
        {"surplus": 1},
    ],
)
def test_what_nobody_wrote_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is no|has not"):
        from_plain(Config, {**to_plain(build()), **change})


def test_missing_key_is_refused() -> None:
    plain = to_plain(build())
    del plain["instance"]
    with pytest.raises(ValueError, match="is no Config"):
        from_plain(Config, plain)


@pytest.mark.parametrize(
    ("flags", "phrase"),
    [
        ("--ring-size 1024 --pool-size 46080", "--ring-size: it runs with 16384, this asks for 1024"),
        ("--address 0=10.1.1.1/24", "--address of port 0: it runs with"),
        ("--mtu 1400", "--mtu of port 0: it runs with 1500, this asks for 1400"),
        ("--address 1.7=10.1.1.1/24", "--vlan 1.7: it runs with False, this asks for True"),
        ("--proxy-arp 0", "--proxy-arp of port 0: it runs with False, this asks for True"),
        ("--no-forward", "--no-forward: it runs with False, this asks for True"),
        ("--route default=10.77.0.2", "--route: it runs with none, this asks for 0.0.0.0/0"),
        ("--routes-file r", "--routes-file: it runs with none, this asks for /"),
        ("--neighbor 0=10.77.0.9,02:00:00:00:00:09", "--neighbor: it runs with none, this asks for [{"),
        ("--reachable-time 9", "--reachable-time: it runs with 30.0, this asks for 9.0"),
        ("--ecmp-seed 4", "--ecmp-seed: it runs with none, this asks for 4"),
        ("--tx-only", "--tx-only: it runs with False, this asks for True"),
        ("--idle poll", "--idle: it runs with adaptive, this asks for poll"),
        ("--user nobody", "--user: it runs with none, this asks for nobody"),
        ("--hugepages 2M", "--hugepages: it runs with none, this asks for 2097152"),
    ],
)
def test_differences_name_the_flag_and_both_values(flags: str, phrase: str) -> None:
    running = build("--ports", "0,1")
    found = differences(running, build("--ports", "0,1", *flags.split()))
    assert [entry for entry in found if entry.startswith(phrase)]


def test_other_ports_differ() -> None:
    assert any(
        entry.startswith("--ports: it runs") for entry in differences(build("--ports", "0,1"), build())
    )


def test_hugepages_that_the_instance_itself_has_taken_are_no_difference() -> None:
    pages = {2 << 20: 4096}
    running = build("--hugepages", "auto", machine=dataclasses.replace(MACHINE, free_pages=pages))
    assert running.hugepages == 2 << 20
    assert differences(running, build("--hugepages", "auto")) == []


def test_what_concerns_the_supervisor_alone_may_change() -> None:
    flags = "--hang-timeout 2 --restart-limit 1/1 --stats-log 1 --orphan-timeout 5 --spare 3 --no-adopt "
    flags += "--control-group adm"
    running, wanted = build(), build(*flags.split())
    assert differences(running, wanted) == []
    changed = with_changes(running, wanted)
    assert (changed.hang_timeout_s, changed.orphan_timeout_s, changed.spares) == (2.0, 5.0, 3)
    kept = {field.name for field in dataclasses.fields(Config)} - CHANGEABLE
    assert all(getattr(changed, name) == getattr(running, name) for name in kept)
