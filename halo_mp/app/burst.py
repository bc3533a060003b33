# SPDX-License-Identifier: Apache-2.0
"""A burst as a hook of form burst gets it: NumPy columns over the worker's records, without a copy.

Hot path. One Burst is made for each place in memory where bursts can be, and used again. A column is a view of as many
rows as the burst has: what is written there is what counts. Columns, views and the Burst itself end with the call of
the hook.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from halo_mp.app.fields import VIEWS, record_dtype
from halo_mp.app.verdict import Verdict
from halo_mp.shm.layout import ffi, lib

if TYPE_CHECKING:
    from halo_mp.app.trial import Settled

Column: TypeAlias = NDArray[Any]
Rows: TypeAlias = "NDArray[np.bool_] | NDArray[np.integer[Any]] | Sequence[int] | slice | int"

RECORD = record_dtype()
_DROP = int(Verdict.DROP)  # a plain number, which NumPy takes quicker
RECORD_NAMES: tuple[str, ...] = RECORD.names or ()


class Columns:
    """The fields of one protocol, each a column; 0 in rows of packets that have another one."""

    def __init__(self, burst: Burst, view: str) -> None:
        self._burst = burst
        self._last: Column | None = None  # that somebody was given
        records = burst._records[view]
        self._columns = {name: records[name] for name in VIEWS[view]}


class Ipv4Columns(Columns):
    """Of IPv4. Addresses are numbers; `fragment` is flags and offset; `version` 0: no IP packet."""

    if TYPE_CHECKING:
        src: Column
        dst: Column
        ttl: Column
        tos: Column
        protocol: Column
        length: Column
        fragment: Column
        version: Column


class PortColumns(Columns):
    """Of UDP or TCP."""

    if TYPE_CHECKING:
        sport: Column
        dport: Column


class IcmpColumns(Columns):
    """Of ICMP."""

    if TYPE_CHECKING:
        type: Column
        code: Column


def _field(name: str) -> Any:
    def read(self: Columns) -> Column:
        column: Column = self._columns[name][self._burst._rows]
        self._last = column
        return column

    def write(self: Columns, value: Any) -> None:
        if value is not self._last:  # else burst.ipv4.ttl -= 1, which has written it in place
            self._columns[name][self._burst._rows] = value

    return property(read, write)


for _kind, _view in ((Ipv4Columns, "ipv4"), (PortColumns, "udp"), (IcmpColumns, "icmp")):
    for _name in VIEWS[_view]:
        setattr(_kind, _name, _field(_name))


class Octets:
    """Octets of the frames by row and column: gathered into an array, scattered from one."""

    def __init__(self, burst: Burst) -> None:
        self._burst = burst

    def __getitem__(self, place: tuple[Rows, Any]) -> NDArray[np.uint8]:
        """Return a copy of octets of rows. Raises IndexError when a frame has no such octet."""
        where, _ = self._places(place)
        found: NDArray[np.uint8] = self._burst.pool[where]
        return found

    def __setitem__(self, place: tuple[Rows, Any], value: Any) -> None:
        """Write octets of rows. Checksums stay as they are: see Burst.update_checksums."""
        where, rows = self._places(place)
        self._burst.pool[where] = value
        self._burst._rewritten[self._burst._rows][rows] = 1

    def _places(self, place: tuple[Rows, Any]) -> tuple[Any, Rows]:
        """Return where in the pool the octets are."""
        burst = self._burst
        try:
            rows, columns = place
        except (TypeError, ValueError):
            raise IndexError("octets[rows, columns]: name both, such as octets[:, 0:6]") from None
        if isinstance(columns, slice):
            if columns.stop is None:
                raise IndexError("octets[rows, a:b]: frames differ in length; say where the columns end")
            columns = np.arange(*columns.indices(max(0, columns.stop)))
        columns = np.asarray(columns)
        offsets, lengths = burst.offset[rows], burst.length[rows]
        if columns.size and np.size(lengths):
            behind = columns.max(axis=-1) if columns.ndim == 2 else columns.max()
            if columns.min() < 0 or np.any(behind >= lengths):
                short = int(np.min(lengths))
                raise IndexError(
                    f"octets: column {int(np.max(behind))} of frames of which one has {short} octets; "
                    "choose rows by burst.length first"
                )
        if np.ndim(offsets) == 0 or columns.ndim == 0:
            return offsets + columns.astype(np.int64), rows
        return np.asarray(offsets)[:, None] + columns.astype(np.int64), rows


class Burst:
    """Up to 512 packets."""

    def __init__(self, packets: Any, room: int, pool: Any, geometry: Any) -> None:
        """Made by the worker: over `room` records at a `struct halo_packet *`, and the pool."""
        octets = ffi.buffer(packets, room * ffi.sizeof("struct halo_packet"))
        self._packets = packets
        self._geometry = geometry
        self._pool_pointer = pool
        self._keep: Any = None
        self._count = 0
        self._rows = slice(0, 0)
        self._last: Column | None = None
        self._records: NDArray[Any] = np.frombuffer(octets, dtype=RECORD)
        self._rewritten: NDArray[np.uint8] = np.frombuffer(octets, dtype=np.uint8)[
            ffi.offsetof("struct halo_packet", "rewritten") :: ffi.sizeof("struct halo_packet")
        ]
        self._columns = {name: self._records[name] for name in RECORD_NAMES if name not in VIEWS}
        self.pool: NDArray[np.uint8] = np.frombuffer(ffi.buffer(pool, geometry.size_octets), dtype=np.uint8)
        """All of the pool: the frame of row i is at pool[offset[i] : offset[i] + length[i]]."""
        self.octets = Octets(self)
        self.ipv4 = Ipv4Columns(self, "ipv4")
        self.udp = PortColumns(self, "udp")
        self.tcp = PortColumns(self, "tcp")
        self.icmp = IcmpColumns(self, "icmp")

    def _show(self, packets: Any, first: int, count: int) -> None:
        """Be the burst at `packets`, the records from `first` on."""
        self._packets = packets
        self._count = count
        self._rows = slice(first, first + count)

    if TYPE_CHECKING:
        port: Column
        length: Column
        vlan: Column
        ethertype: Column
        interface: Column
        tx_port: Column
        tx_interface: Column
        mark: Column
        hash: Column
        timestamp_ns: Column
        l3_offset: Column
        l4_offset: Column
        offset: Column
        injected: Column
        verdict: Column
        reason: Column

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<Burst of {self._count} packets>"

    def drop(self, rows: Rows | None = None, reason: int = 0) -> None:
        """Drop rows (a mask, or numbers), by default all; counted as `reason` or hook_drop."""
        where = slice(None) if rows is None else rows
        self.verdict[where] = _DROP
        if reason:
            self.reason[where] = reason

    def transmit(self, rows: Rows | None, port: int) -> None:
        """Send rows, None: all, out of a port, as they are."""
        where = slice(None) if rows is None else rows
        self.tx_port[where] = port
        self.verdict[where] = Verdict.TRANSMIT

    def consume(self, rows: Rows | None = None) -> None:
        """End rows, by default all, on purpose."""
        self.verdict[slice(None) if rows is None else rows] = Verdict.CONSUME

    def punt(self, rows: Rows | None = None) -> None:
        """Give rows, by default all, to the Python stack."""
        self.verdict[slice(None) if rows is None else rows] = Verdict.PUNT

    def update_checksums(self, rows: Rows | None = None) -> None:
        """Make the checksums of IPv4, UDP, TCP and ICMP anew in rows whose octets were written, by default all.

        Fields that were written need no such call.
        """
        pool, geometry = self._pool_pointer, self._geometry
        if rows is None:
            lib.halo_packets_update_checksums(pool, geometry, self._packets, self._count)
            return
        mask = np.zeros(self._count, dtype=np.uint8)
        mask[rows] = 1
        octets = ffi.from_buffer("uint8_t[]", mask)
        lib.halo_view_update_checksums(pool, geometry, self._packets, self._count, octets)

    # ---- unit tests of hooks

    @classmethod
    def from_octets(cls, frames: Sequence[bytes], *, port: int = 0, tx_port: int = 0) -> Burst:
        """Return a burst without a worker, parsed as there. Raises ValueError for what is dropped before hooks."""
        from halo_mp.app.trial import Trial

        trial = Trial(frames, port=port, tx_port=tx_port)
        burst = cls(trial.packets, max(1, trial.count), trial.pool, trial.geometry)
        burst._show(trial.packets, 0, trial.count)
        burst._keep = trial
        return burst

    def settle(self) -> list[Settled]:
        """Do what a worker does after a hook, and say what has become of each packet.

        For bursts of from_octets. Raises RuntimeError for one of a worker's.
        """
        if self._keep is None:
            raise RuntimeError("settle() is for bursts of Burst.from_octets(); a worker settles its own")
        found: list[Settled] = self._keep.settle()
        return found


def _column(name: str) -> Any:
    def read(self: Burst) -> Column:
        column: Column = self._columns[name][self._rows]
        self._last = column
        return column

    def write(self: Burst, value: Any) -> None:
        if value is not self._last:
            self._columns[name][self._rows] = value

    return property(read, write)


for _name in RECORD_NAMES:
    if _name not in VIEWS:
        setattr(Burst, _name, _column(_name))
