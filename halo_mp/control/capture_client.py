# SPDX-License-Identifier: Apache-2.0
"""Clients that can capture: descriptors of rings ride on the answer, which asyncio's streams do not let through.

with CaptureClient("default") as client:
    with Session(client, client.capture(points=["drop"])) as session:
        for batch in session.batches(enough):
            ...

async with AsyncCaptureClient("default") as client:
    with Session(client, await client.capture(points=["drop"])) as session:
        async for batch in session.follow():
            ...
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from halo_mp.control import calls
from halo_mp.control.client import AsyncClient, Client, ControlError
from halo_mp.control.frame import MAX_FDS, MAX_FRAME_OCTETS
from halo_mp.control.public import CaptureInfo


class CaptureClient(Client):
    """`Client`, and captures, which last as long as the connection."""

    _fds: tuple[int, ...] = ()

    def close(self) -> None:
        """Close the connection. May be called twice."""
        super().close()
        for fd in self._take_fds():
            os.close(fd)

    def capture(
        self,
        *,
        steps: bytes = b"",
        points: Sequence[str] = ("rx", "tx", "drop"),
        ports: Sequence[int] = (),
        snap: int | None = None,
        octets: int | None = None,
        trace: bool = False,
    ) -> CaptureInfo:
        """Have workers copy frames that a filter lets through into rings. Raises ControlError.

        `steps` is the filter as `halo_mp.capture.filter` compiles it, none for everything; `ports` are those to look
        at, none for all; `snap` octets of each frame are kept, and each worker's ring has room for `octets`. A trace
        needs no points, and has each packet once, with what happened to it. The rings are read by
        `halo_mp.shm.capture_ring.RingReader`, to which their descriptors go. When some workers refuse, the others
        copy, and `refused` of what is returned says which and why; when all do, it is a RefusedError.
        """
        reply = self.run(calls.capture(steps, points, ports, snap, octets, trace=trace))
        return calls.capture_info(reply, self._take_fds())

    def refused(self, number: int) -> dict[int, str]:
        """Return by slot why workers copy nothing for a capture, as it is now. Raises ControlError."""
        return self.run(calls.capture_refused(number))

    @property
    def is_open(self) -> bool:
        """Whether the instance is still there, as far as can be told without asking."""
        if self._socket.fileno() < 0:
            return False
        looking = select.poll()
        looking.register(
            self._socket, 0
        )  # for the end alone: notices, and a goodbye, may wait to be read before it
        return not looking.poll(0)

    def _take_fds(self) -> tuple[int, ...]:
        found, self._fds = self._fds, ()
        return found

    def _read(self, count: int) -> None:
        while len(self._unread) < count:
            more, fds, _, _ = socket.recv_fds(
                self._socket, MAX_FRAME_OCTETS, MAX_FDS, socket.MSG_CMSG_CLOEXEC
            )
            self._fds += tuple(fds)
            if not more:
                raise calls.closed(self._path)
            self._unread += more


class AsyncCaptureClient(AsyncClient):
    """`AsyncClient`, and captures, which last as long as the connection. Each has another connection to itself."""

    _captures: tuple[CaptureClient, ...] = ()

    async def close(self) -> None:
        """See `CaptureClient`."""
        found, self._captures = self._captures, ()
        for client in found:
            client.close()
        await super().close()

    async def capture(
        self,
        *,
        steps: bytes = b"",
        points: Sequence[str] = ("rx", "tx", "drop"),
        ports: Sequence[int] = (),
        snap: int | None = None,
        octets: int | None = None,
        trace: bool = False,
    ) -> CaptureInfo:
        """See `CaptureClient`. Other calls may be made meanwhile; cancelled, it has not begun."""
        begin = partial(
            self._begin, steps=steps, points=points, ports=ports, snap=snap, octets=octets, trace=trace
        )
        thread = ThreadPoolExecutor(1, thread_name_prefix="capture")
        beginning = thread.submit(begin)
        thread.shutdown(wait=False)
        try:
            client, info = await asyncio.wrap_future(beginning)
        except asyncio.CancelledError:
            beginning.add_done_callback(_undo)  # by the thread, should the loop have ended by then
            raise
        self._captures += (client,)
        return info

    async def refused(self, number: int) -> dict[int, str]:
        """See `CaptureClient`."""
        return await self.run(calls.capture_refused(number))

    @property
    def is_open(self) -> bool:
        """See `CaptureClient`."""
        return bool(self._captures) and all(client.is_open for client in self._captures)

    def _begin(self, **wanted: Any) -> tuple[CaptureClient, CaptureInfo]:
        client = CaptureClient(path=self._path, timeout_s=self._timeout_s)
        try:
            return client, client.capture(**wanted)
        except BaseException:
            client.close()
            raise


def _undo(beginning: Future[tuple[CaptureClient, CaptureInfo]]) -> None:
    with suppress(ControlError, CancelledError):
        client, info = beginning.result()
        client.close()
        for fd in info.rings.values():
            os.close(fd)
