# SPDX-License-Identifier: Apache-2.0
"""TOML files: each key is a flag, flags count in place of keys, and one sentence with file and key for each error."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest

from halo_mp.errors import UsageError
from halo_mp.supervisor import arguments, config
from halo_mp.supervisor.config_file import KEYS, LISTS, NAMED
from halo_mp.supervisor.config_open import MAX_OCTETS
from halo_mp.supervisor.config_reader import MOST_PROBLEMS
from halo_mp.supervisor.config_routes import load_routes

MACHINE = config.Machine(cores=(0, 1, 2, 3), free_pages={})
ROOT = Path(__file__).resolve().parents[3]

EVERYTHING = """
[instance]
name = "edge1"
ports = [0, 1]
user = "nobody"
control_group = 4
spare = "auto"
restart_limit = "3/5"
hang_timeout = 2.5
orphan_timeout = 7
adopt = false

[application]
app = "filter:app"
directory = "/"
debug = true

[devices]
pci = []
vdev = ["net_null0", "net_null1"]
queues = 2
spread = "software"
mtu = 1500
promiscuous = false

[ports.0]
mac = "02:00:00:00:00:05"
macswap = 1
[ports.1]
mtu = 1501

[slots.0]
feeds = ["0.0", "1"]
[slots.1]
feeds = "0.1"

[interfaces.0]
addresses = "10.1.0.1/24"
redirects = true
[interfaces."0.100"]
addresses = ["10.1.100.1/24", "10.1.101.0/31"]
mtu = 1400
proxy_arp = true
directed_broadcast = true
up = false
[interfaces."1.7"]
forward = false
[interfaces.1]
up = true
forward = true
addresses = []

[routing]
forward = false
probe = true
routes_file = "routes.txt"
icmp_rate = 10
reachable_time = 2.5
ecmp_seed = 3

[[routes]]
prefix = "default"
via = ["10.1.0.2*2", "10.1.100.9"]
[[routes]]
prefix = "10.9.0.0/16"
via = "blackhole"
[[neighbors]]
interface = 0
address = "10.1.0.9"
mac = "02:00:00:00:00:09"

[cores]
workers = [1, 2]
driver = "0"
idle = "poll"

[memory]
ring_size = 1024
pool_size = 50000
hugepages = "off"
mem_channels = 2
eal = ["-v", "--no-hpet"]

[packets]
rx_checksum = true
tx_checksum = true
tx_only = false

[logs]
stats = 0.5
debug = true
level = "warning"
format = "json"
"""
SHARED = """
[devices]
vdev = ["net_null0"]
[interfaces.0]
addresses = ["10.1.0.1/24"]
[ports.0]
kernel = {}
"""
THE_SAME = (
    "--app filter:app --app-dir / --app-debug "
    "--name edge1 --ports 0,1 --user nobody --control-group 4 --spare auto --restart-limit 3/5 --hang-timeout 2.5 "
    "--orphan-timeout 7 --no-adopt "
    "--vdev net_null0 --vdev net_null1 --queues 2 --spread software --mtu 1500 "
    "--no-promiscuous --mac 0=02:00:00:00:00:05 --macswap 0=1 --slot 0=0.0,1 --slot 1=0.1 "
    "--device-mtu 1=1501 --address 0=10.1.0.1/24 --down 0.100 --no-forward-from 1.7 --address 1=none "
    "--redirects 0 --address 0.100=10.1.100.1/24 --address 0.100=10.1.101.0/31 --mtu 0.100=1400 --proxy-arp 0.100 "
    "--directed-broadcast 0.100 --vlan 1.7 --no-forward --probe --icmp-rate 10 --reachable-time 2.5 --ecmp-seed 3 "
    "--route default=10.1.0.2*2,10.1.100.9 --route 10.9.0.0/16=blackhole --neighbor 0=10.1.0.9,02:00:00:00:00:09 "
    "--cores 1,2 --driver-cores 0 --idle poll --ring-size 1024 --pool-size 50000 --hugepages off --mem-channels 2 "
    "--eal=-v --eal=--no-hpet --rx-checksum --tx-checksum --stats-log 0.5 --debug-log --log-level warning "
    "--log-format json"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "router.toml"


def built(file: Path, text: str, *flags: str) -> config.Config:
    file.write_text(text)
    return config.build(arguments.parse([f"--config={file}", *flags]), MACHINE)


def refused(file: Path, text: str, *flags: str) -> list[str]:
    with pytest.raises(UsageError) as refusal:
        built(file, text, *flags)
    return str(refusal.value).split("\n")


def test_file_means_the_same_as_flags(file: Path) -> None:
    wanted = config.build(
        arguments.parse([*THE_SAME.split(), "--routes-file", str(file.parent / "routes.txt")]), MACHINE
    )
    found = built(file, EVERYTHING)
    for field in dataclasses.fields(config.Config):
        assert getattr(found, field.name) == getattr(wanted, field.name), field.name


def test_every_flag_has_a_key_that_the_example_has() -> None:
    flags = {flag for keys in (*KEYS.values(), *NAMED.values()) for flag, _ in keys.values()}
    flags |= {flag for flag, _, _ in LISTS.values()} | {"--vlan"}
    known = {action.option_strings[-1] for action in arguments.parser()._actions}
    known = {"--promiscuous" if flag == "--no-promiscuous" else flag for flag in known}
    assert known - flags == {"--config", "--help", "--version"}
    assert flags - known == set()
    for key in (key for keys in (*KEYS.values(), *NAMED.values()) for key in keys):
        assert re.search(rf"^{key} = ", EVERYTHING + SHARED, re.MULTILINE), key


@pytest.mark.parametrize(("value", "flag"), [("true", "0"), ('"10.1.0.1"', "0=10.1.0.1")])
def test_port_shared_with_the_kernel_means_the_same_as_its_flag(file: Path, value: str, flag: str) -> None:
    flags = f"--vdev net_null0 --address 0=10.1.0.1/24 --kernel {flag}"
    assert built(file, SHARED.format(value)) == config.build(arguments.parse(flags.split()), MACHINE)


def test_page_has_a_row_for_every_key_and_a_file_that_builds(file: Path) -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    rows = dict(re.findall(r"^\| (`[^|]+`) \| `(--[a-z-]+)`", page, re.MULTILINE))
    wanted = {f"`{table}.{key}`": flag for table, keys in KEYS.items() for key, (flag, _) in keys.items()}
    wanted |= {f"`{table}.N.{key}`": flag for table, keys in NAMED.items() for key, (flag, _) in keys.items()}
    wanted |= {
        ", ".join(f"`{table}[].{key}`" for key in keys): flag for table, (flag, keys, _) in LISTS.items()
    }
    assert rows == wanted | {'`interfaces."N.V"`': "--vlan"}
    found = built(file, re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0])
    assert [each.name for each in found.interfaces] == ["0", "1", "0.100"]
    assert len(found.routes) == 2


def test_flag_counts_in_place_of_all_that_the_file_says_for_it(file: Path) -> None:
    text = """
        [ports.0]
        [interfaces."0.7"]
        addresses = ["10.1.0.1/24", "10.2.0.1/24"]
        [memory]
        ring_size = 1024
        hugepages = "off"
    """
    found = built(file, text, "--address", "0=10.3.0.1/24", "--ring-size=64")
    assert found.ring_size == 64
    assert {each.name: [*map(str, each.addresses)] for each in found.interfaces} == {
        "0": ["10.3.0.1/24"],
        "0.7": [],
    }


@pytest.mark.parametrize(
    ("text", "flags", "ports"),
    [
        ("[ports.1]\n[ports.0]", (), [0, 1]),
        ('[interfaces."3.9"]', (), [3]),
        ("[ports.2]\n[instance]\nports = [1, 2]", (), [1, 2]),
        ("[ports.0]\nmac = '02:00:00:00:00:01'\n[devices]\nvdev = ['net_null0', 'net_null1']", (), [0, 1]),
        ("[ports.0]\nmac = '02:00:00:00:00:01'", ("--vdev", "net_null0", "--vdev", "net_null1"), [0, 1]),
        ("[ports.0]\n[ports.1]", ("--ports", "1"), [1]),
        ("[memory]", (), [0]),
    ],
)
def test_tables_say_which_ports_there_are_where_nothing_else_does(
    file: Path, text: str, flags: tuple[str, ...], ports: list[int]
) -> None:
    assert [port.number for port in built(file, text, *flags).ports] == ports


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[instance\n[memory]",
            "router.toml, line 1, column 10: it is not TOML: Expected ']' at the end of a table declaration.",
        ),
        (
            "a = 1\na = 2\nb = 1",
            "router.toml, line 2, column 6: it is not TOML: the key before this place is there twice.",
        ),
        ("[memoy]", "router.toml, memoy: there is no such key; the nearest is memory."),
        (
            "[zz]",
            "router.toml, zz: there is no such key; there are instance, application, devices, routing, cores, memory, ",
        ),
        ("[memory]\nring = 7", "router.toml, memory.ring: there is no such key; the nearest is ring_size."),
        (
            "[interfaces.'0.7']\nadress = 1",
            'router.toml, interfaces."0.7".adress: there is no such key; the nearest',
        ),
        (
            "[[routes]]\nprefx = 1",
            "router.toml, routes[0].prefx: there is no such key; the nearest is prefix.",
        ),
        (
            "[[routes]]\nprefix = '10.0.0.0/8'",
            "router.toml, routes[0]: via is missing, it needs prefix, via.",
        ),
        ("[routes]\nprefix = 1", "router.toml, routes: expected a table such as [[routes]]."),
        ("ports = [0, 1]", "router.toml, ports: expected a table such as [ports.0]."),
        ("memory = 1", "router.toml, memory: expected a table."),
        ("[ports]\n0 = 'x'", "router.toml, ports.0: expected a table."),
        ("[ports.x]", "router.toml, ports.x: 'x' is no number of one, as in [ports.0]."),
        (
            "[interfaces.x]",
            "router.toml, interfaces.x: 'x' is no number of one, as in [interfaces.\"0.100\"].",
        ),
        (
            "[memory]\nring_size = true",
            "router.toml, memory.ring_size: expected a text or a number, not True.",
        ),
        ("[memory]\nring_size = [1]", "router.toml, memory.ring_size: expected a text or a number, not [1]."),
        (
            "[memory]\neal = [[1]]",
            "router.toml, memory.eal: expected a text or a number or several in brackets, not",
        ),
        ("[packets]\ntx_only = 1", "router.toml, packets.tx_only: expected true or false, not 1."),
        (
            "[interfaces.0]\nproxy_arp = 'yes'",
            "router.toml, interfaces.0.proxy_arp: expected true or false, not 'yes'.",
        ),
        (
            "[memory]\nring_size = 1000",
            "router.toml, memory.ring_size: --ring-size 1000: expected a power of two from 64 to 1048576",
        ),
        (
            "[interfaces.'0.7']\naddresses = ['10.0.0.1']",
            'router.toml, interfaces."0.7".addresses: --address 0.7=10.0.0.1: the prefix length is missing',
        ),
        ("[interfaces.'0.0']", 'router.toml, interfaces."0.0": --vlan 0.0: VLAN 0 is none of 1 to 4094'),
        (
            "[[routes]]\nprefix = '10.0.0.0/8'\nvia = '10.99.0.1'",
            "router.toml, routes[0]: --route 10.0.0.0/8=...: no interface is on a network with 10.99.0.1",
        ),
        (
            "[interfaces.0]\naddresses = ['10.0.0.1/24']\n[interfaces.'0.7']\naddresses = ['10.0.0.2/24']",
            "router.toml: --address: interface 0 is in 10.0.0.0/24 and interface 0.7 in 10.0.0.0/24, and these overlap",
        ),
    ],
)
def test_refusal_is_one_sentence_with_file_and_key(file: Path, text: str, sentence: str) -> None:
    (found,) = refused(file, text)
    assert found.startswith(sentence)
    assert found.endswith(".")


def test_refusals_come_all_at_once(file: Path) -> None:
    text = "[memory]\nring_size = 1000\nring = 7\n[instance]\nname = 'a/b'\n[packets]\ntx_only = 0"
    assert len(refused(file, text, "--idle", "lazy", "--qqq")) == 6


def test_flag_beside_the_file_is_refused_as_a_flag(file: Path) -> None:
    assert refused(file, "[memory]\nring_size = 1024", "--ring-size", "1000")[0].startswith(
        "--ring-size 1000: "
    )


def test_file_that_is_not_there_or_no_text_is_a_sentence(file: Path) -> None:
    with pytest.raises(UsageError, match=r"--config .*none\.toml: it can not be read: No such file"):
        config.build(arguments.parse(["--config", str(file.with_name("none.toml"))]), MACHINE)
    file.write_bytes(b"a = '\xff'")
    with pytest.raises(UsageError, match=r"router\.toml: it is not TOML, which is text in UTF-8\."):
        config.build(arguments.parse(["--config", str(file)]), MACHINE)


TOO_MUCH = "router.toml: it is nested deeper, or a number in it is longer, than in any configuration."


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a = " + "[" * 50_000, TOO_MUCH),
        ("[memory]\nring_size = " + "9" * 5000, TOO_MUCH),
        (
            "[memory]\nring_size = 0x" + "f" * 5000,
            "router.toml, memory.ring_size: no number is that large here.",
        ),
        (
            "[instance]\nname." + "a." * 2000 + "a = 1",
            "router.toml, instance.name: expected a text or a number,",
        ),
        (
            "[instance]\nname = 2026-11-22",
            "router.toml, instance.name: expected a text or a number, not 2026-11-22.",
        ),
        (
            "[routing]\nroutes_file = 'x\\u0000'".replace("'", '"'),
            "router.toml, routing.routes_file: --routes-file",
        ),
        ("k" * 100_000 + " = 1", "router.toml, kkkk"),
        (f"[instance]\nname = '{'k' * 100_000}'", "router.toml, instance.name: --name kkkk"),
        (
            "[instance]\nname = 'a\\u001b[31m\\nb'".replace("'", '"'),
            "router.toml, instance.name: --name 'a\\x1b[31m",
        ),
    ],
)
def test_file_that_is_nothing_like_one_is_a_short_sentence(file: Path, text: str, sentence: str) -> None:
    (found,) = refused(file, text)
    assert found.startswith(sentence)
    assert len(found) < 600
    assert found.isprintable()


def test_file_with_the_mark_of_its_octet_order_is_read(file: Path) -> None:
    file.write_text("[memory]\nring_size = 64", "utf-8-sig")
    assert config.build(arguments.parse(["--config", str(file)]), MACHINE).ring_size == 64
    assert config.build(arguments.parse(["--config", "x"], "\ufeff[memory]\nring_size = 64"), MACHINE)


@pytest.mark.parametrize("kind", ["fifo", "directory", "device"])
def test_what_is_no_ordinary_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "fifo")  # which nobody writes to
    (tmp_path / "directory").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    path = tmp_path / kind
    assert refused_as_it_is(path)[0].startswith(f"--config {path}: it can not be read: ")
    with pytest.raises(UsageError, match=rf"--routes-file .*{kind}: it can not be read: "):
        load_routes(str(path), ())


def test_file_of_any_size_is_refused_before_it_is_read(file: Path) -> None:
    with file.open("w") as written:
        written.truncate(MAX_OCTETS + 1)
    assert refused_as_it_is(file) == [
        f"--config {file}: it can not be read: it has more than 64 MiB; put its routes into a routing.routes_file."
    ]


def test_many_refusals_are_counted(file: Path) -> None:
    route = "[[routes]]\nprefix = '10.0.0.0/8'\nvia = '10.99.0.1'\n"
    found = refused(file, route * 4000)
    assert len(found) == MOST_PROBLEMS + 1
    assert found[-1] == f"... and {4000 - MOST_PROBLEMS} more like these."


def refused_as_it_is(file: Path) -> list[str]:
    with pytest.raises(UsageError) as refusal:
        config.build(arguments.parse(["--config", str(file)]), MACHINE)
    return str(refusal.value).split("\n")
