# SPDX-License-Identifier: Apache-2.0
"""NICs and what they are bound to, IOMMU and modules, TAPs, and the offloads of virtual interfaces."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from halo_mp.cli.findings import Finding, Machine
from halo_mp.supervisor.checks_devices import BIFURCATED_DRIVERS, USERSPACE_DRIVERS

_NETWORK = "0x02"
"""Class of a PCI device, how it begins."""
_SIOCETHTOOL = 0x8946
_OFFLOADS = {"tx": 0x16, "tso": 0x1E, "gso": 0x23, "gro": 0x2B}
"""Names as ethtool(8) has them, and the ioctl's command that asks for each."""
_GDRVINFO = 0x03
_CAP_NET_ADMIN = 12


def nics(machine: Machine) -> Iterator[Finding]:
    """Look at each NIC: who drives it."""
    devices = sorted((machine.sys / "bus/pci/devices").glob("*"))
    found = [each for each in devices if machine.read(each / "class").startswith(_NETWORK)]
    if not found:
        text = "No PCI NIC: ports are virtual devices, TAPs or interfaces of the kernel (--vdev)."
        yield Finding("NICs", "good", text)
        return
    for device in found:
        yield _nic(device, _default_interfaces(machine), isolated=_has_iommu(machine))
        yield from _slow_link(machine, device)
    yield from _iommu(machine)
    yield from _modules(machine)


def _nic(device: Path, default: set[str], *, isolated: bool) -> Finding:
    driver = _target(device / "driver")
    names = sorted(entry.name for where in ("net", "virtio*/net") for entry in device.glob(f"{where}/*"))
    if driver in USERSPACE_DRIVERS:
        return Finding(
            "NICs", "good", f"{device.name} is on {driver}: halo-mp run --pci {device.name} takes it."
        )
    if driver in BIFURCATED_DRIVERS:
        return Finding(
            "NICs", "good", f"{device.name} is on {driver}, which shares it: name it with --pci as it is."
        )
    bound = f"the kernel's {driver}" if driver else "no driver"
    interface = f" as {', '.join(names)}" if names else ""
    text = f"{device.name} is on {bound}{interface}."
    if default & set(names):
        text += " This machine's default route goes through it: bind it, and you may lock yourself out."
        iface = min(default & set(names))
        return Finding(
            "NICs", "note", text, (f"halo-mp run --vdev net_af_packet0,iface={iface} --kernel 0 ...",)
        )
    down = [f"ip link set {name} down" for name in names]
    # Without an IOMMU vfio-pci refuses a device, but for a mode that few kernels have.
    module = "vfio-pci" if isolated else "uio_pci_generic"
    bind = f"modprobe {module} && dpdk-devbind.py --bind={module} {device.name}"
    unsafe = "" if isolated else "; without an IOMMU, which is unsafe (below)"
    return Finding("NICs", "note", f"{text} To give it to halo-mp{unsafe}:", (*down, bind))


def _slow_link(machine: Machine, device: Path) -> Iterator[Finding]:
    """Look whether a NIC has all the lanes, and their speed, that it could have."""
    width, most = (machine.read(device / f"{which}_link_width") for which in ("current", "max"))
    speed, fastest = (machine.read(device / f"{which}_link_speed") for which in ("current", "max"))
    fewer = width.isdecimal() and most.isdecimal() and 0 < int(width) < int(most)
    slower = bool(speed and fastest) and speed != fastest and "Unknown" not in speed + fastest
    if fewer or slower:
        text = (
            f"{device.name} has {width} lanes of {speed} to the machine, and could have {most} of {fastest}."
        )
        look = f"lspci -vv -s {device.name} | grep -E 'LnkCap|LnkSta'    # then another slot, or the BIOS"
        yield Finding("NICs", "note", text, (look,))


def _has_iommu(machine: Machine) -> bool:
    return any((machine.sys / "kernel/iommu_groups").glob("*"))


def _default_interfaces(machine: Machine) -> set[str]:
    rows = [line.split() for line in machine.read(machine.proc / "net/route").splitlines()[1:]]
    return {row[0] for row in rows if len(row) > 7 and row[1] == "00000000" and row[7] == "00000000"}


def _iommu(machine: Machine) -> Iterator[Finding]:
    if _has_iommu(machine):
        yield Finding("IOMMU", "good", "It is on: vfio-pci isolates the NICs.")
        return
    text = (
        "It is off, or there is none: vfio-pci takes no NIC then, and what does gives it all of the memory."
    )
    add = "add to GRUB_CMDLINE_LINUX_DEFAULT: intel_iommu=on iommu=pt (AMD: iommu=pt); then update-grub, and reboot"
    yield Finding(
        "IOMMU",
        "note",
        text,
        (add, "or, unsafe: modprobe uio_pci_generic; docs/hardware.md says what that means"),
    )


def _modules(machine: Machine) -> Iterator[Finding]:
    drivers = machine.sys / "bus/pci/drivers"
    there = [name for name in USERSPACE_DRIVERS if (drivers / name).exists()]
    if there:
        yield Finding("modules", "good", f"Loaded: {', '.join(there)}.")
    else:
        text = "vfio-pci is not loaded; NICs of --pci need it."
        yield Finding(
            "modules", "note", text, ("modprobe vfio-pci", "echo vfio-pci > /etc/modules-load.d/halo-mp.conf")
        )


def taps(machine: Machine) -> Iterator[Finding]:
    """Look whether TAPs can be made, which are the ports when no device is named."""
    path = machine.dev / "net/tun"
    if not path.exists():
        commands = ("modprobe tun", "docker run --device /dev/net/tun ...    # in a container")
        yield Finding(
            "TAPs", "warning", f"{path} is missing: without a device named there are no ports.", commands
        )
    elif not os.access(path, os.R_OK | os.W_OK):
        yield Finding("TAPs", "warning", f"{path} may not be opened by this user.", (f"chmod 666 {path}",))
    elif not _may_administer(machine):
        text = "This process lacks CAP_NET_ADMIN here: it can make no TAPs and take no interfaces."
        commands = ("sudo halo-mp run ...", "unshare -rn halo-mp run ...    # in a network of its own")
        yield Finding("TAPs", "warning", text, commands)
    else:
        yield Finding("TAPs", "good", "They can be made.")


def _may_administer(machine: Machine) -> bool:
    for line in machine.read(machine.proc / "self/status").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return False


def offloads(_machine: Machine) -> Iterator[Finding]:
    """Look at the veths of this network namespace: what the kernel leaves unfinished there reaches a port as it is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        veths = [name for _, name in socket.if_nameindex() if _driver(asking, name) == "veth"]
        unfinished = {
            name: [key for key, what in _OFFLOADS.items() if _value(asking, name, what)] for name in veths
        }
    found = {name: keys for name, keys in unfinished.items() if keys}
    for name, keys in found.items():
        text = f"{name} has {', '.join(keys)} on: as a port, or at the other end of one, it brings broken checksums."
        off = " ".join(f"{key} off" for key in keys)
        yield Finding("offloads", "note", text, (f"ethtool -K {name} {off}    # the same at the other end",))
    if veths and not found:
        yield Finding("offloads", "good", f"They are off on {', '.join(veths)}.")


def _driver(asking: socket.socket, name: str) -> str:
    answer = _ethtool(asking, name, struct.pack("I192x", _GDRVINFO))
    return answer[4:36].split(b"\0")[0].decode(errors="replace")


def _value(asking: socket.socket, name: str, what: int) -> bool:
    answer = _ethtool(asking, name, struct.pack("II", what, 0))
    return bool(answer) and struct.unpack_from("II", answer)[1] != 0


def _ethtool(asking: socket.socket, name: str, request: bytes) -> bytes:
    """Return the answer to an ethtool ioctl; nothing where the device knows none."""
    import ctypes

    buffer = ctypes.create_string_buffer(request, len(request))
    frame = struct.pack("16sP16x", name.encode(), ctypes.addressof(buffer))
    try:
        fcntl.ioctl(asking, _SIOCETHTOOL, frame)
    except OSError:
        return b""
    return buffer.raw


def _target(link: Path) -> str:
    try:
        return Path(os.readlink(link)).name
    except OSError:
        return ""


CHECKS = (nics, taps, offloads)
