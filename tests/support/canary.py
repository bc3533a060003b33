# SPDX-License-Identifier: Apache-2.0
"""Traffic on two or more ports, each with a secret of its own: nothing of one port may ever leave by another.

Echo requests and ARP requests from packet sockets on the kernel's side of TAPs, so that no neighbor entry of the
kernel's has to be there; a reply says by its secret and its number which request it answers.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Self

from halo_mp.shm.layout import RegionKind
from halo_mp.shm.tables import Interface, read_interfaces
from halo_mp.wire import arp
from tests.support import frames
from tests.support.instance import Instance
from tests.support.namespace import wait_until
from tests.support.station import Heard, Station

INTERVAL_S = 0.002
SECRET_OCTETS = 24
_DATA_AT = 14 + 20 + 8  # Ethernet, IPv4, ICMP


@dataclass(frozen=True, slots=True)
class Leak:
    """Another port's secret, heard where it must not be."""

    port: int
    source: int  # whose secret
    number: int  # of the request; 0: it can not be told
    at: float


class Port:
    """The traffic of one port. Read from any thread, written by the canary's."""

    def __init__(self, instance: Instance, tap: str, interface: Interface, secret: bytes) -> None:
        self.number = interface.port
        self.secret = secret
        self.sent = 0  # echo requests, numbered from 1
        self.answered: Counter[int] = Counter()
        self.answered_at: dict[int, float] = {}
        self.leaks: list[Leak] = []
        self.torn: list[str] = []  # octets that nobody sent
        self._station = Station(instance.namespace, tap)
        self._interface = interface
        address, _ = interface.addresses[0]
        self._address = _dotted(address)
        self._own = _dotted(address ^ 3)  # .2 for .1, as the kernel's side has it

    @property
    def lost(self) -> set[int]:
        """Requests without an answer though a later one had its own."""
        return set(range(1, max(self.answered, default=0) + 1)) - set(self.answered)

    def send(self) -> None:
        """Send an echo request, and ask for the port's MAC, which is its worker's Python's to answer."""
        self.sent += 1
        message = frames.echo_request(self.secret + self.sent.to_bytes(4, "big") + self.secret)
        packet = frames.packet(src=self._own, dst=self._address, payload=message)
        request = frames.arp_packet(
            arp.REQUEST, sender_mac=self._station.mac, sender=self._own, target=self._address
        )
        self._try(frames.frame(dst=self._interface.mac, src=self._station.mac, payload=packet))
        self._try(
            frames.frame(dst=frames.BROADCAST, src=self._station.mac, ethertype=frames.ARP, payload=request)
        )

    def listen(self, others: list[Port]) -> None:
        """Look at everything that the port has emitted."""
        try:
            heard = self._station.heard()
        except OSError:  # the interface is down while there is no driver
            return
        for frame in heard:
            self._look(frame, others)

    def close(self) -> None:
        self._station.close()

    def number_in(self, octets: bytes) -> int:
        """Return the number of the request whose octets these are a part of; 0 when it can not be told."""
        at = octets.index(self.secret)
        behind, before = octets[at + SECRET_OCTETS :][:4], octets[max(0, at - 4) : at]
        numbers = (int.from_bytes(part, "big") for part in (behind, before) if len(part) == 4)
        return next((number for number in numbers if 0 < number <= self.sent), 0)

    def _look(self, frame: Heard, others: list[Port]) -> None:
        octets = frame.octets
        for other in others:
            if other.secret in octets:
                self.leaks.append(Leak(self.number, other.number, other.number_in(octets), frame.at))
        if self.secret not in octets:
            return
        data = octets[_DATA_AT : _DATA_AT + 2 * SECRET_OCTETS + 4]
        number = int.from_bytes(data[SECRET_OCTETS:-SECRET_OCTETS], "big")
        if data != self.secret + data[SECRET_OCTETS:-SECRET_OCTETS] + self.secret or number > self.sent:
            self.torn.append(octets.hex())
        else:
            self.answered[number] += 1
            self.answered_at.setdefault(number, frame.at)

    def _try(self, frame: bytes) -> None:
        try:
            self._station.send(frame)
        except OSError:  # as above
            pass


class Canary:
    """Use as a context manager, within that of an instance on TAPs that is up."""

    def __init__(self, instance: Instance, *ports: int, seed: int = 0) -> None:
        """`ports`: of the instance, each with an address."""
        dice = random.Random(seed)
        with instance.region("tables", RegionKind.TABLES) as region:
            interfaces = {interface.port: interface for interface in read_interfaces(region).values()}
        self.ports = {
            number: Port(
                instance, f"{instance.name}.{number}", interfaces[number], dice.randbytes(SECRET_OCTETS)
            )
            for number in ports
        }
        self._running = threading.Event()
        self._running.set()
        self._paused = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="canary", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._running.set()
        self._thread.join()
        for port in self.ports.values():
            port.close()

    def wait_for_more(self, count: int = 5, *, timeout_s: float = 15.0) -> None:
        """Wait until each port has answered so many more requests."""
        goals = [(port, len(port.answered) + count) for port in self.ports.values()]
        wait_until(
            lambda: all(len(port.answered) >= goal for port, goal in goals),
            timeout_s=timeout_s,
            what=f"{count} more answers: {[(port.number, len(port.answered), goal) for port, goal in goals]}",
        )

    def pause(self) -> None:
        """Send nothing until `resume`; what is under way still arrives."""
        self._paused.clear()
        self._running.clear()
        assert self._paused.wait(10.0)

    def resume(self) -> None:
        """Go on."""
        self._running.set()

    def assert_unharmed(self) -> None:
        """Fail when a port has emitted what it never should have, or has answered a request twice."""
        assert not self.leaks(), self.leaks()[:10]
        for port in self.ports.values():
            assert not port.torn, f"port {port.number} emitted what nobody sent: {port.torn[:3]}"
            twice = [number for number, times in port.answered.items() if times > 1]
            assert not twice, f"port {port.number} answered requests {twice[:10]} twice"

    def leaks(self) -> list[Leak]:
        """Return what was heard of one port's secrets on another."""
        return [leak for port in self.ports.values() for leak in port.leaks]

    def live_leaks(self) -> list[Leak]:
        """Return the leaks of frames that were under way then: answered on their own port later than that.

        A buffer that comes back to the pool keeps its octets. Who writes any descriptors for a slot may have it send
        those of a buffer that it was given rightly: old news, which every worker could read in the pool all the same.
        """
        return [
            leak
            for leak in self.leaks()
            if leak.at < self.ports[leak.source].answered_at.get(leak.number, 0.0)
        ]

    def _run(self) -> None:
        while not self._end.wait(INTERVAL_S):
            if self._running.is_set():
                for port in self.ports.values():
                    port.send()
            else:
                self._paused.set()
            for port in self.ports.values():
                port.listen([other for other in self.ports.values() if other is not port])


def _dotted(address: int) -> str:
    return ".".join(str(octet) for octet in address.to_bytes(4, "big"))
