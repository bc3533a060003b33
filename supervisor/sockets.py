# SPDX-License-Identifier: Apache-2.0
"""The sockets of all workers: which there are, who may open another one, and what the tables say of them.

A worker uses a socket at once and says so; here it is checked against those of the others, written into the tables with
whatever else came meanwhile, and answered when it stands there: from then on each worker hands its datagrams over. Of
two workers that open the same place at once the second is refused, but not before the first was asked for an answer:
that it has closed the place may be on its way, and comes before the answer. Sockets end with their worker.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from halo_mp import logs
from halo_mp.control.channel import ChannelError, ProtocolError
from halo_mp.control.frame import Message
from halo_mp.control.messages import field
from halo_mp.shm.sockets import MAX_SOCKETS, Socket, SocketFlag
from halo_mp.shm.tables import TablesWriter
from halo_mp.supervisor.life import Life

RETRY_S: Final = 0.005
"""While some worker still reads the block that is to be written."""

SETTLE_S: Final = 0.5
"""For a worker that has a place to say that it is still there, before another that wants the place is refused."""

log = logs.get("supervisor")

_Key = tuple[int, int]  # slot, number


class Sockets:
    """The union of what workers have said, by slot and number."""

    def __init__(self, tables: TablesWriter, reader_epochs: Callable[[], Iterable[int]]) -> None:
        self._tables = tables
        self._reader_epochs = reader_epochs
        self._open: defaultdict[int, dict[int, Socket]] = defaultdict(dict)
        self._at_port: defaultdict[int, dict[_Key, Socket]] = defaultdict(dict)
        self._count = 0
        self._lives: dict[int, Life] = {}
        self._held: dict[_Key, Socket] = {}  # wanted, and not refused yet
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: list[tuple[Life, list[int]]] = []
        self._timer: asyncio.Handle | None = None
        self._was_full = False
        self._stopped = False

    def __iter__(self) -> Iterator[Socket]:
        return (each for sockets in self._open.values() for each in sockets.values())

    def resume(self, found: Iterable[Socket]) -> None:
        """Go on from what stands in the tables, until the workers say again what they have."""
        for i, each in enumerate(found):
            self._add(each.slot, -1 - i, each)

    def receive(self, slot: int, life: Life, message: Message) -> None:
        """Act on `sockets.open` or `sockets.close` of a worker. Raises ProtocolError."""
        self._lives[slot] = life
        if message["type"] == "sockets.close":
            for number in field(message, "numbers", list):
                if not isinstance(number, int):
                    raise ProtocolError(f"sent {number!r:.80} as the number of a socket")
                self._remove(slot, number)
            self._write_soon()
            return
        if message.get("first"):
            self._forget(slot)
        accepted = []
        for number, wanted in [_parse(entry, slot) for entry in field(message, "sockets", list)]:
            if self._may_open(slot, wanted):
                self._add(slot, number, wanted)
                accepted.append(number)
            else:
                self._hold(slot, life, number, wanted)
        self._accept(life, accepted)

    def drop(self, slot: int) -> None:
        """Forget the sockets of a worker that has ended."""
        self._lives.pop(slot, None)
        if self._forget(slot):
            self._write_soon()

    def stop(self) -> None:
        """Write nothing any more: the tables go."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    # ---- private

    def _add(self, slot: int, number: int, socket: Socket) -> None:
        self._remove(slot, number)
        self._open[slot][number] = self._at_port[socket.port][slot, number] = socket
        self._count += 1

    def _remove(self, slot: int, number: int) -> None:
        self._held.pop((slot, number), None)
        socket = self._open[slot].pop(number, None)
        if socket is None:
            return
        self._count -= 1
        at_port = self._at_port[socket.port]
        del at_port[slot, number]
        if not at_port:
            del self._at_port[socket.port]

    def _forget(self, slot: int) -> bool:
        """Forget all of a worker's; return whether there were any."""
        numbers = [*self._open[slot], *(number for other, number in self._held if other == slot)]
        for number in numbers:
            self._remove(slot, number)
        return bool(numbers)

    def _may_open(self, slot: int, wanted: Socket) -> bool:
        if self._count >= MAX_SOCKETS:
            if not self._was_full:
                log.warning("sockets.full", sockets=MAX_SOCKETS)
            self._was_full = True
            return False
        return not self._rivals(slot, wanted)

    def _rivals(self, slot: int, wanted: Socket) -> set[int]:
        """Return the slots of other workers that have the place."""
        there = self._at_port[wanted.port].values() if wanted.port in self._at_port else ()
        return {each.slot for each in there if each.slot != slot and each.conflicts(wanted)}

    def _accept(self, life: Life, numbers: list[int]) -> None:
        """Say so when it stands in the tables."""
        if numbers:
            self._answers.append((life, numbers))
        self._write_soon()

    def _hold(self, slot: int, life: Life, number: int, wanted: Socket) -> None:
        self._held[slot, number] = wanted
        task = asyncio.get_running_loop().create_task(self._settle(slot, life, number, wanted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle(self, slot: int, life: Life, number: int, wanted: Socket) -> None:
        """Hear what those have to say that have the place, then accept or refuse."""
        for rival in self._rivals(slot, wanted):
            await _hear(self._lives.get(rival))
        if self._held.get((slot, number)) is not wanted:
            return  # closed meanwhile, or the worker has ended
        del self._held[slot, number]
        if self._may_open(slot, wanted):
            self._add(slot, number, wanted)
            self._accept(life, [number])
        else:
            life.tell({"type": "sockets.refused", "numbers": [number]})

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


async def _hear(life: Life | None) -> None:
    """Wait until a worker has answered: whatever it said before was heard then."""
    if life is not None and life.channel is not None:
        with contextlib.suppress(ChannelError, TimeoutError):
            await life.channel.request({"type": "ping"}, timeout_s=SETTLE_S)


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
