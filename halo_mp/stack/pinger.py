# SPDX-License-Identifier: Apache-2.0
"""Asking a host whether it is there: ICMP echo requests at an interval, and what comes back. RFC 792, RFC 1122
section 3.2.2.6.

========= ============================== ================================ =========
request   event                          outcome                          next
========= ============================== ================================ =========
(none)    its time has come              the request, to be sent          WAITING
WAITING   reply                          PingReply with the time it took  ANSWERED
WAITING   error about it                 PingFailure                      LOST
WAITING   ``timeout_s``                  PingTimeout                      LOST
ANSWERED  reply again                    PingReply, ``duplicate``         ANSWERED
LOST      reply after all                PingReply, ``late``              ANSWERED
========= ============================== ================================ =========

Requests are numbered from 0; on the wire their numbers are modulo 65536, and a reply is for the last request with
its number. A reply from somebody else than who was asked is nobody's, unless a group was asked; so is one
whose data is not ours (RFC 1122: the same data has to come back), which is counted.

Bounded: as many requests are remembered as are on their way within ``timeout_s``, and `REMEMBERED` of those that
have ended.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from halo_mp.stack.outputs import EchoReply, IcmpError
from halo_mp.wire import icmpv4, ipv4
from halo_mp.wire.icmpv4 import Icmpv4Message
from halo_mp.wire.ipv4 import PROTOCOL_ICMP, Ipv4Packet

REMEMBERED: Final = 1024
MAX_DATA_OCTETS: Final = ipv4.MAX_PACKET_OCTETS - ipv4.HEADER_OCTETS - icmpv4.HEADER_OCTETS

_PATTERN: Final = bytes(range(256))


@dataclass(frozen=True, slots=True, kw_only=True)
class PingSettings:
    """``count`` None means for ever; ``size_octets`` is of the data; ``src`` 0 lets the router choose."""

    dst: int
    count: int | None = 4
    interval_s: float = 1.0
    timeout_s: float = 1.0
    size_octets: int = 56
    df: bool = False
    ttl: int = 64
    tos: int = 0
    src: int = 0

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ValueError(f"count is {self.count}, not at least 1")
        for name in ("interval_s", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, not above 0")
        if not 0 <= self.size_octets <= MAX_DATA_OCTETS:
            raise ValueError(f"size_octets is {self.size_octets}, not within 0 to {MAX_DATA_OCTETS}")
        if not 1 <= self.ttl <= 255:
            raise ValueError(f"ttl is {self.ttl}, not within 1 to 255")


@dataclass(frozen=True, slots=True)
class PingReply:
    """``number`` was answered by ``src`` after ``rtt_s``."""

    number: int
    src: int
    rtt_s: float
    ttl: int
    duplicate: bool = False
    late: bool = False


@dataclass(frozen=True, slots=True)
class PingFailure:
    """``number`` did not get there, says the error's source (0: our own router), after ``rtt_s``."""

    number: int
    error: IcmpError
    rtt_s: float


@dataclass(frozen=True, slots=True)
class PingTimeout:
    """Nothing was heard of ``number`` in time."""

    number: int


PingOutcome = PingReply | PingFailure | PingTimeout


@dataclass(slots=True)
class _Request:
    number: int
    sent_at: float
    answered: bool = False


class Pinger:
    """The state machine above. The host sends what `poll` returns, and passes on what the router says."""

    def __init__(self, settings: PingSettings, identifier: int) -> None:
        self.identifier = identifier
        self.sent = 0
        self.foreign = 0  # replies with other data, or from somebody else
        self.outcomes: deque[PingOutcome] = deque()  # for the host to take
        self._settings = settings
        self._data = (_PATTERN * (settings.size_octets // 256 + 1))[: settings.size_octets]
        self._next_at: float | None = None
        self._waiting: OrderedDict[int, _Request] = OrderedDict()  # by sequence number, the oldest first
        self._ended: OrderedDict[int, _Request] = OrderedDict()

    def __len__(self) -> int:
        """Requests that are remembered: waited for, or ended of late."""
        return len(self._waiting) + len(self._ended)

    @property
    def is_finished(self) -> bool:
        """Whether all requests were sent and have ended."""
        return self._is_all_sent and not self._waiting

    @property
    def _is_all_sent(self) -> bool:
        return self._settings.count is not None and self.sent >= self._settings.count

    def poll(self, now: float) -> list[Ipv4Packet]:
        """End what waited too long, and return what is to be sent now: at most one request.

        After a pause of the host, requests go on from now: they are not sent all at once.
        """
        while self._waiting and now >= self._oldest.sent_at + self._settings.timeout_s:
            request = self._end(next(iter(self._waiting)))
            self.outcomes.append(PingTimeout(request.number))
        if self._is_all_sent or (self._next_at is not None and now < self._next_at):
            return []
        due = now if self._next_at is None else self._next_at
        following = due + self._settings.interval_s
        self._next_at = following if following > now else now + self._settings.interval_s
        return [self._request(now)]

    def next_deadline(self) -> float | None:
        """When to call `poll` next; 0 before the first time, None when finished."""
        deadlines = [] if self._is_all_sent else [self._next_at or 0.0]
        if self._waiting:
            deadlines.append(self._oldest.sent_at + self._settings.timeout_s)
        return min(deadlines, default=None)

    def receive(self, reply: EchoReply, now: float) -> None:
        """A reply with our identifier."""
        dst = self._settings.dst
        is_group = ipv4.is_multicast(dst) or dst == ipv4.LIMITED_BROADCAST
        if reply.payload != self._data or (reply.src != dst and not is_group):
            self.foreign += 1
            return
        sequence = reply.sequence
        request = self._waiting.get(sequence) or self._ended.get(sequence)
        if request is None:
            self.foreign += 1
            return
        late = sequence not in self._waiting and not request.answered
        outcome = PingReply(
            request.number, reply.src, now - request.sent_at, reply.ttl, duplicate=request.answered, late=late
        )
        request.answered = True
        if sequence in self._waiting:
            self._end(sequence)
        self.outcomes.append(outcome)

    def fail(self, error: IcmpError, now: float) -> None:
        """An error about one of our requests. What it quotes is compared: anybody may send errors."""
        quote = error.about
        if quote.dst != self._settings.dst or quote.protocol != PROTOCOL_ICMP:
            return
        if int.from_bytes(quote.payload[4:6], "big") != self.identifier:
            return
        sequence = int.from_bytes(quote.payload[6:8], "big")
        if sequence in self._waiting:
            request = self._end(sequence)
            self.outcomes.append(PingFailure(request.number, error, now - request.sent_at))

    @property
    def _oldest(self) -> _Request:
        return next(iter(self._waiting.values()))

    def _request(self, now: float) -> Ipv4Packet:
        number, self.sent = self.sent, self.sent + 1
        sequence = number & 0xFFFF
        if sequence in self._waiting:  # 65536 requests within the time-out: the number is the new one's
            self.outcomes.append(PingTimeout(self._end(sequence).number))
        self._ended.pop(sequence, None)
        self._waiting[sequence] = _Request(number, now)
        message = Icmpv4Message(icmpv4.ECHO_REQUEST, 0, self.identifier << 16 | sequence, self._data)
        chosen = self._settings
        return Ipv4Packet(
            src=chosen.src,
            dst=chosen.dst,
            protocol=PROTOCOL_ICMP,
            payload=message.emit(),
            ttl=chosen.ttl,
            tos=chosen.tos,
            flags=ipv4.FLAG_DONT_FRAGMENT if chosen.df else 0,
        )

    def _end(self, sequence: int) -> _Request:
        request = self._waiting.pop(sequence)
        self._ended[sequence] = request
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        return request
