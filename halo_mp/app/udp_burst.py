# SPDX-License-Identifier: Apache-2.0
"""The datagrams of a burst as NumPy columns.

The columns are copies and may be kept. The payloads are in the buffers of the frames, which end when the function
returns: what was neither sent back nor dropped is released then.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from halo_mp.app.udp import ENDED, Parked, parse_destination

RECORD: Final = np.dtype(
    {
        "names": ["sport", "src", "offset", "socket", "dst", "length", "interface"],
        "formats": ["<u2", "<u4", "<u4", "<u4", "<u4", "<u2", "<u2"],
        "offsets": [0, 2, 8, 12, 16, 20, 22],
        "itemsize": 24,
    }
)
"""struct halo_datagram."""


class Payload:
    """The payloads of a burst as octets by row and column: `burst.payload[rows, columns]`, to read and to write."""

    __slots__ = ("_burst",)

    def __init__(self, burst: DatagramBurst) -> None:
        self._burst = burst

    def __getitem__(self, where: tuple[Any, Any]) -> NDArray[np.uint8]:
        """Gather octets: a copy, one row for each datagram of the selection. IndexError beyond the end of one."""
        found: NDArray[np.uint8] = self._burst._octets()[self._places(where)]
        return found

    def __setitem__(self, where: tuple[Any, Any], octets: Any) -> None:
        """Scatter octets; what is written is what `reply` sends."""
        self._burst._octets()[self._places(where)] = octets

    def _places(self, where: tuple[Any, Any]) -> NDArray[np.int64]:
        rows, columns = where
        burst = self._burst
        if isinstance(columns, slice):
            columns = np.arange(*columns.indices(int(burst.length.max(initial=0))))
        columns = np.atleast_1d(np.asarray(columns, dtype=np.int64))
        starts = burst.offset[rows].astype(np.int64)
        lengths = np.atleast_1d(burst.length[rows])
        if columns.size and lengths.size and (columns.min() < 0 or columns.max() >= lengths.min()):
            raise IndexError(
                f"payload columns {columns.min()} to {columns.max()} of datagrams of {lengths.min()} to "
                f"{lengths.max()} octets; choose rows by burst.length first"
            )
        places: NDArray[np.int64] = np.atleast_1d(starts)[:, None] + columns[None, :]
        return places


class DatagramBurst:
    """Datagrams of one socket, up to 512, as NumPy columns. Addresses in host order.

    `length` may be written: `reply` sends so many octets.
    """

    def __init__(self, parked: Parked, records: Any, indices: Any, pool: Any) -> None:
        """Made by the worker."""
        self._parked: Parked | None = parked
        self._indices = indices
        self._pool = pool
        self.src: NDArray[np.uint32] = records["src"]
        self.sport: NDArray[np.uint16] = records["sport"]
        self.dst: NDArray[np.uint32] = records["dst"]
        self.length: NDArray[np.uint16] = records["length"]
        self.interface: NDArray[np.uint16] = records["interface"]
        self.offset: NDArray[np.uint32] = records["offset"]
        """Of the payloads in `pool`."""

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def payload(self) -> Payload:
        """The payloads by row and column."""
        return Payload(self)

    @property
    def pool(self) -> NDArray[np.uint8]:
        """All buffers, without a copy; only octets at `offset` are this burst's. Raises RuntimeError at the end."""
        octets: NDArray[np.uint8] = self._octets()
        return octets

    def reply(self, mask: Any = None) -> int:
        """Send datagrams back to where they came from, as they are now; return how many went.

        `mask` selects by booleans or by indices; without one, all. Raises RuntimeError at the end.
        """
        which, lengths = self._selected(mask), self.length
        if mask is not None:
            lengths = lengths[mask]
        return self._living().reply_all(which, np.ascontiguousarray(lengths, dtype="u2"))

    def drop(self, mask: Any = None) -> None:
        """Count datagrams as dropped by the application (app_drop)."""
        for index in self._selected(mask).tolist():
            self._living().drop(index)

    def send(self, octets: bytes | bytearray | memoryview, to: tuple[str, int]) -> bool:
        """Send another datagram from the same socket; False when it was dropped, which is counted.

        Raises ValueError for what can not be an address or a port, and RuntimeError at the end.
        """
        return self._living().send(bytes(octets), *parse_destination(to))

    def _selected(self, mask: Any) -> Any:
        chosen = self._indices if mask is None else self._indices[mask]
        return np.ascontiguousarray(chosen, dtype="u4")

    def _octets(self) -> Any:
        self._living()
        return self._pool

    def _living(self) -> Parked:
        if self._parked is None:
            raise RuntimeError(ENDED.format("burst"))
        return self._parked

    def _end(self) -> None:
        self._parked = None
