# SPDX-License-Identifier: Apache-2.0
"""From flags to a configuration: defaults, what follows from what, and one sentence for each thing wrong."""

import dataclasses
import ipaddress
import shlex
from pathlib import Path

import pytest

from halo_mp.errors import UsageError
from halo_mp.shm.layout import CHUNK_OCTETS, SPARE_SIZE
from halo_mp.shm.slot import BOUND_MARGIN, SlotGeometry
from halo_mp.supervisor import arguments, config
from halo_mp.supervisor.config_pool import data_octets, largest_pool_size, pages_needed, region_octets

PAGE_2M = 2 << 20
PAGE_1G = 1 << 30


def built(
    line: str = "", cores: tuple[int, ...] = (0, 1, 2, 3), free: dict[int, int] | None = None
) -> config.Config:
    return config.build(
        arguments.parse(shlex.split(line)), config.Machine(cores=cores, free_pages=free or {})
    )


def refused(line: str) -> list[str]:
    with pytest.raises(UsageError) as refusal:
        built(line)
    sentences = str(refusal.value).split("\n")
    for sentence in sentences:
        assert sentence.endswith("."), sentence
        assert sentence.startswith("-") or " is not a flag" in sentence or " belongs to no flag" in sentence
    return sentences


def address(text: str) -> config.AddressConfig:
    interface = ipaddress.IPv4Interface(text)
    return config.AddressConfig(int(interface.ip), interface.network.prefixlen)


# ---- ports ----


def test_ports_without_device_are_taps_with_addresses() -> None:
    found = built("--ports 0,1")
    assert found.vdevs == ("net_tap0,iface=halo0,persist", "net_tap1,iface=halo1,persist")
    assert [port.device for port in found.ports] == ["net_tap0", "net_tap1"]
    assert [interface.addresses for interface in found.interfaces] == [
        (address("10.77.0.1/24"),),
        (address("10.77.1.1/24"),),
    ]
    assert found.ports[1].tap == config.TapConfig("halo1", (address("10.77.1.2/24"),))
    assert found.pcis == ()


def test_ports_by_default_are_port_0_or_all_devices() -> None:
    assert [port.number for port in built().ports] == [0]
    assert [port.number for port in built("--vdev net_null0 --vdev net_null1").ports] == [0, 1]


def test_ports_keep_their_order_and_ranges() -> None:
    assert [port.number for port in built("--ports 4,0-2").ports] == [4, 0, 1, 2]


def test_ports_count_pci_devices_before_vdevs() -> None:
    found = built("--vdev net_null0 --pci 03:00.0,foo=1 --pci 0000:AF:00.1 --ports 2,0")
    assert found.pcis == ("0000:03:00.0,foo=1", "0000:af:00.1")
    assert [(port.number, port.device) for port in found.ports] == [(2, "net_null0"), (0, "0000:03:00.0")]
    assert all(port.tap is None for port in found.ports)
    assert all(interface.addresses == () for interface in found.interfaces)


def test_tap_of_a_named_instance_carries_its_name_within_15_characters() -> None:
    found = built("--name abcdefghijkl --ports 63")
    assert found.ports[0].tap is not None
    assert found.ports[0].tap.interface == "abcdefghijkl.63"
    assert len(found.ports[0].tap.interface) == 15
    assert found.vdevs == ("net_tap63,iface=abcdefghijkl.63,persist",)


@pytest.mark.parametrize(
    ("given", "kernel"),
    [
        (["10.1.2.3/24"], ["10.1.2.1/24"]),
        (["10.1.2.1/24"], ["10.1.2.2/24"]),
        (["10.1.2.2/31"], ["10.1.2.3/31"]),
        (["10.1.2.3/31"], ["10.1.2.2/31"]),
        (["10.1.2.2/30"], ["10.1.2.1/30"]),
        (["10.1.2.1/30", "10.1.2.2/30"], []),
        (["10.1.2.2/32"], []),
        (["10.1.2.1/24", "10.9.0.1/16", "10.1.2.2/24"], ["10.1.2.3/24", "10.9.0.2/16"]),
    ],
)
def test_tap_kernel_side_is_the_first_other_host_of_each_network(given: list[str], kernel: list[str]) -> None:
    tap = built(" ".join(f"--address 0={each}" for each in given)).ports[0].tap
    assert tap is not None
    assert tap.addresses == tuple(map(address, kernel))


def test_mac_is_six_octets_of_that_port() -> None:
    found = built("--ports 0,1 --mac 1=02:00:00:00:00:0F")
    assert [port.mac for port in found.ports] == [None, b"\x02\0\0\0\0\x0f"]


@pytest.mark.parametrize(
    ("vdev", "queues", "expected"),
    [
        ("net_af_packet0,iface=eth0", 1, "net_af_packet0,iface=eth0"),
        ("net_af_packet0,iface=eth0", 3, "net_af_packet0,iface=eth0,qpairs=3"),
        ("net_af_packet0,iface=eth0,qpairs=3", 3, "net_af_packet0,iface=eth0,qpairs=3"),
        ("net_af_xdp_a,iface=eth0", 2, "net_af_xdp_a,iface=eth0,queue_count=2"),
        ("net_null0", 4, "net_null0"),
    ],
)
def test_queues_reach_drivers_that_must_hear_of_them_at_creation(
    vdev: str, queues: int, expected: str
) -> None:
    found = built(f"--vdev {vdev} --queues {queues}")
    assert found.vdevs == (expected,)
    assert found.ports[0].queues == queues
    assert [slot.feeds for slot in found.slots] == [((0, queue),) for queue in range(queues)]


@pytest.mark.parametrize("octets", [68, 1500, 2022, 2023, 9000, 9600])
def test_mtu_data_room_holds_the_frame_with_two_vlan_tags(octets: int) -> None:
    found = built(f"--mtu {octets}")
    assert found.ports[0].mtu == octets
    assert found.data_octets >= octets + 14 + 4 + 4 + 4  # header, two tags, FCS
    assert found.data_octets == max(2048, (octets + 26 + 63) // 64 * 64)
    assert data_octets(octets) == found.data_octets


# ---- interfaces ----


def test_interfaces_are_ports_first_and_then_vlans_in_order() -> None:
    found = built("--ports 1,0 --vlan 0.30 --address 1.20=10.2.0.1/24 --address 1=10.1.0.1/24 --vlan 0.4")
    assert [(each.number, each.name) for each in found.interfaces] == [
        (0, "1"),
        (1, "0"),
        (2, "0.4"),
        (3, "0.30"),
        (4, "1.20"),
    ]
    assert found.interfaces[1].addresses == (address("10.77.0.1/24"),)


def test_interface_keeps_the_order_of_its_addresses() -> None:
    found = built(
        "--address 0=10.9.0.1/16 --address 0=10.1.0.1/31 --address 0=10.1.1.1/32 --address 0=10.9.0.2/16"
    )
    assert found.interfaces[0].addresses == tuple(
        map(address, ("10.9.0.1/16", "10.1.0.1/31", "10.1.1.1/32", "10.9.0.2/16"))
    )


def test_embedded_default_address_only_where_none_is_named_on_any_vlan() -> None:
    found = built("--ports 0-2 --address 0.7=10.0.0.1/24 --address 1=10.1.0.1/24")
    assert {each.name: [str(entry) for entry in each.addresses] for each in found.interfaces} == {
        "0": [],
        "1": ["10.1.0.1/24"],
        "2": ["10.77.2.1/24"],
        "0.7": ["10.0.0.1/24"],
    }
    assert [port.tap.addresses for port in found.ports if port.tap] == [
        (),
        (address("10.1.0.2/24"),),
        (address("10.77.2.2/24"),),
    ]


def test_networks_of_one_interface_may_overlap_and_others_may_touch() -> None:
    built(
        "--ports 0,1 --address 0=10.0.0.1/24 --address 0=10.0.0.2/16 --address 1=10.1.0.1/16 --address 1=10.1.0.2/32"
    )


def test_overlap_is_found_behind_a_network_inside_of_another() -> None:
    with pytest.raises(UsageError, match=r"10\.0\.0\.0/8 and interface 0\.5 in 10\.3\.0\.0/24"):
        built("--address 0=10.0.0.1/8 --address 0=10.2.0.1/24 --address 0.5=10.3.0.1/24")


def test_mtu_of_all_of_one_and_of_a_vlan() -> None:
    found = built("--ports 0,1 --vlan 0.7 --vlan 0.8 --vlan 1.9 --mtu 1400 --mtu 0=9000 --mtu 0.8=1500")
    assert {each.name: each.mtu for each in found.interfaces} == {
        "0": 9000,
        "1": 1400,
        "0.7": 9000,
        "0.8": 1500,
        "1.9": 1400,
    }
    assert [port.mtu for port in found.ports] == [9000, 1400]
    assert found.data_octets == data_octets(9000)


def test_flags_of_interfaces_are_theirs_alone() -> None:
    found = built("--vlan 0.7 --proxy-arp 0.7 --directed-broadcast 0 --redirects 0 --redirects 0.7")
    flags = [
        (each.proxy_arp, each.directed_broadcast, each.redirects, each.forward) for each in found.interfaces
    ]
    assert flags == [(False, True, True, True), (True, False, True, True)]
    assert not any(each.forward for each in built("--vlan 0.7 --no-forward").interfaces)


# ---- slots and cores ----


def test_kernel_gets_a_tap_and_a_port_from_the_top() -> None:
    devices = " ".join(f"--vdev net_null{number}" for number in range(63))
    found = built(
        f"--name edge1 {devices} --ports 0,2,61,62 --address 2=10.0.0.1/24 --kernel 2=10.0.0.1 --kernel 62"
    )
    twins = {port.number: port.twin for port in found.ports}
    assert twins == {
        0: None,
        2: config.TwinConfig("edge1k2", 63, "net_tap_k2", 0x0A000001),
        61: None,
        62: config.TwinConfig("edge1k62", 60, "net_tap_k62", None),
    }
    assert found.vdevs[-2:] == (
        "net_tap_k2,iface=edge1k2,persist",
        "net_tap_k62,iface=edge1k62,persist",
    )
    longest = built(f"--name abcdefghijkl {devices} --ports 62 --kernel 62").ports[0].twin
    assert longest is not None
    assert len(longest.interface) == 15


def test_kernel_without_a_port_to_spare_is_refused() -> None:
    devices = " ".join(f"--vdev net_null{number}" for number in range(64))
    (sentence,) = refused(f"{devices} --ring-size 64 --kernel 3")
    assert "all 64 ports are taken" in sentence


def test_slots_by_default_are_one_for_each_port_queue() -> None:
    found = built("--ports 1,0 --vdev net_null0 --vdev net_null1 --queues 2")
    assert [(slot.number, slot.feeds) for slot in found.slots] == [
        (0, ((1, 0),)),
        (1, ((1, 1),)),
        (2, ((0, 0),)),
        (3, ((0, 1),)),
    ]


def test_slot_takes_ports_queues_and_several_of_them() -> None:
    found = built("--ports 0,1,2 --queues 2 --slot 7=0,2.1 --slot 3=1.1,1.0")
    assert [(slot.number, slot.feeds) for slot in found.slots] == [
        (3, ((1, 1), (1, 0))),
        (7, ((0, 0), (0, 1), (2, 1))),
    ]
    assert found.warnings == ("Port 2 queue 0 feeds no slot: what arrives there is counted and released.",)


@pytest.mark.parametrize(
    ("line", "allowed", "lcores", "workers", "main"),
    [
        ("--ports 0,1", (0, 1, 2, 3), (0,), [1, 2], (3,)),
        ("--ports 0,1", (4, 9), (4,), [9, 9], (4, 9)),
        ("--ports 0,1", (5,), (5,), [5, 5], (5,)),
        ("--ports 0,1 --cores 3,1", (0, 1, 2, 3), (0,), [3, 1], (2,)),
        ("--ports 0,1 --cores 0-1", (0, 1, 2, 3), (2,), [0, 1], (3,)),
        ("--ports 0-2 --driver-cores 2,3", (0, 1, 2, 3), (2, 3), [0, 1, 0], (0, 1, 2, 3)),
        ("--ports 0,1 --cores 0 --driver-cores 0", (0, 1), (0,), [0, 0], (1,)),
    ],
)
def test_cores_the_driver_takes_the_first_and_workers_the_rest_in_turn(
    line: str, allowed: tuple[int, ...], lcores: tuple[int, ...], workers: list[int], main: tuple[int, ...]
) -> None:
    found = built(line, cores=allowed)
    assert found.driver_cores == lcores
    assert [slot.core for slot in found.slots] == workers
    assert found.main_cores == main


def test_slots_are_dealt_to_the_lcores_in_turn() -> None:
    assert [slot.lcore for slot in built("--ports 0-4 --driver-cores 0,1").slots] == [0, 1, 0, 1, 0]


def test_single_core_shares_it_and_says_so() -> None:
    assert built("--ports 0,1", cores=(0,)).warnings == (
        "Core 0 is shared by driver lcore 0 and the workers of slots 0, 1: they take turns, which costs "
        "rate and latency; --cores and --driver-cores name more cores.",
    )


def test_enough_cores_warn_of_nothing() -> None:
    assert built("--ports 0,1").warnings == ()


def test_lcore_without_slot_is_named() -> None:
    assert built("--driver-cores 2,3").warnings == (
        "Core 3 of --driver-cores has no slot to serve: 1 of them would do.",
    )


# ---- memory ----


def test_pool_by_default_holds_full_rings_and_descriptors() -> None:
    found = built("--ports 0,1 --queues 2 --driver-cores 0,1")
    assert found.pool_size == 4 * (16384 + BOUND_MARGIN) + 4 * 2048 + 2 * 1024
    assert built("--ring-size 64").pool_size == 64 + BOUND_MARGIN + 2048 + 1024
    geometry = config.pool_geometry(found)
    assert (geometry.buffer_count, geometry.data_octets) == (found.pool_size, 2048)


def test_pool_size_at_the_least_is_taken_and_one_less_is_not() -> None:
    least = 2 * 2 * SPARE_SIZE + 2 * 2048 + 1024
    found = built(f"--ports 0,1 --pool-size {least}")
    assert found.pool_size == least
    assert len(found.warnings) == 1
    assert "each slot may have " in found.warnings[0]
    assert refused(f"--ports 0,1 --pool-size {least - 1}") == [
        f"--pool-size {least - 1}: 2 slots, 2 port queues and 1 driver core need at least {least} buffers; "
        f"write --pool-size {least}."
    ]


def test_pool_size_at_the_most_stays_below_4_gib() -> None:
    most = largest_pool_size(2048)
    found = built(f"--pool-size {most}")
    assert config.pool_geometry(found).size_octets == (1 << 32) - CHUNK_OCTETS
    (sentence,) = refused(f"--pool-size {most + 1}")
    assert f"--pool-size {most}." in sentence


def test_ring_size_too_large_for_the_slots_names_one_that_fits() -> None:
    (sentence,) = refused("--ports 0-63 --ring-size 65536")
    fitting = sentence.rpartition("write ")[2].rstrip(".")
    assert built(f"--ports 0-63 {fitting}").ring_size == 16384
    assert "4588544 buffers" in sentence


def test_ring_size_smallest_and_largest() -> None:
    assert built("--ring-size 64").ring_size == 64
    assert built("--ring-size 1048576").ring_size == 1 << 20


@pytest.mark.parametrize(
    ("flags", "free", "page"),
    [
        ("", {}, None),
        ("", {PAGE_2M: 10_000, PAGE_1G: 10}, PAGE_2M),
        ("", {PAGE_2M: 20, PAGE_1G: 10}, PAGE_1G),
        ("", {PAGE_2M: 20, PAGE_1G: 1}, None),
        ("--hugepages off", {PAGE_2M: 10_000}, None),
        ("--hugepages 2m", {}, PAGE_2M),
        ("--hugepages 1G", {}, PAGE_1G),
        ("--pci 03:00.0", {}, PAGE_2M),
        ("--pci 03:00.0", {PAGE_1G: 10}, PAGE_1G),
    ],
)
def test_hugepages_auto_needs_enough_of_them(flags: str, free: dict[int, int], page: int | None) -> None:
    assert built(flags, free=free).hugepages == page


def test_hugepages_auto_counts_pool_and_eal_exactly() -> None:
    found = built("--hugepages off")
    need = pages_needed(config.pool_geometry(found), config.memory_mb(found), PAGE_2M)
    assert built(free={PAGE_2M: need}).hugepages == PAGE_2M
    assert built(free={PAGE_2M: need - 1}).hugepages is None


def test_memory_mb_counts_headers_and_the_buffers_of_copying_queues() -> None:
    plain = built("--vdev net_null0 --queues 2")
    copying = built("--vdev net_af_xdp0,iface=eth0 --queues 2")
    assert config.memory_mb(plain) == -(-(plain.pool_size * 320 + (64 << 20)) // (1 << 20))
    assert config.memory_mb(copying) == config.memory_mb(plain) + 2 * 8192 * 2560 // (1 << 20)


def test_region_octets_grow_with_each_slot() -> None:
    one, two = built(), built("--ports 0,1")
    slot = SlotGeometry(0, config.pool_geometry(one)).size_octets
    assert 0 <= region_octets(two) - region_octets(one) - slot - (two.pool_size - one.pool_size) < 3 * 4096


# ---- the rest ----


def test_every_other_flag_arrives() -> None:
    found = built(
        "--ports 0,1 --name edge-1 --mem-channels 4 --eal '-d /x.so --log-level=8' --eal --no-hpet "
        "--rx-checksum --tx-checksum --idle SLEEP --stats-log 2.5 --debug-log --user nobody --log-level "
        "warning --log-format json --restart-limit 0/0.5 --hang-timeout 1 --orphan-timeout 0 --macswap "
        "0=1 --macswap 1=0 --no-promiscuous --probe --icmp-rate 7 --ecmp-seed 0 --control-group adm "
        "--reachable-time 1.5 "
        "--routes-file r.txt --neighbor 0=10.77.0.9,02:00:00:00:00:09"
    )
    assert (found.instance, found.mem_channels, found.idle, found.stats_log) == ("edge-1", 4, "sleep", 2.5)
    assert found.eal == ("-d", "/x.so", "--log-level=8", "--no-hpet")
    assert (found.rx_checksum, found.tx_checksum, found.debug_log, found.user) == (True, True, True, "nobody")
    assert (found.log_level, found.log_format, found.restart_limit) == ("warning", "json", (0, 0.5))
    assert (found.hang_timeout_s, found.orphan_timeout_s, found.macswap) == (1.0, 0.0, {0: 1, 1: 0})
    assert not found.ports[0].promiscuous
    assert (found.probe, found.icmp_rate, found.ecmp_seed, found.control_group) == (True, 7, 0, "adm")
    assert found.routes_file == str(Path("r.txt").absolute())
    assert found.neighbors == (config.NeighborConfig(0, 0, 0x0A4D0009, bytes.fromhex("020000000009")),)
    assert (found.reachable_time_s, built().reachable_time_s) == (1.5, 30.0)
    assert (built().probe, built().icmp_rate, built().ecmp_seed, built().routes_file) == (
        False,
        1000,
        None,
        None,
    )
    assert built("--tx-only").tx_only


def test_config_can_not_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        built().ring_size = 1  # type: ignore[misc]


def test_config_is_the_same_for_the_same_flags() -> None:
    assert built("--ports 0,1") == built("--ports=0-1")
    assert dataclasses.asdict(built("--ports 0,1")) == dataclasses.asdict(built("--ports 0,1"))


def test_machine_here_is_what_the_kernel_says() -> None:
    machine = config.Machine.here()
    assert machine.cores
    assert config.build(arguments.parse([])).driver_cores[0] in machine.cores


# ---- refusals: one row, one sentence ----


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--ports 0,x", "'x' is neither a number nor a range"),
        ("--ports ''", "'' is neither a number nor a range"),
        ("--ports 3-1", "'3-1' is not a rising range"),
        ("--ports 64", "up to 63"),
        ("--ports 0,0", "0 is named twice"),
        ("--ports 0-1,1", "1 is named twice"),
        ("--ports -1", "neither a number nor a range"),
        (
            "--vdev net_null0 --ports 0,1",
            "there is no port 1; of the devices that --pci and --vdev name 0 is net_null0",
        ),
        ("--vdev net_null0 --vdev net_null0", "two devices are called net_null0"),
        ("--pci 3:0.0", "not a PCI address"),
        ("--pci 0000:03:00.0 --pci 03:00.0", "two devices are called 0000:03:00.0"),
        ("--pci 0000:03:00.0 --hugepages off", "by DMA"),
        ("--vdev 'net null'", "without blanks"),
        ("--vdev net_af_packet0", "needs the interface it binds to"),
        ("--vdev net_tap0,iface=abcdefghijklmnop", "at most 15 characters"),
        ("--vdev net_af_packet0,iface=a,qpairs=4 --queues 2", "qpairs=4 contradicts --queues 2"),
        ("--vdev net_af_packet0,iface=a,qpairs=4", "qpairs=4 contradicts --queues 1"),
        (
            "--vdev net_af_packet0,iface=a,qpairs=2 --queues 2 --spread software",
            "qpairs=2 contradicts --spread software",
        ),
        ("--spread nic", "expected one of auto, hardware, software"),
        (
            "--queues 17 --spread hardware",
            "net_tap0 has at most 16; write --queues 16 or fewer, or --spread software",
        ),
        ("--queues 0", "from 1 to 64"),
        ("--queues 1_0", "from 1 to 64"),
        ("--queues ٣", "from 1 to 64"),
        ("--vdev net_null0 --vdev net_null1 --queues 64", "128 port queues with a worker each are too many"),
        ("--address 0=10.0.0.1", "the prefix length is missing; write for example --address 0=10.0.0.1/24"),
        ("--address 10.0.0.1/24", "expected a port number"),
        ("--address 0=10.0.0.256/24", "not an IPv4 address"),
        ("--address 0=10.0.0.1/33", "not an IPv4 address"),
        ("--address 0=fe80::1/64", "not an IPv4 address"),
        ("--address 0=10.0.0.0/24", "the name of the network"),
        ("--address 0=10.0.0.255/24", "the broadcast address"),
        ("--address 0=127.0.0.1/8", "can not be the address of a host"),
        ("--address 0=224.0.0.1/24", "can not be the address of a host"),
        ("--address 0=255.255.255.255/32", "can not be the address of a host"),
        ("--address 0=0.0.0.1/24", "can not be the address of a host"),
        ("--address 0=10.0.0.1/0", "the whole Internet"),
        ("--address 1=10.0.0.1/24", "port 1 is not one of the ports, 0"),
        (
            "--address 0=10.0.0.1/24 --address 0.5=10.0.0.1/24",
            "10.0.0.1 is named for interface 0 and for interface 0.5; name an address once",
        ),
        ("--address 0=10.0.0.1/24 --address 0=10.0.0.1/25", "10.0.0.1 is named for interface 0 and for"),
        (
            "--ports 0,1 --address 0=10.0.0.1/24 --address 1=10.0.0.9/16",
            "interface 1 is in 10.0.0.0/16 and interface 0 in 10.0.0.0/24, and these overlap",
        ),
        ("--address 0=10.0.0.1/24 --address 0.5=10.0.0.9/32", "these overlap: nobody could say where"),
        (
            "--address 0=10.0.0.1/24 --address 0=10.0.0.255/16",
            "interface 0 has 10.0.0.1/24, and 10.0.0.255 is a broadcast address of that network",
        ),
        (
            "--address 0=10.0.0.0/32 --address 0=10.0.0.1/24",
            "10.0.0.0 is a broadcast address of that network",
        ),
        (
            "--ports 0,1 --address 0=10.77.1.9/24",
            "interface 0 is in 10.77.1.0/24 and interface 1 in 10.77.1.0/24",
        ),
        ("--address 0.0=10.0.0.1/24", "VLAN 0 is none of 1 to 4094"),
        ("--address 0.4095=10.0.0.1/24", "VLAN 4095 is none of 1 to 4094"),
        ("--address 0.x=10.0.0.1/24", "'0.x' is neither a port nor a port and a VLAN"),
        ("--vlan 0", "the VLAN is missing; write for example --vlan 0.100"),
        ("--vlan 7.100", "port 7 is not one of the ports, 0; add it to --ports"),
        ("--mtu 0=67", "from 68 to 9600; write for example --mtu 0=1500"),
        ("--mtu 0.x=1500", "'0.x' is neither a port"),
        ("--mtu 1400 --mtu 1500", "the MTU of all interfaces is named twice"),
        ("--mtu 0=1400 --mtu 0=1400", "the MTU of interface 0 is named twice"),
        ("--mtu 0.9=1400", "there is no interface 0.9; make it with --address 0.9=... or --vlan 0.9"),
        ("--vlan 0.9 --mtu 0.9=1600", "a VLAN can have no more than its port, 1500; write --mtu 0=1600 too"),
        ("--proxy-arp 0.9", "--proxy-arp: there is no interface 0.9"),
        ("--redirects 1", "--redirects: port 1 is not one of the ports"),
        ("--directed-broadcast x", "'x' is neither a port nor a port and a VLAN"),
        ("--neighbor 0=10.77.0.9", "expected an interface, '=', an address, ',' and a MAC address"),
        ("--neighbor 0=10.77.0,02:00:00:00:00:09", "'10.77.0' is not an IPv4 address"),
        ("--neighbor 0=10.77.0.9,02:00:00:00:00", "six pairs of hexadecimal digits"),
        ("--neighbor 0=224.0.0.1,02:00:00:00:00:09", "can not be the address of a host"),
        ("--neighbor 0.4=10.77.0.9,02:00:00:00:00:09", "there is no interface 0.4"),
        ("--neighbor 0=10.77.0.1,02:00:00:00:00:09", "that is an address of our own"),
        (
            "--neighbor 0=10.77.0.9,02:00:00:00:00:09 --neighbor 0=10.77.0.9,02:00:00:00:00:08",
            "10.77.0.9 is named twice for interface 0",
        ),
        ("--icmp-rate -1", "from 0 to 1000000"),
        ("--reachable-time 0.5", "from 1 to 3600"),
        ("--reachable-time 3601", "from 1 to 3600"),
        ("--ecmp-seed 4294967296", "from 0 to 4294967295"),
        ("--control-group ''", "name or the number of a group"),
        ("--routes-file ''", "the name of a file"),
        ("--mac 0=02:00:00:00:00", "six pairs of hexadecimal digits"),
        ("--mac 0=01:00:5e:00:00:01", "the address of a group"),
        ("--mac 0=00:00:00:00:00:00", "of nobody"),
        ("--mac 3=02:00:00:00:00:01", "port 3 is not one of the ports, 0"),
        ("--mac 0=02:00:00:00:00:01 --mac 0=02:00:00:00:00:02", "port 0 is named twice"),
        ("--ports 0,1 --mac 0=02:00:00:00:00:01 --mac 1=02:00:00:00:00:01", "named for two ports"),
        ("--mtu 67", "from 68 to 9600"),
        ("--mtu 9601", "from 68 to 9600"),
        ("--slot 0", "expected a slot number"),
        ("--slot 0=", "'' is neither a port nor"),
        ("--slot 0=0.", "'0.' is neither a port nor"),
        ("--slot 0=5", "port 5 is not one of the ports, 0"),
        ("--slot 0=0.1", "port 0 has no queue 1, only 0 to 0; write --queues 2"),
        ("--slot 0=0,0.0", "feeds slot 0 and slot 0"),
        ("--slot 0=0 --slot 1=0", "feeds slot 0 and slot 1"),
        ("--ports 0,1 --slot 0=0 --slot 0=1", "the slot is named twice"),
        ("--slot 64=0", "beyond the last, 63"),
        ("--cores 1024", "up to 1023"),
        ("--cores a", "neither a number nor a range"),
        ("--driver-cores 0,0", "0 is named twice"),
        ("--driver-cores 0-32", "33 cores are too many"),
        ("--mem-channels 33", "from 1 to 32"),
        ("--ring-size 1000", "power of two from 64 to 1048576 (512 and 1024 are the nearest)"),
        ("--ring-size 32", "power of two"),
        ("--ring-size 2097152", "power of two"),
        ("--pool-size none", "whole number"),
        ("--hugepages 4M", "expected one of off, auto, 2M, 1G"),
        ("--idle lazy", "expected one of adaptive, poll, sleep"),
        ("--log-level trace", "expected one of"),
        ("--log-format xml", "expected one of text, json"),
        ("--stats-log 0", "0.1 or more"),
        ("--restart-limit 5", "how many restarts in how many seconds"),
        ("--restart-limit 5/0", "0.1 or more"),
        ("--restart-limit -1/10", "how many restarts in how many seconds"),
        ("--hang-timeout 0.5", "1 or more"),
        ("--hang-timeout nan", "1 or more"),
        ("--orphan-timeout inf", "0 or more"),
        ("--orphan-timeout -1", "0 or more"),
        ("--name ''", "needs a name"),
        ("--name a/b", "a slash would leave the runtime directory"),
        ("--name ..", "starts with '.'"),
        ("--name=-x", "starts with '-'"),
        ("--name 'a b'", "made of A-Z"),
        ("--name ä", "made of A-Z"),
        ("--name abcdefghijklm", "13 characters are too many"),
        ("--user ''", "name or the number of a user"),
        ("--vdev net_null0 --kernel x", "expected a port number, and perhaps '=' and an address"),
        ("--vdev net_null0 --kernel 0=10.0.0.1/24", "is not an IPv4 address without a prefix length"),
        ("--vdev net_null0 --kernel 1", "--kernel 1: that is not one of the ports, 0; add it to --ports"),
        ("--vdev net_null0 --kernel 0 --kernel 0", "the port is named twice"),
        ("--vdev net_null0 --kernel 0=10.0.0.1", "10.0.0.1 is no address of the port, which has none"),
        (
            "--vdev net_null0 --address 0=10.0.0.2/24 --kernel 0=10.0.0.1",
            "10.0.0.1 is no address of the port, which has 10.0.0.2",
        ),
        (
            "--vdev net_null0 --mtu 0=9000 --kernel 0",
            "the MTU of the port is 9000, and the kernel's side of it, a TAP of DPDK's, takes 1504 at most",
        ),
        ("--kernel 0", "the port is a TAP, with the kernel on its other side already"),
        ("--vdev net_null0 --kernel 0 --macswap 0=0", "port 0 is shared with the kernel by --kernel"),
        ("--macswap 0", "expected a port number"),
        ("--macswap 0=x", "'x' is not a port number"),
        ("--macswap 0=1", "port 1 is not one of the ports, 0"),
        ("--ports 0-2 --macswap 0=1 --macswap 0=2", "would leave by port 1 and by port 2"),
        ("--macswap 0=0 --tx-only", "nothing for --macswap to send on"),
    ],
)
def test_refusal_is_one_sentence(line: str, words: str) -> None:
    (sentence,) = refused(line)
    assert words in sentence


@pytest.mark.parametrize(
    ("given", "instead"),
    [
        ("-l 0-3", "-l does not belong there: use --cores and --driver-cores"),
        ("-l0-3", "-l does not belong there: use --cores and --driver-cores"),
        ("-vl 0", "-l does not belong there"),
        ("-c f", "use --cores and --driver-cores"),
        ("--lcores=0@1", "use --cores and --driver-cores"),
        ("--lcor 0@1", "--lcores does not belong there"),
        ("--main-lcore 0", "use --cores and --driver-cores"),
        ("-n 4", "use --mem-channels"),
        ("-m 512", "use --pool-size and --hugepages"),
        ("--socket-mem=512", "use --pool-size and --hugepages"),
        ("--no-huge", "use --hugepages off"),
        ("--in-memory", "halo-mp sets it itself"),
        ("--proc-type=primary", "never shares it with another DPDK process"),
        ("--proc primary", "--proc-type does not belong there"),
        ("--file-prefix=x", "use --name"),
        ("--vdev=net_null0", "use --pci and --vdev"),
        ("-a 0000:03:00.0", "use --pci and --vdev"),
        ("--no-pci", "use --pci and --vdev"),
        ("--help", "it would end the driver"),
        ("-h", "it would end the driver"),
        ("--log-level=help", "would end the driver"),
        ("-v -- x", "'--' would end the EAL arguments"),
        ("'open", "a quotation mark is not closed"),
    ],
)
def test_eal_refuses_what_halo_sets_itself(given: str, instead: str) -> None:
    (sentence,) = refused(f"--eal={shlex.quote(given)}")
    assert instead in sentence


@pytest.mark.parametrize(
    "given", ["--log-level=lib.*:8", "-d /x.so", "-r 2", "--iova-mode=va", "-v", "--no-hpet"]
)
def test_eal_passes_the_rest(given: str) -> None:
    assert built(f"--eal={shlex.quote(given)}").eal == tuple(shlex.split(given))


def test_refusals_come_all_at_once_and_only_what_is_known() -> None:
    sentences = refused(
        "--prots 0 --ports 0,x --queues none --address 7=10.0.0.1/24 --slot 0=9 --macswap 0=7 --idle lazy "
        "--pool-size 1"
    )
    assert [sentence.split(":")[0].split()[0] for sentence in sentences] == [
        "--prots",
        "--queues",
        "--ports",
        "--idle",
    ]


def test_refusal_names_no_python_and_no_argparse() -> None:
    text = "\n".join(
        refused("--ports x --queues --mtu= --cores 9999 --slot a --restart-limit a/b --stats-log=x")
    )
    for jargon in ("Traceback", "argument", "Namespace", "invalid", "int(", "usage:"):
        assert jargon not in text
    assert len(text.splitlines()) == 7
