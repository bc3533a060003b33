# SPDX-License-Identifier: Apache-2.0
"""From --kernel to the TAPs through which the kernel shares a port with us."""

from __future__ import annotations

from ipaddress import IPv4Address

from halo_mp.shm.layout import MAX_PORTS
from halo_mp.supervisor import config_values as values
from halo_mp.supervisor.config_interfaces import InterfacePlan
from halo_mp.supervisor.config_model import TwinConfig
from halo_mp.supervisor.config_reader import FlagReader

MOST_MTU = 1504
"""What net_tap of DPDK 22.11 takes."""


def plan_twins(
    reader: FlagReader,
    instance: str,
    plan: InterfacePlan,
    *,
    embedded: bool,
) -> dict[int, TwinConfig]:
    """Return the twin of each port that --kernel names; `embedded`: the ports are our own TAPs, and have none.

    Twins are ports, too, numbered from the top down, where no --ports reaches.
    """
    free = [number for number in reversed(range(MAX_PORTS)) if number not in plan.mtus]
    found: dict[int, TwinConfig] = {}
    for port, only in reader.each("--kernel", values.kernel):
        problem = _problem(port, only, plan)
        if port in found:
            problem = "the port is named twice; write one --kernel for each port."
        elif not problem and embedded:
            problem = (
                "the port is a TAP, with the kernel on its other side already; name a device to share, such as "
                "--vdev net_af_packet0,iface=eth0."
            )
        elif not problem and not free:
            problem = f"all {MAX_PORTS} ports are taken, and the kernel's side needs one; list fewer --ports."
        if not problem:
            found[port] = TwinConfig(
                interface=twin_name(instance, port),
                port=free.pop(0),
                device=f"net_tap_k{port}",
                only=None if only is None else int(only),
            )
        elif reader.sound("--ports", "--pci", "--vdev", "--address"):
            reader.refuse("--kernel", f"--kernel {port}: {problem}")
    return found


def twin_name(instance: str, port: int) -> str:
    """Return what the kernel's side of a port's twin is called: at most 15 characters, as those of other TAPs."""
    return f"halok{port}" if instance == "default" else f"{instance}k{port}"


def _problem(port: int, only: IPv4Address | None, plan: InterfacePlan) -> str:
    """Say why a port can not be shared so, or nothing."""
    if port not in plan.mtus:
        return f"that is not one of the ports, {', '.join(map(str, plan.mtus))}; add it to --ports."
    ours = [interface.addresses for interface in plan.interfaces if interface.port == port]
    addresses = [entry.address for entries in ours for entry in entries]
    if only is not None and int(only) not in addresses:
        listed = ", ".join(str(IPv4Address(address)) for address in addresses) or "none"
        return f"{only} is no address of the port, which has {listed}; add it with --address."
    if plan.mtus[port] > MOST_MTU:
        limit = f"and the kernel's side of it, a TAP of DPDK's, takes {MOST_MTU} at most"
        return f"the MTU of the port is {plan.mtus[port]}, {limit}; write --mtu {port}={MOST_MTU}."
    return ""
