# SPDX-License-Identifier: Apache-2.0
"""How a session of halo's format begins: both sides as state machines. No I/O, no clock: `now` is in seconds.

Client, one `ClientHandshake` for each session:

    state        event                              done                          next
    connecting   poll, at the time of a retry       SYN; the wait doubles         connecting
    connecting   EST of the server, for our event   take the conv                 connected
    connecting   EST from another address           count                         connecting
    connecting   EST whose conv is in use here      count: our last one's answer  connecting
    connecting   the deadline passes                                              failed
    connected    EST                                count: a repeated SYN's       connected

Server, one `PendingTable` for each endpoint:

    an address is   event                           done                          then it is
    unknown         SYN with the key                EST with a conv of our choice pending
    unknown         SYN with another event          count                         unknown
    pending         SYN                             the same EST                  pending, not for longer
    pending         KCP packet with its conv        the session is accepted       unknown
    pending         KCP packet with another conv    not accepted                  pending
    pending         60 s after the first SYN        count                         unknown
    pending         too many are, of all or of      the oldest of them goes,      unknown
                    its host                        counted

A SYN is a few octets from an address that nobody has proved. What it costs is an entry here, of which there is a
bounded number; no session is made for it, and none that was accepted is touched, whatever comes. One host can fill only
its own share. An accepted address may send a SYN again: its client was started anew on the same port, and gets another
session.

Classic KCP has no handshake: `opens_classic_session` says what a server takes for the beginning of a session.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from halo_mp.kcp.control import CLIENT_CONNECT_KEY, ControlKind, ControlPacket

CONNECT_TIMEOUT_S: Final = 10.0
FIRST_RETRY_S: Final = 0.25
LAST_RETRY_S: Final = 2.0
PENDING_S: Final = 60.0
MOST_PENDING: Final = 4096
MOST_PENDING_OF_HOST: Final = 256

_COMMAND_PUSH: Final = 81
_COMMAND_ASK: Final = 83
_CLASSIC: Final = struct.Struct("<4xBBHIIII")
"""command, fragment, window, ts, sn, una, length"""
_FIRST_WINDOW: Final = 32
"""Segments that nobody has answered: what the reference sends at most before it hears of us."""


class ClientState(Enum):
    """Of a ClientHandshake."""

    CONNECTING = auto()
    CONNECTED = auto()
    FAILED = auto()


class ClientHandshake:
    """A client that wants a session of one server."""

    def __init__(
        self,
        *,
        now: float,
        timeout_s: float = CONNECT_TIMEOUT_S,
        key: int = CLIENT_CONNECT_KEY,
        is_used: Callable[[int], bool] = lambda conv: False,
    ) -> None:
        """`is_used` says whether a conv is that of another session here. Nothing is sent before the first `poll`."""
        self.state = ClientState.CONNECTING
        self.conv: int | None = None
        self.tries = 0
        self.refused = 0
        """EST that were not believed, or came late."""
        self._syn = ControlPacket(ControlKind.SYN, 0, key)
        self._is_used = is_used
        self._wait_s = FIRST_RETRY_S
        self._retry = now
        self._deadline = now + timeout_s

    def poll(self, now: float) -> ControlPacket | None:
        """Return the SYN to be sent now, if one is; after the deadline the state is FAILED."""
        if self.state is not ClientState.CONNECTING:
            return None
        if now >= self._deadline:
            self.state = ClientState.FAILED
            return None
        if now < self._retry:
            return None
        self._retry = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, LAST_RETRY_S)
        self.tries += 1
        return self._syn

    def next_deadline(self) -> float | None:
        """When `poll` wants to be called; None: never again."""
        return min(self._retry, self._deadline) if self.state is ClientState.CONNECTING else None

    def receive(self, packet: ControlPacket, *, from_server: bool) -> bool:
        """Take an EST; True when it has made the session, whose conv is `conv` then."""
        if (
            self.state is not ClientState.CONNECTING
            or not from_server
            or packet.kind is not ControlKind.EST
            or packet.event != self._syn.event
            or self._is_used(packet.conv)
        ):
            self.refused += 1
            return False
        self.state, self.conv = ClientState.CONNECTED, packet.conv
        return True


@dataclass(frozen=True, slots=True)
class _Pending:
    host: Hashable
    answer: ControlPacket
    until: float


@dataclass(slots=True)
class PendingCounters:
    """What became of SYNs. They never go backwards."""

    syns: int = 0
    syns_repeated: int = 0
    syns_refused: int = 0
    """Without the key."""
    accepted: int = 0
    pending_expired: int = 0
    pending_evicted: int = 0


class PendingTable:
    """Who was answered and has not sent anything yet; in the order of its coming."""

    def __init__(
        self,
        choose_conv: Callable[[], int],
        *,
        key: int = CLIENT_CONNECT_KEY,
        most: int = MOST_PENDING,
        most_of_host: int = MOST_PENDING_OF_HOST,
        pending_s: float = PENDING_S,
    ) -> None:
        """`choose_conv` gives a conv that no session here has."""
        self.counters = PendingCounters()
        self._choose_conv = choose_conv
        self._key = key
        self._most = most
        self._most_of_host = most_of_host
        self._pending_s = pending_s
        self._pending: OrderedDict[Hashable, _Pending] = OrderedDict()
        self._of_host: dict[Hashable, OrderedDict[Hashable, None]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def receive(
        self, packet: ControlPacket, peer: Hashable, host: Hashable, now: float
    ) -> ControlPacket | None:
        """Take a SYN from an address; return the EST to be sent there. `host` is the address without its port."""
        self.expire(now)
        if packet.kind is not ControlKind.SYN or packet.event != self._key:
            self.counters.syns_refused += 1
            return None
        self.counters.syns += 1
        if (known := self._pending.get(peer)) is not None:
            self.counters.syns_repeated += 1
            return known.answer
        self._make_room(host)
        answer = ControlPacket(ControlKind.EST, self._choose_conv(), packet.event)
        self._pending[peer] = _Pending(host, answer, now + self._pending_s)
        self._of_host.setdefault(host, OrderedDict())[peer] = None
        return answer

    def is_expected(self, peer: Hashable, conv: int, now: float) -> bool:
        """Whether a KCP packet of that conv from that address would make a session."""
        pending = self._pending.get(peer)
        return pending is not None and pending.answer.conv == conv and now < pending.until

    def has(self, peer: Hashable) -> bool:
        """Whether an address was answered."""
        return peer in self._pending

    def accept(self, peer: Hashable) -> None:
        """It is a session now."""
        self._remove(peer)
        self.counters.accepted += 1

    def expire(self, now: float) -> None:
        """Forget whom nothing was heard of for too long."""
        while self._pending:
            peer, pending = next(iter(self._pending.items()))
            if now < pending.until:
                break
            self._remove(peer)
            self.counters.pending_expired += 1

    def _make_room(self, host: Hashable) -> None:
        own = self._of_host.get(host, ())
        if len(own) >= self._most_of_host:
            self._evict(next(iter(own)))
        if len(self._pending) >= self._most:
            self._evict(next(iter(self._pending)))

    def _evict(self, peer: Hashable) -> None:
        self._remove(peer)
        self.counters.pending_evicted += 1

    def _remove(self, peer: Hashable) -> None:
        pending = self._pending.pop(peer, None)
        if pending is None:
            return
        own = self._of_host[pending.host]
        del own[peer]
        if not own:
            del self._of_host[pending.host]


def opens_classic_session(octets: bytes) -> bool:
    """Whether a datagram may be the first of a classic session: data from its start, by who has received nothing yet.

    What is late of a session that has ended seldom looks so.
    """
    if len(octets) < _CLASSIC.size:
        return False
    command, _, _, _, sn, una, _ = _CLASSIC.unpack_from(octets)
    return bool(una == 0 and (command == _COMMAND_ASK or (command == _COMMAND_PUSH and sn < _FIRST_WINDOW)))
