# SPDX-License-Identifier: Apache-2.0
"""What a person reads when everything is up: what there is, and what to type next."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address

from halo_mp.control.messages import ReadyPort
from halo_mp.supervisor.config import Config, InterfaceConfig, PortConfig
from halo_mp.supervisor.wiring import stack_mac


def announce(config: Config, ready: Mapping[int, ReadyPort]) -> str:
    """Return some lines of text."""
    lines = [f"halo-mp: instance {config.instance!r} is up."]
    lines += [_port(config, port, ready[port.number]) for port in config.ports if port.number in ready]
    if config.tx_only or config.macswap:
        stack = (
            "Frames are sent, nothing is received."
            if config.tx_only
            else "Frames go out again; no stack runs."
        )
        lines.append(f"  {stack}")
    elif found := next((each for each in config.interfaces if each.addresses), None):
        reachable = any(
            port.tap and port.tap.addresses for port in config.ports if (port.number, 0) == found.key
        )
        where = "" if reachable else " (from a host on that network)"
        lines.append(f"  Try it:  ping {IPv4Address(found.addresses[0].address)}{where}")
    lines.append("  Stop it: Ctrl-C")
    return "\n".join(lines) + "\n"


def _port(config: Config, port: PortConfig, told: ReadyPort) -> str:
    ours = [each for each in config.interfaces if each.port == port.number and (each.addresses or each.vlan)]
    addresses = [" ".join([*_vlan(each), *map(str, each.addresses)]) for each in ours]
    words = [f"  port {port.number}: {port.device}", stack_mac(config.instance, port, told).hex(":")]
    words += addresses or ["no address"]
    if port.tap is not None:
        kernel = " ".join(map(str, port.tap.addresses)) or "without address"
        words.append(f"(the kernel is {kernel} on {port.tap.interface})")
    if port.twin is not None:
        words.append(f"(the kernel has its share on {port.twin.interface})")
    if not told["link_up"] and port.tap is None:
        words.append("(no link)")
    return " ".join(words)


def _vlan(interface: InterfaceConfig) -> list[str]:
    return [f"vlan {interface.vlan}"] if interface.vlan else []
