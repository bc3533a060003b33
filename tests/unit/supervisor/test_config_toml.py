# SPDX-License-Identifier: Apache-2.0
"""A configuration as a file, and the same configuration from that file."""

from __future__ import annotations

import dataclasses

import pytest

from halo_mp.supervisor import arguments, config, config_toml
from halo_mp.supervisor.config_model import Config, HopConfig, Machine
from tests.unit.supervisor.test_config_file import THE_SAME

MACHINE = Machine(cores=(0, 1, 2, 3), free_pages={})

FLAGS = [
    "",
    "--ports 0,2",
    "--name edge --ports 0,1 --address 0=none --vlan 1.5 --down 1.5 --no-forward-from 0",
    "--mtu 1400 --mtu 0=1300 --device-mtu 0=1500 --vlan 0.9 --mtu 0.9=1000 --restart-limit 7/0.25",
    "--vdev net_af_packet0,iface=eth0 --address 0=10.1.0.1/24 --kernel 0=10.1.0.1 --queues 2",
    "--vdev net_af_packet0,qpairs=2,iface=eth0 --queues 2 --slot 1=0.1 --slot 3=0.0 --cores 2,1",
    "--vdev net_null0 --kernel 0 --eal '--log-level=lib.eal:debug' --hugepages off --stats-log --spare 2",
    "--no-forward --ecmp-seed 0 --reachable-time 1.5 --route 10.0.0.0/8=10.77.0.9 --route default=prohibit",
    "--macswap 0=1 --macswap 1=0 --ports 0,1 --mac 1=02:00:00:00:00:01 --neighbor 0=10.77.0.9,02:00:00:00:00:09",
    THE_SAME,
]


def built(flags: str, text: str | None = None) -> Config:
    import shlex

    return config.build(arguments.parse(shlex.split(flags), text), MACHINE)


def file_of(found: Config) -> str:
    routes = [config_toml.route(str(each), each.hops) for each in found.routes]
    return "".join([*config_toml.settings(found), *routes])


@pytest.mark.parametrize("flags", FLAGS)
def test_file_of_a_configuration_gives_the_same_configuration(flags: str) -> None:
    wanted = dataclasses.replace(built(flags), routes_file=None)
    found = built("--config x.toml", file_of(wanted))
    for field in dataclasses.fields(Config):
        if field.name != "warnings":
            assert getattr(found, field.name) == getattr(wanted, field.name), (field.name, file_of(wanted))
    assert file_of(found) == file_of(wanted)


def test_text_that_needs_escapes_survives() -> None:
    odd = dataclasses.replace(built(""), user='a "\\ \u00e9', control_group="x\ty")
    assert built("--config x.toml", file_of(odd).replace("x\\ty", "xy")).user == odd.user


def test_route_to_an_end_and_to_weights() -> None:
    text = config_toml.route("10.0.0.0/8", (HopConfig(0x0A4D0002, None, 0, 2), HopConfig(0, 0, 100)))
    assert text == '[[routes]]\nprefix = "10.0.0.0/8"\nvia = ["10.77.0.2*2", "@0.100"]\n\n'
