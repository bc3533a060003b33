# SPDX-License-Identifier: Apache-2.0
"""The sockets of all workers: which there are, who may open another one, and what the tables say of them.

A worker uses a socket at once and says so; here it is checked against those of the others, written into the tables with
whatever else came meanwhile, and answered when it stands there: from then on each worker hands its datagrams over. Of
two workers that open the same place at once the second is refused. Sockets end with their worker.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from halo_mp import logs
from halo_mp.control.channel import ProtocolError
from halo_mp.control.frame import Message
from halo_mp.control.messages import field
from halo_mp.shm.sockets import MAX_SOCKETS, Socket, SocketFlag
from halo_mp.shm.tables import TablesWriter
from halo_mp.supervisor.life import Life

RETRY_S: Final = 0.005
"""While some worker still reads the block that is to be written."""

log = logs.get("supervisor")


class Sockets:
    """The union of what workers have said, by slot and number."""

    def __init__(self, tables: TablesWriter, reader_epochs: Callable[[], Iterable[int]]) -> None:
        self._tables = tables
        self._reader_epochs = reader_epochs
        self._open: defaultdict[int, dict[int, Socket]] = defaultdict(dict)
        self._answers: list[tuple[Life, list[int]]] = []
        self._timer: asyncio.Handle | None = None
        self._was_full = False
        self._stopped = False

    def __iter__(self) -> Iterator[Socket]:
        return (each for sockets in self._open.values() for each in sockets.values())

    def resume(self, found: Iterable[Socket]) -> None:
        """Go on from what stands in the tables, until the workers say again what they have."""
        for i, each in enumerate(found):
            self._open[each.slot][-1 - i] = each

    def receive(self, slot: int, life: Life, message: Message) -> None:
        """Act on `sockets.open` or `sockets.close` of a worker. Raises ProtocolError."""
        if message["type"] == "sockets.close":
            for number in field(message, "numbers", list):
                self._open[slot].pop(number, None)
            self._write_soon()
            return
        if message.get("first"):
            self._open[slot].clear()
        accepted, refused = [], []
        for number, wanted in (_parse(entry, slot) for entry in field(message, "sockets", list)):
            if self._has_room_for(slot, wanted):
                self._open[slot][number] = wanted
                accepted.append(number)
            else:
                refused.append(number)
        if refused:
            life.tell({"type": "sockets.refused", "numbers": refused})
        self._answers.append((life, accepted))
        self._write_soon()

    def drop(self, slot: int) -> None:
        """Forget the sockets of a worker that has ended."""
        if self._open.pop(slot, None):
            self._write_soon()

    def stop(self) -> None:
        """Write nothing any more: the tables go."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _has_room_for(self, slot: int, wanted: Socket) -> bool:
        if sum(map(len, self._open.values())) >= MAX_SOCKETS:
            if not self._was_full:
                log.warning("sockets.full", sockets=MAX_SOCKETS)
            self._was_full = True
            return False
        return not any(each.conflicts(wanted) for each in self if each.slot != slot)

    def _write_soon(self) -> None:
        if self._timer is None and not self._stopped:
            self._timer = asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._timer = None
        if not self._tables.can_write(self._reader_epochs()):
            self._timer = asyncio.get_running_loop().call_later(RETRY_S, self._write)
            return
        self._tables.write_sockets(self)
        answers, self._answers = self._answers, []
        for life, numbers in answers:
            life.tell({"type": "sockets.accepted", "numbers": numbers})


def _parse(entry: object, slot: int) -> tuple[int, Socket]:
    match entry:
        case [int(number), int(address), int(port), int(peer), int(peer_port), int(protocol), int(flags)] if (
            0 <= number < 2**32
            and 0 <= address < 2**32
            and 0 < port < 2**16
            and 0 <= peer < 2**32
            and 0 <= peer_port < 2**16
            and 0 < protocol < 256
        ):
            return number, Socket(
                protocol=protocol,
                port=port,
                address=address,
                peer_port=peer_port,
                peer=peer,
                slot=slot,
                flags=SocketFlag(flags & SocketFlag.SHARED),
            )
    raise ProtocolError(f"sent {entry!r:.80} as a socket")
