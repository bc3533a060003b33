# SPDX-License-Identifier: Apache-2.0
"""Who connects to the private socket, and whether it is a process that we wait for.

The kernel says pid and uid. A child that is not reaped keeps its pid, and of a process that we adopted we hold a pidfd
and know that it lives: the pid is proof. Anybody else is closed.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from halo_mp import logs
from halo_mp.control.channel import Channel, ChannelError, Peer, ProtocolError
from halo_mp.control.frame import Message
from halo_mp.control.inbox import close_all
from halo_mp.control.listener import Listener
from halo_mp.control.messages import PRIVATE_VERSION, field
from halo_mp.control.reserve import Reserve
from halo_mp.shm.identity import boot_id
from halo_mp.supervisor.checks_descriptors import RESERVE

HELLO_TIMEOUT_S = 5.0
MAX_STRANGERS = 64  # that have not said hello yet
TELL_S = 1.0  # between two words of those that were refused

log = logs.get("supervisor")


@dataclass(frozen=True, slots=True)
class _Expected:
    role: str
    slot: int | None
    channel: asyncio.Future[Channel]


class Greeter:
    """Listens at the private socket, for our user, and for the one that workers become.

    Children connect before they give up root; when a supervisor has died, its workers connect to the next as who they
    are by then. Out of descriptors, children are let in at the cost of the reserve, which also serves to start them.
    """

    def __init__(self, path: Path, worker_uid: int | None = None) -> None:
        """Raises EnvironmentProblem."""
        self._uids = {os.geteuid()} if worker_uid is None else {os.geteuid(), worker_uid}
        self.reserve = Reserve(RESERVE)
        self.path = path
        self._expected: dict[int, _Expected] = {}
        self._strangers: dict[Channel, asyncio.Task[None]] = {}
        self._refused = 0  # since the log told of the last
        self._told_at = -TELL_S
        try:
            self._listener = Listener(
                path, 0o600, self._on_channel, reserve=self.reserve, is_wanted=self._is_expected
            )
        except BaseException:
            self.reserve.close()
            raise
        if worker_uid is not None:
            os.chown(path, worker_uid, -1)

    def expect(self, pid: int, role: str, slot: int | None) -> asyncio.Future[Channel]:
        """Return what becomes the channel of that child; ProtocolError when it greets wrongly.

        Asked again before `forget`, it returns the same: who is adopted may greet before anybody has time for it.
        """
        known = self._expected.get(pid)
        if known is not None and (known.role, known.slot) == (role, slot):
            return known.channel
        future: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        self._expected[pid] = _Expected(role, slot, future)
        return future

    def forget(self, pid: int) -> None:
        """Stop waiting for a child that has ended."""
        expected = self._expected.pop(pid, None)
        if expected is None or expected.channel.cancel() or expected.channel.cancelled():
            return
        if expected.channel.exception() is None:
            expected.channel.result().close()  # the child may have ended before anybody took it

    async def close(self) -> None:
        """Stop listening and close who has not greeted. May be called twice."""
        self._listener.close()
        self.reserve.close()
        tasks = list(self._strangers.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_channel(self, channel: Channel) -> None:
        if len(self._strangers) >= MAX_STRANGERS and not self._is_expected(channel.peer):
            channel.close()
            return
        self._strangers[channel] = asyncio.create_task(self._greet(channel))

    async def _greet(self, channel: Channel) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                message, fds = await channel.receive()
            close_all(fds)
            self._admit(channel, message)
        except (ChannelError, TimeoutError) as error:
            channel.close()
            self._tell_refused(channel.peer, str(error) or "silent")
        except asyncio.CancelledError:
            channel.close()
            raise
        finally:
            del self._strangers[channel]

    def _is_expected(self, peer: Peer) -> bool:
        """Whether it is a child that has not greeted yet: it has its place whoever else comes."""
        expected = self._expected.get(peer.pid)
        return expected is not None and not expected.channel.done()

    def _tell_refused(self, peer: Peer, reason: str) -> None:
        """Log it, but not each time: who wants to fill the log may connect as often as he likes."""
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now >= self._told_at + TELL_S or peer.pid in self._expected:
            log.warning("hello.refused", pid=peer.pid, uid=peer.uid, reason=reason, count=self._refused)
            self._told_at, self._refused = now, 0

    def _admit(self, channel: Channel, message: Message) -> None:
        """Give the channel to who waits for it. Raises ProtocolError."""
        expected = self._expected.get(channel.peer.pid)
        if expected is None or channel.peer.uid not in self._uids:
            raise ProtocolError("not a child of this supervisor")
        if expected.channel.done():
            raise ProtocolError("greeted before")
        problem = _check_hello(message, channel.peer.pid, expected.role, expected.slot)
        if problem:
            expected.channel.set_exception(ProtocolError(problem))
            raise ProtocolError(problem)
        expected.channel.set_result(channel)


def _check_hello(message: Message, pid: int, role: str, slot: int | None) -> str | None:
    """Return what is wrong with a child's greeting, None when nothing is."""
    if message["type"] != "hello":
        return f"greeted with {message['type']!r:.40}"
    if (version := field(message, "version", int)) != PRIVATE_VERSION:
        return f"speaks version {version} of the private protocol, this supervisor version {PRIVATE_VERSION}"
    if field(message, "boot_id", bytes) != boot_id():
        return "greeted with another boot id"
    if (message.get("role"), message.get("slot"), message.get("pid")) != (role, slot, pid):
        return f"is not {role} {'' if slot is None else slot} but greeted as another"
    return None
