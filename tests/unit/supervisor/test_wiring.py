# SPDX-License-Identifier: Apache-2.0
"""What driver, workers and tables are told, and what a person reads."""

import dataclasses
import os

import pytest

from halo_mp.control import frame
from halo_mp.control.channel import ProtocolError
from halo_mp.control.messages import ReadyPort
from halo_mp.shm.layout import NO_SLOT
from halo_mp.shm.tables import InterfaceFlag
from halo_mp.supervisor import arguments, config
from halo_mp.supervisor.announce import announce
from halo_mp.supervisor.config import Config
from halo_mp.supervisor.keeper_driver import parse_lost, parse_ready
from halo_mp.supervisor.regions import Regions
from halo_mp.supervisor.wiring import (
    SHARED_SPIN_NS,
    SPIN_NS,
    driver_configure,
    interfaces,
    stack_mac,
    worker_configure,
)
from tests.unit.supervisor.tree import build_config

DEVICE_MAC = bytes.fromhex("001122334455")


def tap_config(*flags: str) -> Config:
    return config.build(arguments.parse(["--name", "x", "--ports", "0,1", "--hugepages", "off", *flags]))


def ready(*ports: int, driver: str = "net_tap") -> dict[int, ReadyPort]:
    return {
        port: {
            "port": port,
            "device": f"net_tap{port}",
            "driver": driver,
            "mac": DEVICE_MAC,
            "mtu": 1500,
            "mode": "direct",
            "rx_queues": 1,
            "tx_queues": 1,
            "spread_queues": 0,
            "link_up": True,
        }
        for port in ports
    }


def test_stack_mac_on_a_tap_is_local_and_stays() -> None:
    first, second = tap_config().ports
    told = ready(0)[0]
    mac = stack_mac("x", first, told)
    assert mac[0] & 3 == 2
    assert mac == stack_mac("x", first, {**told, "mac": bytes(6)})
    assert len({mac, stack_mac("y", first, told), stack_mac("x", second, told)}) == 3


def test_stack_mac_of_another_port_is_the_devices_unless_named() -> None:
    port, told = build_config().ports[0], ready(0, driver="net_null")[0]
    assert stack_mac("x", port, told) == DEVICE_MAC
    named = dataclasses.replace(port, mac=b"\2\0\0\0\0\7")
    for driver in ("net_null", "net_tap"):
        assert stack_mac("x", named, ready(0, driver=driver)[0]) == b"\2\0\0\0\0\7"


def test_interfaces_one_for_each_port_and_vlan_with_all_their_addresses() -> None:
    wanted = build_config(
        *("--address", "0=10.1.2.3/24", "--address", "0=10.1.3.3/25", "--address", "1.7=10.9.0.1/32"),
        *("--vlan", "0.4094", "--proxy-arp", "1.7", "--redirects", "0"),
    )
    found = interfaces(wanted, ready(0, 1, driver="net_null"))
    assert {number: (*entry.key, entry.addresses) for number, entry in found.items()} == {
        0: (0, 0, ((0x0A010203, 24), (0x0A010303, 25))),
        1: (1, 0, ()),
        2: (0, 4094, ()),
        3: (1, 7, ((0x0A090001, 32),)),
    }
    assert {entry.mac for entry in found.values()} == {DEVICE_MAC}
    usual = InterfaceFlag.UP | InterfaceFlag.FORWARD
    assert [found[number].flags ^ usual for number in range(4)] == [
        InterfaceFlag.REDIRECTS,
        InterfaceFlag.NONE,
        InterfaceFlag.NONE,
        InterfaceFlag.PROXY_ARP,
    ]
    assert {number: entry.key for number, entry in interfaces(wanted, ready(1)).items()} == {
        1: (1, 0),
        3: (1, 7),
    }


def test_interfaces_are_what_they_are_at_present() -> None:
    built = build_config("--no-forward", "--directed-broadcast", "1")
    down = [dataclasses.replace(each, up=False, mtu=1400) for each in built.interfaces]
    found = interfaces(built, ready(0, 1, driver="net_null"), down)
    assert [found[number].flags for number in (0, 1)] == [
        InterfaceFlag.NONE,
        InterfaceFlag.DIRECTED_BROADCAST,
    ]
    assert {entry.mtu for entry in found.values()} == {1400}


def test_interfaces_mtu_is_the_smaller_one() -> None:
    wanted = build_config("--mtu", "9000")
    assert {entry.mtu for entry in interfaces(wanted, ready(0)).values()} == {1500}


def test_driver_configure_largest_instance_fits_in_one_frame() -> None:
    flags = [word for number in range(64) for word in ("--vdev", f"net_null{number}")]
    largest = config.build(arguments.parse([*flags, "--ring-size", "64", "--hugepages", "off"]))
    message = driver_configure(largest)
    assert len(message["slots"]) == 64
    assert len(frame.emit({**message, "fds": frame.MAX_FDS})) < frame.MAX_FRAME_OCTETS


def test_driver_configure_has_a_descriptor_for_each_thing() -> None:
    wanted = build_config(name=f"u{os.getpid() % 100000}")
    regions = Regions.create(wanted, generation=1)
    fds = regions.driver_fds()
    assert len(fds) == len(set(fds)) == 3 + 2 * len(wanted.slots) + len(wanted.driver_cores)
    assert len(set(regions.worker_fds(1))) == 6
    assert regions.worker_fds(1)[5] == fds[3 + 2 * len(wanted.slots) + wanted.slots[1].lcore]
    regions.close()


def test_twin_is_a_port_that_feeds_the_home_of_its_port() -> None:
    flags = ["--vdev", "net_null0", "--vdev", "net_null1", "--queues", "2", "--hugepages", "off"]
    flags += ["--address", "1=10.0.0.1/24", "--kernel", "1=10.0.0.1", "--slot", "0=0,1.1", "--slot", "1=1.0"]
    wanted = config.build(arguments.parse(flags))
    message = driver_configure(wanted)
    assert [(port["port"], port["device"], port["queues"]) for port in message["ports"]] == [
        (0, "net_null0", 2),
        (1, "net_null1", 2),
        (63, "net_tap_k1", 1),
    ]
    assert [slot["feeds"] for slot in message["slots"]] == [[(0, 0), (0, 1), (1, 1)], [(1, 0), (63, 0)]]
    for slot in wanted.slots:
        told = worker_configure(wanted, slot, "keep", None)
        assert told["twins"] == [(1, 63, 0x0A000001)]
    assert [entry.port for entry in interfaces(wanted, ready(0, 1, 63)).values()] == [0, 1]


def test_worker_configure_names_what_feeds_the_slot() -> None:
    wanted = tap_config("--macswap", "0=1")
    message = worker_configure(wanted, wanted.slots[1], "setuid", {"uid": 65534, "gid": 65534})
    assert (message["slot"], message["ports"], message["privileges"]) == (1, [1], "setuid")
    assert (0, 1) in message["macswap"]
    assert frame.parse_body(frame.emit(message)[4:])["user"] == {"uid": 65534, "gid": 65534}


@pytest.mark.parametrize(
    ("driver", "workers", "spins"),
    [
        ("0", "1,2", (SPIN_NS, SPIN_NS)),
        ("0", "1,1", (SHARED_SPIN_NS, SHARED_SPIN_NS)),
        ("0", "0,1", (SHARED_SPIN_NS, SPIN_NS)),
        ("0,1", "1,2", (SHARED_SPIN_NS, SPIN_NS)),
    ],
)
def test_worker_that_shares_its_core_polls_less(
    driver: str, workers: str, spins: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2})
    wanted = tap_config("--driver-cores", driver, "--cores", workers)
    told = [worker_configure(wanted, slot, "keep", None)["spin_ns"] for slot in wanted.slots]
    assert tuple(told) == spins


@pytest.mark.parametrize(
    "change",
    [
        {"ports": None},
        {"ports": [1]},
        {"ports": [{}]},
        {"ports": [ready(0)[0] | {"mac": b"12345"}]},
        {"ports": [ready(0)[0] | {"mtu": "1500"}]},
        {"ports": [ready(0)[0] | {"link_up": 1}]},
    ],
)
def test_parse_ready_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        parse_ready({"type": "ready", "withheld": 0, **change})


def test_parse_ready_gives_ports_by_number() -> None:
    assert parse_ready({"type": "ready", "ports": list(ready(0, 3).values())}) == ready(0, 3)


def test_parse_lost_gives_reasons_by_number() -> None:
    assert parse_lost({"type": "ready", "lost": [{"port": 3, "reason": "gone"}]}) == {3: "gone"}


@pytest.mark.parametrize(
    "lost", [None, [1], [{}], [{"port": "3", "reason": "gone"}], [{"port": 3, "reason": 1}]]
)
def test_parse_lost_that_makes_no_sense_is_refused(lost: object) -> None:
    with pytest.raises(ProtocolError):
        parse_lost({"type": "ready", "lost": lost})


def test_announce_tap_says_what_to_type() -> None:
    text = announce(tap_config(), ready(0, 1))
    assert "Try it:  ping 10.77.0.1\n" in text
    assert "(the kernel is 10.77.0.2/24 on x.0)" in text
    assert text.endswith("Stop it: Ctrl-C\n")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--address", "0=10.1.2.3/24"), "ping 10.1.2.3 (from a host on that network)"),
        (("--macswap", "0=1"), "no stack runs"),
        ((), "no address"),
    ],
)
def test_announce_says_what_is_there(flags: tuple[str, ...], words: str) -> None:
    assert words in announce(build_config(*flags), ready(0, 1))


def test_port_that_feeds_no_slot_has_no_home() -> None:
    wanted = build_config("--slot", "0=0")
    found = interfaces(wanted, ready(0, 1, driver="net_null"))
    assert [found[number].home_slot for number in (0, 1)] == [0, NO_SLOT]
