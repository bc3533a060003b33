# SPDX-License-Identifier: Apache-2.0
"""A channel: frames with file descriptors over one connected Unix stream socket, for asyncio.

    channel = await connect(path)
    reply = await channel.request({"type": "slot.reset", "slot": 3})
    await channel.serve(handler)

Descriptors ride on the first octets of the frame that declares `"fds": n`. Every error closes this channel
and nothing else.

States: open → closed, once, with the reason; everybody who waits is told. It uses add_reader and add_writer
only, so it runs on any selector loop.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halo_mp.control import frame
from halo_mp.control.frame import MAX_FDS, FrameError, Message
from halo_mp.control.inbox import Inbox, close_all

FRAME_TIMEOUT_S = 5.0  # from a frame's first octet to its last
MAX_QUEUED_OCTETS = 1 << 20  # for a peer that does not read
_SO_PEERGROUPS = 59  # of Linux since 4.13, unknown to the socket module
_MOST_GROUPS = 256  # getsockopt takes at most 1024 octets
_READ_OCTETS = 64 << 10
_ANCILLARY_OCTETS = socket.CMSG_SPACE(253 * array.array("i").itemsize)  # SCM_MAX_FD

Handler = Callable[[Message, list[int]], Awaitable[None]]


class ChannelError(Exception):
    """Something went wrong between the two ends."""


class ChannelClosed(ChannelError):  # noqa: N818
    """The channel is closed, by the peer or by us."""


class ProtocolError(ChannelError):
    """The peer sent what it must not; `str()` is a sentence about it without its subject."""


class RequestFailed(ChannelError):  # noqa: N818
    """The peer answered that it could not; `str()` is its sentence. The channel is open."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who opened the other end, as the kernel says."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    """All of them, `gid` included."""


@dataclass(slots=True, eq=False)
class _Outgoing:
    octets: memoryview
    fds: list[int]  # duplicates that belong to the channel
    sent: asyncio.Future[None]


class Channel:
    """One end of a connection. One task at a time may receive (or serve); any number may send and request."""

    def __init__(
        self, sock: socket.socket, *, frame_timeout_s: float = FRAME_TIMEOUT_S, is_public: bool = False
    ) -> None:
        """Of a connected socket, which is the channel's now.

        A public one takes no descriptors: the kernel closes them. It says `goodbye` to who sends what is no frame.
        """
        sock.setblocking(False)
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._frame_timeout_s = frame_timeout_s
        self._is_public = is_public
        self._ancillary_octets = 0 if is_public else _ANCILLARY_OCTETS
        self._inbox = Inbox()
        self._frame_deadline = 0.0  # for the frame that the inbox has a part of
        self._readable: asyncio.Future[None] | None = None
        self._outgoing: deque[_Outgoing] = deque()
        self._queued_octets = 0
        self._requests: dict[int, asyncio.Future[Message]] = {}
        self._next_id = 1
        self._closed: ChannelError | None = None
        pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        self.peer = Peer(pid, uid, gid, frozenset((gid, *_groups(sock))))

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent or received any more."""
        return self._closed is not None

    # ---- sending

    async def send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a message; the descriptors stay the caller's. Returns when the kernel has it.

        Raises ChannelClosed, also when the peer has not read for so long that a mebioctet waits.
        """
        if len(fds) > MAX_FDS:
            raise ValueError(f"{len(fds)} descriptors in one message, more than {MAX_FDS}")
        await self._send(frame.emit({**message, "fds": len(fds)} if fds else message), fds)

    async def send_frames(self, octets: bytes) -> None:
        """Send frames that were emitted before, perhaps for several channels; otherwise as `send`."""
        await self._send(octets, ())

    async def _send(self, frames: bytes, fds: Sequence[int]) -> None:
        self._raise_if_closed()
        octets = memoryview(frames)
        written = 0 if self._outgoing else self._write(octets, fds)
        if written < len(octets):
            await self._enqueue(octets[written:], () if written else fds)

    async def request(
        self, message: Mapping[str, Any], fds: Sequence[int] = (), *, timeout_s: float = 10.0
    ) -> Message:
        """Send a message and return the reply to it. Somebody must be in `receive` or `serve` meanwhile.

        Raises RequestFailed with the peer's sentence, ChannelClosed, or TimeoutError.
        """
        identity = self._next_id
        self._next_id += 1
        answer: asyncio.Future[Message] = self._loop.create_future()
        self._requests[identity] = answer
        try:
            async with asyncio.timeout(timeout_s):
                await self.send({**message, "id": identity}, fds)
                reply = await answer
        finally:
            del self._requests[identity]
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # looked at, also when sending failed first
        if reply.get("ok") is not True:
            raise RequestFailed(str(reply.get("error", "no reason given")))
        return reply

    async def reply(self, request: Message, /, fds: Sequence[int] = (), **fields: object) -> None:
        """Answer a request that went well; do nothing when it did not ask for an answer."""
        if "id" in request:
            await self.send({"type": "reply", "id": request["id"], "ok": True, **fields}, fds)

    async def refuse(self, request: Message, sentence: str) -> None:
        """Answer a request that could not be done."""
        if "id" in request:
            await self.send({"type": "reply", "id": request["id"], "ok": False, "error": sentence})

    async def _enqueue(self, octets: memoryview, fds: Sequence[int]) -> None:
        """Queue what the kernel did not take. Cancelling the caller leaves it queued: frames stay whole."""
        if self._queued_octets + len(octets) > MAX_QUEUED_OCTETS:
            raise self._shut(ChannelClosed("the peer does not read what it is sent"))
        # The caller may close its descriptors once it is cancelled, so the queue has its own.
        entry = _Outgoing(octets, [os.dup(fd) for fd in fds], self._loop.create_future())
        if not self._outgoing:
            self._loop.add_writer(self._socket, self._on_writable)
        self._outgoing.append(entry)
        self._queued_octets += len(octets)
        await entry.sent

    def _on_writable(self) -> None:
        while self._outgoing:
            entry = self._outgoing[0]
            try:
                written = self._write(entry.octets, entry.fds)
            except ChannelClosed as error:
                self._fail_outgoing(error)
                break
            if not written:
                return
            self._queued_octets -= written
            entry.octets = entry.octets[written:]
            close_all(entry.fds)
            if not entry.octets:
                self._outgoing.popleft()
                _resolve(entry.sent)
        self._loop.remove_writer(self._socket)

    def _write(self, octets: memoryview, fds: Sequence[int]) -> int:
        """Return how many octets the kernel took; with the first of them it took the descriptors."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            return self._socket.sendmsg([octets], ancillary, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError as error:
            # Not closed: what the peer said last may still be unread.
            raise ChannelClosed(f"the peer is gone: {error.strerror}") from None

    def _fail_outgoing(self, reason: ChannelError) -> None:
        for entry in self._outgoing:
            close_all(entry.fds)
            _fail(entry.sent, reason)
        self._outgoing.clear()

    # ---- receiving

    async def receive(self) -> tuple[Message, list[int]]:
        """Return the next message and its descriptors, which are the caller's now. Replies go to `request`.

        Raises ChannelClosed, and ProtocolError when what came is no frame.
        """
        while True:
            self._raise_if_closed()
            try:
                found = self._inbox.take()
            except FrameError as error:
                raise self._refuse_peer(error) from None
            if found is None:
                if not self._read():
                    await self._wait_readable()
                await asyncio.sleep(0)  # a peer that never stops sending must not keep the loop
                continue
            self._frame_deadline = self._loop.time() + self._frame_timeout_s
            if found[0]["type"] != "reply":
                return found
            self._resolve_request(*found)

    async def serve(self, handler: Handler) -> None:
        """Await the handler with each message, in order, until the channel is closed by either side.

        The handler owns the descriptors. It must not `request` on this channel: nobody would
        receive the reply. Raises ProtocolError, and what the handler raises.
        """
        while True:
            try:
                message, fds = await self.receive()
            except ChannelClosed:
                return
            await handler(message, fds)

    def _read(self) -> bool:
        """Read what is there; False when nothing is."""
        try:
            octets, ancillary, _, _ = self._socket.recvmsg(
                _READ_OCTETS, self._ancillary_octets, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._shut(ChannelClosed(f"the peer is gone: {error.strerror}")) from None
        if not octets:
            raise self._shut(ChannelClosed("the peer closed the channel"))
        if not self._inbox:
            self._frame_deadline = self._loop.time() + self._frame_timeout_s
        try:
            self._inbox.put(octets, _descriptors(ancillary))
        except FrameError as error:
            raise self._refuse_peer(error) from None
        return True

    async def _wait_readable(self) -> None:
        if self._readable is not None:
            raise RuntimeError("two tasks receive from one channel")
        self._readable = self._loop.create_future()
        self._loop.add_reader(self._socket, _resolve, self._readable)
        try:
            async with asyncio.timeout_at(self._frame_deadline if self._inbox else None):
                await self._readable
        except TimeoutError:
            problem = f"a part of a frame, and not the rest for {self._frame_timeout_s} s"
            raise self._refuse_peer(problem) from None
        finally:
            self._readable = None
            if not self.closed:
                self._loop.remove_reader(self._socket)

    def _resolve_request(self, reply: Message, fds: list[int]) -> None:
        close_all(fds)
        identity = reply.get("id")
        answer = self._requests.get(identity) if type(identity) is int else None
        if answer is not None and not answer.done():
            answer.set_result(reply)

    # ---- the end

    def close(self) -> None:
        """Close the channel; who waits on it gets ChannelClosed. May be called twice."""
        self._shut(ChannelClosed("the channel was closed on this side"))

    def part(self, sentence: str) -> None:
        """Close the channel as `close` does, with a `goodbye` that says why where the peer has nothing else to read."""
        self._say_goodbye(sentence)
        self.close()

    def _say_goodbye(self, sentence: str) -> None:
        if self._closed is None and not self._outgoing:
            with contextlib.suppress(ChannelClosed):
                self._write(memoryview(frame.emit({"type": "goodbye", "error": sentence})), ())

    def _shut(self, reason: ChannelError) -> ChannelError:
        """Close for that reason, once; return it for raising."""
        if self._closed is None:
            self._closed = reason
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._inbox.close()
            told = ChannelClosed(str(reason))
            self._fail_outgoing(told)
            for answer in self._requests.values():
                _fail(answer, told)
            if self._readable is not None:
                _fail(self._readable, told)
        return reason

    def _refuse_peer(self, problem: object) -> ChannelError:
        reason = ProtocolError(f"sent {problem}")
        if self._is_public:
            self._say_goodbye(f"this client {reason}.")
        return self._shut(reason)

    def _raise_if_closed(self) -> None:
        if self._closed is not None:
            raise ChannelClosed(str(self._closed))


async def connect(path: Path) -> Channel:
    """Return a channel to who listens there. Raises ChannelClosed when nobody does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.connect(str(path))  # a Unix socket connects at once or not at all
        return Channel(sock)
    except OSError as error:
        sock.close()
        raise ChannelClosed(f"nobody answers at {path}: {error.strerror}") from None


def _groups(sock: socket.socket) -> tuple[int, ...]:
    """Return the peer's supplementary groups; none when it has more than there is room for."""
    try:
        octets = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MOST_GROUPS)
    except OSError:
        return ()
    return struct.unpack(f"{len(octets) // 4}I", octets)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, octets in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(octets[: len(octets) - len(octets) % fds.itemsize])
    return fds.tolist()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[Any], reason: ChannelError) -> None:
    if not future.done():
        future.set_exception(reason)
