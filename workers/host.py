# SPDX-License-Identifier: Apache-2.0
"""Joins the fast path and the Python stack: punts in, frames out, neighbors both ways, timers.

The stack has no clock and no I/O; this is where it gets both. Each punted frame ends here, in one of three ways:
consumed, dropped for a reason, or handed over. What the stack sends is copied into spare buffers.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from halo_mp import logs
from halo_mp.control.messages import chunks
from halo_mp.shm import tables
from halo_mp.shm.layout import lib
from halo_mp.stack.icmp_errors import IcmpErrorSettings
from halo_mp.stack.interface import Key
from halo_mp.stack.neighbor_settings import NeighborSettings
from halo_mp.stack.outputs import (
    Conflict,
    Drop,
    EchoReply,
    Forgotten,
    Hand,
    HandMade,
    IcmpError,
    Learned,
    Loss,
    NeighborUp,
    NeighborUpdate,
    Output,
    Received,
    Transmit,
    Used,
)
from halo_mp.stack.pinger import PingOutcome, PingSettings
from halo_mp.stack.reasons import ETHERTYPE_UNKNOWN, NO_INTERFACE
from halo_mp.stack.router import Router
from halo_mp.wire import ethernet, ipv4
from halo_mp.wire.ipv4 import PROTOCOL_UDP, Ipv4Packet
from halo_mp.wire.octets import WireError
from halo_mp.workers.echo import EchoError, Pings
from halo_mp.workers.fastpath import CONSUMED, DROP_NUMBERS, FastPath, Punt
from halo_mp.workers.mirror import Mirror, interface
from halo_mp.workers.settings import Settings
from halo_mp.workers.udp import UdpSockets

log = logs.get("worker")

Neighbor = tuple[int, int, int, bytes]  # port, VLAN, address, MAC
Place = tuple[int, int, int]  # port, VLAN, address

_TRACEBACKS_PER_S = 1.0
_POINT_TO_POINT = 31  # RFC 3021: from here on a subnet has no broadcast address
_VERDICTS = {
    lib.HALO_VERDICT_TRANSMIT: "transmit",
    lib.HALO_VERDICT_DROP: "drop",
    lib.HALO_VERDICT_PUNT: "punt",
    lib.HALO_VERDICT_HAND: "hand",
    lib.HALO_VERDICT_CONSUME: "consume",
}


class StackHost:
    """Runs a stack on the worker's event loop."""

    def __init__(
        self,
        fastpath: FastPath,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        send: Callable[[dict[str, Any]], None],
    ) -> None:
        """`send` gives a message to the supervisor, without waiting for it."""
        self._fastpath = fastpath
        self._settings = settings
        self._loop = loop
        self._send = send
        self._mirror = Mirror(fastpath, slot=settings.slot)
        self._running: dict[int, tables.Interface] | None = None
        self._addresses: dict[int, Key] = {}
        self._stack: Router | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rng = random.Random()
        self._quiet_until = 0.0
        self._heard_at: float | None = None  # when the burst came whose punts are looked at
        self.udp = UdpSockets(fastpath, loop, settings.slot, settings.slots, self, send)
        self._pings = Pings(settings.slot, loop, self.send_packet, self._listen)
        self._suppressed = 0  # ICMP errors of the stack that the shared counter has
        # What is known of neighbors before there is a stack, and what must outlast changes of interfaces.
        self._known: list[Neighbor] = []
        self._static: dict[Place, bytes] = {}
        self._watched: set[Place] = set()

    # ---- what the supervisor says

    def set_interfaces(self, interfaces: Mapping[int, tables.Interface]) -> None:
        """Let the stack use these interfaces; those that are as before notice nothing."""
        if interfaces == self._running:
            return
        before = {entry.key for entry in (self._running or {}).values()}
        ours_before = self._at_home()
        self._log_news(interfaces)
        self._running = dict(interfaces)
        self._addresses = {
            own: entry.key
            for entry in reversed(list(interfaces.values()))
            for own, _ in reversed(entry.addresses)
        }
        self._mirror.use(interfaces)
        if self._stack is None:
            self._stack = self._make_stack()
        now = self._loop.time()
        wanted = [interface(entry, probe=self._settings.probe) for entry in interfaces.values()]
        self._act(self._stack.set_interfaces(wanted, now, homes=self._mirror.homes))
        new = {entry.key for entry in interfaces.values()} - before
        self.set_static([(*place, mac) for place, mac in self._static.items() if place[:2] in new])
        ours = self._at_home() - ours_before  # new, or another worker's until now
        for place in self._watched:
            if place[:2] in ours:
                self._watch(place, now)
        known, self._known = self._known, []
        self.adopt(known)

    def adopt(self, neighbors: Sequence[Neighbor]) -> None:
        """Take over what other workers have learned; before there is a stack, it is kept for that."""
        if self._stack is None:
            self._known += neighbors
            return
        now = self._loop.time()
        for port, vlan, address, mac in neighbors:
            self._act(self._stack.adopt(port, address, mac, now, vlan=vlan), tell=False)
        self._finish()

    def set_static(self, neighbors: Iterable[Neighbor]) -> None:
        """Neither ask for these neighbors nor forget them from now on."""
        for port, vlan, address, mac in neighbors:
            self._static[port, vlan, address] = mac
            if self._stack is None or self._stack.neighbors(port, vlan) is None:
                continue  # set again when there is the interface
            try:
                outputs = self._stack.set_static(port, address, mac, self._loop.time(), vlan=vlan)
            except ValueError as error:
                log.warning("neighbor.refused", reason=str(error))
                continue
            self._act(outputs, tell=False)
        self._finish()

    def lose(self, places: Iterable[Place]) -> None:
        """The home worker of these neighbors knows them no more: packets to them go there."""
        for port, vlan, address in places:
            if self._stack is not None and port in self._mirror.homes:
                self._act(self._stack.forget(port, address, self._loop.time(), vlan=vlan), tell=False)
        self._finish()

    def forget(self, places: Iterable[Place]) -> None:
        """Know nothing of these neighbors any more, static ones too."""
        for place in places:
            self._static.pop(place, None)
            if self._stack is not None:
                port, vlan, address = place
                now = self._loop.time()
                if port in self._mirror.homes:
                    self._act(self._stack.forget(port, address, now, vlan=vlan), tell=False)
                self._act(self._stack.remove_neighbor(port, address, now, vlan=vlan), tell=False)
        self._finish()

    def touch(self, places: Iterable[Place]) -> None:
        """Other workers have sent to these neighbors of ours."""
        for port, vlan, address in places:
            if self._stack is not None:
                self._act(self._stack.touch(port, address, self._loop.time(), vlan=vlan))
        self._finish()

    def watch(self, places: Iterable[Place]) -> None:
        """Keep these gateways known, and say when they come and go; no others any more."""
        wanted = set(places)
        now = self._loop.time()
        for port, vlan, address in self._watched - wanted:
            if self._stack is not None:
                self._act(self._stack.unwatch(port, address, now, vlan=vlan))
        for place in wanted - self._watched:
            self._watch(place, now)
        self._watched = wanted
        self._finish()

    def announce(self, ports: Sequence[int]) -> None:
        """Announce the addresses of ports once more, after their links were away."""
        for port in ports:
            if self._stack is not None:
                self._act(self._stack.announce(port, self._loop.time()))
        self._finish()

    # ---- what is asked of it

    async def ping(
        self,
        dst: int,
        *,
        count: int = 4,
        interval_s: float = 1.0,
        timeout_s: float = 1.0,
        size: int = 56,
        df: bool = False,
        ttl: int = 64,
        source: int = 0,
    ) -> list[PingOutcome]:
        """Send echo requests, and return what became of each, in their order. Errors on the path are outcomes.

        `size` is of the data; `source` is an address of ours, or 0 for the one that the route suggests. Several pings
        may run at once. Raises EchoError when that can not be; ValueError for settings that make no sense.
        """
        if self._stack is None:
            raise EchoError("the worker has no interfaces yet; try again in a moment.")
        settings = PingSettings(
            dst=dst,
            count=count,
            interval_s=interval_s,
            timeout_s=timeout_s,
            size_octets=size,
            df=df,
            ttl=ttl,
            src=source,
        )
        return await self._pings.run(settings)

    # ---- what the fast path says

    def handle_punts(self) -> None:
        """Run the stack on what the last poll punted, and send what it answers."""
        now = self._loop.time()
        self._heard_at = self._fastpath.burst_s
        for punt in self._fastpath.punts():
            self._handle(punt, now)
        self._heard_at = None
        self._finish()

    def handle_touched(self) -> None:
        """Tell the stack which neighbors the fast path has used."""
        now = self._loop.time()
        for number, address in self._fastpath.touched():
            key = self._mirror.key(number)
            if key is not None and self._stack is not None:
                self._act(self._stack.touch(key[0], address, now, vlan=key[1]))
        self._finish()

    # ---- what others ask

    def neighbors(self) -> list[Neighbor]:
        """Return every neighbor that this worker has learned the MAC of."""
        found: list[Neighbor] = []
        for entry in (self._running or {}).values():
            table = self._stack.neighbors(*entry.key) if self._stack else None
            found += ((*entry.key, each.address, each.mac) for each in table or () if each.mac is not None)
        return [each for each in found if each[:3] not in self._static]

    def watched(self) -> dict[str, list[Place]]:
        """Return which of the gateways that we watch are there and which are not, by the message that says so."""
        found: dict[str, list[Place]] = {"hops.up": [], "hops.down": []}
        for port, vlan, address in self._watched:
            table = self._stack.neighbors(port, vlan) if self._stack else None
            up = None if table is None else table.is_up(address)
            if up is not None:
                found["hops.up" if up else "hops.down"].append((port, vlan, address))
        return found

    def write_debug_log(self) -> None:
        """Write the frames that the last poll kept."""
        frames, missed = self._fastpath.debug_frames()
        for frame in frames:
            log.info(
                "frame",
                port=frame.port,
                length=frame.length,
                verdict=_VERDICTS.get(frame.verdict, "none"),
                reason=frame.reason,
                octets=frame.octets.hex(),
            )
        if missed:
            log.info("frame.missed", count=missed)

    def stop(self) -> None:
        """Forget the timer, end pings and sockets; the stack holds nothing else."""
        self._pings.close()
        self.udp.leave()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- private

    def _make_stack(self) -> Router:
        settings = self._settings
        rate = settings.icmp_rate
        stack = Router(
            rng=self._rng,
            slot=settings.slot,
            lookup=self._mirror.lookup,
            owner_of=self.udp.owner_of,
            settings=NeighborSettings(reachable_s=settings.reachable_time_s),
            errors=IcmpErrorSettings(rate=rate, burst=max(1, rate // 2)) if rate else None,
        )
        stack.set_peers(settings.slots)
        return stack

    def _at_home(self) -> set[Key]:
        """The interfaces whose neighbors this worker keeps."""
        return {
            entry.key for entry in (self._running or {}).values() if entry.home_slot == self._settings.slot
        }

    def _log_news(self, interfaces: Mapping[int, tables.Interface]) -> None:
        before = self._running or {}
        for number, entry in interfaces.items():
            if entry.home_slot == self._settings.slot and entry.addresses and before.get(number) != entry:
                address = ", ".join(f"{ipv4.format_address(own)}/{length}" for own, length in entry.addresses)
                log.info("interface.up", port=entry.port, vlan=entry.vlan, address=address)

    def _watch(self, place: Place, now: float) -> None:
        port, vlan, address = place
        if self._stack is not None and port not in self._mirror.homes:
            self._act(self._stack.watch(port, address, now, vlan=vlan))

    def _handle(self, punt: Punt, now: float) -> None:
        octets = bytes(punt.frame)
        punt.frame.release()
        try:
            outputs = self._run(punt, octets, now)
        except Exception:  # the stack promises not to; if it does, it costs this frame and no more
            self._fastpath.finish(punt.index, DROP_NUMBERS["stack_error"])
            self._report_error(now)
            return
        if self._fastpath.tracing:
            for output in outputs:
                self._fastpath.trace(punt.index, trace_note(output))
        if outputs and isinstance(outputs[0], Hand):
            self._fastpath.hand(punt.index, outputs[0].slot)
            return
        own = next((out for out in outputs if isinstance(out, Drop) and out.octets is octets), None)
        if own is not None:
            outputs.remove(own)
        self._fastpath.finish(punt.index, CONSUMED if own is None else DROP_NUMBERS[own.reason])
        self._act(outputs)

    def _run(self, punt: Punt, octets: bytes, now: float) -> list[Output]:
        if self._stack is None:
            return [_no_interface(punt, octets)]
        if punt.way is None:
            return self._stack.receive(punt.port, octets, now, handed=punt.handed)
        try:
            return self._send_on(self._stack, punt.way, octets, now)
        except WireError as error:  # a hook has made something else of it
            return [Drop(punt.port, error.reason, octets)]

    def _send_on(self, stack: Router, way: tuple[int, int], octets: bytes, now: float) -> list[Output]:
        """A packet that was put in at forward, to a neighbor that is not known, or in fragments; or to ourselves."""
        frame = ethernet.parse(octets)
        if frame.ethertype != ethernet.ETHERTYPE_IPV4:
            raise WireError(ETHERTYPE_UNKNOWN)
        packet = ipv4.parse(frame.payload)
        key, next_hop = self._mirror.key(way[0]), way[1]
        if key is None or not next_hop:
            return stack.send(packet, now)
        sent = dataclasses.replace(packet, ttl=max(1, packet.ttl - 1)).emit()
        return stack.send_ipv4(key[0], sent, next_hop, now, vlan=key[1])

    def _report_error(self, now: float) -> None:
        if now >= self._quiet_until:
            self._quiet_until = now + 1 / _TRACEBACKS_PER_S
            log.exception("stack.error")

    def _act(self, outputs: Sequence[Output], *, tell: bool = True) -> None:
        """Do what the stack says. `tell`: what it found out is news to others."""
        news: dict[str, list[Any]] = defaultdict(list)
        for output in outputs:
            match output:
                case Transmit(port, frame):
                    self._transmit(port, frame)
                case HandMade(slot, port, frame):
                    self._fastpath.hand_frame(slot, port, frame)
                case Drop(_, reason, _):
                    self._fastpath.count_drop(reason)
                case NeighborUpdate():
                    self._mirror.update(output)
                case Learned(port, vlan, address, mac):
                    news["learned"].append((port, vlan, address, mac))
                case Forgotten(port, vlan, address, loss):
                    news["forgotten"].append((port, vlan, address))
                    if loss is Loss.UNREACHABLE and (port, vlan, address) in self._watched:
                        news["hops.down"].append((port, vlan, address))
                case NeighborUp(port, vlan, address):
                    news["hops.up"].append((port, vlan, address))
                case Used(port, vlan, address):
                    news["used"].append((port, vlan, address))
                case Received():
                    self.udp.receive(output)
                case IcmpError(about=about) if about.protocol == PROTOCOL_UDP:
                    self.udp.receive_error(output)
                case EchoReply() | IcmpError():
                    self._pings.receive(output, self._heard_at or self._loop.time())
                case Conflict():
                    _log_conflict(output)
                case _:
                    pass
        if tell:
            for kind, places in news.items():
                for chunk in chunks(places):
                    self._send({"type": kind, "neighbors": [list(place) for place in chunk]})

    def send_packet(self, packet: Ipv4Packet) -> None:
        """Send a packet of ours. To everybody: on the link of its source."""
        now = self._loop.time()
        if self._stack is None:
            return
        if packet.dst != ipv4.LIMITED_BROADCAST:
            self._act(self._stack.send(packet, now))
        elif (key := self._addresses.get(packet.src)) is not None:
            self._act(self._stack.send_ipv4(key[0], packet.emit(), packet.dst, now, vlan=key[1]))
        self._finish()

    def source_for(self, packet: Ipv4Packet) -> int:
        """Return the address that a packet without one would be sent from; 0: it can not be sent."""
        if packet.dst == ipv4.LIMITED_BROADCAST:
            return next(iter(self._addresses), 0)
        return 0 if self._stack is None else self._stack.source_for(packet)

    def is_own(self, address: int) -> bool:
        """Whether an interface has the address."""
        return address in self._addresses

    def is_broadcast(self, address: int) -> bool:
        """Whether it means all stations of a link of ours."""
        return address == ipv4.LIMITED_BROADCAST or any(
            length < _POINT_TO_POINT and address == own | ((1 << (32 - length)) - 1)
            for entry in (self._running or {}).values()
            for own, length in entry.addresses
        )

    def _listen(self, identifier: int, *, listen: bool) -> None:
        if self._stack is None:
            return
        if listen:
            self._stack.listen_to_echo(identifier)
        else:
            self._stack.ignore_echo(identifier)

    def _transmit(self, port: int, frame: bytes) -> None:
        self._fastpath.originate(port, frame)
        if self._settings.debug_log:
            log.info("frame", port=port, length=len(frame), verdict="originate", octets=frame.hex())

    def _finish(self) -> None:
        """Let go out what was sent, count what was not, and wake up when the stack wants to be called."""
        self._count_suppressed()
        self._fastpath.flush()
        self._rearm()

    def _count_suppressed(self) -> None:
        count = self._stack.events["icmp_suppressed"] if self._stack else 0
        if count != self._suppressed:
            self._fastpath.count_suppressed(count - self._suppressed)
            self._suppressed = count

    def _rearm(self) -> None:
        deadline = self._stack.next_deadline() if self._stack else None
        if self._timer is not None:
            if deadline is not None and self._timer.when() == deadline:
                return
            self._timer.cancel()
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._stack is not None:
            self._act(self._stack.poll(self._loop.time()))
        self._finish()


def _log_conflict(conflict: Conflict) -> None:
    log.warning(
        "address.conflict",
        port=conflict.port,
        vlan=conflict.vlan,
        address=ipv4.format_address(conflict.address),
        mac=ethernet.format_mac(conflict.mac),
        abandoned=conflict.abandoned,
    )


def trace_note(output: Output) -> str:
    """Say in a few words what the stack does, for who traces the packet that made it do so."""
    match output:
        case Transmit(port, frame):
            kind = int.from_bytes(frame[12:14], "big")
            return f"sends {len(frame)} octets 0x{kind:04x} by port {port}"
        case Drop(_, reason, _):
            return f"drop {reason}"
        case HandMade(slot, _, frame):
            return f"hands {len(frame)} octets to slot {slot}"
        case _:
            return type(output).__name__


def _no_interface(punt: Punt, octets: bytes) -> Output:
    """What becomes of a frame before there is a stack."""
    return Drop(punt.port, NO_INTERFACE, octets)
