# SPDX-License-Identifier: Apache-2.0
"""Are the names and subnets of the TAP interfaces free?

A persistent TAP that nobody holds is one that a dead driver left behind: the next takes it over, address and
all.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import psutil

from halo_mp.errors import EnvironmentProblem
from halo_mp.supervisor.checks_privileges import TUN
from halo_mp.supervisor.config_model import AddressConfig, Config
from halo_mp.supervisor.config_values import device_argument, device_driver

_TUNSETIFF = 0x400454CA
_TAP_FLAGS = 0x0002 | 0x1000 | 0x0100  # IFF_TAP, IFF_NO_PI, IFF_MULTI_QUEUE: as net_tap opens it


def check_taps(config: Config) -> None:
    """Refuse TAP interfaces that something else has, and subnets in which the kernel is already."""
    for vdev in config.vdevs:
        name = device_argument(vdev, "iface")
        if name and device_driver(vdev) == "net_tap":
            _check_name(name)
    taps = {port.number: port.tap for port in config.ports if port.tap}
    ours = {each.interface for each in taps.values()}
    for number, tap in taps.items():
        for entry in tap.addresses:
            _check_subnet(number, tap.interface, entry, ours=ours)


def _check_name(name: str) -> None:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return
    holder = next(_holders(name), None)
    if holder is not None:
        raise EnvironmentProblem(
            f"The TAP interface {name} is in use by process {holder}. End that, or give this instance "
            "interfaces of its own with another --name."
        )
    if not _can_take(name):
        raise EnvironmentProblem(
            f"There is an interface {name} already, and it is no TAP with several queues that a port could "
            f"take over. Type: sudo ip link delete {name}, or give this instance other interfaces with "
            "another --name."
        )


def _holders(name: str) -> Iterator[str]:
    """Yield pid and name of the processes of this network namespace that hold a TAP open."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended while we looked, or is not ours to look into
            if os.path.samefile(process / "ns/net", "/proc/self/ns/net") and _holds(process, name):
                yield f"{process.name} ({(process / 'comm').read_text().strip()})"


def _holds(process: Path, name: str) -> bool:
    for entry in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed while we looked, as the descriptor of this very directory
            info = process / "fdinfo" / entry.name
            if os.readlink(entry) == str(TUN) and f"iff:\t{name}\n" in info.read_text():
                return True
    return False


def _can_take(name: str) -> bool:
    """Open an existing TAP as net_tap would, and let go of it: being persistent, it stays."""
    descriptor = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP_FLAGS))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _check_subnet(number: int, tap: str, entry: AddressConfig, *, ours: set[str]) -> None:
    """Refuse a subnet that the kernel already is in by another interface: it would use one of the two."""
    network = ipaddress.IPv4Network((entry.address, entry.prefix_length), strict=False)
    for interface, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            if address.family != socket.AF_INET or interface in ours:
                continue
            if ipaddress.IPv4Network((address.address, address.netmask or 32), strict=False) == network:
                raise EnvironmentProblem(
                    f"{tap} would be in {network}, where the kernel already is through "
                    f"{interface}. Choose another subnet, such as --address {number}=10.78.{number}.1/24, or "
                    "a network namespace of its own: unshare -n ..."
                )
