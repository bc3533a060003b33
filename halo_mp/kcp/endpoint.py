# SPDX-License-Identifier: Apache-2.0
"""One datagram socket with many sessions: what comes goes to the session that it is for, what is due goes out.

One timer for all sessions, that of the group's wheel (native/kcp/group.c). A turn is: datagrams in, what they mean for
sessions and their users, datagrams out; what users write meanwhile leaves at its end. Users are called in a turn and
may do what they like, end sessions and the endpoint too; an exception of theirs costs their session.

Nothing that comes from the network makes more here than: a session, of which there are at most `most_sessions`, each
from an address that has answered (halo's format) or an application that asked for it (classic); an entry in the bounded
table of pending handshakes; an entry among those of `EndedSessions`.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections.abc import Callable
from typing import Any, Final

from halo_mp._native import ffi, lib
from halo_mp.kcp import control, errors
from halo_mp.kcp.carriers import Carrier
from halo_mp.kcp.control import ControlKind, ControlPacket
from halo_mp.kcp.counters import Counters, EndpointCounters, read_group_counters
from halo_mp.kcp.dialer import Dialer
from halo_mp.kcp.ended import EndedSessions
from halo_mp.kcp.handshake import PendingTable, opens_classic_session
from halo_mp.kcp.peers import PEER, Address, Peers, is_same, unpack
from halo_mp.kcp.session import READ_OCTETS, Session, SessionState
from halo_mp.kcp.settings import FORMATS, Settings
from halo_mp.wire.octets import WireError

MOST_SESSIONS: Final = 16384
OUTPUT_DATAGRAMS: Final = 256
"""Polled at a time."""
POLLS: Final = 16
"""In one turn; then others have theirs."""
_NO_DEADLINE: Final = int(lib.HALO_KCP_NO_DEADLINE)
_EVENT: Final = struct.Struct("=IIIi")
"""`struct halo_kcp_event`"""

assert _EVENT.size == ffi.sizeof("struct halo_kcp_event")
assert PEER.size == ffi.sizeof("struct halo_kcp_peer")

Acceptor = Callable[[Session], bool]
"""Gives a new session its user; False: there is no room for another one."""


class Endpoint:
    """Made by `halo_mp.kcp.streams`, for a carrier that is open. A client's when there is no acceptor."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        carrier: Carrier,
        settings: Settings,
        *,
        accept: Acceptor | None = None,
        most_sessions: int = MOST_SESSIONS,
    ) -> None:
        """Raises ValueError for `most_sessions` that can not be, MemoryError."""
        if not 1 <= most_sessions < 1 << 31:
            raise ValueError(f"most_sessions must be 1 or more, not {most_sessions}")
        self.loop = loop
        self.settings = settings
        self.carrier = carrier
        self.counters = EndpointCounters()
        self.has_control = settings.format == "halo"
        self.closed: asyncio.Future[None] = loop.create_future()
        self.on_idle: Callable[[], None] | None = None
        """Called when the last session has gone."""
        self.takes_sessions = accept is not None
        """Whether handshakes are answered; a server that closes lets its clients try elsewhere."""
        self._accept = accept
        self._settings = ffi.new("struct halo_kcp_settings *")
        settings.emit(self._settings)
        group = lib.halo_kcp_group_create(FORMATS[settings.format], most_sessions)
        if group == ffi.NULL:
            raise MemoryError("no memory for an endpoint")
        self.group = ffi.gc(group, lib.halo_kcp_group_free)
        self._output = ffi.gc(ffi.new("struct halo_kcp_output *"), lib.halo_kcp_output_free)
        self._output.limit = OUTPUT_DATAGRAMS
        self._output.by_reference = carrier.by_reference
        self._events = ffi.gc(ffi.new("struct halo_kcp_events *"), lib.halo_kcp_events_free)
        self._peer = ffi.new("struct halo_kcp_peer *")
        self._heard = ffi.new("uint32_t *")
        self._peers = Peers()
        self._buffer = ffi.new("uint8_t[]", READ_OCTETS)
        self.sessions: dict[int, Session] = {}
        self.pending = PendingTable(self._choose_conv)
        self._ended = EndedSessions(by_conv=self.has_control)
        self._dialer = Dialer(loop, send=self.send_control, is_used=self._is_used)
        self._next_id = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due: asyncio.Handle | None = None
        self._in_turn = False
        self._is_closed = False

    # ---- for sessions and their users

    @property
    def now_ms(self) -> int:
        """The loop's clock, in milliseconds that wrap."""
        return int(self.loop.time() * 1000) & 0xFFFFFFFF

    @property
    def totals(self) -> Counters:
        """Sums over all sessions that there ever were."""
        return read_group_counters(self.group)

    def heard_ms(self, number: int) -> int:
        """Return when a datagram of a session was last taken, by `now_ms`."""
        lib.halo_kcp_group_heard(self.group, number, self._heard)
        return int(self._heard[0])

    def buffer(self, octets: int) -> Any:
        """Return room to read into, until the next call: one for all sessions."""
        if octets > len(self._buffer):
            self._buffer = ffi.new("uint8_t[]", octets)
        return self._buffer

    @property
    def is_closed(self) -> bool:
        """Whether its socket is closed."""
        return self._is_closed

    @property
    def is_server(self) -> bool:
        """Whether it takes sessions."""
        return self._accept is not None

    def make_due(self) -> None:
        """Have a turn soon."""
        if not self._in_turn and self._due is None and not self._is_closed:
            self._due = self.loop.call_soon(self._turn_due)

    def look_at_deadline(self) -> None:
        """Be there in time for something that may be due earlier now."""
        if not self._in_turn and self._due is None and not self._is_closed:
            self._schedule()

    def send_control(self, packet: ControlPacket, address: Address) -> None:
        self.counters.control_out += 1
        if packet.kind is ControlKind.PING:
            self.counters.pings_out += 1
        if not self._is_closed:
            self.carrier.send_to(packet.emit(), address)

    def count_probe(self) -> None:
        self.counters.probes_out += 1

    def forget(self, session: Session) -> None:
        del self.sessions[session.number]
        self.counters.established -= 1
        self._count_end(session)
        self._ended.add(session, self.loop.time())
        self.carrier.forget(session.number)
        if not self.sessions and self.on_idle is not None:
            self.loop.call_soon(self._tell_idle)

    # ---- sessions

    def open_session(self, conv: int, address: Address, *, is_client: bool, first: Any = None) -> Session:
        """Return a new session, that `Session.start` brings to life. `first`: the datagram that it is made for.

        Raises OSError when it can not be, ValueError when that datagram is not right, MemoryError.
        """
        kcp = lib.halo_kcp_create(conv, self._settings)
        if kcp == ffi.NULL:
            raise MemoryError("no memory for a session")
        try:
            number = self._add(kcp, address, is_client=is_client, first=first)
        except BaseException:
            lib.halo_kcp_free(kcp)
            raise
        session = Session(
            self,
            number=number,
            kcp=kcp,
            conv=conv,
            address=address,
            settings=self.settings,
            is_client=is_client,
        )
        self.sessions[number] = session
        self.counters.count_open(active=is_client)
        return session

    def _add(self, kcp: Any, address: Address, *, is_client: bool, first: Any) -> int:
        now_ms = self.now_ms
        if first is not None and (verdict := lib.halo_kcp_input(kcp, first.octets, first.length, now_ms)):
            raise ValueError(f"not the first datagram of a session: verdict {verdict}")
        ffi.memmove(self._peer, self._peers[address], PEER.size)
        migrate = self.has_control and not is_client
        number = int(lib.halo_kcp_group_add(self.group, kcp, self._peer, migrate, now_ms))
        if number < 0:
            raise OSError(
                -number, f"no session at {address[0]} port {address[1]}: {_WHY_NOT.get(-number, 'refused')}"
            )
        return number

    async def connect(self, address: Address) -> Session:
        """Have a server make a session (halo's format). Raises TimeoutError, OSError."""
        conv = await self._dialer.ask(address, self.settings.connect_timeout_s)
        return self.open_session(conv, address, is_client=True)

    def close(self) -> None:
        """Close the socket; sessions that are left end, without a word to their peers."""
        self._close(errors.ended_here)

    def _close(self, reason: Callable[[], errors.SessionEndedError]) -> None:
        if self._is_closed:
            return
        for session in list(self.sessions.values()):
            session.end(reason(), fin=None)
        self._is_closed = True
        for handle in (self._timer, self._due):
            if handle is not None:
                handle.cancel()
        self._timer = self._due = None
        self.carrier.close()
        self._dialer.close()
        if not self.closed.done():
            self.closed.set_result(None)

    def replace_carrier(self, carrier: Carrier) -> None:
        """Go on through another socket; the old one is closed."""
        lib.halo_kcp_output_clear(self._output)
        old, self.carrier = self.carrier, carrier
        self._output.by_reference = carrier.by_reference
        old.close()
        for session in list(self.sessions.values()):
            if session.state is not SessionState.LINGERING:  # whose time is not over for that
                session.on_alarm()  # which probes, so that the peer hears of us, or ends it
        self.make_due()

    # ---- what the carrier says

    def take(self, incoming: Any, count: int, packets: list[tuple[bytes, Address]]) -> None:
        """A turn, for datagrams and control packets that have come."""
        if self._is_closed:
            return
        self._in_turn = True
        try:
            if count:
                lib.halo_kcp_group_borrow(self.group, incoming, count, self.now_ms, self._events)
                self._handle_events(incoming)
            for octets, address in packets:
                self._take_control(octets, address)
        finally:
            lib.halo_kcp_group_settle(self.group)  # what came is there no longer
            self._in_turn = False
        self._turn()

    def take_error(self, error: OSError) -> None:
        """What the socket says: of the one peer of a connected one, or of nobody in particular."""
        self.counters.errors += 1
        if self._accept is not None or not isinstance(error, ConnectionRefusedError):
            return
        self._dialer.refuse(error)
        for session in list(self.sessions.values()):
            session.end(errors.refused(error), fin=None)

    def address_of(self, number: int) -> Address | None:
        """Return where a session's datagrams go."""
        session = self.sessions.get(number)
        return None if session is None else session.address

    def addresses(self) -> set[Address]:
        """Return where datagrams of any session go."""
        return {session.address for session in self.sessions.values()}

    def room(self) -> None:
        """The carrier can send again."""
        self.make_due()

    def lost(self, error: Exception | None) -> None:
        """The carrier's transport was closed by somebody else."""
        self._close(lambda: errors.socket_closed(error))

    # ---- a turn

    def _turn_due(self) -> None:
        self._due = None
        self._turn()

    def _on_timer(self) -> None:
        self._timer = None
        self._turn()

    def _turn(self) -> None:
        """Send what is due, and come back when something else is."""
        if self._is_closed:
            return
        self._in_turn = True
        try:
            for _ in range(POLLS):
                if self.carrier.is_blocked or self._is_closed:
                    break
                count = self._send_due()
                had_events = self._events.count > 0
                if had_events:
                    self._handle_events(None)
                if count < OUTPUT_DATAGRAMS and not had_events:
                    break
        finally:
            self._in_turn = False
            self._schedule()

    def _send_due(self) -> int:
        """Return how many datagrams that were. What an exception of the carrier's leaves there is lost."""
        try:
            count = int(lib.halo_kcp_group_poll(self.group, self.now_ms, self._output, self._events))
            if self._output.count:
                self.carrier.send_output(self._output, self.group)
        except BaseException:
            lib.halo_kcp_output_clear(self._output)  # it may lie in sessions, which go on
            raise
        return count

    def _schedule(self) -> None:
        if self._is_closed or self.carrier.is_blocked:
            self._stop_timer()
            return
        wait_ms = int(lib.halo_kcp_group_next(self.group, self.now_ms))
        if wait_ms >= _NO_DEADLINE:
            self._stop_timer()
            return
        when = self.loop.time() + wait_ms / 1000
        if self._timer is not None and self._timer.when() <= when:
            return  # most deadlines are put off before they are there: then is time to look when the next one is
        self._stop_timer()
        self._timer = self.loop.call_at(when, self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _handle_events(self, incoming: Any) -> None:
        events = self._events
        found = ffi.buffer(events.event, events.count * _EVENT.size)[:] if events.count else b""
        lib.halo_kcp_events_clear(events)
        for number, what, datagram, _ in _EVENT.iter_unpack(found):
            session = self.sessions.get(number)
            if session is None:
                if what & lib.HALO_KCP_UNKNOWN:
                    self._take_unknown(incoming, datagram)
                continue
            try:
                self._tell_session(session, what)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # of its user; CancelledError too, as asyncio's transports have it
                self._blame(session, error)

    def _tell_session(self, session: Session, what: int) -> None:
        if what & lib.HALO_KCP_MOVED:
            self._move(session)
        if what & lib.HALO_KCP_READABLE:
            session.on_readable()
        if what & lib.HALO_KCP_WRITABLE and session.state is not SessionState.ENDED:
            session.on_writable()
        if what & lib.HALO_KCP_ENDING and session.state is not SessionState.ENDED:
            session.on_dead()
        if what & lib.HALO_KCP_ALARM and session.state is not SessionState.ENDED:
            session.on_alarm()

    def _blame(self, session: Session, error: BaseException) -> None:
        self.loop.call_exception_handler(
            {"message": f"the user of KCP session {session.conv:#x} has raised", "exception": error}
        )
        session.abort()

    def _move(self, session: Session) -> None:
        lib.halo_kcp_group_peer(self.group, session.number, self._peer)
        session.address = unpack(ffi.buffer(self._peer)[:])
        self.counters.migrations += 1

    # ---- datagrams of no session

    def _take_unknown(self, incoming: Any, index: int) -> None:
        one = incoming[index]
        conv = self._conv_of(one)
        if conv is None:
            self.counters.unknown_conv += 1
            return
        peer = ffi.addressof(one, "peer")
        if lib.halo_kcp_group_find(self.group, conv, peer) >= 0:  # one before it has just made the session
            lib.halo_kcp_group_input(self.group, incoming + index, 1, self.now_ms, self._events)
            self._handle_events(incoming + index)
            return
        address = unpack(ffi.buffer(peer)[:])
        if self._accept is None or not self._is_welcome(conv, address, one):
            self.counters.unknown_conv += 1
            self._reset(conv, address)
        else:
            self._make_session(self._accept, conv, address, one)

    def _conv_of(self, one: Any) -> int | None:
        conv = ffi.new("uint64_t *")
        if lib.halo_kcp_conv(self._settings.format, one.octets, one.length, conv):
            return None
        return int(conv[0])

    def _make_session(self, accept: Acceptor, conv: int, address: Address, first: Any) -> None:
        try:
            session = self.open_session(conv, address, is_client=False, first=first)
        except ValueError:
            self.counters.unknown_conv += 1
            return
        except (OSError, MemoryError):
            self.counters.refused_full += 1
            return
        try:
            if not accept(session):
                self._refuse(session)
                return
            if self.has_control:
                self.pending.accept(address)
            session.start()
            if session.peek() >= 0:
                session.on_readable()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._blame(session, error)

    def _refuse(self, session: Session) -> None:
        """Forget it; it may come again."""
        self.counters.refused_full += 1
        session.end(errors.ended_here(), fin=None)
        self._ended.discard(session)

    def _is_welcome(self, conv: int, address: Address, one: Any) -> bool:
        if self.has_control:
            return self.pending.is_expected(address, conv, self.loop.time())
        if self._ended.is_recent(conv, address, self.loop.time()):
            return False
        return opens_classic_session(ffi.buffer(one.octets, one.length)[:])

    def _reset(self, conv: int, address: Address) -> None:
        """Tell who speaks of a session that is none why."""
        if not self.has_control or (event := self._ended.reason(conv, self.loop.time())) is None:
            return
        self.counters.resets_out += 1
        self.send_control(ControlPacket(ControlKind.FIN, conv, event), address)

    # ---- control packets

    def _take_control(self, octets: bytes, address: Address) -> None:
        self.counters.control_in += 1
        try:
            packet = control.parse(octets)
        except WireError:
            self.counters.control_malformed += 1
            return
        match packet.kind:
            case ControlKind.SYN:
                self._take_syn(packet, address)
            case ControlKind.EST:
                self._take_est(packet, address)
            case ControlKind.FIN:
                self._take_fin(packet, address)
            case ControlKind.PING:
                self._take_ping(packet, address)

    def _take_syn(self, packet: ControlPacket, address: Address) -> None:
        if not self.takes_sessions:
            self.pending.counters.syns_refused += 1
            return
        answer = self.pending.receive(packet, address, address[0], self.loop.time())
        if answer is not None:
            self.send_control(answer, address)

    def _take_est(self, packet: ControlPacket, address: Address) -> None:
        if not self._dialer.take_est(packet, address):
            self.counters.ests_ignored += 1

    def _take_fin(self, packet: ControlPacket, address: Address) -> None:
        session = self._session_of(packet.conv, address)
        if session is None:
            self.counters.fins_ignored += 1
            return
        try:
            session.on_fin(packet.event)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._blame(session, error)

    def _take_ping(self, packet: ControlPacket, address: Address) -> None:
        """Only servers answer, and only peers of sessions: two of them can not keep each other busy."""
        session = self._session_of(packet.conv, address)
        if session is None and self._accept is None and packet.conv == 0:
            session = next((each for each in self.sessions.values() if is_same(each.address, address)), None)
        if session is None:
            self.counters.pings_ignored += 1
            if self._accept is not None and packet.conv:
                self._reset(packet.conv, address)
            return
        self.counters.pings_in += 1
        session.on_heard()
        if not session.is_client:
            self.send_control(packet, address)

    def _session_of(self, conv: int, address: Address) -> Session | None:
        """Return the session of that conv whose peer is there."""
        number = int(lib.halo_kcp_group_find(self.group, conv, ffi.NULL))
        session = self.sessions.get(number)
        return session if session is not None and is_same(session.address, address) else None

    # ---- private

    def _is_used(self, conv: int) -> bool:
        return int(lib.halo_kcp_group_find(self.group, conv, ffi.NULL)) >= 0

    def _choose_conv(self) -> int:
        """Return a session id that counts up, and a random half; none that is in use or was a moment ago."""
        while True:
            self._next_id = self._next_id % 0xFFFFFFFF + 1
            conv = secrets.randbits(32) << 32 | self._next_id
            if not self._is_used(conv) and not self._ended.has_conv(conv):
                return conv

    def _count_end(self, session: Session) -> None:
        counters = self.counters
        match session.error.reason if session.error else "":
            case "dead_link":
                counters.ended_dead_link += 1
            case "idle_timeout":
                counters.ended_idle += 1
            case "refused":
                counters.ended_refused += 1
            case "closed" | "close_timeout" | "socket_closed":
                counters.ended_here += 1
            case _:
                counters.ended_by_peer += 1

    def _tell_idle(self) -> None:
        if not self.sessions and self.on_idle is not None:
            self.on_idle()


_WHY_NOT: Final = {17: "there is one of that conv", 28: "there are as many sessions as may be"}
