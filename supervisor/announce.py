# SPDX-License-Identifier: Apache-2.0
"""What a person reads when everything is up: what there is, and what to type next."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address

from halo_mp.control.messages import ReadyPort
from halo_mp.supervisor.config import Config, PortConfig
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
    elif port := next((port for port in config.ports if port.addresses), None):
        where = "" if port.tap else " (from a host on that network)"
        lines.append(f"  Try it:  ping {IPv4Address(port.addresses[0].address)}{where}")
    lines.append("  Stop it: Ctrl-C")
    return "\n".join(lines) + "\n"


def _port(config: Config, port: PortConfig, told: ReadyPort) -> str:
    addresses = [f"{IPv4Address(entry.address)}/{entry.prefix_length}" for entry in port.addresses]
    words = [f"  port {port.number}: {port.device}", stack_mac(config.instance, port, told).hex(":")]
    words += addresses or ["no address"]
    if port.tap is not None:
        kernel = f"{IPv4Address(port.tap.kernel_address)}/{port.tap.prefix_length}"
        words.append(f"(the kernel is {kernel} on {port.tap.interface})")
    if not told["link_up"] and port.tap is None:
        words.append("(no link)")
    return " ".join(words)
