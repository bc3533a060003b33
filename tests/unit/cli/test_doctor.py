# SPDX-License-Identifier: Apache-2.0
"""What the doctor finds in machines that are made of files, and of a namespace with a veth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from halo_mp.cli import doctor_devices, doctor_machine, doctor_software
from halo_mp.cli.doctor import configured, text
from halo_mp.cli.findings import Finding, Machine, numbers
from tests.support.namespace import Namespace


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(sys=tmp_path / "sys", proc=tmp_path / "proc", dev=tmp_path / "dev")


def put(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content + "\n")


def nic(machine: Machine, address: str, driver: str, *interfaces: str, under: str = "net") -> None:
    device = machine.sys / "bus/pci/devices" / address
    put(device / "class", "0x020000")
    (machine.sys / "bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
    (device / "driver").symlink_to(machine.sys / "bus/pci/drivers" / driver)
    for interface in interfaces:
        (device / under / interface).mkdir(parents=True)


def levels(findings: list[Finding]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in findings:
        found.setdefault(each.topic, []).append(each.level)
    return found


def test_hugepages_are_counted_for_each_size_and_node(machine: Machine) -> None:
    pages = machine.sys / "kernel/mm/hugepages"
    assert levels([*doctor_machine.hugepages(machine)]) == {"hugepages": ["note"]}
    put(pages / "hugepages-2048kB/free_hugepages", "0")
    [none] = doctor_machine.hugepages(machine)
    assert "sysctl -w vm.nr_hugepages=512" in none.commands
    put(pages / "hugepages-2048kB/free_hugepages", "600")
    put(machine.sys / "devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "600")
    put(machine.sys / "devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "0")
    free, nodes = doctor_machine.hugepages(machine)
    assert (free.level, free.text) == ("good", "Free: 600 of 2 MiB.")
    assert (nodes.level, nodes.topic) == ("note", "NUMA")
    assert "node1" in nodes.commands[0]


def test_nic_with_the_default_route_is_not_to_be_bound(machine: Machine) -> None:
    nic(machine, "0000:00:03.0", "virtio-pci", "eth0", under="virtio0/net")
    nic(machine, "0000:00:04.0", "ixgbe", "eth1")
    nic(machine, "0000:00:05.0", "vfio-pci")
    nic(machine, "0000:00:06.0", "mlx5_core", "eth2")
    put(machine.proc / "net/route", "Iface Dest\neth0 00000000 0102A8C0 0003 0 0 0 00000000 0 0 0")
    assert (
        "modprobe uio_pci_generic" in list(doctor_devices.nics(machine))[1].commands[1]
    )  # vfio-pci would refuse
    (machine.sys / "kernel/iommu_groups/0").mkdir(parents=True)
    mine, other, bound, shared, *rest = doctor_devices.nics(machine)
    assert "lock yourself out" in mine.text
    assert not any("devbind" in command for command in mine.commands)
    assert other.commands == (
        "ip link set eth1 down",
        "modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci 0000:00:04.0",
    )
    assert bound.level == shared.level == "good"
    assert levels(rest) == {"IOMMU": ["good"], "modules": ["good"]}


@pytest.mark.parametrize(
    ("width", "speed", "slow"),
    [
        ("8", "16.0 GT/s PCIe", False),
        ("4", "16.0 GT/s PCIe", True),
        ("8", "8.0 GT/s PCIe", True),
        ("", "", False),
    ],
)
def test_nic_in_a_slow_slot_is_noticed(machine: Machine, width: str, speed: str, slow: bool) -> None:
    nic(machine, "0000:00:04.0", "ice", "eth1")
    device = machine.sys / "bus/pci/devices/0000:00:04.0"
    for name, (lanes, rate) in {"max": ("8", "16.0 GT/s PCIe"), "current": (width, speed)}.items():
        put(device / f"{name}_link_width", lanes)
        put(device / f"{name}_link_speed", rate)
    found = [each for each in doctor_devices.nics(machine) if "lanes" in each.text]
    assert len(found) == slow
    assert all("lspci -vv -s 0000:00:04.0" in each.commands[0] for each in found)


def test_iommu_and_modules_are_of_interest_where_there_are_nics(machine: Machine) -> None:
    assert levels([*doctor_devices.nics(machine)]) == {"NICs": ["good"]}
    nic(machine, "0000:00:04.0", "ixgbe", "eth1")
    assert levels([*doctor_devices.nics(machine)]) == {
        "NICs": ["note"],
        "IOMMU": ["note"],
        "modules": ["note"],
    }
    (machine.sys / "kernel/iommu_groups/0").mkdir(parents=True)
    (machine.sys / "bus/pci/drivers/vfio-pci").mkdir()
    assert levels([*doctor_devices.nics(machine)]) == {
        "NICs": ["note"],
        "IOMMU": ["good"],
        "modules": ["good"],
    }


def test_governor_and_isolation(machine: Machine) -> None:
    core = min(os.sched_getaffinity(0))
    assert [each.level for each in doctor_machine.governors(machine)] == ["good"]
    put(machine.sys / f"devices/system/cpu/cpu{core}/cpufreq/scaling_governor", "powersave")
    [slow] = doctor_machine.governors(machine)
    assert (slow.level, "powersave" in slow.text) == ("note", True)
    put(machine.sys / "devices/system/cpu/isolated", "900-902")
    [isolated] = [each for each in doctor_machine.cores(machine) if each.topic == "isolation"]
    assert isolated.commands[0].startswith("taskset -c 0-902 ")


def test_shared_memory_that_is_missing_prevents_every_start(machine: Machine) -> None:
    [found] = doctor_machine.shared_memory(machine)
    assert (found.level, found.topic) == ("failure", "shared memory")
    assert found.commands[0].startswith("mount -t tmpfs")


def test_small_memory_and_slow_clock_are_warnings(machine: Machine) -> None:
    put(machine.proc / "meminfo", "MemTotal: 9 kB\nMemAvailable: 102400 kB")
    put(machine.sys / "devices/system/clocksource/clocksource0/current_clocksource", "hpet")
    assert [each.level for each in (*doctor_machine.memory(machine), *doctor_software.clock(machine))] == [
        "warning"
    ] * 2


def test_taps_need_their_device_and_a_capability(machine: Machine) -> None:
    [missing] = doctor_devices.taps(machine)
    assert "modprobe tun" in missing.commands
    put(machine.dev / "net/tun", "")
    put(machine.proc / "self/status", "CapEff:\t0000000000000000")
    [powerless] = doctor_devices.taps(machine)
    assert "CAP_NET_ADMIN" in powerless.text
    put(machine.proc / "self/status", f"CapEff:\t{1 << 12:016x}")
    assert [each.level for each in doctor_devices.taps(machine)] == ["good"]


def test_offloads_of_a_veth_are_found_until_they_are_off(namespace: Namespace) -> None:
    def found() -> list[dict[str, object]]:
        command = [sys.executable, "-m", "halo_mp.cli", "doctor", "--json"]
        entries = json.loads(namespace.run(*command, check=False).stdout)
        return [entry for entry in entries if entry["topic"] == "offloads"]

    assert found() == []
    namespace.run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    assert [entry["level"] for entry in found()] == ["note", "note"]
    for entry in found():
        commands = entry["commands"]
        assert isinstance(commands, list)
        namespace.run("sh", "-c", commands[0])  # what it says to type
    assert [entry["level"] for entry in found()] == ["good"]


def test_configuration_of_an_instance_that_runs_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("halo_mp.runtime.runtime_base", lambda: tmp_path)
    file = tmp_path / "edge7.toml"
    file.write_text('[instance]\nname = "edge7"\n')
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()", "halo_mp.supervisor"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()  # exec has been: its command line is there
        (tmp_path / "edge7").mkdir()
        (tmp_path / "edge7/lock").write_text(f"{running.pid}\n")
        (found,) = configured(str(file))
        running.communicate(b"\n")
    assert (found.topic, found.level) == ("configuration", "failure")
    assert f"instance 'edge7' is running as process {running.pid}" in found.text


def test_text_has_a_line_for_each_finding_and_commands_below() -> None:
    found = [Finding("a", "good", "well " * 30), Finding("b", "failure", "Bad.", ("mend it",))]
    lines = text(found).splitlines()
    assert lines[0].startswith("ok    a: well")
    assert lines[-2:] == ["FAIL  b: Bad.", "        mend it"]
    assert max(map(len, lines)) <= 80


def test_numbers_of_the_kernel() -> None:
    assert numbers("0-2,7,9-9") == [0, 1, 2, 7, 9]
    assert numbers("") == numbers("x") == []
