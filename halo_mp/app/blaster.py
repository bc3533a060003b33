# SPDX-License-Identifier: Apache-2.0
"""Bursts from templates: Python says what and how fast, C copies and paces.

A frame is a copy of a template in which some numbers differ from frame to frame. IPv4, UDP, TCP and ICMP checksums
that are right in the template stay right; one that is wrong stays as it is, and so does a UDP checksum of 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

from halo_mp.shm.layout import lib

CATCH_UP_S: Final = 0.05
"""Time without the processor that is made up for by sending faster; what is missed beyond that stays missed."""
MOST_TEMPLATES: Final = int(lib.HALO_MAX_TEMPLATES)
MOST_FIELDS: Final = int(lib.HALO_MAX_BLAST_FIELDS)
_TYPE_AT: Final = 12
_VLAN: Final = b"\x81\x00"
_TAG_OCTETS: Final = 4
_FIELDS: Final = {
    "eth.dst": (0, 6),
    "eth.src": (6, 6),
    "ipv4.tos": (15, 1),
    "ipv4.id": (18, 2),
    "ipv4.ttl": (22, 1),
    "ipv4.src": (26, 4),
    "ipv4.dst": (30, 4),
    "udp.sport": (34, 2),
    "udp.dport": (36, 2),
    "tcp.sport": (34, 2),
    "tcp.dport": (36, 2),
    "tcp.seq": (38, 4),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vary:
    """A number in the frames that differs: `octets` of them at `offset`, most significant first.

    It takes `count` values, first, first + step ..., in turn or, with `random`, in no order, and then starts anew;
    without a count it goes on until it does not fit, and from 0 then.
    """

    offset: int
    octets: int
    first: int = 0
    step: int = 1
    count: int = 0
    random: bool = False

    @classmethod
    def field(
        cls,
        name: str,
        first: int,
        *,
        count: int = 0,
        step: int = 1,
        random: bool = False,
        tagged: bool = False,
    ) -> Vary:
        """Return a field by its name, of frames without IPv4 options; `tagged`: with one VLAN tag.

        Names are eth.dst, eth.src, ipv4.tos, ipv4.id, ipv4.ttl, ipv4.src, ipv4.dst, udp.sport, udp.dport,
        tcp.sport, tcp.dport, tcp.seq. Raises ValueError for others.
        """
        if name not in _FIELDS:
            raise ValueError(f"{name!r} is none of {', '.join(_FIELDS)}; give offset and octets of others")
        offset, octets = _FIELDS[name]
        shift = _TAG_OCTETS if tagged and offset >= _TYPE_AT else 0
        return cls(offset=offset + shift, octets=octets, first=first, step=step, count=count, random=random)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast; 0 is no limit."""

    frames_per_s: int = 0
    bits_per_s: int = 0
    catch_up_ns: int = int(CATCH_UP_S * 1e9)
    count: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """What a blaster has sent."""

    frames: int
    octets: int
    starved: int
    """How often there was no empty buffer when it was time to send: the port is slower than the pace."""


class Blast(Protocol):
    """A blaster of the packet loop; made by halo_mp.workers."""

    def send(self, count: int) -> int:
        """Send now; return how many there were buffers for."""

    def start(self, pace: Pace) -> asyncio.Future[None]:
        """Send at that pace; the future is done when `count` have gone."""

    def stop(self) -> None:
        """Send no more."""

    def read(self) -> Sent:
        """What it has sent."""

    def remove(self) -> None:
        """Free it."""


class Blaster:
    """Sends copies of templates. Straight out of the port: no hook sees them."""

    def __init__(self, blast: Blast) -> None:
        self._blast = blast

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, count: int) -> int:
        """Send that many now, as fast as it goes; return how many there were empty buffers for.

        There are some 500 of them, and the driver brings more while Python does something else.
        """
        return self._blast.send(count)

    async def run(
        self,
        *,
        pps: float = 0,
        bps: float = 0,
        count: int = 0,
        seconds: float | None = None,
        catch_up_s: float = CATCH_UP_S,
    ) -> int:
        """Send until `count` frames have gone or `seconds` have passed; without either, until it is cancelled.

        At most `pps` frames and `bps` bits a second, of the frames' own octets; 0 is as fast as it goes. After a time
        without the processor, of which `catch_up_s` is made up for, it goes faster for a moment. Everything else in the
        worker goes on meanwhile. Returns how many frames went. Raises ValueError for what makes no sense.
        """
        before = self.sent.frames
        done = self.start(pps=pps, bps=bps, count=count, catch_up_s=catch_up_s)
        try:
            async with asyncio.timeout(seconds):
                await done
        except TimeoutError:
            pass
        finally:
            self.stop()
        return self.sent.frames - before

    def start(
        self, *, pps: float = 0, bps: float = 0, count: int = 0, catch_up_s: float = CATCH_UP_S
    ) -> asyncio.Future[None]:
        """As `run`, and return at once: with a future that is done when `count` frames have gone."""
        for name, value in (("pps", pps), ("bps", bps), ("count", count), ("catch_up_s", catch_up_s)):
            if value < 0 or (0 < value < 1 and name in ("pps", "bps")):
                raise ValueError(f"{name}={value}: there is no such pace")
        if catch_up_s > 1:
            raise ValueError(f"catch_up_s={catch_up_s}: more than a second is no pace any more")
        return self._blast.start(Pace(round(pps), round(bps), round(catch_up_s * 1e9), count))

    def stop(self) -> None:
        """Send no more; may be called twice."""
        self._blast.stop()

    @property
    def sent(self) -> Sent:
        """What it has sent in all."""
        return self._blast.read()

    def close(self) -> None:
        """Stop, and be of no more use. A worker has 16 blasters at most. May be called twice."""
        self._blast.remove()


def check_templates(templates: Sequence[bytes], vary: Sequence[Vary]) -> None:
    """Raise ValueError with a sentence for what C would refuse by a number."""
    if not 1 <= len(templates) <= MOST_TEMPLATES:
        raise ValueError(f"{len(templates)} templates: a blaster has 1 to {MOST_TEMPLATES}")
    if len(vary) > MOST_FIELDS:
        raise ValueError(f"{len(vary)} fields: a blaster varies {MOST_FIELDS} at most")
    shortest = min(map(len, templates))
    if shortest < lib.HALO_MIN_FRAME_OCTETS:
        raise ValueError(f"a template of {shortest} octets is no Ethernet frame, which has 14 at least")
    for each in vary:
        _check_field(each, shortest)


def _check_field(field: Vary, shortest: int) -> None:
    if not 1 <= field.octets <= 8 or (field.octets == 8 and field.offset % 2):
        raise ValueError(f"{field}: a field has 1 to 8 octets, and one of 8 an even offset")
    if not 0 <= field.offset <= shortest - field.octets:
        raise ValueError(f"{field}: it ends behind the shortest template, which has {shortest} octets")
    if field.random and not field.count:
        raise ValueError(f"{field}: random values want a count")
    limit = 1 << 8 * field.octets
    if not (0 <= field.first < limit and field.count >= 0 and 0 <= field.step < limit):
        raise ValueError(f"{field}: first, step and count are positive, and fit into {field.octets} octets")
