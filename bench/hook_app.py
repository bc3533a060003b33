# SPDX-License-Identifier: Apache-2.0
"""The hooks of `bench hooks`: the same work in three forms. A filter on two fields, and a rewrite of one."""

from __future__ import annotations

from halo_mp.app import App, Burst, Packet, Verdict

PORT = 9
NETWORK = 10

packet = App("packet")
burst = App("burst")
jit = App("jit")


def filter_packet(p: Packet) -> Verdict | None:
    """Drop UDP to one port from one network, and lower the TTL of the rest."""
    if p.udp.dport == PORT and p.ipv4.src >> 24 == NETWORK:
        return Verdict.DROP
    p.ipv4.ttl -= 1
    return None


packet.hook("ingress")(filter_packet)
jit.hook("ingress", jit=True)(filter_packet)


@burst.hook("ingress", form="burst")
def filter_burst(b: Burst) -> None:
    """The same, by columns."""
    b.drop((b.udp.dport == PORT) & (b.ipv4.src >> 24 == NETWORK))
    b.ipv4.ttl -= 1
