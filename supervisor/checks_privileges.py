# SPDX-License-Identifier: Apache-2.0
"""May this process make the ports? Capabilities, the network namespace they hold in, and /dev/net/tun.

A capability counts only in the user namespace that a process is in, and a network namespace belongs to the
user namespace it was made in. Root of a user namespace alone (unshare -r) therefore has every capability, and
no interface to use it on.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path

from halo_mp.errors import EnvironmentProblem
from halo_mp.supervisor.config_model import Config
from halo_mp.supervisor.config_values import device_driver, device_name

TUN = Path("/dev/net/tun")


class Capability(IntEnum):
    """Bits of CapEff, from linux/capability.h."""

    SETGID = 6
    SETUID = 7
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_ADMIN = 21
    BPF = 39


_NEEDED = {
    "net_tap": (Capability.NET_ADMIN,),
    "net_tun": (Capability.NET_ADMIN,),
    "net_af_packet": (Capability.NET_RAW,),
    "net_af_xdp": (Capability.NET_RAW, Capability.NET_ADMIN),
}
_NS_GET_USERNS = 0xB701  # linux/nsfs.h


def check_privileges(config: Config) -> None:
    """Refuse devices that this process may not make."""
    for device, capability in _needs(config):
        _check_capability(device, capability)
    for vdev in config.vdevs:
        if device_driver(vdev) == "net_af_xdp":
            _check_bpf(device_name(vdev))
        if device_driver(vdev) in ("net_tap", "net_tun"):
            _check_tun(device_name(vdev))


def has_capability(capability: Capability) -> bool:
    """Tell whether a capability is effective, in the user namespace that this process is in."""
    return bool(effective_capabilities() >> capability & 1)


def effective_capabilities() -> int:
    """Return CapEff of this process."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)


def in_first_user_namespace() -> bool:
    """Tell whether every user is mapped to itself, as outside of containers with users of their own."""
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def owns_network_namespace() -> bool:
    """Tell whether our capabilities hold in our network namespace; asking for a foreign owner is refused."""
    with open("/proc/self/ns/net", "rb") as namespace:
        try:
            os.close(fcntl.ioctl(namespace, _NS_GET_USERNS))
        except PermissionError:
            return False
    return True


def command() -> str:
    """Return the command line of this process, to be put behind sudo."""
    return shlex.join([sys.executable, *sys.orig_argv[1:]])  # sudo would look for another "python"


def _needs(config: Config) -> Iterator[tuple[str, Capability]]:
    for vdev in config.vdevs:
        for capability in _NEEDED.get(device_driver(vdev), ()):
            yield device_name(vdev), capability


def _check_capability(device: str, capability: Capability) -> None:
    missing = not has_capability(capability)
    if not missing and owns_network_namespace():
        return
    need = f"{device} needs CAP_{capability.name} in this network namespace"
    if not missing:
        raise EnvironmentProblem(
            f"{need}, which belongs to another user namespace. Take a network namespace too: unshare -n "
            f"{command()}"
        )
    if os.geteuid() == 0:
        raise EnvironmentProblem(
            f"{need}, and this root does not have it. A container has to be given it: docker run "
            f"--cap-add={capability.name} --device=/dev/net/tun ..."
        )
    raise EnvironmentProblem(
        f"{need}. Type: sudo {command()}, or without root, in a network namespace of its own: unshare -rn "
        f"{command()}"
    )


def _check_bpf(device: str) -> None:
    """The kernel takes an XDP program only from the first user namespace."""
    if in_first_user_namespace() and (has_capability(Capability.BPF) or has_capability(Capability.SYS_ADMIN)):
        return
    raise EnvironmentProblem(
        f"{device} loads an XDP program, which the kernel allows only to root outside of any user "
        f"namespace. Type: sudo {command()}, or use net_af_packet, which needs no program."
    )


def _check_tun(device: str) -> None:
    if not TUN.exists():
        raise EnvironmentProblem(
            f"{device} needs {TUN}, which is not there. Type: sudo modprobe tun (for a container: docker run "
            f"--device={TUN} ...)"
        )
    if not os.access(TUN, os.R_OK | os.W_OK, effective_ids=True):
        raise EnvironmentProblem(
            f"{device} needs {TUN}, which this user may not open. Type: sudo chmod 666 {TUN}, or run as "
            f"root: sudo {command()}"
        )
