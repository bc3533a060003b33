# SPDX-License-Identifier: Apache-2.0
"""Static routes: how they are written, in flags and in files, and one sentence for each thing wrong."""

from __future__ import annotations

import random
import shlex
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from halo_mp.errors import UsageError
from halo_mp.supervisor import arguments, config
from halo_mp.supervisor.config_model import HopConfig, RouteConfig
from halo_mp.supervisor.config_routes import MAX_HOPS, RouteList, load_routes, parse_hops, parse_prefix

PORTS = "--ports 0,1 --address 0=10.77.0.1/24 --address 1=10.77.1.0/31 --address 0.7=10.7.0.1/24"
GATEWAY = int(IPv4Address("10.77.0.2"))


def built(line: str) -> config.Config:
    return config.build(
        arguments.parse(shlex.split(f"{PORTS} {line}")), config.Machine(cores=(0, 1), free_pages={})
    )


def routes(*lines: str) -> tuple[RouteConfig, ...]:
    return built(" ".join(f"--route {line}" for line in lines)).routes


@pytest.mark.parametrize(
    ("line", "route"),
    [
        ("default=10.77.0.2", RouteConfig(0, 0, (HopConfig(GATEWAY),))),
        ("0.0.0.0/0=10.77.0.2", RouteConfig(0, 0, (HopConfig(GATEWAY),))),
        ("10.0.0.0/8=blackhole", RouteConfig(10 << 24, 8, (HopConfig(kind="blackhole"),))),
        ("10.0.0.0/9=unreachable", RouteConfig(10 << 24, 9, (HopConfig(kind="unreachable"),))),
        ("10.0.0.9=prohibit", RouteConfig((10 << 24) + 9, 32, (HopConfig(kind="prohibit"),))),
        ("10.9.0.0/16=@0.7", RouteConfig(0x0A090000, 16, (HopConfig(0, 0, 7),))),
        (
            "10.0.0.0/8=10.77.0.2*3,192.0.2.1@0.7,10.77.1.1@1*256",
            RouteConfig(
                10 << 24,
                8,
                (
                    HopConfig(GATEWAY, weight=3),
                    HopConfig(int(IPv4Address("192.0.2.1")), 0, 7),
                    HopConfig(int(IPv4Address("10.77.1.1")), 1, 0, 256),
                ),
            ),
        ),
    ],
)
def test_route_is_prefix_and_hops(line: str, route: RouteConfig) -> None:
    assert routes(line) == (route,)
    assert parse_prefix(str(route)) == (route.prefix, route.length)
    assert parse_hops([str(hop) for hop in route.hops]) == route.hops


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["10.0.0.0/8"], "expected a prefix, '=' and hops; write for example --route 10.0.0.0/8=10.1.2.254"),
        (["10.0.0.0/8="], "expected a prefix, '=' and hops"),
        (["10.0.0.1/8=10.77.0.2"], "10.0.0.1/8 has bits set behind its first 8; 10.0.0.0/8 is the network"),
        (["10.0.0/8=10.77.0.2"], "'10.0.0/8' is not a prefix"),
        (["10.0.0.0/33=10.77.0.2"], "'10.0.0.0/33' is not a prefix"),
        (["10.0.0.0/=10.77.0.2"], "'10.0.0.0/' is not a prefix"),
        (["10.0.0.0/08=10.77.0.2"], "'10.0.0.0/08' is not a prefix"),
        (["10.0.0.0/8=10.77.0.2,"], "'' is not an IPv4 address, and the hop '' none of blackhole"),
        (["10.0.0.0/8=nowhere"], "'nowhere' is not an IPv4 address, and the hop 'nowhere' none of blackhole"),
        (["10.0.0.0/8=10.77.0.2*0"], "'0' is not a weight from 1 to 256"),
        (["10.0.0.0/8=10.77.0.2*257"], "'257' is not a weight from 1 to 256"),
        (["10.0.0.0/8=10.77.0.2*"], "'' is not a weight"),
        (["10.0.0.0/8=224.0.0.1"], "224.0.0.1 can not be the address of a host"),
        (["10.0.0.0/8=10.77.0.2@x"], "'x' is neither a port nor a port and a VLAN"),
        (["10.0.0.0/8=10.77.0.2@0.8"], "on interface 0.8, which is not there"),
        (["10.0.0.0/8=10.99.0.1"], "no interface is on a network with 10.99.0.1; write 10.99.0.1@PORT"),
        (["10.0.0.0/8=10.77.0.1"], "10.77.0.1 is an address of our own"),
        (["10.0.0.0/8=blackhole,10.77.0.2"], "blackhole stands alone, not among other hops"),
        (["10.0.0.0/8=blackhole,prohibit"], "blackhole stands alone"),
        (["10.0.0.0/8=10.77.0.2,10.77.0.2*2"], "the hop 10.77.0.2 is named twice; give it a weight"),
        (["default=10.77.0.2", "0.0.0.0/0=10.77.0.3"], "0.0.0.0/0 is named twice; write its hops in one"),
        (
            [f"default={','.join(f'10.8.{i >> 8}.{i & 255}@0' for i in range(MAX_HOPS + 1))}"],
            "513 hops are too many",
        ),
        (["10.0.0.0/8=@0.9"], "on interface 0.9, which is not there"),
        (["10.0.0.0/8=@"], "'' is neither a port nor a port and a VLAN"),
    ],
)
def test_route_refusal_is_one_sentence(lines: list[str], words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        routes(*lines)
    (sentence,) = str(refusal.value).split("\n")
    assert words in sentence
    assert sentence.startswith("--route")
    assert sentence.endswith(".")


def load(tmp_path: Path, text: str, *flags: str) -> RouteList:
    file = tmp_path / "routes.txt"
    file.write_text(text)
    configured = built(" ".join(flags))
    return load_routes(str(file), configured.interfaces, configured.routes)


def test_file_has_a_route_in_each_line(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        "# all of it\n\n  10.0.0.0/8 10.77.0.2   # the usual\n10.1.0.0/16\t10.77.0.2,10.77.0.3*2\n"
        "default 10.77.0.3 10.77.0.4\n192.0.2.1 blackhole\n192.0.2.2/32 blackhole# why not\n11.0.0.0/8 10.77.0.2",
    )
    assert [(str(RouteConfig(*route)), [*map(str, route[2])]) for route in found] == [
        ("10.0.0.0/8", ["10.77.0.2"]),
        ("10.1.0.0/16", ["10.77.0.2", "10.77.0.3*2"]),
        ("0.0.0.0/0", ["10.77.0.3", "10.77.0.4"]),
        ("192.0.2.1/32", ["blackhole"]),
        ("192.0.2.2/32", ["blackhole"]),
        ("11.0.0.0/8", ["10.77.0.2"]),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.0.0.0/8\n", "line 1: a route needs a hop."),
        ("\n10.0.0.0/8 # 10.77.0.2\n", "line 2: a route needs a hop."),
        ("10.0.0.0/8 10.77.0.2\n10.0.0.0/8 10.77.0.3\n", "line 2: 10.0.0.0/8 was there before"),
        ("10.0.0.0/8 10.77.0.2\n10.0.0.1/8 10.77.0.2\n", "line 2: 10.0.0.1/8 has bits set"),
        (
            "10.0.0.0/8 10.77.0.2\n10.0.0.0/9 10.99.0.2\n",
            "line 2: no interface is on a network with 10.99.0.2",
        ),
        ("10.0.0.0/8 10.77.0.2\n10.0.0/9 10.77.0.2\n", "line 2: '10.0.0/9' is not a prefix"),
        ("10.0.0.0/8 via 10.77.0.2\n", "line 1: 'via' is not an IPv4 address"),
        ("\xff\n", "line 1: "),
        ("default 10.77.0.2\n", "line 1: default was there before"),
    ],
)
def test_file_refusal_names_file_and_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        load(tmp_path, text, "--route", "default=10.77.0.9")
    assert str(refusal.value).startswith(f"{tmp_path}/routes.txt, {words}")


def test_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it can not be read: No such file"):
        load_routes(str(tmp_path / "none"), ())


def test_file_of_many_routes_is_what_was_written(tmp_path: Path) -> None:
    rng = random.Random(20261122)
    keys = {(rng.getrandbits(32) >> 8 << 8, 24) for _ in range(50_000)}
    wanted = [(prefix, length, f"10.77.0.{2 + prefix % 7}") for prefix, length in keys]
    lines = [
        f"{prefix >> 24}.{prefix >> 16 & 255}.{prefix >> 8 & 255}.0/{length} {hop}\n"
        for prefix, length, hop in wanted
    ]
    found = load(tmp_path, "".join(lines))
    assert [(prefix, length, str(hops[0])) for prefix, length, hops in found] == wanted
    assert len(found) == len(keys)
