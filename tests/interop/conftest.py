# SPDX-License-Identifier: Apache-2.0
"""A TAP port that the tests of a module share: starting one takes a second, and tests count from where they begin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.support import frames
from tests.support.accounts import Tally, buffers, tally, tally_after
from tests.support.instance import Instance
from tests.support.leftovers import leftovers
from tests.support.namespace import Namespace, wait_until
from tests.support.station import Heard, Station

_IN_FLIGHT = 64  # frames sent before the stack's answer is waited for: the queues on both ways are bounded


@dataclass(frozen=True, slots=True)
class Tap:
    """An instance with the default port 0, the kernel's side of it, and a station there."""

    namespace: Namespace
    instance: Instance
    station: Station
    interface: str
    announcements: list[Heard]
    at_start: Tally
    pool: int  # buffers
    ours: str = "10.77.0.1"
    kernel: str = "10.77.0.2"

    @property
    def mac(self) -> bytes:
        """Our stack's MAC address."""
        return self.announcements[0].src

    def pin(self) -> None:
        """Let the kernel know our stack's MAC address for good, so that it asks for it no more."""
        entry = (self.ours, "lladdr", self.mac.hex(":"), "dev", self.interface, "nud", "permanent")
        self.namespace.run("ip", "neigh", "replace", *entry)

    def introduce(self) -> None:
        """Let kernel and stack know each other: neither asks before it sends, so what is due comes at once."""
        self.pin()
        who = frames.arp_packet(1, sender_mac=self.station.mac, sender=self.kernel, target=self.ours)
        self.send(self.frame(who, ethertype=frames.ARP, dst=frames.BROADCAST))

    def tally(self) -> Tally:
        """Return the counters, at rest."""
        return tally(self.instance)

    def since(self, earlier: Tally, frames_in: int = 0) -> Tally:
        """Wait for so many frames, and return what has happened since."""
        return tally_after(self.instance, earlier, frames_in)

    def wait_for_buffers(self) -> None:
        """Wait until every buffer is back; fail when one is lost."""
        wait_until(lambda: buffers(self.instance) == self.pool, what="all buffers back")

    def send(self, *octets: bytes) -> tuple[Tally, list[Heard]]:
        """Send frames to our stack; return what happened to them, and what was heard meanwhile."""
        before = self.tally()
        self.station.heard()
        heard = []
        for first in range(0, len(octets), _IN_FLIGHT):
            for each in octets[first : first + _IN_FLIGHT]:
                self.station.send(each)
            self.since(before, min(first + _IN_FLIGHT, len(octets)))
            heard += self.station.heard()
        return self.since(before), heard

    def frame(
        self,
        payload: bytes,
        *,
        ethertype: int = frames.IPV4,
        dst: bytes | None = None,
        src: bytes | None = None,
        tags: bytes = b"",
    ) -> bytes:
        """Return a frame, by default from the kernel's side to our stack."""
        ends = {"dst": dst or self.mac, "src": src or self.station.mac}
        return frames.frame(**ends, payload=payload, ethertype=ethertype, tags=tags)


def is_announcement(frame: Heard) -> bool:
    """Whether it is somebody's ARP request for its own address."""
    body = frame.octets[14:42]
    return frame.ethertype == frames.ARP and body[6:8] == b"\0\1" and body[14:18] == body[24:28]


def is_arp_reply(frame: Heard) -> bool:
    """Whether it is an ARP reply."""
    return frame.ethertype == frames.ARP and frame.octets[20:22] == b"\0\2"


def arp_request_targets(heard: Sequence[Heard]) -> list[bytes]:
    """Return whom ARP requests ask for, announcements left out."""
    asked = [frame for frame in heard if frame.ethertype == frames.ARP and frame.octets[20:22] == b"\0\1"]
    return [frame.octets[38:42] for frame in asked if not is_announcement(frame)]


@contextmanager
def running_tap(*flags: str) -> Iterator[Tap]:
    """An instance with these flags and the default port, that has said everything it says of its own accord."""
    with Namespace() as namespace:
        namespace.silence()
        with Station(namespace) as everywhere, Instance(namespace, *flags) as instance:
            announcements = everywhere.listen(is_announcement, count=2, what="announcements")
            interface = f"{instance.name}.0"
            with Station(namespace, interface) as station:
                at_start = tally(instance)
                pool = buffers(instance)
                yield Tap(namespace, instance, station, interface, announcements, at_start, pool)
            assert instance.stop() == 0


@pytest.fixture(scope="module")
def tap() -> Iterator[Tap]:
    """A TAP port without flags, for all tests of a module."""
    before = leftovers()
    with running_tap() as running:
        yield running
    wait_until(lambda: not leftovers() - before, timeout_s=2.0, what="the end of everything")
