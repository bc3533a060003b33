# SPDX-License-Identifier: Apache-2.0
"""A packet as a hook of form packet gets it: a light object over the worker's record and the frame in the pool.

Hot path. Objects are made once for each place of a burst and used again for each burst; protocols are attributes, whose
fields are C's, read and written without a step in between. They end with the call of the hook.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from halo_mp.app.fields import VIEWS, format_address
from halo_mp.app.verdict import Verdict
from halo_mp.shm.layout import ffi

if TYPE_CHECKING:
    from halo_mp.app.trial import Settled


class Ipv4Fields:
    """Of IPv4; addresses are numbers, which format_address() prints."""

    src: int
    dst: int
    ttl: int
    tos: int
    protocol: int
    """0: no IPv4 packet."""
    length: int
    """Total length."""
    fragment: int
    """Flags and fragment offset."""
    version: int
    """4, or 0 where it is no IP packet."""


class PortFields:
    """Of UDP or TCP; 0 in packets of another protocol, and in fragments."""

    sport: int
    dport: int


class IcmpFields:
    """Of ICMP; 0 in packets of another protocol, so ask ipv4.protocol first."""

    type: int
    code: int


def _read_only(field: str, text: str) -> Any:
    # attrgetter: no Python frame for each look at a field
    return property(attrgetter(f"_record.{field}"), doc=text)


def _writable(field: str, text: str) -> Any:
    def write(packet: Packet, value: int) -> None:
        setattr(packet._record, field, value)

    return property(attrgetter(f"_record.{field}"), write, doc=text)


class Packet:
    """One packet of the burst."""

    __slots__ = ("_keep", "_pool", "_record", "icmp", "ipv4", "tcp", "udp")

    ipv4: Ipv4Fields
    udp: PortFields
    tcp: PortFields
    icmp: IcmpFields

    if TYPE_CHECKING:
        port: int
        length: int
        vlan: int
        ethertype: int
        interface: int
        tx_interface: int
        tx_port: int
        mark: int
        hash: int
        timestamp_ns: int
        l3_offset: int
        l4_offset: int
        injected: int
        reason: int
    else:
        port = _read_only("port", "That it came in by.")
        length = _writable("length", "Octets of the frame; may be changed within the buffer.")
        vlan = _read_only("vlan", "VLAN id; 0 without a tag.")
        ethertype = _read_only("ethertype", "Behind the VLAN tag, if there is one.")
        interface = _read_only("interface", "Number of the interface that it came in by; NO_INTERFACE.")
        tx_interface = _read_only("tx_interface", "The same of the one that it leaves by.")
        tx_port = _writable("tx_port", "That it leaves by, with Verdict.TRANSMIT.")
        mark = _writable("mark", "A number for later hooks; 0 at first.")
        hash = _read_only("hash", "Of its flow; 0 where nobody has needed it yet.")
        timestamp_ns = _read_only("timestamp_ns", "CLOCK_MONOTONIC, one for the burst.")
        l3_offset = _read_only("l3_offset", "Of the IP header, from the start of the frame.")
        l4_offset = _read_only("l4_offset", "Of the header behind that.")
        injected = _read_only("injected", "1: made by this worker, not received.")
        reason = _writable("reason", "What a drop is counted as; see reason(). 0: hook_drop.")

    def __init__(self, record: Any, pool: Any) -> None:
        """Made by the worker: over a `struct halo_packet *` and the pool, a `uint8_t *`."""
        self._record = record
        self._pool = pool
        self._keep: Any = None
        for view in VIEWS:
            setattr(self, view, ffi.cast(f"struct halo_view_{view} *", record))

    @property
    def octets(self) -> memoryview:
        """The frame, to be read and written in place, from its destination MAC address on."""
        record = self._record
        return memoryview(ffi.buffer(self._pool + record.offset, record.length))

    def __repr__(self) -> str:
        ipv4 = self.ipv4
        if not ipv4.version:
            return f"<Packet of {self.length} octets, ethertype {self.ethertype:#06x}, port {self.port}>"
        ports = self._record.src_port, self._record.dst_port
        return (
            f"<Packet of {self.length} octets, {format_address(ipv4.src)}:{ports[0]} to "
            f"{format_address(ipv4.dst)}:{ports[1]}, protocol {ipv4.protocol}, port {self.port}>"
        )

    # ---- unit tests of hooks

    @classmethod
    def from_octets(cls, frame: bytes, *, port: int = 0, tx_port: int = 0) -> Packet:
        """Return a packet without a worker, parsed as there. Raises ValueError for what is dropped before hooks."""
        from halo_mp.app.trial import Trial

        trial = Trial([frame], port=port, tx_port=tx_port)
        packet = cls(trial.packets, trial.pool)
        packet._keep = trial
        return packet

    def settle(self, verdict: Verdict | int | None = None) -> Settled:
        """Do what a worker does after a hook that returned `verdict`; say what has become of the packet.

        For packets of from_octets. Raises RuntimeError for one of a worker's.
        """
        if self._keep is None:
            raise RuntimeError("settle() is for packets of Packet.from_octets(); a worker settles its own")
        if verdict is not None:
            self._record.verdict = verdict
        found: Settled = self._keep.settle()[0]
        return found
