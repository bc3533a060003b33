# SPDX-License-Identifier: Apache-2.0
"""Raw frames: what comes in by a port as it came, and what leaves by it as it is. No stack is involved.

The first use of a port's frames claims what comes in by it, through the queues of this worker. Frames come in bursts.
A burst's octets are views of the pool and end with the burst: when the next one is taken, or with its `with` block.
What was not decided by then is dropped, and counted as app_drop.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from halo_mp.app.blaster import Blaster, Vary, check_templates
from halo_mp.app.verdict import Verdict
from halo_mp.shm.layout import ffi, lib

if TYPE_CHECKING:
    from halo_mp.app.burst import Burst

Octets = bytes | bytearray | memoryview
Mask = Sequence[bool] | bytes | Any
"""One truth value for each frame of a burst; a NumPy array of bool is looked at as it is."""

LIMIT = 256
"""Frames of a burst, unless you ask for others: enough that what a burst costs is shared by many."""
QUEUE = int(lib.HALO_RAW_QUEUE)
MOST_FRAMES = int(lib.HALO_WIDE_BURST)
_UNUSED_REFERENCES = 2  # of an object in a tuple that is being looked at: the tuple's, and ours


class Backend(Protocol):
    """What the worker process does for a port; made by halo_mp.workers."""

    debug: bool

    def claim(self, port: int) -> None:
        """Let frames of a port wait for us. Raises OSError."""

    def release(self, port: int) -> None:
        """No more of them; what waits is dropped."""

    def take(self, port: int, limit: int) -> tuple[Any, int]:
        """Return a pointer to struct halo_packet and how many there are; those taken before end."""

    def settle(self, port: int) -> None:
        """End what was taken, by its verdicts."""

    def decide(self, port: int, verdict: int, tx_port: int, mask: Any) -> int:
        """Give those that were taken a verdict; return how many."""

    def replace(self, port: int, index: int, octets: Octets) -> bool:
        """Write other octets into a frame; False when they do not fit."""

    def octets(self, offset: int, length: int) -> Any:
        """Return a buffer of the pool."""

    def columns(self, port: int, packets: Any, count: int) -> Burst:
        """Return NumPy columns over what was taken."""

    def originate(self, port: int, frames: Sequence[Octets]) -> int:
        """Send frames of ours; return how many had a buffer."""

    async def wait(self, port: int, count: int) -> None:
        """Wait until frames are there."""

    def pump(self, port: int, count: int, timeout_s: float) -> None:
        """Run the packet loop until frames are there, or until then. Raises RuntimeError where that can not be."""

    def view_kept(self, port: int) -> None:
        """Say that a view of a burst that has ended is still there."""

    def add_blast(self, port: int, templates: Sequence[bytes], vary: Sequence[Vary]) -> Any:
        """Return what a Blaster works with."""


class Frame:
    """One frame of a burst. Raises RuntimeError when it is used after the burst has ended."""

    __slots__ = ("_burst", "_index")

    def __init__(self, burst: FrameBurst, index: int) -> None:
        self._burst = burst
        self._index = index

    @property
    def octets(self) -> memoryview:
        """The octets of the frame, to be read and written; released with the burst."""
        return self._burst._view(self._index)

    @property
    def length(self) -> int:
        """Octets of the frame."""
        return int(self._burst._record(self._index).length)

    @property
    def port(self) -> int:
        """Number of the port that it came in by."""
        return int(self._burst._record(self._index).port)

    @property
    def ethertype(self) -> int:
        """Behind the VLAN tag, if there is one."""
        return int(self._burst._record(self._index).ethertype)

    @property
    def vlan(self) -> int:
        """The VLAN id; 0 without a tag."""
        return int(self._burst._record(self._index).vlan)

    @property
    def timestamp_ns(self) -> int:
        """When it was received, by CLOCK_MONOTONIC; the same for what came together."""
        return int(self._burst._record(self._index).timestamp_ns)

    def forward(self, port: int) -> None:
        """Let it leave by a port when the burst ends. Raises ValueError when there can be no such port."""
        _check_port(port)
        record = self._burst._record(self._index)
        record.tx_port, record.verdict = port, Verdict.TRANSMIT

    def drop(self) -> None:
        """Let it end, counted as app_drop."""
        record = self._burst._record(self._index)
        record.reason, record.verdict = 0, Verdict.DROP

    def consume(self) -> None:
        """Let it end on purpose: it was for the application, and is no drop."""
        self._burst._record(self._index).verdict = Verdict.CONSUME

    def replace(self, octets: Octets) -> None:
        """Give it other octets, more or fewer. Raises ValueError when they are too many for a buffer, or below 14."""
        self._burst._replace(self._index, octets)


class FrameBurst:
    """Frames that came in by one port, in their order."""

    __slots__ = ("_backend", "_count", "_open", "_packets", "_port", "_views")

    def __init__(self, backend: Backend, port: int, packets: Any, count: int) -> None:
        self._backend = backend
        self._port = port
        self._packets = packets
        self._count = count
        self._open = True
        self._views: list[tuple[Any, memoryview]] = []

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Frame:
        if not -self._count <= index < self._count:
            raise IndexError(f"frame {index} of a burst of {self._count}")
        return Frame(self, index % self._count)

    def __iter__(self) -> Iterator[Frame]:
        return (Frame(self, index) for index in range(self._count))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def transmit(self, port: int, mask: Mask | None = None) -> int:
        """Let frames leave by a port when the burst ends: all, or those of the mask. Return how many."""
        _check_port(port)
        return self._decide(Verdict.TRANSMIT, port, mask)

    def drop(self, mask: Mask | None = None) -> int:
        """Let frames end, counted as app_drop. Return how many."""
        return self._decide(Verdict.DROP, 0, mask)

    def consume(self, mask: Mask | None = None) -> int:
        """Let frames end on purpose: they were for the application, and are no drops. Return how many."""
        return self._decide(Verdict.CONSUME, 0, mask)

    def end(self) -> None:
        """End the burst: what was decided happens, views are released. May be called twice."""
        if not self._open:
            return
        self._open = False
        self._release_views()
        self._backend.settle(self._port)

    @property
    def columns(self) -> Burst:
        """The frames as NumPy columns: length, ethertype, ipv4.src, udp.dport, octets[rows, a:b], verdict ...

        A frame is what its octets say: write those, and call columns.update_checksums(). Other columns are to be read,
        but for verdict, reason and tx_port. Raises ImportError without NumPy.
        """
        self._check_open()
        return self._backend.columns(self._port, self._packets, self._count)

    # ---- private

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError(
                "this burst has ended, and its frames are others' now: use a burst before the next one is taken, "
                "and copy what is to stay with bytes(frame.octets)"
            )

    def _record(self, index: int) -> Any:
        self._check_open()
        return self._packets[index]

    def _view(self, index: int) -> memoryview:
        record = self._record(index)
        buffer = self._backend.octets(record.offset, record.length)
        view = memoryview(buffer)
        self._views.append((buffer, view))
        return view

    def _replace(self, index: int, octets: Octets) -> None:
        self._check_open()
        if not self._backend.replace(self._port, index, octets):
            raise ValueError(f"{len(octets)} octets are no frame that a buffer can hold")

    def _decide(self, verdict: Verdict, tx_port: int, mask: Mask | None) -> int:
        self._check_open()
        return self._backend.decide(
            self._port, verdict, tx_port, ffi.NULL if mask is None else _mask(mask, self._count)
        )

    def _release_views(self) -> None:
        kept = False
        while self._views:
            buffer, view = self._views.pop()
            try:
                view.release()
            except BufferError:  # an array was made of it
                kept = True
                continue
            del view
            kept |= self._backend.debug and sys.getrefcount(buffer) > _UNUSED_REFERENCES
        if kept and self._backend.debug:
            self._backend.view_kept(self._port)


class Frames:
    """`async for burst in port.frames()`. Ends the claim of the port's frames when it is closed, or forgotten."""

    def __init__(self, port: Port, limit: int) -> None:
        self._port = port
        self._limit = limit

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FrameBurst:
        while not (burst := self._port._take(self._limit)):
            await self._port._wait(self._limit)
        return burst

    def close(self) -> None:
        """Let the port's frames go to the stack again. May be called twice."""
        self._port._close_frames(self)

    async def aclose(self) -> None:
        """As close, for contextlib.aclosing."""
        self.close()

    def __del__(self) -> None:
        self.close()


class Port:
    """The frames of one port, of what comes in by it through the queues of this worker."""

    def __init__(self, backend: Backend, number: int) -> None:
        self.number = number
        self._backend = backend
        self._burst: FrameBurst | None = None
        self._claimed = False
        self._reader: int | None = None

    def frames(self, limit: int = LIMIT) -> Frames:
        """Return the port's frames from now on, in bursts of at most `limit`, for `async for`.

        They go to the stack no more. One iterator of a port at a time: raises RuntimeError for a second one, and
        ValueError for a limit that is not 1 to 512.
        """
        _check_limit(limit)
        if self._reader is not None:
            raise RuntimeError(
                f"the frames of port {self.number} are read already; close that iterator first"
            )
        self._claim()
        frames = Frames(self, limit)
        self._reader = id(frames)
        return frames

    def receive(self, limit: int = LIMIT, timeout: float = 0.0) -> FrameBurst:
        """Return what has come in, at most `limit`; an empty burst when nothing has within `timeout` seconds.

        Runs the packet loop meanwhile, but no task, timer or callback: a program that does nothing else needs no
        asyncio. The burst before it ends. Raises RuntimeError inside a hook or a callback of the packet loop.
        """
        _check_limit(limit)
        self._claim()
        burst = self._take(limit)
        if burst:
            return burst
        self._backend.pump(self.number, limit, timeout)
        return self._take(limit)

    def transmit(self, octets: Octets | Sequence[Octets]) -> int:
        """Send a frame, or several; return how many there was room for. The others are counted as drops.

        Raises ValueError for fewer than 14 octets.
        """
        frames = (octets,) if isinstance(octets, (bytes, bytearray, memoryview)) else octets
        for each in frames:
            if len(each) < lib.HALO_MIN_FRAME_OCTETS:
                raise ValueError(f"{len(each)} octets are no Ethernet frame, which has 14 at least")
        return self._backend.originate(self.number, frames)

    def blaster(self, template: bytes | Sequence[bytes], *, vary: Sequence[Vary] = ()) -> Blaster:
        """Return what sends copies of a frame, or of several in turn, with numbers in them that go on.

        Raises ValueError for templates and fields that can not be.
        """
        templates = (template,) if isinstance(template, bytes) else tuple(template)
        check_templates(templates, vary)
        return Blaster(self._backend.add_blast(self.number, templates, vary))

    def close(self) -> None:
        """Let frames go to the stack again; what waits is dropped. May be called twice."""
        self._reader = None
        if self._burst is not None:
            self._burst.end()
        if self._claimed:
            self._claimed = False
            self._backend.release(self.number)

    # ---- private

    def _claim(self) -> None:
        if not self._claimed:
            self._backend.claim(self.number)
            self._claimed = True

    def _take(self, limit: int) -> FrameBurst:
        if self._burst is not None:
            self._burst.end()
        packets, count = self._backend.take(self.number, limit)
        self._burst = FrameBurst(self._backend, self.number, packets, count)
        return self._burst

    async def _wait(self, limit: int) -> None:
        await self._backend.wait(self.number, limit)

    def _close_frames(self, frames: Frames) -> None:
        if self._reader == id(frames):
            self.close()


def _check_port(port: int) -> None:
    if not 0 <= port < lib.HALO_MAX_PORTS:
        raise ValueError(f"port {port}: ports are 0 to {lib.HALO_MAX_PORTS - 1}")


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MOST_FRAMES:
        raise ValueError(f"limit={limit}: a burst has 1 to {MOST_FRAMES} frames")


def _mask(mask: Mask, count: int) -> Any:
    """Return a mask as octets. Raises ValueError when it is not of the burst's length."""
    if len(mask) != count:
        raise ValueError(f"a mask of {len(mask)} for a burst of {count} frames")
    array: Any = mask
    if getattr(getattr(mask, "dtype", None), "char", None) == "?" and array.flags.c_contiguous:
        return ffi.from_buffer("uint8_t[]", array.view("u1"))
    return ffi.from_buffer("uint8_t[]", bytes(map(bool, mask)))
