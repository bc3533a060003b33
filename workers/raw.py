# SPDX-License-Identifier: Apache-2.0
"""Raw frames and blasters of one worker: between C's queues and what `halo_mp.app.frames` shows.

Hot path. Rules: one call into C for a burst, no object per frame that nobody asked for. Used by the loop's thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from halo_mp import logs
from halo_mp.app.blaster import Pace, Sent, Vary
from halo_mp.app.frames import QUEUE, Octets, Port
from halo_mp.shm.layout import ffi, lib
from halo_mp.workers.fastpath import FastPath, PollReason

if TYPE_CHECKING:
    from halo_mp.app.burst import Burst

log = logs.get("app")

_NS: Final = 1_000_000_000


class RawFrames:
    """Makes the ports of a worker, and is what they work with."""

    def __init__(
        self,
        fastpath: FastPath,
        loop: asyncio.AbstractEventLoop,
        pool: Any,
        geometry: Any,
        turn: Callable[[int], bool] | None = None,
        *,
        debug: bool = False,
    ) -> None:
        """`geometry` is a pointer to the pool's.

        `turn` polls for at most so many nanoseconds and does the host's work, or says that it can not be now.
        """
        self.debug = debug
        self._fastpath = fastpath
        self._loop = loop
        self._pool = pool
        self._geometry = geometry
        self._turn = turn
        self._ports: dict[int, Port] = {}
        self._waiters: dict[int, tuple[asyncio.Future[None], int]] = {}
        self._blasts: dict[int, NativeBlast] = {}
        self._out = ffi.new("struct halo_packet **")
        self._records: dict[int, Any] = {}
        self._columns: dict[int, Burst] = {}
        self._closed = False

    def open(self, number: int) -> Port:
        """Return a port, always the same object for a number. Raises ValueError when there can be no such port."""
        if not 0 <= number < lib.HALO_MAX_PORTS:
            raise ValueError(f"port {number}: ports are 0 to {lib.HALO_MAX_PORTS - 1}")
        return self._ports.setdefault(number, Port(self, number))

    def on_poll(self, reasons: int) -> None:
        """Wake up who waits for what a poll came back with."""
        if reasons & PollReason.RAW:
            for port, (future, count) in list(self._waiters.items()):
                if future.done() or self._waiting(port):
                    del self._waiters[port]
                    _wake(future)
                else:
                    lib.halo_worker_raw_want(self._worker, port, count)
        if reasons & PollReason.BLAST:
            for blast in list(self._blasts.values()):
                blast.look()

    def close(self) -> None:
        """Give all frames back, before the worker leaves its slot."""
        for port in self._ports.values():
            port.close()
        for blast in list(self._blasts.values()):
            blast.remove()
        for future, _ in self._waiters.values():
            future.cancel()
        self._waiters.clear()
        self._closed = True

    # ---- halo_mp.app.frames.Backend

    def claim(self, port: int) -> None:
        """Let frames of a port wait for us. Raises OSError."""
        records = ffi.new("struct halo_packet[]", QUEUE)
        _check(lib.halo_worker_raw_claim(self._worker, port, QUEUE, records))
        self._records[port] = records

    def release(self, port: int) -> None:
        """No more of them; what waits is dropped."""
        if not self._closed:
            lib.halo_worker_raw_release(self._worker, port)
            self._columns.pop(port, None)  # arrays of it keep the records alive
            del self._records[port]

    def take(self, port: int, limit: int) -> tuple[Any, int]:
        """Return a pointer to struct halo_packet and how many there are; those taken before end."""
        count = _check(lib.halo_worker_raw_take(self._worker, port, limit, self._out))
        return self._out[0], count

    def settle(self, port: int) -> None:
        """End what was taken, by its verdicts."""
        if not self._closed:
            _check(lib.halo_worker_raw_settle(self._worker, port))

    def decide(self, port: int, verdict: int, tx_port: int, mask: Any) -> int:
        """Give those that were taken a verdict; return how many."""
        return _check(lib.halo_worker_raw_decide(self._worker, port, verdict, tx_port, mask))

    def replace(self, port: int, index: int, octets: Octets) -> bool:
        """Write other octets into a frame; False when they do not fit."""
        buffer = ffi.from_buffer("uint8_t[]", octets)
        result = lib.halo_worker_raw_replace(self._worker, port, index, buffer, len(buffer))
        return result != -errno.EMSGSIZE and _check(result) == 0

    def octets(self, offset: int, length: int) -> Any:
        """Return a buffer of the pool."""
        return ffi.buffer(self._pool + offset, length)

    def columns(self, port: int, packets: Any, count: int) -> Burst:
        """Return NumPy columns over what was taken."""
        records = self._records[port]
        if port not in self._columns:
            from halo_mp.app import Burst  # NumPy is not everybody's

            self._columns[port] = Burst(records, QUEUE, self._pool, self._geometry)
        lib.halo_view_open(self._pool, packets, count)
        columns = self._columns[port]
        columns._show(packets, packets - ffi.addressof(records, 0), count)
        return columns

    def originate(self, port: int, frames: Sequence[Octets]) -> int:
        """Send frames of ours; return how many had a buffer."""
        worker = self._worker
        sent = sum(
            lib.halo_worker_originate(worker, port, ffi.from_buffer("uint8_t[]", each), len(each)) == 0
            for each in frames
        )
        lib.halo_worker_flush(worker)
        return sent

    async def wait(self, port: int, count: int) -> None:
        """Wait until frames are there."""
        future = self._loop.create_future()
        self._waiters[port] = future, count
        _check(lib.halo_worker_raw_want(self._worker, port, count))
        await future

    def pump(self, port: int, count: int, timeout_s: float) -> None:
        """Run the packet loop until frames are there, or until then. Raises RuntimeError where that can not be."""
        until_ns = time.monotonic_ns() + int(timeout_s * _NS)
        while not self._waiting(port):
            lib.halo_worker_raw_want(self._worker, port, count)
            left_ns = max(0, until_ns - time.monotonic_ns())
            if self._turn is None or not self._turn(left_ns):
                raise RuntimeError(
                    "receive() runs the packet loop, and was called by it: in hooks, callbacks of datagrams and an "
                    "on_start that is no coroutine, use port.frames() in a task"
                )
            if left_ns == 0:
                return

    def view_kept(self, port: int) -> None:
        """Say that a view of a burst that has ended is still there."""
        log.warning(
            "frames.view_kept",
            port=port,
            reason="a view of a frame outlived its burst; copy with bytes(frame.octets)",
        )

    def add_blast(self, port: int, templates: Sequence[bytes], vary: Sequence[Vary]) -> NativeBlast:
        """Return what a Blaster works with."""
        blast = NativeBlast(self, port, templates, vary)
        self._blasts[blast.number] = blast
        return blast

    # ---- for blasts

    @property
    def worker(self) -> Any:
        """The native worker. Raises RuntimeError when it has left its slot."""
        return self._worker

    def forget_blast(self, number: int) -> None:
        """It is gone."""
        self._blasts.pop(number, None)

    def new_future(self) -> asyncio.Future[None]:
        """Of the worker's loop."""
        return self._loop.create_future()

    @property
    def _worker(self) -> Any:
        if self._closed:
            raise RuntimeError("this worker has left its slot: there are no frames any more")
        return self._fastpath.pointer

    def _waiting(self, port: int) -> int:
        return int(lib.halo_worker_raw_waiting(self._worker, port))


class NativeBlast:
    """A `halo_mp.app.blaster.Blast`."""

    def __init__(self, raw: RawFrames, port: int, templates: Sequence[bytes], vary: Sequence[Vary]) -> None:
        """Raises ValueError for what C refuses."""
        self._raw = raw
        self._future: asyncio.Future[None] | None = None
        self._counters = ffi.new("struct halo_blast_counters *")
        self._removed = False
        self._final = Sent(0, 0, 0)
        self.number = _add(raw.worker, port, templates, vary)

    def send(self, count: int) -> int:
        """Send now; return how many there were buffers for."""
        return _check(lib.halo_worker_blast_send(self._worker, self.number, count))

    def start(self, pace: Pace) -> asyncio.Future[None]:
        """Send at that pace; the future is done when `count` have gone."""
        self._cancel()
        native = ffi.new("struct halo_blast_pace *")
        native.frames_per_s, native.bits_per_s = pace.frames_per_s, pace.bits_per_s
        native.catch_up_ns, native.count = pace.catch_up_ns, pace.count
        _check(lib.halo_worker_blast_start(self._worker, self.number, native))
        self._future = self._raw.new_future()
        return self._future

    def stop(self) -> None:
        """Send no more."""
        if not self._removed:
            lib.halo_worker_blast_stop(self._worker, self.number)
        self._cancel()

    def look(self) -> None:
        """Wake up who waits, when it has come to its end."""
        if self._future is not None and not self._is_running:
            _wake(self._future)
            self._future = None

    def read(self) -> Sent:
        """What it has sent."""
        if self._removed:
            return self._final
        counters = self._read()
        return Sent(counters.frames, counters.octets, counters.starved)

    def remove(self) -> None:
        """Free it."""
        if self._removed:
            return
        self._final = self.read()
        self._cancel()
        lib.halo_worker_blast_remove(self._worker, self.number)
        self._raw.forget_blast(self.number)
        self._removed = True

    @property
    def _is_running(self) -> bool:
        return bool(self._read().running)

    def _read(self) -> Any:
        _check(lib.halo_worker_blast_read(self._worker, self.number, self._counters))
        return self._counters

    @property
    def _worker(self) -> Any:
        if self._removed:
            raise RuntimeError("this blaster is closed")
        return self._raw.worker

    def _cancel(self) -> None:
        if self._future is not None:
            self._future.cancel()
            self._future = None


def _add(worker: Any, port: int, templates: Sequence[bytes], vary: Sequence[Vary]) -> int:
    setup = ffi.new("struct halo_blast_setup *")
    octets = ffi.from_buffer("uint8_t[]", b"".join(templates))
    lengths = ffi.new("uint32_t[]", [len(each) for each in templates])
    fields = ffi.new("struct halo_blast_field[]", max(1, len(vary)))
    for field, each in zip(fields, vary, strict=False):
        field.offset, field.octets, field.first = each.offset, each.octets, each.first
        field.step, field.count, field.random = each.step, each.count, each.random
    setup.port, setup.template_count, setup.octets, setup.lengths = port, len(templates), octets, lengths
    setup.fields, setup.field_count = fields, len(vary)
    result = lib.halo_worker_blast_add(worker, setup)
    if result == -errno.EMSGSIZE:
        raise ValueError(
            f"a template of {max(map(len, templates))} octets is longer than a buffer; see --mtu"
        )
    if result == -errno.EINVAL:
        raise ValueError("a field lies across two headers, or across another field")
    if result == -errno.ENOSPC:
        raise RuntimeError(
            f"a worker has {lib.HALO_MAX_BLASTS} blasters at most; close() those that you need no more"
        )
    return _check(result)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _check(result: int) -> int:
    if result < 0:
        raise OSError(-result, f"raw frames: {os.strerror(-result)}")
    return result
