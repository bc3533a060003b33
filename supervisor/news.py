# SPDX-License-Identifier: Apache-2.0
"""What workers find out about neighbors, told to the others.

A port has one home worker that resolves its neighbors. It says what it has learned, and what it has forgotten; the
others say which of its neighbors they use, so that it keeps them. Gateways that are one of several for a route are
watched by it: when one dies its flows are spread over the others (`halo_mp.supervisor.targets`), until it is back.

Everything here makes things faster, or known sooner. While nobody passes news on, packets for neighbors that a worker
does not know are handed to the home worker.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from halo_mp import logs
from halo_mp.control.frame import Message
from halo_mp.control.messages import Place, chunks, parse_neighbors, parse_places
from halo_mp.shm.tables import Interface
from halo_mp.supervisor.keeper_worker import WorkerKeeper
from halo_mp.supervisor.life import Life
from halo_mp.supervisor.neighbors import NeighborTable
from halo_mp.supervisor.routes import Routes
from halo_mp.wire import ipv4

log = logs.get("supervisor")


class News:
    """Passes on what `workers` say; `interfaces` tells by number what stands in the tables now."""

    def __init__(
        self,
        table: NeighborTable,
        routes: Routes,
        workers: Mapping[int, WorkerKeeper],
        interfaces: Callable[[], Mapping[int, Interface]],
    ) -> None:
        self._table = table
        self._routes = routes
        self._workers = workers
        self._interfaces = interfaces
        self._watched: frozenset[Place] = frozenset()

    def receive(self, source: Life, message: Message) -> None:
        """Act on a message of a worker. Raises ProtocolError."""
        match message["type"]:
            case "learned":
                self._tell("neighbors", self._table.merge(parse_neighbors(message)), but=source)
            case "forgotten":
                places = parse_places(message)
                self._table.remove(places)
                self._tell("forgotten", places, but=source)
            case "used":
                self._tell_homes(parse_places(message))
            case "hops.up":
                self._set_hops(parse_places(message), alive=True)
            case "hops.down":
                self._set_hops(parse_places(message), alive=False)

    def tell_all(self, life: Life) -> int:
        """Tell a worker that starts everything; return how many neighbors that are."""
        known = self._table.all()
        current = (each for each in known if self._table.is_current(each))  # when its turn comes
        life.tell_each({"type": "neighbors", "neighbors": chunk} for chunk in chunks(current))
        self._tell_to_watch(life)
        return len(known)

    def watch_gateways(self) -> None:
        """Have the gateways watched that matter now; cheap when they are the same as before."""
        interfaces = self._interfaces()
        wanted = frozenset(
            (*interfaces[number].key, address)
            for number, address in self._routes.targets.gateways()
            if number in interfaces
        )
        if wanted == self._watched:
            return
        self._watched = wanted
        for worker in self._lives():
            self._tell_to_watch(worker)

    def _tell_to_watch(self, life: Life) -> None:
        rest = list(chunks(sorted(self._watched))) or [[]]
        for left, chunk in zip(range(len(rest) - 1, -1, -1), rest, strict=True):
            life.tell({"type": "watch", "neighbors": chunk, "more": left > 0})

    def _lives(self) -> Iterable[Life]:
        return (worker.life for worker in self._workers.values() if worker.life is not None)

    def _tell(self, kind: str, entries: Iterable[tuple[object, ...]], *, but: Life) -> None:
        found = list(entries)
        for life in self._lives():
            if life is not but:
                for chunk in chunks(found):
                    life.tell({"type": kind, "neighbors": chunk})

    def _tell_homes(self, places: Iterable[Place]) -> None:
        homes = {entry.key: entry.home_slot for entry in self._interfaces().values()}
        by_slot: dict[int, list[Place]] = defaultdict(list)
        for place in places:
            slot = homes.get(place[:2])
            if slot is not None:
                by_slot[slot].append(place)
        for slot, used in by_slot.items():
            worker = self._workers.get(slot)
            if worker is not None and worker.life is not None:
                worker.life.tell({"type": "used", "neighbors": used})

    def _set_hops(self, places: Iterable[Place], *, alive: bool) -> None:
        numbers = {entry.key: number for number, entry in self._interfaces().items()}
        hops = {(numbers[place[:2]], place[2]): place for place in places if place[:2] in numbers}
        for hop in self._routes.targets.set_hops(hops, alive=alive):
            port, vlan, address = hops[hop]
            event = "gateway.up" if alive else "gateway.down"
            say = log.info if alive else log.warning
            say(event, port=port, vlan=vlan, address=ipv4.format_address(address))
