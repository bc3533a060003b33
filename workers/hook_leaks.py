# SPDX-License-Identifier: Apache-2.0
"""Debug mode (--app-debug): notices what outlives its burst, and makes it refuse.

Every object that a hook gets is made for that call alone, and looked at behind it: who still refers to it has kept a
view of memory that other packets use by then. It is told in the log, by the hook's name; objects and memoryviews refuse
from then on, arrays can not.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any, NoReturn

from halo_mp import logs
from halo_mp.app.fields import VIEWS
from halo_mp.app.packet import Packet
from halo_mp.app.registry import HookSpec
from halo_mp.shm.layout import ffi, lib
from halo_mp.workers.hook_runners import ERROR, BurstRunner, Failed, PacketRunner

log = logs.get("app")

_TELL_S = 1.0


class _Ended:
    """Stands where a packet's record was."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __getattr__(self, _: str) -> NoReturn:
        name = object.__getattribute__(self, "_name")
        raise RuntimeError(f"this burst has ended: hook {name} kept a view of it; copy what is needed later")

    def __setattr__(self, field: str, _: object) -> None:
        self.__getattr__(field)

    def __getitem__(self, _: object) -> NoReturn:
        self.__getattr__("")


class _Teller:
    """Says which hook keeps what, once a second at most."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._quiet_until = 0.0
        self._untold = 0

    def tell(self, what: str) -> None:
        """Log it."""
        now = time.monotonic()
        if now < self._quiet_until:
            self._untold += 1
            return
        self._quiet_until = now + _TELL_S
        log.warning("hook.leaked", name=self.name, what=what, suppressed=self._untold)
        self._untold = 0


class LeakyPacketRunner(PacketRunner):
    """Form packet, watched."""

    def __init__(self, spec: HookSpec, pool: Any, failed: Failed) -> None:
        super().__init__(spec, pool, failed)
        self._teller = _Teller(spec.name)
        self._wants_octets = spec.octets

    def __call__(self, packets: Any, count: int) -> int:
        lib.halo_view_open(self._pool, packets, count)
        for index in range(count):
            self._one(packets + index)
        lib.halo_view_close(packets, count)
        return 0

    def _one(self, record: Any) -> None:
        packet = _WatchedPacket(record, self._pool)
        arguments = (packet, packet.octets) if self._wants_octets else (packet,)
        try:
            verdict = self._function(*arguments)
            if verdict is not None:
                record.verdict = verdict
        except BaseException:
            record.verdict = ERROR
            self._failed()
        del arguments
        found = packet.end(self._teller.name)
        if sys.getrefcount(packet) > 2:  # ours, and the argument of this call
            found.append("the packet")
        if found:
            self._teller.tell(", ".join(found))


class _WatchedPacket(Packet):
    """Knows what views were made of it."""

    __slots__ = ("_views",)

    def __init__(self, record: Any, pool: Any) -> None:
        super().__init__(record, pool)
        self._views: list[tuple[Any, memoryview]] = []

    @property
    def octets(self) -> memoryview:
        """The frame."""
        record = self._record
        buffer = ffi.buffer(self._pool + record.offset, record.length)
        view = memoryview(buffer)
        self._views.append((buffer, view))
        return view

    def end(self, name: str) -> list[str]:
        """Refuse from now on, and return what somebody has kept."""
        found = []
        while self._views:
            buffer, view = self._views.pop()
            if sys.getrefcount(view) > 2:
                found.append("packet.octets")
            with contextlib.suppress(BufferError):
                view.release()
            if sys.getrefcount(buffer) > 2:
                found.append("a view of packet.octets")
        ended: Any = _Ended(name)
        for each in VIEWS:
            if sys.getrefcount(getattr(self, each)) > 2:
                found.append(f"packet.{each}")
            setattr(self, each, ended)
        self._record = ended
        return found


class LeakyBurstRunner(BurstRunner):
    """Form burst, watched."""

    def __init__(self, spec: HookSpec, pool: Any, geometry: Any, failed: Failed) -> None:
        super().__init__(spec, pool, geometry, failed)
        self._teller = _Teller(spec.name)

    def __call__(self, packets: Any, count: int) -> int:
        self._places.clear()  # a Burst of its own for each call
        burst = self._burst(packets, count)
        watched = {"a column": burst._records, "burst.pool": burst.pool, "the burst": burst}
        before = {what: sys.getrefcount(each) for what, each in watched.items()}
        errors = super().__call__(packets, count)
        burst._last = None
        for view in VIEWS:
            getattr(burst, view)._last = None
        found = [what for what, each in watched.items() if sys.getrefcount(each) > before[what]]
        self._places.clear()
        self._end(burst)
        if found:
            self._teller.tell(", ".join(found))
        return errors

    def _end(self, burst: Any) -> None:
        ended = _Ended(self._teller.name)
        burst._columns = ended
        for view in VIEWS:
            getattr(burst, view)._columns = ended
        burst._show(None, 0, 0)
