# SPDX-License-Identifier: Apache-2.0
"""The worker that an application runs in, as its callbacks see it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, Protocol

from halo_mp.app.frames import Port
from halo_mp.app.registry import HookSpec, make_hook
from halo_mp.app.verdict import Form, OnError, Stage, StageName
from halo_mp.shm.layout import lib
from halo_mp.wire.ethernet import ETHERTYPE_IPV4, EthernetFrame
from halo_mp.wire.ipv4 import PROTOCOL_UDP, Ipv4Packet, parse_address
from halo_mp.wire.udp import UdpDatagram

_NO_STATION = bytes(6)  # forwarding writes the header of the way that the packet takes


class Backend(Protocol):
    """What the worker process does for its application; made by halo_mp.workers."""

    def add_hook(self, spec: HookSpec) -> int:
        """Add a hook from the next burst on; return its number."""

    def remove_hook(self, number: int) -> None:
        """Remove a hook from the next burst on."""

    def inject(self, stage: Stage, port: int, frame: bytes) -> bool:
        """Put a frame in at a stage; False when it was dropped, which is counted."""

    def open_port(self, number: int) -> Port:
        """Return the port's raw frames."""


class Hooks:
    """The hooks of this worker, to be changed while it runs. What is changed counts from the next burst on."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._numbers: dict[Callable[..., Any], list[int]] = {}

    def add(
        self,
        function: Callable[..., Any],
        stage: StageName,
        *,
        form: Form = "packet",
        jit: bool = False,
        ports: Iterable[int] | None = None,
        interface: str | None = None,
        priority: int = 0,
        name: str | None = None,
        on_error: OnError = "pass",
    ) -> None:
        """Add a hook, as `App.hook` does for every worker. Raises ValueError, TypeError as that does.

        A hook with jit=True is compiled by another process meanwhile, and runs interpreted until that has ended.
        """
        spec = make_hook(
            function, stage, form=form, jit=jit, ports=ports, interface=interface, priority=priority,
            name=name, on_error=on_error,
        )  # fmt: skip
        self._numbers.setdefault(function, []).append(self._backend.add_hook(spec))

    def remove(self, function: Callable[..., Any]) -> None:
        """Remove the hooks that have this function. Raises ValueError when there is none."""
        try:
            numbers = self._numbers.pop(function)
        except KeyError:
            name = getattr(function, "__name__", function)
            raise ValueError(f"there is no hook {name} in this worker; hooks.add() adds one") from None
        for number in numbers:
            self._backend.remove_hook(number)

    def _added(self, spec: HookSpec, number: int) -> None:
        """Know a hook of the application's registry."""
        self._numbers.setdefault(spec.function, []).append(number)


class Worker:
    """One per process. Use it from the event loop's thread only."""

    def __init__(
        self,
        *,
        slot: int,
        ports: Sequence[int],
        loop: asyncio.AbstractEventLoop,
        log: logging.Logger,
        backend: Backend,
    ) -> None:
        """Made by the worker process; applications get it as the argument of their callbacks."""
        self.slot = slot
        """The number of the slot that it serves."""
        self.ports = tuple(ports)
        """The numbers of the ports whose frames it gets."""
        self.context = SimpleNamespace()
        """The application's own, for this worker alone."""
        self.loop = loop
        self.log = log
        """Writes to the instance's log, and never waits for it."""
        self.hooks = Hooks(backend)
        self._backend = backend

    def send_udp(
        self,
        payload: bytes | bytearray | memoryview,
        *,
        src: tuple[str, int],
        dst: tuple[str, int],
        ttl: int = 64,
        tos: int = 0,
    ) -> bool:
        """Send a UDP packet of any flow: built with its checksums, and put in at stage forward, to be routed.

        `src` need not be ours, and forward hooks see the packet. False when there was no room for it, which is
        counted. To speak as oneself, open an endpoint. Raises ValueError for what can not be an address or a port.
        """
        from_address, to_address = parse_address(src[0]), parse_address(dst[0])
        datagram = UdpDatagram(src[1], dst[1], bytes(payload)).emit(src=from_address, dst=to_address)
        packet = Ipv4Packet(
            src=from_address,
            dst=to_address,
            protocol=PROTOCOL_UDP,
            payload=datagram,
            ttl=min(ttl + 1, 255),  # forwarding takes one off
            tos=tos,
        )
        frame = EthernetFrame(_NO_STATION, _NO_STATION, ETHERTYPE_IPV4, packet.emit())
        return self._backend.inject(Stage.FORWARD, self.ports[0], frame.emit())

    def port(self, number: int) -> Port:
        """Return a port, for raw frames and for bursts from templates; always the same object for a number.

        It need not be one of `ports`: frames leave by any port. Raises ValueError for a number that no port has.
        """
        return self._backend.open_port(number)

    def inject(self, stage: StageName | Stage, frame: bytes | bytearray | memoryview, *, port: int) -> bool:
        """Put an Ethernet frame in at a stage, and say whether there was room for it.

        ingress: as if it had come in by `port`. forward: an IPv4 packet, routed as if received by `port`. egress: past
        the egress hooks, then out of `port`. tx: out of `port`, as it is. The frame is copied; it goes with the next
        poll. Raises ValueError for a stage or a port that is none, and for fewer than 14 octets.
        """
        if not isinstance(stage, Stage):
            try:
                stage = Stage[stage.upper()]
            except KeyError:
                raise ValueError(f"stage {stage!r} is none of ingress, forward, egress, tx") from None
        if not 0 <= port < lib.HALO_MAX_PORTS:
            raise ValueError(f"port {port}: ports are 0 to {lib.HALO_MAX_PORTS - 1}")
        if len(frame) < lib.HALO_MIN_FRAME_OCTETS:
            raise ValueError(f"{len(frame)} octets are no Ethernet frame, which has 14 at least")
        return self._backend.inject(stage, port, bytes(frame))
