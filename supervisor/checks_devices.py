# SPDX-License-Identifier: Apache-2.0
"""Are the devices there, and bound to what DPDK can use?"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from halo_mp.errors import EnvironmentProblem
from halo_mp.supervisor.config_model import Config
from halo_mp.supervisor.config_values import device_argument, device_driver, device_name

USERSPACE_DRIVERS = ("vfio-pci", "igb_uio", "uio_pci_generic")
BIFURCATED_DRIVERS = ("mlx4_core", "mlx5_core", "mana")
"""Kernel drivers that share their device with DPDK: the interface stays up."""


def check_devices(config: Config, *, sysfs: Path = Path("/sys"), dev: Path = Path("/dev")) -> None:
    """Refuse PCI devices and interfaces that are missing or not DPDK's to use."""
    for pci in config.pcis:
        _check_pci(device_name(pci), sysfs, dev)
    for vdev in config.vdevs:
        if device_driver(vdev) in ("net_af_packet", "net_af_xdp"):
            _check_interface(vdev)


def _check_pci(address: str, sysfs: Path, dev: Path) -> None:
    devices = sysfs / "bus/pci/devices"
    device = devices / address
    if not device.exists():
        raise EnvironmentProblem(
            f"There is no PCI device {address}{_network_devices(devices)}. Type lspci -D, and name one of "
            "its network devices with --pci."
        )
    driver = _target(device / "driver")
    if driver in BIFURCATED_DRIVERS:
        return
    if driver not in USERSPACE_DRIVERS:
        bound = f"bound to the kernel's {driver}{_interfaces(device)}" if driver else "bound to no driver"
        raise EnvironmentProblem(
            f"PCI device {address} is {bound}, and DPDK needs it on vfio-pci. Type: sudo modprobe vfio-pci "
            f"&& sudo dpdk-devbind.py --bind=vfio-pci {address}"
        )
    if driver == "vfio-pci":
        _check_vfio(address, _target(device / "iommu_group"), dev)


def _check_vfio(address: str, group: str, dev: Path) -> None:
    """Look for the file of the device's IOMMU group, which may also be one without an IOMMU."""
    nodes = [dev / "vfio" / group, dev / "vfio" / f"noiommu-{group}"]
    found = [node for node in nodes if group and node.exists()]
    if found and not os.access(found[0], os.R_OK | os.W_OK, effective_ids=True):
        raise EnvironmentProblem(
            f"PCI device {address} is reached through {found[0]}, which this user may not open. Run as "
            f"root, or type: sudo chown $USER {found[0]}"
        )


def _network_devices(devices: Path) -> str:
    """Name the network devices that there are, as far as sysfs says."""
    classes = {entry.name: (entry / "class") for entry in sorted(devices.glob("*"))}
    found = [name for name, path in classes.items() if path.exists() and path.read_text().startswith("0x02")]
    return f", only {', '.join(found)}" if found else ""


def _interfaces(device: Path) -> str:
    names = sorted(entry.name for entry in device.glob("net/*"))
    return f" as the interface {', '.join(names)}" if names else ""


def _target(link: Path) -> str:
    """Return the last part of what a sysfs link points to, or nothing."""
    try:
        return Path(os.readlink(link)).name
    except OSError:
        return ""


def _check_interface(vdev: str) -> None:
    name = device_argument(vdev, "iface") or ""
    try:
        socket.if_nametoindex(name)
    except OSError:
        there = ", ".join(sorted(interface for _, interface in socket.if_nameindex()))
        raise EnvironmentProblem(
            f"{device_name(vdev)} binds to the interface {name}, and this network namespace has only "
            f"{there or 'none'}. Name another after iface=, or bring {name} here: ip link set {name} netns "
            "..."
        ) from None
