# SPDX-License-Identifier: Apache-2.0
"""A filter for what a router sends on, compiled to machine code: ports that are closed, and networks that are.

    sudo python examples/packet_filter.py --ports 0,1
    sudo python -m halo_mp.supervisor --app examples/packet_filter.py --ports 0,1

What is dropped is counted as hook_drop. Other flags are those of the supervisor.
"""

from __future__ import annotations

from halo_mp.app import App, Packet, Verdict, address

CLOSED = (23, 135, 139, 445)
"""Telnet, and what Windows should not tell the Internet."""
NETWORK, LENGTH = address("192.0.2.0"), 24
"""From there nothing goes on."""
TCP = 6

MASK = 0xFFFFFFFF << (32 - LENGTH) & 0xFFFFFFFF

app = App("packet_filter")


@app.hook("forward", jit=True, on_error="drop")
def packet_filter(packet: Packet) -> Verdict | None:
    """Say what becomes of a packet. Every worker compiles it before its first packet."""
    if packet.ipv4.src & MASK == NETWORK:
        return Verdict.DROP
    if packet.ipv4.protocol == TCP:
        for port in CLOSED:
            if packet.tcp.dport == port:
                return Verdict.DROP
    return None


if __name__ == "__main__":
    app.run()
