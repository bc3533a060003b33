# SPDX-License-Identifier: Apache-2.0
"""One session of an endpoint: what its user reads and writes, and how it lives and ends.

    state      event                                done                                 next
    open       `close`                              no more is written                   closing
    open       silent for keep_alive_s              PING, or a probe                     open
    closing    all that was written is delivered    for an interval nothing: ACKs leave  finishing
    closing    close_timeout_s is over              FIN(timeout)                         ended, with an error
    finishing  FIN of the peer                                                           ended
    finishing  the interval is over, or a time-out  FIN with the reason, at most FINS    finishing, at last ended
                                                    (classic: none)
    open,      FIN of the peer                      FIN back; its reason is kept         ended
    closing
    open,      friendly FIN, and something is not   nothing; the peer still acknowledges lingering
    closing    acknowledged
    lingering  that is acknowledged, or LINGER_MS   FIN back                             ended
               are over
    not ended  dead link; nothing heard for         FIN with the reason, once            ended, with an error
               idle_timeout_s; ICMP says refused
    not ended  `abort`                              FIN(transfer_failed), once           ended, with an error
    ended      FIN, whatever                        nothing; the endpoint counts it      ended

A FIN is believed from the session's own peer with its whole conv, in halo's format only: classic KCP has none, its
sessions end by dead link or silence. What came before the end can be read after it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, Protocol

from halo_mp._native import ffi, lib
from halo_mp.kcp import errors
from halo_mp.kcp.control import ControlKind, ControlPacket, EndReason
from halo_mp.kcp.counters import Counters, Info, read_counters, read_info
from halo_mp.kcp.peers import Address
from halo_mp.kcp.settings import Settings

FINS: Final = 6
"""Sent by who closes, ever more slowly, until the peer answers with its own."""
LINGER_MS: Final = 2000
"""So long what is in flight may stay unacknowledged when the peer has closed."""
FIRST_PROBE_MS: Final = 250
LAST_PROBE_MS: Final = 2000
READ_OCTETS: Final = 64 * 1024
_PATIENCE: Final = 1.5
"""A server asks later than its client, which asks anyway."""


class SessionState(Enum):
    """Of a Session."""

    OPEN = auto()
    CLOSING = auto()
    """Closed here, and something is not yet acknowledged."""
    FINISHING = auto()
    """Everything is; the peer is to answer our FIN."""
    LINGERING = auto()
    """Closed by the peer, which acknowledges until we answer, and something of ours is in flight."""
    ENDED = auto()


class SessionUser(Protocol):
    """Who has a session."""

    def data_ready(self) -> None:
        """There is something to read."""

    def room_ready(self) -> None:
        """No more segments wait than `want` said."""

    def ended(self, error: errors.SessionEndedError) -> None:
        """It has ended, once, and why."""


class SessionOwner(Protocol):
    """What an endpoint does for its sessions."""

    group: Any

    @property
    def now_ms(self) -> int: ...

    def buffer(self, octets: int) -> Any:
        """Return room to read into, until the next call."""

    def heard_ms(self, number: int) -> int:
        """Return when a datagram of a session was last taken."""

    def make_due(self) -> None:
        """Let what was written leave soon."""

    def look_at_deadline(self) -> None:
        """The next one may be earlier than it was."""

    def send_control(self, packet: ControlPacket, address: Address) -> None: ...

    def count_probe(self) -> None: ...

    def forget(self, session: Session) -> None:
        """It is no more."""


class Session:
    """Made by an endpoint."""

    __slots__ = (
        "_asked",
        "_close_at_ms",
        "_close_event",
        "_fins",
        "_heard_ms",
        "_most_octets",
        "_owner",
        "_probe_ms",
        "address",
        "conv",
        "error",
        "is_client",
        "kcp",
        "number",
        "settings",
        "state",
        "user",
    )

    def __init__(
        self,
        owner: SessionOwner,
        *,
        number: int,
        kcp: Any,
        conv: int,
        address: Address,
        settings: Settings,
        is_client: bool,
    ) -> None:
        self.state = SessionState.OPEN
        self.number = number
        self.kcp = kcp
        self.conv = conv
        self.address = address
        self.settings = settings
        self.is_client = is_client
        self.user: SessionUser | None = None
        self.error: errors.SessionEndedError | None = None
        """Why it has ended."""
        self._owner = owner
        self._most_octets = settings.message_octets if settings.stream else 1 << 32
        """That the core is given at once; it refuses longer messages itself."""
        self._heard_ms = owner.now_ms
        self._probe_ms = FIRST_PROBE_MS if is_client else 0
        self._asked = 0
        self._fins = 0
        self._close_event = int(EndReason.CLIENT_CLOSE)
        self._close_at_ms = 0

    def start(self) -> None:
        """Live: from now on silence is noticed. A client makes itself known to its server."""
        if self._probe_ms:
            self._send_probe()
        self._set_alarm()

    # ---- reading and writing

    def send(self, octets: Any, length: int) -> None:
        """Write a message, or octets of a stream; they wait in the session until the peer has acknowledged them.

        Raises SessionEndedError when it is closing or has ended, ValueError for a message that is too long, BufferError
        when far too many wait, MemoryError.
        """
        if self.state is not SessionState.OPEN:
            raise self._end_error()
        owner = self._owner
        if length > self._most_octets:
            self._send_pieces(octets, length)
        elif (sent := lib.halo_kcp_group_send(owner.group, self.number, octets, length, owner.now_ms)) < 0:
            raise self._refusal(int(-sent), length)
        owner.make_due()

    def _send_pieces(self, octets: Any, length: int) -> None:
        """Write more of a stream than the core takes at once."""
        start = ffi.from_buffer(octets)
        for at in range(0, length, self._most_octets):
            piece = min(length - at, self._most_octets)
            sent = lib.halo_kcp_group_send(
                self._owner.group, self.number, start + at, piece, self._owner.now_ms
            )
            if sent < 0:
                raise self._refusal(int(-sent), length)

    def _end_error(self) -> Exception:
        if self.state is SessionState.LINGERING:
            return errors.ended_by_peer(self._close_event)
        return self.error or errors.ended_here(self._close_event)

    def _refusal(self, code: int, length: int) -> Exception:
        if code == errno.EMSGSIZE:
            most = self.settings.message_octets
            return ValueError(
                f"a message of {length} octets is too long; at most {most} fit with these settings"
            )
        if code == errno.EPIPE:
            return self.error or errors.ended_here()
        if code == errno.ENOMEM:
            return MemoryError("no memory for a message")
        return BufferError(f"too much waits to be sent: {os.strerror(code)}. Await drain() between writes.")

    def take(self) -> bytes | None:
        """Read the next message, or what there is of a stream, up to READ_OCTETS; None: nothing is there."""
        view = self.take_view()
        return None if view is None else view[:]

    def take_view(self) -> Any:
        """As `take`, but octets that are there until the next call only, for who copies them anyway."""
        room = READ_OCTETS if self.settings.stream else max(self.peek(), 0)
        owner = self._owner
        buffer = owner.buffer(room)
        if self.state is SessionState.ENDED:
            found = int(lib.halo_kcp_receive(self.kcp, buffer, room))
        else:
            found = int(lib.halo_kcp_group_receive(owner.group, self.number, buffer, room, owner.now_ms))
            if found >= 0:
                owner.look_at_deadline()  # the peer may have to hear of the window
        return ffi.buffer(buffer, found) if found >= 0 else None

    def pull(self, room: int) -> bytes | None:
        """As `take`, of a stream, and no more than `room`."""
        owner = self._owner
        buffer = owner.buffer(READ_OCTETS)
        if room > READ_OCTETS:
            room = READ_OCTETS
        if self.state is SessionState.ENDED:
            found = lib.halo_kcp_receive(self.kcp, buffer, room)
        else:
            found = lib.halo_kcp_group_receive(owner.group, self.number, buffer, room, owner.now_ms)
        if found < 0:
            return None
        owner.look_at_deadline()
        octets: bytes = ffi.buffer(buffer, found)[:]
        return octets

    def allow(self, octets: int) -> None:
        """Let so much wait for the user beside the window."""
        segments = -(-octets // self.settings.segment_octets)
        lib.halo_kcp_allow(self.kcp, min(segments, lib.HALO_KCP_MAX_WINDOW))

    def peek(self) -> int:
        """Octets of the next message, or of all of a stream that can be read; negative: there is nothing."""
        return int(lib.halo_kcp_peek(self.kcp))

    @property
    def waiting(self) -> int:
        """Segments that were written and are not yet acknowledged."""
        return int(lib.halo_kcp_waiting(self.kcp))

    def want(self, segments: int) -> None:
        """Call the user's `room_ready` once, soon, when no more than so many segments wait."""
        if self.state is SessionState.OPEN:
            lib.halo_kcp_group_want(self._owner.group, self.number, segments, self._owner.now_ms)
            self._owner.make_due()

    @property
    def counters(self) -> Counters:
        """What it has counted."""
        return read_counters(self.kcp)

    @property
    def info(self) -> Info:
        """How it is now."""
        return read_info(self.kcp)

    # ---- ending

    def close(self, event: int) -> None:
        """Deliver what was written, then end."""
        if self.state is not SessionState.OPEN:
            return
        self.state = SessionState.CLOSING
        self._close_event = event
        owner = self._owner
        self._close_at_ms = owner.now_ms + int(self.settings.close_timeout_s * 1000)
        lib.halo_kcp_group_want(owner.group, self.number, 0, owner.now_ms)
        if self.info.unread >= self.settings.receive_window:
            self._discard()  # nothing comes in while nobody reads, and the peer may be waiting as we are
        self._set_alarm()
        owner.make_due()

    def abort(self, event: int = EndReason.TRANSFER_FAILED) -> None:
        """End now; what was not delivered is lost."""
        self.end(errors.ended_here(event), fin=event)

    def end(self, error: errors.SessionEndedError, *, fin: int | None) -> None:
        """End now, for that reason; `fin`: the event that the peer is told, if any."""
        if self.state is SessionState.ENDED:
            return
        owner = self._owner
        self.state, self.error = SessionState.ENDED, error
        if fin is not None:
            self._send_fin(fin)
        kcp = lib.halo_kcp_group_remove(owner.group, self.number)
        lib.halo_kcp_close(kcp)
        self.kcp = ffi.gc(kcp, lib.halo_kcp_free)
        owner.forget(self)
        if self.user is not None:
            self.user.ended(error)

    # ---- what the endpoint says

    def on_readable(self) -> None:
        if self.state in (SessionState.CLOSING, SessionState.FINISHING):
            self._discard()  # the peer may have to get rid of it before it can hear us out
        elif self.user is not None:
            self.user.data_ready()

    def on_writable(self) -> None:
        if self.state is SessionState.CLOSING:
            if self.waiting == 0:
                self._finish()
        elif self.state is SessionState.LINGERING:
            if self.waiting == 0:
                if self.user is not None:
                    self.user.room_ready()
                self._end_with_peer()
        elif self.state is SessionState.OPEN and self.user is not None:
            self.user.room_ready()

    def on_dead(self) -> None:
        """The core has ended the session."""
        if self.info.end == lib.HALO_KCP_DEAD_LINK:
            self.end(errors.dead_link(self.settings.dead_link), fin=EndReason.TIMEOUT)

    def on_fin(self, event: int) -> None:
        """The peer has ended it; when it closes, what it has of ours may only not be acknowledged yet."""
        if self.state is SessionState.FINISHING:
            self.end(errors.ended_here(self._close_event), fin=None)
        elif event not in errors.GRACEFUL or not self.waiting:
            self.end(errors.ended_by_peer(event), fin=event)
        elif self.state is not SessionState.LINGERING:
            self.state = SessionState.LINGERING
            self._close_event = event
            lib.halo_kcp_group_want(self._owner.group, self.number, 0, self._owner.now_ms)
            self._alarm(LINGER_MS)

    def on_heard(self) -> None:
        """A control packet of the peer has come."""
        self._heard_ms = self._owner.now_ms
        self._asked = 0

    def on_alarm(self) -> None:
        """It is time to look."""
        match self.state:
            case SessionState.FINISHING:
                self._finish_again()
                return
            case SessionState.LINGERING:
                self._end_with_peer()
                return
            case SessionState.CLOSING if _difference(self._owner.now_ms, self._close_at_ms) >= 0:
                error = errors.close_timeout(self.settings.close_timeout_s, self.waiting)
                self.end(error, fin=EndReason.TIMEOUT)
                return
        silent_ms = self._silent_ms()
        idle_ms = int(self.settings.idle_timeout_s * 1000)
        if idle_ms and silent_ms >= idle_ms:
            self.end(errors.idle_timeout(self.settings.idle_timeout_s), fin=EndReason.PING_TIMEOUT)
            return
        if self._probe_ms:
            self._introduce_again()
        elif self._ask_ms and silent_ms >= self._ask_ms:
            self._ask()
        self._set_alarm()

    # ---- private

    def _discard(self) -> None:
        while self.take() is not None:
            pass

    def _finish(self) -> None:
        self.state = SessionState.FINISHING
        self._alarm(
            self.settings.interval_ms
        )  # first the peer gets our acknowledgements: it may be closing, too

    def _finish_again(self) -> None:
        if self._fins >= FINS or self.settings.format != "halo":
            self.end(errors.ended_here(self._close_event), fin=None)
            return
        self._send_fin(self._close_event)
        self._alarm(min(int(max(self.info.rto_ms, 30) * 1.5 ** (self._fins - 1)), 1000))

    def _end_with_peer(self) -> None:
        self.end(errors.ended_by_peer(self._close_event), fin=self._close_event)

    def _send_fin(self, event: int) -> None:
        if self.settings.format == "halo":
            self._fins += 1
            self._owner.send_control(ControlPacket(ControlKind.FIN, self.conv, event), self.address)

    def _silent_ms(self) -> int:
        """For how long nothing was heard of the peer."""
        now_ms = self._owner.now_ms
        heard_ms = self._owner.heard_ms(self.number)
        return max(0, min(_difference(now_ms, heard_ms), _difference(now_ms, self._heard_ms)))

    def _introduce_again(self) -> None:
        """A client's first packet may have been lost, or the server's answer."""
        if self.counters.in_packets:
            self._probe_ms = 0
            return
        self._probe_ms = min(2 * self._probe_ms, LAST_PROBE_MS)
        self._send_probe()

    @property
    def _ask_ms(self) -> int:
        """After so long a silence the peer is asked whether it lives; 0: never."""
        patience = 1.0 if self.is_client else _PATIENCE
        return int(self.settings.keep_alive_s * patience * 1000)

    def _ask(self) -> None:
        """A client of halo's format sends a PING, which halo's servers answer; others a probe, as all KCP does."""
        self._asked += 1
        if self.is_client and self.settings.format == "halo" and self._asked % 2:
            self._owner.send_control(
                ControlPacket(ControlKind.PING, self.conv, self._owner.now_ms & 0xFFFFFFFF), self.address
            )
        else:
            self._send_probe()

    def _send_probe(self) -> None:
        """Ask for the peer's window, as all KCP answers at once; for a server it is a client's first packet, too."""
        owner = self._owner
        owner.count_probe()
        lib.halo_kcp_group_probe(owner.group, self.number, owner.now_ms)
        owner.make_due()

    def _set_alarm(self) -> None:
        """Be called when the next thing may have to be done; not for everything that is heard meanwhile."""
        waits = []
        silent_ms = self._silent_ms()
        idle_ms, ask_ms = int(self.settings.idle_timeout_s * 1000), self._ask_ms
        if idle_ms:
            waits.append(idle_ms - silent_ms)
        if self._probe_ms:
            waits.append(self._probe_ms)
        elif ask_ms:
            again_ms = max(1000, (idle_ms - ask_ms) // 4) if idle_ms > ask_ms else ask_ms
            waits.append(ask_ms - silent_ms if silent_ms < ask_ms else again_ms)
        if self.state is SessionState.CLOSING:
            waits.append(_difference(self._close_at_ms, self._owner.now_ms))
        self._alarm(max(1, min(waits)) if waits else lib.HALO_KCP_NO_DEADLINE)

    def _alarm(self, in_ms: int) -> None:
        owner = self._owner
        lib.halo_kcp_group_alarm(owner.group, self.number, in_ms, owner.now_ms)
        owner.make_due()


def _difference(later_ms: int, earlier_ms: int) -> int:
    """Of two times that may have wrapped."""
    difference = (later_ms - earlier_ms) & 0xFFFFFFFF
    return difference - (1 << 32) if difference & 1 << 31 else difference


UserFactory = Callable[[Session], SessionUser]
