# SPDX-License-Identifier: Apache-2.0
"""Joins the fast path and the Python stack: punts in, frames out, timers.

The stack has no clock and no I/O; this is where it gets both. Each punted frame ends here, in one of three ways:
consumed, dropped for a reason, or handed over. What the stack sends is copied into spare buffers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence

from halo_mp import logs
from halo_mp.shm import tables
from halo_mp.shm.layout import lib
from halo_mp.stack.interface import Address, Interface
from halo_mp.stack.outputs import Conflict, Drop, Hand, Learned, Output, Transmit
from halo_mp.stack.reasons import NO_INTERFACE
from halo_mp.stack.router import Router
from halo_mp.wire import ethernet, ipv4
from halo_mp.workers.fastpath import CONSUMED, DROP_NUMBERS, FastPath, Punt
from halo_mp.workers.settings import Settings

log = logs.get("worker")

Neighbor = tuple[int, int, int, bytes]  # port, VLAN, address, MAC

_TRACEBACKS_PER_S = 1.0
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
        on_learned: Callable[[list[Neighbor]], None],
    ) -> None:
        """Only the addresses of ports that feed the slot are used, and of those, some are another worker's to claim."""
        self._fastpath = fastpath
        self._ports = settings.ports
        self._shared_ports = settings.shared_ports
        self._debug = settings.debug_log
        self._running: list[Interface] | None = None
        self._known: list[Neighbor] = []
        self._loop = loop
        self._on_learned = on_learned
        self._stack: Router | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rng = random.Random()
        self._quiet_until = 0.0

    def set_interfaces(self, interfaces: Mapping[int, tables.Interface]) -> None:
        """Let the stack use these interfaces; those that are as before notice nothing."""
        wanted = [
            _interface(entry)
            for entry in interfaces.values()
            if entry.addresses and self._is_ours(entry.port)
        ]
        if wanted == self._running:
            return
        if self._stack is None:
            self._stack = Router(
                rng=self._rng, shared_ports=self._shared_ports, forwarding=False, mirrored=False
            )
        for interface in wanted:
            if interface not in (self._running or ()):
                log.info("interface.up", port=interface.port, vlan=interface.vlan, address=str(interface))
        self._running = wanted
        self._act(self._stack.set_interfaces(wanted, self._loop.time()))
        known, self._known = self._known, []
        self.adopt(known)

    def handle_punts(self) -> None:
        """Run the stack on what the last poll punted, and send what it answers."""
        now = self._loop.time()
        for punt in self._fastpath.punts():
            self._handle(punt, now)
        self._fastpath.flush()
        self._rearm()

    def adopt(self, neighbors: Sequence[Neighbor]) -> None:
        """Take over what other workers have learned; before there is a stack, it is kept for that."""
        if self._stack is None:
            self._known += neighbors
            return
        now = self._loop.time()
        for port, vlan, address, mac in neighbors:
            self._act(self._stack.adopt(port, address, mac, now, vlan=vlan), tell=False)
        self._rearm()

    def announce(self, ports: Sequence[int]) -> None:
        """Announce the addresses of ports once more, after their links were away."""
        if self._stack is None:
            return
        for port in ports:
            self._act(self._stack.announce(port, self._loop.time()))
        self._fastpath.flush()
        self._rearm()

    def neighbors(self) -> list[Neighbor]:
        """Return every neighbor that this worker knows the MAC of."""
        found: list[Neighbor] = []
        for interface in self._running or ():
            table = self._stack.neighbors(*interface.key) if self._stack else None
            found += (
                (*interface.key, entry.address, entry.mac) for entry in table or () if entry.mac is not None
            )
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
        """Forget the timer; the stack holds nothing else."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _handle(self, punt: Punt, now: float) -> None:
        octets = bytes(punt.frame)
        punt.frame.release()
        try:
            outputs = (
                self._stack.receive(punt.port, octets, now) if self._stack else [_no_interface(punt, octets)]
            )
        except Exception:  # the stack promises not to; if it does, it costs this frame and no more
            self._fastpath.finish(punt.index, DROP_NUMBERS["stack_error"])
            self._report_error(now)
            return
        if outputs and isinstance(outputs[0], Hand):
            self._fastpath.hand(punt.index, outputs[0].slot)
            return
        own = next((out for out in outputs if isinstance(out, Drop) and out.octets is octets), None)
        if own is not None:
            outputs.remove(own)
        self._fastpath.finish(punt.index, CONSUMED if own is None else DROP_NUMBERS[own.reason])
        self._act(outputs)

    def _is_ours(self, port: int) -> bool:
        return self._ports is None or port in self._ports

    def _report_error(self, now: float) -> None:
        if now >= self._quiet_until:
            self._quiet_until = now + 1 / _TRACEBACKS_PER_S
            log.exception("stack.error")

    def _act(self, outputs: Sequence[Output], *, tell: bool = True) -> None:
        learned: list[Neighbor] = []
        for output in outputs:
            match output:
                case Transmit(port, frame):
                    self._fastpath.originate(port, frame)
                    if self._debug:
                        log.info(
                            "frame", port=port, length=len(frame), verdict="originate", octets=frame.hex()
                        )
                case Drop(_, reason, _):
                    self._fastpath.count_drop(reason)
                case Learned(port, vlan, address, mac):
                    learned.append((port, vlan, address, mac))
                case Conflict(port, vlan, address, mac, abandoned):
                    log.warning(
                        "address.conflict",
                        port=port,
                        vlan=vlan,
                        address=ipv4.format_address(address),
                        mac=ethernet.format_mac(mac),
                        abandoned=abandoned,
                    )
                case _:
                    pass
        if learned and tell:
            self._on_learned(learned)

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
            self._fastpath.flush()
        self._rearm()


def _interface(entry: tables.Interface) -> Interface:
    return Interface(
        port=entry.port,
        vlan=entry.vlan,
        mac=entry.mac,
        mtu=entry.mtu,
        addresses=tuple(Address(address, length) for address, length in entry.addresses),
    )


def _no_interface(punt: Punt, octets: bytes) -> Output:
    """What becomes of a frame before there is a stack."""
    return Drop(punt.port, NO_INTERFACE, octets)
